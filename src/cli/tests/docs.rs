//! The documents name what the code has.
#![allow(clippy::expect_used, reason = "tests")]

use std::path::Path;

use speediso_model::fault::FaultCode;

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    std::fs::read_to_string(path).expect("the document is part of the repository")
}

/// Rows with an anchor, which the QR code on a console leads to: anchor, code, what happened, what to do.
#[test]
fn every_fault_is_explained_once_and_none_is_invented() {
    let text = document("errors.md");
    let rows: Vec<[&str; 4]> = text
        .lines()
        .filter_map(|line| {
            let (anchor, row) = line.strip_prefix("| <a id=\"")?.split_once("\"></a>")?;
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [code, happened, to_do] = cells[..] else { panic!("three columns: {line}") };
            Some([anchor, code.trim_matches('`'), happened, to_do])
        })
        .collect();
    for code in FaultCode::ALL {
        assert_eq!(rows.iter().filter(|r| r[1] == code.name()).count(), 1, "docs/errors.md must explain {code} once");
    }
    for [anchor, code, happened, to_do] in &rows {
        assert!(
            FaultCode::ALL.iter().any(|c| c.name() == *code),
            "docs/errors.md explains {code}, which does not exist"
        );
        assert_eq!(anchor, code);
        assert!(happened.len() > 10 && !to_do.is_empty(), "{code} is not explained");
    }
    // A row without an anchor explains an outcome, and no code.
    let outcomes = ["verified", "failed_unchanged", "failed_changed", "unknown"];
    for row in text.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()) {
        assert!(outcomes.contains(&row), "docs/errors.md has no anchor for {row}");
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
