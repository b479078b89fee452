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
