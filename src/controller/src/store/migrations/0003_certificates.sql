-- Certificates of sanitization: the chain of the site. Numbers have no gaps; what is in here never changes.
CREATE TABLE wipe_certificate (
    number    INTEGER PRIMARY KEY,
    sha256    TEXT NOT NULL UNIQUE,
    -- What it was made for, so that a report told twice makes one.
    origin    TEXT NOT NULL UNIQUE,
    node      TEXT NOT NULL,
    order_id  TEXT NOT NULL,
    -- Key of the disk; empty for a machine.
    disk      TEXT NOT NULL,
    serial    TEXT NOT NULL,
    issued    INTEGER NOT NULL,
    view      TEXT NOT NULL,
    document  TEXT NOT NULL
) STRICT;
CREATE INDEX wipe_certificates_of_node ON wipe_certificate (node, number);
CREATE INDEX wipe_certificates_of_order ON wipe_certificate (order_id, number);
CREATE INDEX wipe_certificates_of_serial ON wipe_certificate (serial COLLATE NOCASE, number);
CREATE TRIGGER a_certificate_stays BEFORE UPDATE ON wipe_certificate
BEGIN SELECT RAISE(ABORT, 'a certificate is never changed'); END;
CREATE TRIGGER a_certificate_is_kept BEFORE DELETE ON wipe_certificate
BEGIN SELECT RAISE(ABORT, 'a certificate is never removed'); END;
CREATE TRIGGER certificates_have_no_gaps BEFORE INSERT ON wipe_certificate
WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM wipe_certificate)
BEGIN SELECT RAISE(ABORT, 'a certificate follows the last one'); END;

-- Public keys, old ones included; the private one that signs is among the secrets.
CREATE TABLE site_key (
    since   INTEGER NOT NULL,
    key     TEXT PRIMARY KEY,
    record  TEXT NOT NULL
) STRICT;

-- One row.
CREATE TABLE certificate_policy (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    record  TEXT NOT NULL
) STRICT;

-- Every disk that was ever seen in a machine: one that is missing is missed.
CREATE TABLE known_disk (
    node        TEXT NOT NULL REFERENCES node (id),
    disk        TEXT NOT NULL,
    first_seen  INTEGER NOT NULL,
    last_seen   INTEGER NOT NULL,
    record      TEXT NOT NULL,
    gone        TEXT,
    PRIMARY KEY (node, disk)
) STRICT, WITHOUT ROWID;
