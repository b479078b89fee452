-- Records are JSON documents beside the few columns that are searched by; times are milliseconds since 1970 by this
-- database's clock.

-- CA key and certificate, time key, server key, operator token's hash: what every replica must share.
CREATE TABLE secret (
    name   TEXT PRIMARY KEY,
    value  BLOB NOT NULL
) STRICT;

CREATE TABLE node (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    record  TEXT NOT NULL
) STRICT;

-- By what a machine is recognised: `mac`, `uuid`, `serial`. A value may, wrongly, belong to several nodes.
CREATE TABLE identity (
    kind   TEXT NOT NULL,
    value  TEXT NOT NULL,
    node   TEXT NOT NULL REFERENCES node (id),
    PRIMARY KEY (kind, value, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX identity_of_node ON identity (node);

CREATE TABLE inventory (
    node    TEXT PRIMARY KEY REFERENCES node (id),
    record  TEXT NOT NULL
) STRICT;

-- One boot of one machine.
CREATE TABLE session (
    node         TEXT NOT NULL REFERENCES node (id),
    epoch        INTEGER NOT NULL,
    boot_id      TEXT NOT NULL,
    spki_sha256  TEXT NOT NULL,
    certificate  TEXT NOT NULL,
    lease_until  INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL,
    address      TEXT,
    revoked      INTEGER NOT NULL,
    noticed      INTEGER NOT NULL,
    PRIMARY KEY (node, epoch)
) STRICT;
CREATE INDEX session_by_lease ON session (lease_until) WHERE revoked = 0;

CREATE TABLE certificate (
    serial  TEXT PRIMARY KEY,
    node    TEXT NOT NULL,
    epoch   INTEGER NOT NULL
) STRICT;

CREATE TABLE token (
    sha256   TEXT PRIMARY KEY,
    node     TEXT NOT NULL REFERENCES node (id),
    expires  INTEGER NOT NULL,
    used_by  TEXT
) STRICT;
CREATE INDEX token_of_node ON token (node);

-- "order" is a word of SQL.
CREATE TABLE work_order (
    id       TEXT PRIMARY KEY,
    node     TEXT NOT NULL REFERENCES node (id),
    open     INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    record   TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_open_order ON work_order (node) WHERE open = 1;
CREATE INDEX orders_of_node ON work_order (node, created);

-- A run is granted once and started at most once; the database holds to that even if a program errs.
CREATE TABLE run (
    id        TEXT PRIMARY KEY,
    order_id  TEXT NOT NULL REFERENCES work_order (id),
    node      TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    started   INTEGER,
    digest    TEXT,
    plan      TEXT,
    ended     INTEGER,
    result    TEXT
) STRICT;
CREATE TRIGGER a_run_starts_once BEFORE UPDATE OF started ON run
WHEN OLD.started IS NOT NULL AND (NEW.started IS NOT OLD.started OR NEW.digest IS NOT OLD.digest)
BEGIN SELECT RAISE(ABORT, 'a run starts once'); END;

-- Autoincrement: a cursor is never given twice, so no reader misses an event.
CREATE TABLE event (
    cursor    INTEGER PRIMARY KEY AUTOINCREMENT,
    node      TEXT NOT NULL,
    order_id  TEXT,
    received  INTEGER NOT NULL,
    source    TEXT NOT NULL,
    late      INTEGER NOT NULL,
    text      TEXT NOT NULL,
    detail    TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_node ON event (node, cursor);
CREATE INDEX events_of_order ON event (order_id, cursor) WHERE order_id IS NOT NULL;

-- Up to which number the events of a boot are stored.
CREATE TABLE acknowledged (
    node     TEXT NOT NULL,
    boot_id  TEXT NOT NULL,
    seq      INTEGER NOT NULL,
    PRIMARY KEY (node, boot_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE progress (
    run        TEXT NOT NULL,
    device     TEXT NOT NULL,
    node       TEXT NOT NULL,
    uptime_ms  INTEGER NOT NULL,
    record     TEXT NOT NULL,
    PRIMARY KEY (run, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX progress_of_node ON progress (node);

CREATE TABLE alert (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The same trouble, found again, is one alert.
    key     TEXT NOT NULL UNIQUE,
    node    TEXT,
    raised  INTEGER NOT NULL,
    fault   TEXT NOT NULL
) STRICT;

CREATE TABLE rule (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    record  TEXT NOT NULL
) STRICT;

CREATE TABLE image (
    name    TEXT PRIMARY KEY,
    size    INTEGER NOT NULL,
    sha256  TEXT NOT NULL,
    stored  INTEGER NOT NULL
) STRICT;

-- Wakes long polls in every replica: one row per topic, numbered anew at each change.
CREATE TABLE change (
    topic  TEXT PRIMARY KEY,
    seq    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX change_by_seq ON change (seq);
