//! The figures: for people, and as data.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::limit::Limit;
use super::measure::Measured;
use super::{Row, plot};
use crate::show::{fact, mib};

fn median(runs: &[Measured], of: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(super) fn wall(row: &Row) -> f64 {
    median(&row.runs, |m| m.wall)
}

pub(super) fn show(rows: &mut [Row], size: u64, limits: &[Limit]) {
    #[allow(clippy::cast_precision_loss, reason = "sizes of images fit the 52 bits many times over")]
    let whole = size as f64 / 1_048_576.0;
    let rounds = rows.first().map_or(0, |r| r.runs.len());
    fact(format!("image of {whole:.0} MiB over TLS, median of {rounds} rounds in turn; each result compared"));
    fact(format!(
        "{:<60} {:>7} {:>15} {:>7} {:>6} {:>8} {:>6} {:>6}",
        "", "wall s", "(least, most)", "MiB/s", "cpu s", "machine", "stolen", "MiB"
    ));
    for row in rows.iter_mut() {
        row.runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        let (Some(least), Some(most)) = (row.runs.first(), row.runs.last()) else { continue };
        let wall = wall(row);
        let (cpu, peak) = (median(&row.runs, |m| m.cpu), median(&row.runs, |m| m.peak_mib));
        let range = format!("({:.2}, {:.2})", least.wall, most.wall);
        let (machine, stolen) = (median(&row.runs, |m| m.machine), median(&row.runs, |m| m.stolen));
        fact(format!(
            "{:<60} {wall:>7.2} {range:>15} {:>7.0} {cpu:>6.2} {machine:>8.2} {stolen:>6.2} {peak:>6.0}",
            row.case.name,
            whole / wall
        ));
    }
    for row in rows.iter() {
        for (other, aim) in &row.case.against {
            let Some(other) = rows.iter().find(|r| r.case.name == *other) else { continue };
            let ratio = |of: fn(&Measured) -> f64| median(&other.runs, of) / median(&row.runs, of);
            fact(format!(
                "{} is {:.2} times as fast as {} (aim: {aim}), with {:.2} of its processor time",
                row.case.name,
                ratio(|m| m.wall),
                other.case.name,
                1.0 / ratio(|m| m.cpu)
            ));
        }
    }
    for limit in limits {
        if let Some(row) = rows.iter().find(|row| row.case.name == limit.case) {
            limit.show(wall(row));
        }
    }
}

/// The table, for a document.
fn markdown(rows: &[Row], title: &str) -> String {
    let mut text = format!(
        "{title}\n\n| case | wall s | cpu s | whole machine's cpu s | MiB resident |\n|---|---:|---:|---:|---:|\n"
    );
    for row in rows {
        let (cpu, peak) = (median(&row.runs, |m| m.cpu), median(&row.runs, |m| m.peak_mib));
        let machine = median(&row.runs, |m| m.machine);
        text.push_str(&format!("| {} | {:.2} | {cpu:.2} | {machine:.2} | {peak:.0} |\n", row.case.name, wall(row)));
    }
    text
}

/// As data, as a table and as a picture, beside one another.
pub(super) fn save(rows: &[Row], size: u64, limits: &[Limit], out: &Path) -> Result<()> {
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder)?;
    }
    let run = |m: &Measured| json!({"wall_s": m.wall, "cpu_s": m.cpu, "machine_cpu_s": m.machine, "stolen_s": m.stolen, "peak_mib": m.peak_mib});
    let row = |r: &Row| json!({"case": r.case.name, "runs": r.runs.iter().map(run).collect::<Vec<_>>()});
    let cases: Vec<_> = rows.iter().map(row).collect();
    let limits: Vec<_> = limits.iter().map(Limit::data).collect();
    let all = json!({"image_bytes": size, "limits": limits, "cases": cases});
    fs::write(out, serde_json::to_string_pretty(&all)?)?;
    let rounds = rows.first().map_or(0, |r| r.runs.len());
    let title = format!("Writing an image of {} over TLS to a disk, median of {rounds} runs", mib(size));
    fs::write(out.with_extension("md"), markdown(rows, &title))?;
    fs::write(out.with_extension("svg"), plot::svg(rows, &title))?;
    Ok(())
}
