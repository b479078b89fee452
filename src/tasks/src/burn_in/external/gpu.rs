//! gpu_burn: matrix products on every GPU, compared with each other.

use std::path::Path;

use speediso_model::burn_in::Measurement;
use speediso_model::burn_in::external::GpuStep;
use speediso_model::fault::Fault;

use super::super::command::ended_as;
use super::super::command::program::{Program, run};
use super::super::live::Live;
use super::super::work::{Findings, Planned, Work};
use super::OUTPUT;
use crate::ctx::TaskCtx;

const DIRECTORY: &str = "/opt/gpu-burn";
const MEMORY: u8 = 95;
/// It compiles, warms up, and sums up.
const SPARE: u32 = 60;

pub(in super::super) struct Gpu(GpuStep);

impl Gpu {
    pub(in super::super) fn new(step: GpuStep) -> Self {
        Self(step)
    }
}

impl Work for Gpu {
    fn plan(&self, _: &TaskCtx) -> Result<Planned, Fault> {
        Ok(Planned::effect(format!("gpu_burn in {}% of the GPUs' memory", self.0.memory.unwrap_or(MEMORY))))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        let directory = self.0.directory.as_deref().unwrap_or(DIRECTORY);
        let path = Path::new(directory).join("gpu_burn");
        if !path.is_file() {
            return Findings::inconclusive(format!("{} is not in this live system", path.display()));
        }
        let program = Program::at(path);
        let mut command = program.command();
        let seconds = live.step.duration.0;
        let time = if seconds > 2 * SPARE { seconds - SPARE } else { (seconds / 2).max(1) };
        // It looks for its compiled kernels where it stands.
        command.current_dir(directory);
        command.args(["-m".to_owned(), format!("{}%", self.0.memory.unwrap_or(MEMORY)), time.to_string()]);
        let ended = match run(command, OUTPUT, live) {
            Ok(ended) => ended,
            Err(error) => return Findings::inconclusive(format!("gpu_burn could not be run: {error}")),
        };
        let mut found = ended_as("gpu_burn", &ended, live);
        found.changed = self.0.directory.is_some();
        // Of these the verdicts of the GPUs are the measure.
        found.measurements.clear();
        let verdicts = verdicts(&String::from_utf8_lossy(&ended.stdout));
        if verdicts.is_empty() {
            found.inconclusive.push("gpu_burn came to no verdict on any GPU".into());
            return found;
        }
        let faulty = verdicts.iter().filter(|(_, is_well)| !is_well).count() as u64;
        found.measurements.push(Measurement::count("gpu.count", verdicts.len() as u64));
        found.measurements.push(Measurement::count("gpu.faulty", faulty));
        found
            .notices
            .extend(verdicts.iter().filter(|(_, ok)| !ok).map(|(gpu, _)| format!("GPU {gpu} computes wrongly")));
        found
    }
}

/// At its end: `\tGPU 0: OK`, `\tGPU 1: FAULTY`. Carriage returns part the lines of its progress.
fn verdicts(text: &str) -> Vec<(u32, bool)> {
    text.split(['\n', '\r'])
        .filter_map(|line| {
            let (gpu, verdict) = line.trim().strip_prefix("GPU ")?.split_once(':')?;
            let is_well = match verdict.trim() {
                "OK" => true,
                "FAULTY" => false,
                _ => return None,
            };
            Some((gpu.parse().ok()?, is_well))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_verdicts_are_read() {
        let text = "Initialized device 0\n10.0%  proc'd: 100 (4000 Gflop/s)   errors: 0   temps: 50 C\r\
            Killing processes.. done\n\nTested 2 GPUs:\n\tGPU 0: OK\n\tGPU 1: FAULTY\n";
        assert_eq!(verdicts(text), [(0, true), (1, false)]);
        assert!(verdicts("GPU 0: NVIDIA A100 (UUID: x)\n").is_empty());
    }
}
