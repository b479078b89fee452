-- Machines that write an image, or give of it, right now. Soft: a row that is lost is told again within seconds.
CREATE TABLE share (
    manifest  TEXT NOT NULL,
    node      TEXT NOT NULL,
    origin    TEXT NOT NULL,
    until     INTEGER NOT NULL,
    record    TEXT NOT NULL,
    PRIMARY KEY (manifest, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX share_by_origin ON share (origin, until);
