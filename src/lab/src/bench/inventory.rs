//! `speediso-agent inventory --json` against ironic-python-agent's own collectors, in turns, on this machine.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

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
    let lines = [
        format!("exec {} inventory --json", agent.display()),
        format!("exec {} {}", Ipa::install()?.python().display(), driver.display()),
    ];
    let mut runs: [Vec<Measured>; 2] = [Vec::new(), Vec::new()];
    for round in 0..=rounds {
        for (line, runs) in lines.iter().zip(&mut runs) {
            let measured = pipe(line, dir.path()).with_context(|| line.clone())?;
            // The first round warms up and is not counted.
            if round > 0 {
                runs.push(measured);
            }
        }
    }
    let [ours, theirs] = runs.map(|runs| Median::of(&runs));
    for (name, it) in [("speediso-agent", &ours), ("ironic-python-agent", &theirs)] {
        fact(format!("{name}: {:.3} s, {:.3} s of processor, {:.1} MiB resident at most", it.wall, it.cpu, it.mib));
    }
    let aims = [
        ("quicker", theirs.wall / ours.wall, SPEED),
        ("less processor time", theirs.cpu / ours.cpu, SPEED),
        ("less memory", theirs.mib / ours.mib, MEMORY),
        ("of the aim in processor time", CPU / ours.cpu, 1.0),
    ];
    for (what, ratio, aim) in aims {
        let verdict = if ratio >= aim { "reached" } else { "MISSED" };
        fact(format!("{ratio:.1} times {what} (aim: at least {aim}): {verdict}"));
    }
    save(&[("speediso-agent", &ours), ("ironic-python-agent", &theirs)], out)
}

struct Median {
    wall: f64,
    cpu: f64,
    mib: f64,
}

impl Median {
    fn of(runs: &[Measured]) -> Self {
        let middle = |of: fn(&Measured) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Self { wall: middle(|run| run.wall), cpu: middle(|run| run.cpu), mib: middle(|run| run.peak_mib) }
    }
}

fn save(rows: &[(&str, &Median)], out: &Path) -> Result<()> {
    let rows: Vec<Value> = rows
        .iter()
        .map(|(name, it)| json!({"name": name, "wall_s": it.wall, "cpu_s": it.cpu, "peak_mib": it.mib}))
        .collect();
    if let Some(dir) = out.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(out, serde_json::to_string_pretty(&rows)?).with_context(|| format!("writing {}", out.display()))
}
