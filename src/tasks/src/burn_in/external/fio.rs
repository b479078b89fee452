//! fio, reading disks: with `--readonly`, so that whatever it is told it opens nothing for writing.

use std::ffi::OsString;

use serde_json::Value;
use speediso_model::burn_in::external::{FioPattern, FioStep};
use speediso_model::burn_in::{Measurement, unit};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::{describe, unusable};
use speediso_model::inventory::Disk;
use speediso_model::units::{Bytes, KIB};
use speediso_model::wipe::WipeTargets;

use super::super::command::program::{Program, run};
use super::super::command::{ended_as, metrics};
use super::super::live::Live;
use super::super::work::{Findings, Planned, Work};
use super::OUTPUT;
use crate::ctx::TaskCtx;
use crate::single::read_disks;

const BLOCK: Bytes = Bytes(4 * KIB);
const DEPTH: u32 = 32;
const SPARE: u32 = 10;

pub(in super::super) struct Fio(FioStep);

impl Fio {
    pub(in super::super) fn new(step: FioStep) -> Self {
        Self(step)
    }

    fn disks(&self, ctx: &TaskCtx) -> Result<Vec<Disk>, Fault> {
        let all = read_disks(ctx)?;
        let disks: Vec<Disk> = match &self.0.devices {
            WipeTargets::AllDisks => all.into_iter().filter(|disk| unusable(disk, false).is_none()).collect(),
            WipeTargets::Hints(hints) => {
                hints.iter().map(|h| h.resolve(&all).cloned()).collect::<Result<_, Fault>>()?
            }
        };
        if disks.is_empty() {
            return Err(Fault::new(FaultCode::NoMatchingDisk, "this machine has no disk for fio to read"));
        }
        Ok(disks)
    }

    fn arguments(&self, disks: &[Disk], seconds: u32) -> Vec<OsString> {
        let rw = match self.0.pattern {
            FioPattern::Sequential => "read",
            FioPattern::Random => "randread",
        };
        let runtime = seconds.saturating_sub(SPARE).max(1);
        let mut arguments = vec![
            "--readonly".to_owned(),
            "--output-format=json".into(),
            format!("--rw={rw}"),
            format!("--bs={}", self.0.block.unwrap_or(BLOCK).0),
            format!("--iodepth={}", self.0.depth.unwrap_or(DEPTH)),
            "--ioengine=libaio".into(),
            "--direct=1".into(),
            "--time_based".into(),
            format!("--runtime={runtime}"),
            // A dying disk has more than one bad place.
            "--continue_on_error=read".into(),
            "--group_reporting".into(),
        ];
        for (n, disk) in disks.iter().enumerate() {
            // fio parts names at colons.
            arguments.extend([format!("--name=disk{n}"), format!("--filename={}", disk.name.replace(':', "\\:"))]);
        }
        arguments.into_iter().map(OsString::from).collect()
    }
}

impl Work for Fio {
    fn plan(&self, ctx: &TaskCtx) -> Result<Planned, Fault> {
        let disks: Vec<String> = self.disks(ctx)?.iter().map(describe).collect();
        Ok(Planned::effect(format!("fio reads {}", disks.join("; "))))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        let ready = Program::named("fio", live.ctx)
            .and_then(|program| Ok((program, self.disks(live.ctx).map_err(|fault| fault.to_string())?)));
        let (program, disks) = match ready {
            Ok(ready) => ready,
            Err(why) => return Findings::inconclusive(why),
        };
        let mut command = program.command();
        command.args(self.arguments(&disks, live.step.duration.0));
        let ended = match run(command, OUTPUT, live) {
            Ok(ended) => ended,
            Err(error) => return Findings::inconclusive(format!("fio could not be run: {error}")),
        };
        let mut found = ended_as("fio", &ended, live);
        let status = found.measurements.iter().find(|m| m.name == "program.status").map(|m| m.value);
        match metrics::json(&String::from_utf8_lossy(&ended.stdout)).map(|json| figures(&json)) {
            Some(figures) if !figures.is_empty() => found.measurements = figures,
            _ => {
                found.measurements.clear();
                let status = status.map(|status| format!(" (status {status})")).unwrap_or_default();
                found.inconclusive.push(format!("fio gave no figures{status}: {}", first_line(&ended.stderr)));
            }
        }
        found
    }
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().next().unwrap_or("it said nothing").chars().take(200).collect()
}

/// Of the one group that all jobs are in.
fn figures(json: &Value) -> Vec<Measurement> {
    let Some(job) = json.pointer("/jobs/0") else { return Vec::new() };
    let number = |path: &str| job.pointer(path).and_then(Value::as_f64).filter(|n| n.is_finite());
    [
        ("fio.errors", unit::COUNT, number("/total_err"), 1.0),
        ("fio.read.bandwidth", unit::BYTES_PER_SECOND, number("/read/bw_bytes"), 1.0),
        ("fio.read.iops", unit::PER_SECOND, number("/read/iops"), 1.0),
        ("fio.read.latency.p99", unit::MICROSECONDS, number("/read/clat_ns/percentile/99.000000"), 1e-3),
        ("fio.read.latency.max", unit::MICROSECONDS, number("/read/clat_ns/max"), 1e-3),
    ]
    .into_iter()
    .filter_map(|(name, unit, value, factor)| Some(Measurement::new(name, unit, value? * factor)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_figures_are_read() {
        let json = serde_json::json!({"jobs": [{"total_err": 2, "read": {"bw_bytes": 1000, "iops": 12.5,
            "clat_ns": {"max": 9000, "percentile": {"99.000000": 5000}}}}]});
        let values: Vec<f64> = figures(&json).iter().map(|m| m.value).collect();
        assert_eq!(values, [2.0, 1000.0, 12.5, 5.0, 9.0]);
        assert!(figures(&serde_json::json!({"jobs": []})).is_empty());
    }

    #[test]
    fn it_opens_nothing_for_writing() {
        let step: FioStep = serde_json::from_str(r#"{"devices":"all_disks"}"#).expect("good");
        let disk = Disk { name: "/dev/disk:0".into(), ..Disk::default() };
        let words: Vec<String> =
            Fio::new(step).arguments(&[disk], 60).iter().map(|w| w.to_string_lossy().into_owned()).collect();
        assert_eq!(words[0], "--readonly");
        assert!(words.contains(&"--rw=randread".into()) && words.contains(&"--runtime=50".into()));
        assert_eq!(words.last().map(String::as_str), Some("--filename=/dev/disk\\:0"));
    }
}
