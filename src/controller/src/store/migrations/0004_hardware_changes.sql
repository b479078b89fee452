-- What an inventory showed against the one before it; the inventories themselves are replaced.
CREATE TABLE hardware_change (
    number  INTEGER PRIMARY KEY,
    node    TEXT NOT NULL REFERENCES node (id),
    epoch   INTEGER NOT NULL,
    seen    INTEGER NOT NULL,
    record  TEXT NOT NULL
) STRICT;
CREATE INDEX hardware_changes_of_node ON hardware_change (node, number);
