//! Whether what ironic-python-agent tells of this machine is in our inventory too, key by key. Which key of ours answers to
//! which of theirs, and what is left out and why, stands in the table that the model's tests hold against the schema.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

const TABLE: &str = include_str!("../../../model/tests/ironic-python-agent-13.0.0.txt");

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// Keys of theirs that have a value on this machine and are not left out on purpose.
    pub(super) told: usize,
    /// Those of them that have none in ours.
    pub(super) missing: Vec<String>,
    /// Keys that the table does not know: it is older than what is compared.
    pub(super) strange: Vec<String>,
}

pub(super) fn compare(theirs: &Value, ours: &Value) -> Fields {
    compare_by(TABLE, theirs, ours)
}

fn compare_by(table: &str, theirs: &Value, ours: &Value) -> Fields {
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| {
            let (key, rest) = line.split_once('|')?;
            Some((key.trim(), rest.split_once('|')?.1.trim()))
        })
        .collect();
    let mut told = BTreeSet::new();
    leaves(theirs, "", &mut told);
    let mut had = BTreeSet::new();
    leaves(ours, "", &mut had);
    // A key may stand for all that is below it.
    let row = |path: &str| {
        let above = std::iter::successors(Some(path), |path| path.rfind('.').map(|at| &path[..at]));
        above.flat_map(|path| [path, path.trim_end_matches("[]")]).find_map(|path| rows.get_key_value(path))
    };
    let mut fields = Fields::default();
    let mut seen = BTreeSet::new();
    for path in &told {
        let Some((key, place)) = row(path) else {
            fields.strange.push(path.clone());
            continue;
        };
        if place.starts_with('-') || !seen.insert(*key) {
            continue;
        }
        fields.told += 1;
        let ours = if place.is_empty() { key } else { place };
        let is_here =
            |path: &String| path.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        if !had.iter().any(is_here) {
            fields.missing.push((*key).to_owned());
        }
    }
    fields
}

/// Words of the kernel for none: of a device that is near no node, and of a virtio disk, whose "vendor" is the number of its
/// bus (a hint for it is understood all the same).
const NONE: [(&str, &str); 2] = [("pci_devices[].numa_node_id", "-1"), ("disks[].vendor", "0x1af4")];

/// Paths of everything that says something: not of nulls, empty texts and empty lists.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Null => {}
        Value::String(text) if text.is_empty() || NONE.contains(&(path, text)) => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| leaves(item, &format!("{path}[]"), found));
        }
        Value::Array(items) if items.is_empty() => {}
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_has_a_value_there_must_have_one_here() {
        let table = "# a comment\n\na | string |\nlist[].x | string |\nlist[].y | string | other.z\nold | string | - a reason\nwhole | object |\n";
        let theirs =
            json!({"a": "1", "list": [{"x": null, "y": "2"}, {"x": "3"}], "old": "4", "whole": {"of": {"it": 5}}});
        let ours = json!({"a": "1", "list": [{"x": "3"}], "other": {"z": 2}, "whole": {"differently": true}});
        assert_eq!(compare_by(table, &theirs, &ours), Fields { told: 4, ..Fields::default() });
        let less = json!({"a": "", "list": [], "other": {"z": 2}, "whole": {"of": 1}});
        let fields = compare_by(table, &theirs, &less);
        assert_eq!(fields.missing, ["a", "list[].x"]);
        let more = json!({"new": [{"key": 1}], "a": "1"});
        assert_eq!(compare_by(table, &more, &ours).strange, ["new[].key"]);
    }
}
