//! The inventory as others see it: its published schema, its documentation, and ironic-python-agent's keys in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use speediso_model::inventory::Inventory;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn schema() -> Value {
    serde_json::to_value(Inventory::json_schema()).expect("JSON")
}

/// SPEEDISO_WRITE_DOCS=1 writes the file anew.
#[test]
fn the_published_schema_is_that_of_the_code() {
    let file = docs("inventory.schema.json");
    let text = format!("{}\n", serde_json::to_string_pretty(&Inventory::json_schema()).expect("JSON"));
    if std::env::var_os("SPEEDISO_WRITE_DOCS").is_some() {
        std::fs::write(&file, &text).expect("written");
    }
    let published = std::fs::read_to_string(&file).expect("docs/inventory.schema.json");
    assert!(published == text, "docs/inventory.schema.json is not of this code: see this test how to write it anew");
}

/// Steps over references and over the null of what is optional.
fn resolved<'a>(root: &'a Value, mut part: &'a Value) -> &'a Value {
    loop {
        if let Some(name) = part["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            part = &root["$defs"][name];
        } else if let Some(some) = part["anyOf"].as_array().and_then(|any| any.iter().find(|one| one["type"] != "null"))
        {
            part = some;
        } else {
            return part;
        }
    }
}

/// The JSON types of a field, if there is one: `interfaces[].name`.
fn types(root: &Value, path: &str) -> Option<BTreeSet<String>> {
    let mut part = root;
    for name in path.split('.') {
        let (name, in_list) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
        part = resolved(root, part)["properties"].get(name)?;
        if in_list {
            part = &resolved(root, part)["items"];
        }
    }
    let part = resolved(root, part);
    Some(match (&part["type"], &part["oneOf"]) {
        (Value::String(one), _) => BTreeSet::from([one.clone()]),
        (Value::Array(several), _) => several.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect(),
        // An enum of documented words.
        (_, Value::Array(_)) => BTreeSet::from(["string".to_owned()]),
        _ => BTreeSet::new(),
    })
}

/// Every line of the fixture: ironic-python-agent's key and type, and where we have it.
#[test]
fn nothing_that_ironic_python_agent_tells_is_missing() {
    let root = schema();
    let fixture = include_str!("ironic-python-agent-13.0.0.txt");
    let mut missing = Vec::new();
    let mut n_keys = 0;
    for line in fixture.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [theirs, kind, ours] = columns[..] else { panic!("three columns: {line}") };
        n_keys += 1;
        if ours.starts_with('-') {
            assert!(ours.len() > 10, "a key that is left out has a reason: {line}");
            continue;
        }
        match types(&root, if ours.is_empty() { theirs } else { ours }) {
            None => missing.push(theirs),
            // Under another name the form may be another too; under the same it may not.
            Some(types) if ours.is_empty() => assert!(types.contains(kind), "{theirs} is {kind}, ours {types:?}"),
            Some(_) => {}
        }
    }
    assert!(n_keys > 110, "{n_keys}");
    assert!(missing.is_empty(), "{missing:?}");
}

/// Every object that has a heading in docs/inventory.md has each of its fields in a table below it.
#[test]
fn every_field_is_documented() {
    let root = schema();
    let text = std::fs::read_to_string(docs("inventory.md")).expect("docs/inventory.md");
    let mut undocumented = Vec::new();
    let mut n_objects = 0;
    for section in text.split("\n## ").skip(1) {
        let name = section.lines().next().unwrap_or_default();
        let object = if name == "Inventory" { &root } else { &root["$defs"][name] };
        let Some(fields) = object["properties"].as_object() else { continue };
        n_objects += 1;
        let missing = fields.keys().filter(|field| !section.contains(&format!("`{field}`")));
        undocumented.extend(missing.map(|field| format!("{name}.{field}")));
    }
    assert!(undocumented.is_empty(), "docs/inventory.md lacks {undocumented:?}");
    assert!(n_objects >= 28, "{n_objects} objects are documented");
}
