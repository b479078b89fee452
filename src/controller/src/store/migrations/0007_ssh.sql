-- Who was in the live system of a machine, and what was to be seen there. The newest sessions of each machine are kept; that
-- there were others stands in the events.
CREATE TABLE ssh_session (
    id       TEXT PRIMARY KEY,
    node     TEXT NOT NULL REFERENCES node (id),
    boot_id  TEXT NOT NULL,
    session  TEXT NOT NULL,
    begun    INTEGER NOT NULL,
    heard    INTEGER NOT NULL,
    size     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX ssh_session_of_node ON ssh_session (node, begun);

CREATE TABLE ssh_piece (
    session  TEXT NOT NULL REFERENCES ssh_session (id) ON DELETE CASCADE,
    at       INTEGER NOT NULL,
    data     BLOB NOT NULL,
    PRIMARY KEY (session, at)
) STRICT, WITHOUT ROWID;
