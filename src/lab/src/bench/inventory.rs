//! `speediso-agent inventory --json` against ironic-python-agent's own collectors, in turns, on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use speediso_lab::tool;

use super::fields;
use super::memory_group::MemoryGroup;
use super::write::Ipa;
use super::write::measure::{Measured, pipe};
use crate::show::fact;

const DRIVER: &str = include_str!("inventory.py");

/// What is aimed at: times as quick, a fraction of the memory, seconds of processor time.
const SPEED: f64 = 5.0;
const MEMORY: f64 = 20.0;
const CPU: f64 = 0.1;

pub(super) fn run(agent: &Path, rounds: u32, out: &Path) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("speediso-inventory-").tempdir()?;
    let driver = dir.path().join("inventory.py");
    fs::write(&driver, DRIVER)?;
    let ipa = Ipa::install()?;
    same_work(
        Command::new(ipa.python()).arg(&driver).current_dir(dir.path()),
        Command::new(agent).args(["inventory", "--json"]),
    )?;
    let lines = [
        format!("exec {} inventory --json", agent.display()),
        format!("exec {} {}", ipa.python().display(), driver.display()),
    ];
    let mut runs: [Vec<Run>; 2] = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (line, runs) in lines.iter().zip(&mut runs) {
            let group = MemoryGroup::make();
            let line = group.as_ref().map(MemoryGroup::enter).unwrap_or_default() + line;
            let measured = pipe(&line, dir.path()).with_context(|| line.clone())?;
            let own_mib = group.map(|group| group.peak_mib()).transpose()?;
            // The first round warms up and is not counted.
            if round > 0 {
                runs.push(Run { measured, own_mib: own_mib.unwrap_or(f64::NAN) });
            }
        }
    }
    let [ours, theirs] = runs.map(|runs| Median::of(&runs));
    for (name, it) in [("speediso-agent", &ours), ("ironic-python-agent", &theirs)] {
        fact(format!(
            "{name}: {:.3} s, {:.3} s of processor; {:.1} MiB resident at most, pages of its programs with it; {:.1} MiB \
             that the machine needed for it",
            it.wall, it.cpu, it.mib, it.own_mib
        ));
    }
    let aims = [
        ("quicker", theirs.wall / ours.wall, SPEED),
        ("less processor time", theirs.cpu / ours.cpu, SPEED),
        ("less resident memory", theirs.mib / ours.mib, MEMORY),
        ("less memory that the machine needed for it", theirs.own_mib / ours.own_mib, MEMORY),
        ("of the aim in processor time", CPU / ours.cpu, 1.0),
    ];
    for (what, ratio, aim) in aims {
        let verdict = if ratio >= aim { "reached" } else { "MISSED" };
        fact(format!("{ratio:.1} times {what} (aim: at least {aim}): {verdict}"));
    }
    save(&[("speediso-agent", &ours), ("ironic-python-agent", &theirs)], out)
}

/// Whoever tells less has less to do.
fn same_work(theirs: &mut Command, ours: &mut Command) -> Result<()> {
    let told = |command: &mut Command| -> Result<Value> {
        let text = tool::run(command)?;
        // Python's warnings may stand before it.
        let start = text.find('{').context("it says no JSON")?;
        serde_json::from_str(&text[start..]).with_context(|| format!("reading what {command:?} says"))
    };
    let (mut theirs, ours) = (told(theirs)?, told(ours)?);
    // What its collectors add stands beside the inventory; of ours all is one.
    if let Some(Value::Object(inventory)) = theirs.get_mut("inventory").map(Value::take)
        && let Value::Object(all) = &mut theirs
    {
        all.remove("inventory");
        all.extend(inventory);
    }
    let found = fields::compare(&theirs, &ours);
    for (what, keys) in [("has no value in ours", &found.missing), ("is not in the table", &found.strange)] {
        keys.iter().for_each(|key| fact(format!("{key} of ironic-python-agent {what}")));
    }
    let verdict = if found.missing.is_empty() && found.strange.is_empty() { "reached" } else { "MISSED" };
    let missing = found.missing.len();
    fact(format!("{} of its keys have a value here, {missing} of them none in ours (aim: 0): {verdict}", found.told));
    Ok(())
}

struct Run {
    measured: Measured,
    /// Not a number where no group could be made.
    own_mib: f64,
}

struct Median {
    wall: f64,
    cpu: f64,
    mib: f64,
    own_mib: f64,
}

impl Median {
    fn of(runs: &[Run]) -> Self {
        let middle = |of: fn(&Run) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self {
            wall: middle(|run| run.measured.wall),
            cpu: middle(|run| run.measured.cpu),
            mib: middle(|run| run.measured.peak_mib),
            own_mib: middle(|run| run.own_mib),
        }
    }
}

fn save(rows: &[(&str, &Median)], out: &Path) -> Result<()> {
    let rows: Vec<Value> = rows
        .iter()
        .map(|(name, it)| json!({"name": name, "wall_s": it.wall, "cpu_s": it.cpu, "peak_mib": it.mib, "own_mib": it.own_mib}))
        .collect();
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(out, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", out.display()))
}
