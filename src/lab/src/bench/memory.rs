//! The memory step against `memtester` and `stress-ng --vm --verify`, in turns, on the same amount with as many threads.
//!
//! What is compared is bytes written plus bytes read back and compared, per second of the whole run, starting, locking and
//! zeroing included; so all run for about ten seconds, or those that begin slowly and then are quick would be told from the
//! others by nothing but their beginning. The others do work of which that is known: memtester its test of stuck addresses
//! (always 16 times through the memory) and that of random values (once); stress-ng `zero-one`, its quickest that checks
//! every word. Each has the same amount, locked, in as many threads or processes as there are processors.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::write::measure::{Measured, agent_with, pipe};
use crate::show::fact;

const SIZE: u64 = 1 << 30;
const GIB: f64 = 1_073_741_824.0;
/// Of moving inversions: three times written and three times read back each.
const PASSES: u64 = 40;
const MEMTESTER_LOOPS: u64 = 3;
const SECONDS: u64 = 10;
/// stress-ng counts words, and shows one of 2^12 as an operation.
const WORDS_PER_OPERATION: f64 = 4096.0;

struct Row {
    name: &'static str,
    run: fn(&Path, &Path, u64) -> Result<(f64, Measured)>,
    /// GiB per second.
    rates: Vec<f64>,
    peak_mib: f64,
}

pub(super) fn run(agent: &Path, rounds: u32, out: &Path) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("speediso-memory-").tempdir()?;
    let threads = std::thread::available_parallelism()?.get() as u64;
    let row = |name, run| Row { name, run, rates: Vec::new(), peak_mib: 0.0 };
    let mut rows = [
        row("speediso, moving inversions", ours as fn(&Path, &Path, u64) -> Result<(f64, Measured)>),
        row("memtester, stuck address and random value", memtester),
        row("stress-ng --vm --verify, zero-one", stress_ng),
    ];
    for round in 0..=rounds {
        for row in &mut rows {
            let (bytes, measured) = (row.run)(agent, dir.path(), threads).with_context(|| row.name)?;
            // The first round warms up and is not counted.
            if round > 0 {
                row.rates.push(bytes / measured.wall / GIB);
                row.peak_mib = row.peak_mib.max(measured.peak_mib);
            }
        }
        if round > 0 {
            println!("   round {round} of {rounds}");
        }
    }
    fact(format!("{:<45} {:>7} {:>6}", format!("1 GiB, {threads} threads"), "GiB/s", "MiB"));
    for row in &rows {
        fact(format!("{:<45} {:>7.2} {:>6.0}", row.name, median(&row.rates), row.peak_mib));
    }
    let ours = median(&rows[0].rates);
    for other in &rows[1..] {
        fact(format!(
            "{} is {:.2} times as fast as {} (aim: 1.00)",
            rows[0].name,
            ours / median(&other.rates),
            other.name
        ));
    }
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder)?;
    }
    let cases: Vec<Value> = rows.iter().map(|row| json!({"case": row.name, "gib_per_s": row.rates})).collect();
    fs::write(out, serde_json::to_string_pretty(&json!({"bytes": SIZE, "threads": threads, "cases": cases}))?)?;
    Ok(())
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss, reason = "GiB")]
fn ours(agent: &Path, dir: &Path, _: u64) -> Result<(f64, Measured)> {
    let step =
        json!({"step": "memory", "duration": "10m", "size": SIZE, "passes": PASSES, "patterns": ["moving_inversions"]});
    let scenario = json!({"version": 1, "name": "bench", "steps": [step]});
    let measured = agent_with(agent, dir, &[], &json!({"task": "burn_in", "scenario": scenario}))?;
    let log = fs::read_to_string(dir.join("case.log"))?;
    let result =
        log.lines().find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|v| v["output"].is_object()));
    let all = result.with_context(|| format!("no result in\n{log}"))?["output"]["steps"][0]["measurements"].take();
    let sum = |name: &str| -> f64 {
        let values = all.as_array().into_iter().flatten().filter(|m| m["name"] == name);
        values.filter_map(|m| m["value"].as_f64()).sum()
    };
    let (tested, passes) = (sum("memory.tested"), sum("memory.passes"));
    let is_same_work = (tested - SIZE as f64).abs() < 0.5 && (passes - PASSES as f64).abs() < 0.5;
    ensure!(is_same_work, "{passes} passes over {tested} bytes are not the {PASSES} over {SIZE} that were asked for");
    Ok(((6 * PASSES * SIZE) as f64, measured))
}

#[allow(clippy::cast_precision_loss, reason = "GiB")]
fn memtester(_: &Path, dir: &Path, threads: u64) -> Result<(f64, Measured)> {
    let each = (SIZE / threads) >> 20;
    let line = format!(
        "export MEMTESTER_TEST_MASK=1; for i in $(seq {threads}); do memtester {each}M {MEMTESTER_LOOPS} & pids+=($!); done; for p in \"${{pids[@]}}\"; do wait $p; done"
    );
    let measured = pipe(&line, dir)?;
    let log = fs::read_to_string(dir.join("case.log"))?;
    // It takes less where it cannot have or lock all, and goes on.
    let had = log.matches(&format!("got  {each}MB")).count() as u64;
    ensure!(had == threads && !log.contains("reducing"), "memtester did not test {each} MiB {threads} times:\n{log}");
    Ok((((2 * 17 * MEMTESTER_LOOPS * each * threads) << 20) as f64, measured))
}

fn stress_ng(_: &Path, dir: &Path, threads: u64) -> Result<(f64, Measured)> {
    let line = format!(
        "stress-ng --vm {threads} --vm-bytes {SIZE} --vm-method zero-one --vm-keep --vm-locked --verify --metrics --timeout {SECONDS}s 2>&1"
    );
    let measured = pipe(&line, dir)?;
    let log = fs::read_to_string(dir.join("case.log"))?;
    let operations = log.lines().find_map(|line| {
        let mut words = line.split("] ").nth(1)?.split_whitespace();
        (words.next()? == "vm").then(|| words.next()?.parse::<f64>().ok()).flatten()
    });
    let operations = operations.with_context(|| format!("no figures in\n{log}"))?;
    // Each word that it counts was written and read back.
    Ok((operations * WORDS_PER_OPERATION * 8.0 * 2.0, measured))
}
