//! What all tasks on one disk have in common: choosing, claiming, holding against the plan, and summing up.

use std::path::Path;

use serde_json::Value;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::{self, RootDeviceHints};
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, DeviceResult, Outcome, TaskResult};
use speediso_model::plan::{Action, DiskIdentity, Plan, PlanDigest, PlannedDevice};
use speediso_sys::blkid;
use speediso_sys::claim::{ClaimedDisk, DiskError};
use speediso_sys::disks;

use crate::ctx::TaskCtx;
use crate::raid::members;

/// All disks of the machine; those to be skipped are marked, so that nobody chooses them.
pub(crate) fn read_disks(ctx: &TaskCtx) -> Result<Vec<Disk>, Fault> {
    let mut disks = disks::read(&ctx.roots, ctx.scope)
        .map_err(|e| Fault::from_error(FaultCode::Io, &e).because("listing the disks in /sys/block"))?;
    ctx.skip.mark(&mut disks);
    Ok(disks)
}

/// A plan for one disk, with what stands on it now.
pub(crate) fn plan_for(
    kind: &str,
    hints: &RootDeviceHints,
    ctx: &TaskCtx,
    actions: impl FnMut(&Disk) -> Result<Vec<Action>, Fault>,
) -> Result<Plan, Fault> {
    plan_for_all(kind, &[hints], ctx, actions)
}

/// A plan for several disks, one for each of the hints.
pub(crate) fn plan_for_all(
    kind: &str,
    hints: &[&RootDeviceHints],
    ctx: &TaskCtx,
    mut actions: impl FnMut(&Disk) -> Result<Vec<Action>, Fault>,
) -> Result<Plan, Fault> {
    let all = read_disks(ctx)?;
    let mut devices: Vec<PlannedDevice> = Vec::new();
    for hints in hints {
        let disk = hints.resolve(&all)?;
        let identity = DiskIdentity::of(disk);
        if devices.iter().any(|device| device.identity == identity) {
            return Err(Fault::new(FaultCode::AmbiguousDisk, format!("{} is named twice", hints::describe(disk))));
        }
        devices.push(PlannedDevice {
            identity,
            seen_as: disk.name.clone(),
            actions: actions(disk)?,
            found: signatures(ctx, &disk.name),
        });
    }
    let plan = Plan { task: kind.to_owned(), destructive: true, devices, effects: Vec::new(), untouched: Vec::new() };
    let why = |disk: &Disk| match hints {
        [hints] => hints.explain(&all).0.of(&disk.name).map(hints::Considered::why),
        _ => None,
    };
    Ok(plan.with_untouched_because(&all, why))
}

/// What libblkid finds, for people; never a reason to do or not to do something.
pub(crate) fn signatures(ctx: &TaskCtx, device: &str) -> Vec<String> {
    let Some(probe) = &ctx.probe else { return Vec::new() };
    match blkid::probe_in_child(probe, Path::new(device)) {
        Ok(found) => found,
        Err(error) => vec![format!("could not be probed: {error}")],
    }
}

/// Refuses unless the plan, made again, is the one that was permitted.
pub(crate) fn hold_to(expected: &PlanDigest, plan: &Plan) -> Result<(), Fault> {
    if plan.digest() == *expected {
        return Ok(());
    }
    Err(Fault::new(
        FaultCode::PlanMismatch,
        format!("the plan is now {}, not the one that was permitted ({expected})", plan.digest()),
    )
    .because(plan.to_string()))
}

/// How a task on one disk ended.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) changed: Option<Changed>,
    pub(crate) used: String,
    pub(crate) fault: Option<Fault>,
    pub(crate) facts: Value,
}

impl Ended {
    pub(crate) fn verified(changed: Changed, used: impl Into<String>, facts: Value) -> Self {
        Self { outcome: Outcome::Verified, changed: Some(changed), used: used.into(), fault: None, facts }
    }

    /// Of a disk that went away in the middle nobody can say what it holds.
    pub(crate) fn failed(outcome: Outcome, used: impl Into<String>, fault: Fault) -> Self {
        let gone = outcome == Outcome::FailedChanged && fault.code == FaultCode::DiskVanished;
        let outcome = if gone { Outcome::Unknown } else { outcome };
        Self { outcome, changed: None, used: used.into(), fault: Some(fault), facts: Value::Null }
    }

    pub(crate) fn unchanged(fault: Fault) -> Self {
        Self::failed(Outcome::FailedUnchanged, "none", fault)
    }
}

/// Claims the disk of the plan, makes the plan again, and only then lets `act` have it.
pub(crate) fn execute_on(
    asked: &str,
    hints: &RootDeviceHints,
    expected: &PlanDigest,
    ctx: &TaskCtx,
    plan: impl FnOnce() -> Result<Plan, Fault>,
    act: impl FnOnce(&ClaimedDisk) -> Ended,
) -> TaskResult {
    let claimed = plan().and_then(|plan| {
        hold_to(expected, &plan)?;
        let [device] = plan.devices.as_slice() else {
            return Err(Fault::new(FaultCode::Internal, "a plan for one disk names several"));
        };
        ctx.cancel.check()?;
        ClaimedDisk::claim(&ctx.roots, ctx.scope, &device.identity, hints.allow_removable)
    });
    match claimed {
        Ok(disk) => TaskResult::from_devices(asked, vec![device_result(&disk, act(&disk), ctx)]),
        Err(fault) => TaskResult::failed(asked, Outcome::FailedUnchanged, fault),
    }
}

pub(crate) fn device_result(disk: &ClaimedDisk, ended: Ended, ctx: &TaskCtx) -> DeviceResult {
    let ended = members::hold(disk, ended, ctx);
    DeviceResult {
        identity: disk.identity().clone(),
        seen_as: disk.name().to_owned(),
        outcome: ended.outcome,
        changed: ended.changed,
        used: ended.used,
        fault: ended.fault,
        facts: ended.facts,
    }
}

/// Turns a disk's error into its fault.
pub(crate) trait OnDisk<T> {
    fn on(self, disk: &ClaimedDisk) -> Result<T, Fault>;
}

impl<T> OnDisk<T> for Result<T, DiskError> {
    fn on(self, disk: &ClaimedDisk) -> Result<T, Fault> {
        self.map_err(|e| disk.fault(&e))
    }
}

/// MiB/s, for people.
pub(crate) fn mib_per_second(bytes: u64, elapsed: std::time::Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = bytes as f64 / 1_048_576.0 / elapsed.as_secs_f64().max(0.001);
    (rate * 10.0).round() / 10.0
}
