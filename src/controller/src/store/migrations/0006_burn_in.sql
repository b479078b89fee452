-- What burn-ins found, beside the runs they came from, so that machines of one model are found without reading every run.
CREATE TABLE burn_in (
    run       TEXT PRIMARY KEY,
    node      TEXT NOT NULL,
    maker     TEXT NOT NULL,
    product   TEXT NOT NULL,
    ended     INTEGER NOT NULL,
    report    TEXT NOT NULL
) STRICT;
CREATE INDEX burn_in_by_node ON burn_in (node, ended);
CREATE INDEX burn_in_by_model ON burn_in (maker, product, ended);

-- Machines that wait for a partner to try their link with. Soft: a row that is lost is told again within seconds.
CREATE TABLE pairing (
    run       TEXT PRIMARY KEY,
    until     INTEGER NOT NULL,
    record    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
