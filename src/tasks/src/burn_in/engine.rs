//! Runs the groups of a scenario one after the other, and the steps of a group side by side.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use speediso_model::burn_in::{Limit, Scenario, Step, StepReport, Verdict, judge};
use speediso_model::fault::Fault;
use speediso_model::outcome::DeviceResult;
use speediso_model::plan::PlannedDevice;

use super::guard::Guard;
use super::live::{Live, Stop};
use super::meddle::Meddler;
use super::record::Record;
use super::work::{self, Findings, Work};
use crate::ctx::TaskCtx;

/// An agent that died so often in one group would die again.
const MOST_BEGINNINGS: u32 = 3;

/// A step that has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) report: StepReport,
    #[serde(default)]
    pub(super) devices: Vec<DeviceResult>,
    #[serde(default)]
    pub(super) changed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) steps: Vec<StepReport>,
    pub(super) devices: Vec<DeviceResult>,
    pub(super) changed: bool,
}

/// # Errors
/// When a step cannot be made ready; nothing was begun then.
pub(super) fn carry_out(
    scenario: &Scenario,
    permitted: &[PlannedDevice],
    record: &mut Record,
    ctx: &TaskCtx,
    meddler: &Arc<dyn Meddler>,
) -> Result<Ran, Fault> {
    let works = scenario.steps().map(|step| work::of(step, meddler)).collect::<Result<Vec<_>, Fault>>()?;
    let mut ready = works.into_iter();
    let mut ran = Ran::default();
    let mut ended: Option<String> = None;
    for (n, entry) in scenario.steps.iter().enumerate() {
        let steps = entry.steps();
        let first = ran.steps.len();
        let works: Vec<Box<dyn Work>> = ready.by_ref().take(steps.len()).collect();
        let group = if let Some(finished) = record.finished(n) {
            finished
        } else if let Some(why) = &ended {
            steps.iter().map(|step| not_begun(step, why)).collect()
        } else if record.begin(n, ctx) > MOST_BEGINNINGS {
            let why = format!("the agent ended {MOST_BEGINNINGS} times in the middle of it, so it is not begun again");
            let group: Vec<Ended> = steps.iter().map(|step| not_begun(step, &why)).collect();
            record.end(n, &group, ctx);
            group
        } else {
            let (stops, again) = (scenario.stop_on_first_fault, record.begun_again(n));
            let group = run_group(steps, &works, permitted, stops, again, ctx);
            if ctx.cancel.is_cancelled() {
                ended = Some("the task was cancelled before it".into());
            } else if scenario.stop_on_first_fault
                && let Some(failed) = group.iter().find(|s| matches!(s.report.verdict, Verdict::Failed { .. }))
            {
                ended = Some(format!("a fault was found in {} before it", failed.report.name));
            }
            record.end(n, &group, ctx);
            group
        };
        for (i, mut step) in group.into_iter().enumerate() {
            step.report.number = first + i;
            ran.changed |= step.changed;
            ran.devices.extend(step.devices);
            ran.steps.push(step.report);
        }
    }
    Ok(ran)
}

fn run_group(
    steps: &[Step],
    works: &[Box<dyn Work>],
    permitted: &[PlannedDevice],
    stop_on_first_fault: bool,
    again: bool,
    ctx: &TaskCtx,
) -> Vec<Ended> {
    let stop = Stop::default();
    for step in steps {
        ctx.reporter.step_began(step.title());
    }
    let lives: Vec<Live<'_>> =
        steps.iter().map(|step| Live::new(ctx, step, permitted, &stop, stop_on_first_fault)).collect();
    let guard = Guard::set(&ctx.roots);
    let began = Timestamp::now();
    let (found, seen) = thread::scope(|scope| {
        let (working_still, done) = mpsc::channel();
        let watching = scope.spawn({
            let (guard, lives) = (&guard, &lives);
            move || guard.watch(lives, &done)
        });
        let working: Vec<_> = lives
            .iter()
            .zip(works)
            .map(|(live, work)| {
                scope.spawn(move || {
                    let found = work.run(live);
                    (found, live.seconds(), Timestamp::now())
                })
            })
            .collect();
        let found: Vec<_> = working.into_iter().map(thread::ScopedJoinHandle::join).collect();
        drop(working_still);
        (found, watching.join())
    });
    let seen =
        seen.unwrap_or_else(|_| Findings::inconclusive("watching the kernel's counters panicked: a bug of ours"));
    let mut group = Vec::new();
    for (live, found) in lives.iter().zip(found) {
        let (found, seconds, ended) = found.unwrap_or_else(|_| {
            (Findings::inconclusive("it panicked: a bug of ours"), live.seconds(), Timestamp::now())
        });
        let mut step = conclude(live, found, &seen, (began, ended), seconds);
        if again {
            step.report.notices.insert(0, "begun again: the agent ended in the middle of it before".into());
        }
        ctx.reporter.step_ended(live.step.title(), &told(&step.report));
        group.push(step);
    }
    group
}

fn conclude(
    live: &Live<'_>,
    mut found: Findings,
    seen: &Findings,
    (began, ended): (Timestamp, Timestamp),
    seconds: f64,
) -> Ended {
    let step = live.step;
    let mut limits: Vec<Limit> = step.limits.iter().cloned().chain(step.kind.default_limits()).collect();
    found.measurements.extend(seen.measurements.iter().cloned());
    found.unread.extend(seen.unread.iter().cloned());
    found.notices.extend(seen.notices.iter().cloned());
    found.inconclusive.extend(seen.inconclusive.iter().cloned());
    if let Some(why) = live.cut_short().filter(|_| seconds < f64::from(step.duration.0)) {
        // What there should be at least, there was no time for.
        for limit in &mut limits {
            limit.min = None;
        }
        limits.retain(|limit| limit.max.is_some());
        found.inconclusive.push(format!("ended after {seconds:.0} s of {} s: {why}", step.duration.0));
    }
    let verdict = match (judge(&found.measurements, &limits, &found.inconclusive), found.skipped) {
        // What the kernel reported meanwhile is a fault all the same.
        (failed @ Verdict::Failed { .. }, _) | (failed, None) => failed,
        (_, Some(why)) => Verdict::Skipped { because: vec![why] },
    };
    let report = StepReport {
        number: 0,
        name: step.title().to_owned(),
        step: step.kind.word().to_owned(),
        began,
        ended,
        seconds,
        verdict,
        required: step.required,
        limits,
        measurements: found.measurements,
        unread: found.unread,
        notices: found.notices,
        output: found.output,
    };
    Ended { report, devices: found.devices, changed: found.changed }
}

fn not_begun(step: &Step, why: &str) -> Ended {
    let now = Timestamp::now();
    let report = StepReport {
        number: 0,
        name: step.title().to_owned(),
        step: step.kind.word().to_owned(),
        began: now,
        ended: now,
        seconds: 0.0,
        verdict: Verdict::Inconclusive { because: vec![format!("not begun: {why}")] },
        required: step.required,
        limits: Vec::new(),
        measurements: Vec::new(),
        unread: Vec::new(),
        notices: Vec::new(),
        output: None,
    };
    Ended { report, devices: Vec::new(), changed: false }
}

fn told(report: &StepReport) -> String {
    let reasons = report.verdict.reasons();
    match reasons.as_slice() {
        [] => format!("{} after {:.0} s", report.verdict.name(), report.seconds),
        [only] => format!("{}: {only}", report.verdict.name()),
        [first, rest @ ..] => format!("{}: {first}, and {} more", report.verdict.name(), rest.len()),
    }
}
