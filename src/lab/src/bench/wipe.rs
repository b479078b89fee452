//! The task `wipe` against what people use instead, in turns, on the same loop devices over memory that is allocated.
//!
//! Writing alone is compared by the time that writing took, as the report of the wipe and the other program's life tell
//! it. For eight disks the same bytes are spread over eight smaller ones: here it is the processors that are shared, and
//! what is seen is what doing it eight times at once costs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::write::measure::{Measured, agent_with, pipe};
use super::write::{LoopDisk, roomy};
use crate::show::fact;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 1024 * MIB;
const DISKS: u64 = 8;

enum Way {
    /// A line for bash.
    Pipe(String),
    /// The agent with this task; whether only its writing counts.
    Wipe { task: Value, writing: bool },
}

struct Row {
    name: &'static str,
    way: Way,
    /// The case that it is compared with, and how many times as fast it is to be.
    against: Vec<(&'static str, f64)>,
    runs: Vec<Measured>,
}

pub(super) fn run(agent: &Path, rounds: u32, out: &Path) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("speediso-wipe-").tempdir_in(roomy(2 * SIZE))?;
    let one = LoopDisk::make(&dir.path().join("one.raw"), SIZE)?;
    let several: Vec<LoopDisk> = (0..DISKS)
        .map(|n| LoopDisk::make(&dir.path().join(format!("several-{n}.raw")), SIZE / DISKS))
        .collect::<Result<_>>()?;
    let mut rows = cases(&one, &several);
    for round in 0..=rounds {
        for row in &mut rows {
            one.allocate(SIZE)?;
            several.iter().try_for_each(|disk| disk.allocate(SIZE / DISKS))?;
            let measured = row.way.measure(agent, dir.path()).with_context(|| row.name)?;
            // The first round warms up and is not counted.
            if round > 0 {
                row.runs.push(measured);
            }
        }
        if round > 0 {
            println!("   round {round} of {rounds}");
        }
    }
    show(&rows);
    save(&rows, out)
}

fn cases(one: &LoopDisk, several: &[LoopDisk]) -> Vec<Row> {
    let device = one.device.display();
    let row =
        |name, way, against: &[(&'static str, f64)]| Row { name, way, against: against.to_vec(), runs: Vec::new() };
    let shell = |line: String| Way::Pipe(line);
    let wipe = |disks: &[&LoopDisk], writing| {
        let hints: Vec<Value> = disks.iter().map(|disk| json!({"serial": disk.serial()})).collect();
        let task = json!({"task": "wipe", "devices": {"hints": hints}, "level": "clear"});
        Way::Wipe { task, writing }
    };
    let all: Vec<&LoopDisk> = several.iter().collect();
    vec![
        row(
            "overwrite: speediso, writing alone",
            wipe(&[one], true),
            &[("overwrite: dd oflag=direct", 0.95), ("overwrite: blkdiscard -z (BLKZEROOUT)", 0.95)],
        ),
        row(
            "overwrite: dd oflag=direct",
            shell(format!(
                "dd if=/dev/zero of={device} bs=4M oflag=direct conv=fsync status=none count={}",
                SIZE / MIB / 4
            )),
            &[],
        ),
        row("overwrite: blkdiscard -z (BLKZEROOUT)", shell(format!("blkdiscard -f -z {device}")), &[]),
        row("verified: speediso", wipe(&[one], false), &[("verified: shred -n1 -z, cmp", 3.0)]),
        row(
            "verified: shred -n1 -z, cmp",
            shell(format!("shred -n1 -z {device}; blockdev --flushbufs {device}; cmp -n {SIZE} {device} /dev/zero")),
            &[],
        ),
        row("verified, eight disks at once: speediso", wipe(&all, false), &[("verified: speediso", 1.0 / 1.2)]),
    ]
}

impl Way {
    fn measure(&self, agent: &Path, dir: &Path) -> Result<Measured> {
        match self {
            Self::Pipe(line) => pipe(line, dir),
            Self::Wipe { task, writing } => {
                let measured = agent_with(agent, dir, &[], task)?;
                let log = fs::read_to_string(dir.join("case.log"))?;
                let result = log.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
                let result = result.with_context(|| format!("no result in\n{log}"))?;
                ensure!(result["outcome"] == "verified", "{result}");
                if !writing {
                    return Ok(measured);
                }
                let rate = result["devices"][0]["facts"]["write_mib_per_s"].as_f64().context("no rate")?;
                #[allow(clippy::cast_precision_loss, reason = "MiB of one disk")]
                let wall = (SIZE / MIB) as f64 / rate;
                Ok(Measured { wall, ..measured })
            }
        }
    }
}

fn median(row: &Row, of: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = row.runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn show(rows: &[Row]) {
    fact(format!("{:<45} {:>7} {:>7} {:>6}", "1 GiB", "wall s", "cpu s", "MiB"));
    for row in rows {
        let (wall, cpu, peak) = (median(row, |m| m.wall), median(row, |m| m.cpu), median(row, |m| m.peak_mib));
        fact(format!("{:<45} {wall:>7.2} {cpu:>7.2} {peak:>6.0}", row.name));
    }
    for row in rows {
        for (name, aim) in &row.against {
            let Some(other) = rows.iter().find(|r| r.name == *name) else { continue };
            let ratio = median(other, |m| m.wall) / median(row, |m| m.wall);
            fact(format!("{} is {ratio:.2} times as fast as {name} (aim: {aim:.2})", row.name));
        }
    }
    let peak = rows.iter().filter(|r| matches!(r.way, Way::Wipe { .. })).flat_map(|r| &r.runs);
    let peak = peak.map(|m| m.peak_mib).fold(0.0, f64::max);
    fact(format!("memory of the agent, at most {peak:.0} MiB resident (aim: 32)"));
}

fn save(rows: &[Row], out: &Path) -> Result<()> {
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder)?;
    }
    let run = |m: &Measured| json!({"wall_s": m.wall, "cpu_s": m.cpu, "peak_mib": m.peak_mib});
    let cases: Vec<Value> =
        rows.iter().map(|r| json!({"case": r.name, "runs": r.runs.iter().map(run).collect::<Vec<_>>()})).collect();
    fs::write(out, serde_json::to_string_pretty(&json!({"bytes": SIZE, "cases": cases}))?)?;
    Ok(())
}
