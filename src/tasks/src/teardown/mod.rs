//! Taking down whatever stands on disks, and clearing what would stand up again.
//!
//! From the top: swap, mounts, mapped devices, caches, arrays. Then, on each disk, now free and claimed like for any other
//! task, the signatures, deepest first and the partition table last, so that whatever interrupts this leaves a disk of
//! which a second run still sees everything. Nothing that is found is started, mounted or executed; nothing of the
//! data itself is erased (that is a wipe's business).

mod boot;
mod chosen;
mod clear;
mod intent;
mod ties;

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Changed, DeviceResult, Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::teardown::TeardownTask;
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::fabrics;
use speediso_sys::stack::{self, StopError};

use self::clear::Cleared;
use self::intent::{Intent, Target};
use crate::ctx::TaskCtx;
use crate::single::{self, Ended};

const KIND: &str = "teardown";
const ASKED: &str = "take down what stands on the disks, clear every signature";

pub(crate) fn plan(task: &TeardownTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    Ok(intent::read(task, ctx)?.plan)
}

pub(crate) fn execute(task: &TeardownTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let intent = intent::read(task, ctx).and_then(|intent| {
        single::hold_to(expected, &intent.plan)?;
        ctx.cancel.check()?;
        Ok(intent)
    });
    match intent {
        Ok(intent) => carry_out(&intent, ctx),
        Err(fault) => TaskResult::failed(ASKED, Outcome::FailedUnchanged, fault),
    }
}

/// How far one disk is.
struct Progress<'a> {
    target: &'a Target,
    /// What is down, in words.
    gone: Vec<String>,
    fault: Option<Fault>,
    claimed: Option<ClaimedDisk>,
    cleared: Cleared,
}

impl Progress<'_> {
    fn has_changed(&self) -> bool {
        !self.gone.is_empty() || self.cleared.begun
    }
}

fn carry_out(intent: &Intent, ctx: &TaskCtx) -> TaskResult {
    let mut disks: Vec<Progress<'_>> = intent
        .targets
        .iter()
        .map(|target| Progress { target, gone: Vec::new(), fault: None, claimed: None, cleared: Cleared::default() })
        .collect();
    take_down(intent, &mut disks, ctx);
    for disk in disks.iter_mut().filter(|disk| disk.fault.is_none()) {
        match claim(disk, ctx) {
            Ok(claimed) => disk.claimed = Some(claimed),
            Err(fault) => disk.fault = Some(fault),
        }
    }
    thread::scope(|scope| {
        for disk in disks.iter_mut().filter(|disk| disk.claimed.is_some()) {
            scope.spawn(|| clear(disk, &intent.probe, ctx));
        }
    });
    // One after the other: the firmware keeps one order for all of them.
    for disk in disks.iter_mut().filter(|disk| disk.fault.is_none()) {
        for entry in intent.entries.iter().filter(|entry| entry.disk == disk.target.name) {
            match entry.remove(&ctx.roots) {
                Ok(()) => disk.gone.push(entry.to_string()),
                Err(fault) => disk.fault = Some(fault),
            }
        }
    }
    // What is held does not go: first all claims, then the controllers.
    disks.iter_mut().for_each(|disk| disk.claimed = None);
    for disk in disks.iter_mut().filter(|disk| disk.fault.is_none()) {
        disk.fault = disconnect(disk, ctx).err();
    }
    TaskResult::from_devices(ASKED, disks.into_iter().map(result).collect())
}

/// Steps that have failed keep what is below them; disks that have nothing to do with these go on.
fn take_down(intent: &Intent, disks: &mut [Progress<'_>], ctx: &TaskCtx) {
    let mut held: BTreeSet<&String> = BTreeSet::new();
    for (index, step) in intent.steps.iter().enumerate() {
        if step.disks.iter().any(|disk| held.contains(disk)) {
            continue;
        }
        let name = step.to_string();
        ctx.reporter.step_began(&name);
        let done = ctx
            .cancel
            .check()
            .and_then(|()| stack::carry_out(&ctx.roots, ctx.scope, step).map_err(|e| fault_of(&name, &e)));
        let below = disks.iter_mut().filter(|disk| step.disks.contains(&disk.target.name));
        match done {
            Ok(()) => {
                ctx.reporter.step_ended(&name, "it is gone");
                below.for_each(|disk| disk.gone.push(name.clone()));
            }
            Err(fault) => {
                held.extend(&step.disks);
                let stands: Vec<String> = intent.steps[index..]
                    .iter()
                    .filter(|s| !s.disks.is_disjoint(&step.disks))
                    .map(|s| s.device.to_string())
                    .collect();
                for disk in below {
                    let mut fault = fault.clone();
                    fault.causes.extend(disk.gone.iter().map(|gone| format!("done before: {gone}")));
                    fault.causes.extend(stands.iter().map(|device| format!("still stands: {device}")));
                    disk.fault = Some(fault);
                }
            }
        }
    }
}

fn fault_of(step: &str, error: &StopError) -> Fault {
    let code = match error {
        StopError::Busy { .. } => FaultCode::DiskInUse,
        StopError::Changed(_) => FaultCode::PlanMismatch,
        StopError::StillThere(_) => FaultCode::VerifyFailed,
        StopError::Read(_) | StopError::Declined(_) => FaultCode::Io,
    };
    let mut fault = Fault::from_error(code, error);
    fault.message = format!("could not {step}: {}", fault.message);
    if let StopError::Busy { .. } = error {
        // The general advice is to order what was just tried.
        fault.advice = "end the processes that hold it, then order the teardown again".into();
    }
    fault
}

/// The kernel lets go of the disks of what was stopped a moment later.
fn claim(disk: &Progress<'_>, ctx: &TaskCtx) -> Result<ClaimedDisk, Fault> {
    const SETTLE: Duration = Duration::from_secs(5);
    const POLL: Duration = Duration::from_millis(100);
    let begun = Instant::now();
    loop {
        let target = disk.target;
        match ClaimedDisk::claim(&ctx.roots, ctx.scope, &target.identity, target.allow_removable) {
            Err(fault) if fault.code == FaultCode::DiskInUse && !disk.gone.is_empty() && begun.elapsed() < SETTLE => {
                thread::sleep(POLL);
            }
            Err(fault) if fault.code == FaultCode::DiskInUse => {
                let mut fault = fault;
                fault.advice =
                    "something holds the disk that the kernel does not show (a program, ZFS, another name space): \
                                end it, then order the teardown again"
                        .into();
                return Err(fault);
            }
            claimed => return claimed,
        }
    }
}

fn clear(disk: &mut Progress<'_>, probe: &Path, ctx: &TaskCtx) {
    let Some(claimed) = &disk.claimed else { return };
    let name = format!("clear {}", claimed.name());
    ctx.reporter.step_began(&name);
    let cleared = &mut disk.cleared;
    let done = cleared.clear(claimed, probe, ctx).and_then(|()| nothing_stands(&disk.target.name, ctx));
    match done {
        Ok(()) => ctx.reporter.step_ended(&name, &format!("{} signatures", cleared.found.len())),
        Err(mut fault) => {
            fault.causes.extend(disk.gone.iter().map(|gone| format!("done before: {gone}")));
            disk.fault = Some(fault);
        }
    }
}

/// The kernel has forgotten the partitions, and nothing has come up again.
fn nothing_stands(name: &str, ctx: &TaskCtx) -> Result<(), Fault> {
    let stack = stack::read(&ctx.roots, ctx.scope)
        .map_err(|e| Fault::from_error(FaultCode::Io, &e).because("looking at what stands on the disks"))?;
    match stack.above(name).next() {
        None => Ok(()),
        Some(left) => Err(Fault::new(
            FaultCode::VerifyFailed,
            format!("{name} is cleared, but the kernel still has {left}; reboot the machine before the disk is used"),
        )),
    }
}

/// A controller may carry several of the disks: gone is gone.
fn disconnect(disk: &mut Progress<'_>, ctx: &TaskCtx) -> Result<(), Fault> {
    for controller in &disk.target.controllers {
        fabrics::disconnect(&ctx.roots, controller).map_err(|e| {
            Fault::from_error(FaultCode::Io, &e)
                .because(format!("{} is cleared, its controller {controller} was to be let go of", disk.target.name))
        })?;
        disk.gone.push(format!("disconnect {controller}"));
    }
    Ok(())
}

fn result(disk: Progress<'_>) -> DeviceResult {
    let has_changed = disk.has_changed();
    let ended = match disk.fault {
        None if has_changed => Ended::verified(
            Changed::Changed,
            "taken down from the top, signatures cleared and looked for again",
            json!({
                "taken_down": disk.gone,
                "signatures": disk.cleared.found,
                "cleared_bytes": disk.cleared.bytes,
                "kernel_read_the_table": disk.cleared.table_read,
                "not_covered": "the data itself: nothing is erased but what makes it known",
            }),
        ),
        None => {
            Ended::verified(Changed::AlreadySo, "looked at: nothing stood there, no signature was found", json!({}))
        }
        Some(fault) if has_changed => Ended::failed(Outcome::FailedChanged, "taking down, not finished", fault),
        Some(fault) => Ended::unchanged(fault),
    };
    disk.target.result(ended)
}
