//! Burn-in: carries a scenario out, step by step, and judges what was measured.
//!
//! A step is a [`work::Work`]: it says what it would do, works until its [`live::Live`] is over, and gives what it found.
//! It never judges itself: [`engine`] takes the limits to its measurements. Around every group of steps [`guard`] looks
//! at what the kernel counts of machine checks and memory errors. [`record`] keeps what is finished, so that a
//! restarted agent does not do it again.

mod bmc_sensors;
mod command;
mod cpu;
mod disk;
mod engine;
mod external;
mod guard;
mod live;
pub mod meddle;
mod memory;
mod network;
mod pause;
mod record;
mod sensors;
mod thermal;
mod work;

use std::sync::Arc;

use jiff::Timestamp;
use speediso_model::burn_in::{BurnInReport, BurnInTask, Scenario, Worst};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest};

use self::engine::{Ran, carry_out};
use self::meddle::{Honest, Meddler};
use self::record::Record;
use crate::ctx::TaskCtx;
use crate::single::{hold_to, read_disks};

const KIND: &str = "burn_in";

pub(crate) fn plan(task: &BurnInTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    let scenario = scenario(task)?;
    let mut plan = Plan {
        task: KIND.to_owned(),
        destructive: task.is_destructive(),
        devices: Vec::new(),
        effects: Vec::new(),
        untouched: Vec::new(),
    };
    for (number, step) in scenario.steps().enumerate() {
        let planned = work::of(step, &(Arc::new(Honest) as Arc<dyn Meddler>))?.plan(ctx)?;
        plan.effects.push(format!("step {number}, {}, for {}: {}", step.title(), step.duration, planned.effect));
        plan.devices.extend(planned.devices);
    }
    if plan.devices.is_empty() { Ok(plan) } else { Ok(plan.with_untouched(&read_disks(ctx)?)) }
}

pub(crate) fn execute(task: &BurnInTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    execute_meddled(task, expected, ctx, &(Arc::new(Honest) as Arc<dyn Meddler>))
}

/// The same with somebody who spoils results, for tests: nothing on the wire leads here.
#[must_use]
pub fn execute_meddled(
    task: &BurnInTask,
    expected: &PlanDigest,
    ctx: &TaskCtx,
    meddler: &Arc<dyn Meddler>,
) -> TaskResult {
    let unchanged = |fault| TaskResult::failed(KIND, Outcome::FailedUnchanged, fault);
    let held = plan(task, &ctx.unprobed()).and_then(|plan| hold_to(expected, &plan).map(|()| plan.devices));
    let (permitted, scenario) = match held.and_then(|permitted| Ok((permitted, scenario(task)?))) {
        Ok(ready) => ready,
        Err(fault) => return unchanged(fault),
    };
    let mut record = Record::take_up(&scenario, ctx);
    let ran = match carry_out(&scenario, &permitted, &mut record, ctx, meddler) {
        Ok(ran) => ran,
        Err(fault) => return unchanged(fault),
    };
    // It has come to its end: the next order begins anew.
    record.forget();
    conclude(&scenario, ran, &record, ctx)
}

fn scenario(task: &BurnInTask) -> Result<Scenario, Fault> {
    task.scenario().map(std::borrow::Cow::into_owned).map_err(|what| Fault::new(FaultCode::TaskInvalid, what))
}

fn conclude(scenario: &Scenario, ran: Ran, record: &Record, ctx: &TaskCtx) -> TaskResult {
    let (verdict, reasons) = BurnInReport::conclude(&ran.steps);
    let used: Vec<String> = ran.steps.iter().map(|s| format!("{} for {:.0} s", s.name, s.seconds)).collect();
    let report = BurnInReport {
        version: BurnInReport::VERSION,
        scenario: scenario.name.clone(),
        scenario_digest: scenario.digest(),
        began: record.began(),
        ended: Timestamp::now(),
        verdict,
        reasons: reasons.clone(),
        restarts: record.restarts(),
        steps: ran.steps,
    };
    let output = serde_json::to_value(&report).ok();
    let asked = format!("{KIND}: {}", scenario.name);
    let changed = if ran.changed { Changed::Changed } else { Changed::AlreadySo };
    let fault = ctx.cancel.check().err().or_else(|| fault_of(verdict, &reasons));
    let mut result = match fault {
        None => TaskResult::verified(&asked, &used.join("; "), changed),
        Some(fault) => {
            let own = if ran.changed { Outcome::FailedChanged } else { Outcome::FailedUnchanged };
            // What a disk's own end says may be worse than what is known of the whole.
            let worst = ran.devices.iter().map(|d| d.outcome).fold(own, Outcome::max);
            TaskResult { used: used.join("; "), ..TaskResult::failed(&asked, worst, fault) }
        }
    };
    result.devices = ran.devices;
    result.output = output;
    result
}

fn fault_of(verdict: Worst, reasons: &[String]) -> Option<Fault> {
    let (code, what) = match verdict {
        Worst::Passed => return None,
        Worst::Failed => (FaultCode::HardwareFault, "the burn-in found a fault"),
        Worst::Inconclusive => (FaultCode::BurnInInconclusive, "the burn-in could not be judged"),
    };
    let first = reasons.first().map(|reason| format!(": {reason}")).unwrap_or_default();
    let mut fault = Fault::new(code, format!("{what}{first}"));
    fault.causes = reasons.iter().skip(1).take(20).cloned().collect();
    if reasons.len() > 21 {
        fault.causes.push(format!("and {} more, in the report", reasons.len() - 21));
    }
    Some(fault)
}
