-- What agents and their kernels say, for the newest boots of each machine. Pruned as it comes in: this is for looking into
-- trouble, not an archive; syslog is for those who want one.
CREATE TABLE machine_boot (
    node            TEXT NOT NULL REFERENCES node (id),
    boot_id         TEXT NOT NULL,
    epoch           INTEGER NOT NULL,
    first_received  INTEGER NOT NULL,
    last_received   INTEGER NOT NULL,
    lost            INTEGER NOT NULL,
    network_doctor  TEXT,
    PRIMARY KEY (node, boot_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE machine_log (
    cursor     INTEGER PRIMARY KEY AUTOINCREMENT,
    node       TEXT NOT NULL,
    boot_id    TEXT NOT NULL,
    source     TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    uptime_ms  INTEGER NOT NULL,
    level      TEXT NOT NULL,
    received   INTEGER NOT NULL,
    text       TEXT NOT NULL,
    -- Delivered twice is stored once.
    UNIQUE (node, boot_id, source, seq)
) STRICT;
CREATE INDEX log_of_boot ON machine_log (node, boot_id, cursor);
