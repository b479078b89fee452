//! docs/burn-in.md and the published schema say what the code does.

#![allow(clippy::expect_used, reason = "tests")]

use std::path::PathBuf;

use speediso_model::burn_in::{COMMON, MemoryPattern, SHIPPED, Scenario, Step, shipped};

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn page() -> String {
    std::fs::read_to_string(docs("burn-in.md")).expect("docs/burn-in.md")
}

/// `SPEEDISO_UPDATE_DOCS=1` writes it.
#[test]
fn the_schema_is_the_types() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Scenario)).expect("a schema") + "\n";
    let path = docs("burn-in.scenario.schema.json");
    if std::env::var_os("SPEEDISO_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &schema).expect("written");
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == schema, "{} is not what the types say; SPEEDISO_UPDATE_DOCS=1 writes it", path.display());
}

#[test]
fn every_example_is_valid() {
    let page = page();
    let examples: Vec<&str> =
        page.split("```json\n").skip(1).map(|rest| rest.split("```").next().expect("a first part")).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let scenario = Scenario::parse(example).unwrap_or_else(|e| panic!("{e}\n{example}"));
        assert!(!scenario.steps().any(Step::writes_disks), "no example writes to disks");
    }
}

#[test]
fn every_measurement_parameter_and_scenario_is_explained() {
    let page = page();
    let steps: Vec<Step> = [
        r#"{"step":"cpu","duration":1}"#,
        r#"{"step":"memory","duration":1}"#,
        r#"{"step":"sensors","duration":1}"#,
        r#"{"step":"command","duration":1,"argv":["x"]}"#,
        r#"{"step":"fio","duration":1,"devices":"all_disks"}"#,
        r#"{"step":"gpu","duration":1}"#,
    ]
    .map(|text| serde_json::from_str(text).expect(text))
    .into();
    for known in steps.iter().flat_map(|step| step.kind.yields()).chain(COMMON) {
        let row = format!("`{}` | {} | {} | ", known.name, known.unit, known.meaning);
        assert!(page.contains(&row), "docs/burn-in.md does not have {row}");
    }
    let others = std::fs::read_to_string(docs("burn-in-disks-and-network.md")).expect("the other page");
    let steps = [r#"{"step":"disk","duration":1}"#, r#"{"step":"network","duration":1}"#];
    for known in steps.iter().flat_map(|text| serde_json::from_str::<Step>(text).expect(text).kind.yields()) {
        let limit = known.default_max.map_or(String::new(), |max| format!("at most {max}"));
        let row = format!("| `{}` | {} | {} | {limit} |", known.name, known.unit, known.meaning);
        assert!(others.contains(&row), "docs/burn-in-disks-and-network.md does not have {row}");
    }
    for pattern in MemoryPattern::ALL {
        assert!(page.contains(&format!("`{}`", pattern.name())), "{}", pattern.name());
    }
    for (name, _) in SHIPPED {
        let seconds = shipped(name).expect("shipped").seconds();
        let takes = match seconds {
            s if s >= 86_400 => format!("{:.1} days", precise(s) / 86_400.0),
            s if s >= 3600 => format!("{:.1} hours", precise(s) / 3600.0),
            s => format!("{} minutes", s / 60),
        };
        assert!(page.contains(&format!("| `{name}` | {takes} |")), "{name} takes {takes}");
    }
}

fn precise(seconds: u64) -> f64 {
    f64::from(u32::try_from(seconds).expect("a month at most"))
}
