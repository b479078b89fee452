//! The documents name what the code has.
#![allow(clippy::expect_used, reason = "tests")]

use std::path::Path;

use speediso_model::fault::FaultCode;

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(path).expect("the document is part of the repository")
}

#[test]
fn every_fault_is_explained_once_and_none_is_invented() {
    let text = document("errors.md");
    let rows: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    for code in FaultCode::ALL {
        assert_eq!(rows.iter().filter(|r| **r == code.name()).count(), 1, "docs/errors.md must explain {code} once");
    }
    let outcomes = ["verified", "failed_unchanged", "failed_changed", "unknown"];
    for row in rows {
        let known = outcomes.contains(&row) || FaultCode::ALL.iter().any(|c| c.name() == row);
        assert!(known, "docs/errors.md explains {row}, which does not exist");
    }
}

#[test]
fn the_protocol_page_names_every_path() {
    let text = document("protocol.md");
    let source = include_str!("../../model/src/api.rs");
    let paths: Vec<&str> = source
        .lines()
        .filter(|l| l.trim_start().starts_with("pub const") && l.contains("&str"))
        .filter_map(|l| l.split('"').nth(1))
        .collect();
    assert!(paths.len() > 25, "the paths are found in the source");
    for path in paths {
        let listed = text.split(|c: char| c.is_whitespace() || "`,?".contains(c)).any(|word| word == path);
        assert!(listed, "docs/protocol.md does not name {path}");
    }
}
