//! stress-ng, with `--verify`: its own checks, which end it with a status other than 0.

use std::ffi::OsString;

use speediso_model::burn_in::external::StressNgStep;
use speediso_model::burn_in::{Measurement, unit};
use speediso_model::fault::Fault;

use super::super::command::ended_as;
use super::super::command::program::{Program, run};
use super::super::live::Live;
use super::super::work::{Findings, Planned, Work};
use super::OUTPUT;
use crate::ctx::TaskCtx;

/// Between the end of its work and of itself.
const SPARE: u32 = 10;

pub(in super::super) struct StressNg(StressNgStep);

impl StressNg {
    pub(in super::super) fn new(step: StressNgStep) -> Self {
        Self(step)
    }

    fn arguments(&self, seconds: u32) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        for stressor in &self.0.stressors {
            arguments.push(format!("--{}", stressor.name).into());
            arguments.push(stressor.workers.to_string().into());
            for (option, value) in &stressor.options {
                arguments.push(format!("--{option}").into());
                arguments.push(value.into());
            }
        }
        let timeout = seconds.saturating_sub(SPARE).max(1);
        let own = ["--verify", "--metrics", "--timeout", &format!("{timeout}s")].map(OsString::from);
        arguments.extend(own);
        arguments
    }
}

impl Work for StressNg {
    fn plan(&self, _: &TaskCtx) -> Result<Planned, Fault> {
        let names: Vec<&str> = self.0.stressors.iter().map(|stressor| stressor.name.as_str()).collect();
        Ok(Planned::effect(format!("stress-ng with {}", names.join(", "))))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        let program = match Program::named("stress-ng", live.ctx) {
            Ok(program) => program,
            Err(why) => return Findings::inconclusive(why),
        };
        let mut command = program.command();
        command.args(self.arguments(live.step.duration.0));
        let ended = match run(command, OUTPUT, live) {
            Ok(ended) => ended,
            Err(error) => return Findings::inconclusive(format!("stress-ng could not be run: {error}")),
        };
        let mut found = ended_as("stress-ng", &ended, live);
        found.changed = !self.0.is_harmless();
        // Its log goes to either, depending on the version.
        let said = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).join("\n");
        for stressor in &self.0.stressors {
            match bogo_ops(&said, &stressor.name) {
                Some((count, rate)) => {
                    let name = format!("stress_ng.{}.bogo_ops", stressor.name);
                    found.measurements.push(Measurement::new(name, unit::PER_SECOND, rate));
                    found.notices.push(format!("{}: {count} bogo operations", stressor.name));
                }
                None => found.unread.push(format!("stress-ng gave no figures for {}", stressor.name)),
            }
        }
        found
    }
}

/// `stress-ng: metrc: [123] cpu   1234   1.00  1.99  0.00   1234.5   620.1`: count, and rate by the clock.
fn bogo_ops(said: &str, stressor: &str) -> Option<(f64, f64)> {
    said.lines().find_map(|line| {
        let mut words = line.split("] ").nth(1)?.split_whitespace();
        (words.next()? == stressor).then_some(())?;
        let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
        numbers.iter().all(|n| n.is_finite()).then_some(())?;
        Some((*numbers.first()?, *numbers.get(4)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_table_is_read() {
        let said = "stress-ng: info:  [42] dispatching hogs: 2 cpu\n\
            stress-ng: metrc: [42] stressor       bogo ops real time  usr time  sys time   bogo ops/s     bogo ops/s\n\
            stress-ng: metrc: [42]                           (secs)    (secs)    (secs)   (real time) (usr+sys time)\n\
            stress-ng: metrc: [42] cpu                4166      2.00      3.98      0.00      2082.62        1046.73\n";
        assert_eq!(bogo_ops(said, "cpu"), Some((4166.0, 2082.62)));
        assert_eq!(bogo_ops(said, "vm"), None);
        assert_eq!(bogo_ops("", "cpu"), None);
    }

    #[test]
    fn it_ends_before_its_time() {
        let stressor =
            |name: &str| serde_json::from_str(&format!(r#"{{"name":"{name}","options":{{"cpu-method":"all"}}}}"#));
        let step = StressNg::new(StressNgStep { stressors: vec![stressor("cpu").expect("good")] });
        let words: Vec<String> = step.arguments(60).iter().map(|w| w.to_string_lossy().into_owned()).collect();
        assert_eq!(words, ["--cpu", "0", "--cpu-method", "all", "--verify", "--metrics", "--timeout", "50s"]);
        assert!(step.arguments(5).contains(&"1s".into()));
    }
}
