//! A program of the scenario's, with parsed metrics: for what only its maker's program can test.
//!
//! It runs with root's rights and nothing of ours: an environment of its own, no standard input, a process group that
//! ends with the step. Whoever gives the order answers for what the program does: such a scenario counts as destructive,
//! and once a program has run nobody says that nothing was changed.

pub(super) mod metrics;
pub(super) mod program;

use speediso_model::burn_in::external::CommandStep;
use speediso_model::burn_in::{Measurement, unit};
use speediso_model::fault::Fault;
use speediso_model::units::{Bytes, MIB};
use speediso_sys::process_group::Ended;

use self::program::Program;
use super::live::Live;
use super::work::{Findings, Planned, Work};
use crate::ctx::TaskCtx;

/// Of what it printed, in the report.
const KEPT: usize = 16 << 10;
const OUTPUT: Bytes = Bytes(MIB);

pub(super) struct Command(CommandStep);

impl Command {
    pub(super) fn new(step: CommandStep) -> Self {
        Self(step)
    }
}

impl Work for Command {
    fn plan(&self, _: &TaskCtx) -> Result<Planned, Fault> {
        let digest = self.0.digest.as_ref().map(|digest| format!(", whose file is {digest}")).unwrap_or_default();
        Ok(Planned::effect(format!("runs {:?}{digest}, with root's rights", self.0.argv)))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        let (name, arguments) = match self.0.argv.split_first() {
            Some(split) => split,
            None => return Findings::inconclusive("no program is named"),
        };
        let program = match Program::of_step(name, self.0.digest.as_ref(), live.ctx) {
            Ok(program) => program,
            Err(why) => return Findings::inconclusive(why),
        };
        let mut command = program.command();
        command.args(arguments).envs(&self.0.environment);
        let limit = self.0.output.unwrap_or(OUTPUT).0;
        let ended = match program::run(command, limit, live) {
            Ok(ended) => ended,
            Err(error) => return Findings::inconclusive(format!("{name} could not be run: {error}")),
        };
        let mut found = Findings { changed: true, ..ended_as(name, &ended, live) };
        if ended.stdout.len() as u64 >= limit {
            found.notices.push(format!("only the first {} of what {name} printed were read", Bytes(limit)));
        }
        let text = String::from_utf8_lossy(&ended.stdout);
        for rule in &self.0.metrics {
            match metrics::find(rule, &text) {
                Ok(measurements) => found.measurements.extend(measurements),
                Err(why) => found.inconclusive.push(why),
            }
        }
        found
    }
}

/// Status and time as measurements, output as text. A program that we ended has no status.
pub(super) fn ended_as(name: &str, ended: &Ended, live: &Live<'_>) -> Findings {
    let mut found = Findings { output: Some(printed(ended)), ..Findings::default() };
    found.measurements.push(Measurement::new("program.seconds", unit::SECONDS, ended.after.as_secs_f64()));
    match ended.status {
        Some(status) => {
            use std::os::unix::process::ExitStatusExt as _;
            // As a shell says it.
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
            found.measurements.push(Measurement::new("program.status", unit::COUNT, code.into()));
        }
        None if ended.stuck => found.inconclusive.push(format!("{name} cannot be ended: it hangs in the kernel")),
        // The engine says why, if it was cut short.
        None if live.cut_short().is_some() => {}
        None => found.inconclusive.push(format!("{name} did not end within {} and was ended", live.step.duration)),
    }
    found
}

fn printed(ended: &Ended) -> String {
    let both = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let mut text = both.join(if both.iter().all(|text| !text.is_empty()) { "\n-- standard error --\n" } else { "" });
    if text.len() > KEPT {
        let end = (0..=KEPT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("\n(and more)");
    }
    // Terminals read it too.
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

#[cfg(test)]
mod tests;
