//! One namespace over all of an NVMe controller, in place of those that it has.
//!
//! Every namespace that is a disk here has to be named and claimed, since each is a disk that is lost; one that another
//! controller sees is never touched, and one that nobody sees only if the task says so. What was done is judged by the
//! controller's own lists and by the disk that the kernel then has.

mod recreate;
#[cfg(test)]
mod tests;
mod wish;

use std::time::Duration;

use serde_json::json;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::{RootDeviceHints, describe};
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, DeviceResult, Outcome, TaskResult};
use speediso_model::plan::{Action, DiskIdentity, Plan, PlanDigest};
use speediso_model::task::NvmeNamespacesTask;
use speediso_model::units::Bytes;
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::nvme_controller::{ClaimedController, ControllerPeek, Local, Shown};
use speediso_sys::passthrough::{CommandError, Passthrough, nvme};
use speediso_sys::peek::Peek;

use self::recreate::{Controller, recreate};
use self::wish::Wish;
use crate::ctx::TaskCtx;
use crate::single::{self, Ended};

const KIND: &str = "nvme_namespaces";

/// What is to be done, and to which controller.
struct Intent {
    plan: Plan,
    local: Local,
    wish: Wish,
}

pub(crate) fn plan(task: &NvmeNamespacesTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    intend(task, ctx).map(|intent| intent.plan)
}

fn intend(task: &NvmeNamespacesTask, ctx: &TaskCtx) -> Result<Intent, Fault> {
    let mut local: Option<Local> = None;
    let mut named = Vec::new();
    let hints: Vec<&RootDeviceHints> = task.devices.iter().collect();
    let mut plan = single::plan_for_all(KIND, &hints, ctx, |disk| {
        let its = Local::of_disk(&ctx.roots, disk)?;
        if let Some(other) = local.as_ref().filter(|other| **other != its) {
            let message = format!("{} is of {its}, another disk of the task of {other}", describe(disk));
            return Err(Fault::new(FaultCode::TaskInvalid, message).because("one controller is one task"));
        }
        local = Some(its);
        let id = Peek::open(&ctx.roots, disk)?.nvme_namespace().map_err(|e| asked(&e))?;
        named.push(id);
        let what = format!("delete namespace {id} (everything on it is lost)");
        Ok(vec![Action { what, offset: Bytes(0), length: disk.size }])
    })?;
    let local = match (&task.controller, local) {
        (Some(serial), Some(local)) if !serial.trim().eq_ignore_ascii_case(&local.serial) => {
            let message = format!("the disks named are of {local}, the task names controller {serial:?}");
            return Err(Fault::new(FaultCode::TaskInvalid, message));
        }
        (_, Some(local)) => local,
        (Some(serial), None) => Local::by_serial(&ctx.roots, serial)?,
        (None, None) => return Err(Fault::new(FaultCode::TaskInvalid, "no disk and no controller is named")),
    };
    let peek = ControllerPeek::open(&ctx.roots, &local)?;
    let wish = Wish::of(task, &local.to_string(), &named, &peek)?;
    if wish.is_so() {
        for device in &mut plan.devices {
            for action in &mut device.actions {
                action.what = "it is the only namespace already, and as large as can be: nothing is done".into();
            }
        }
    }
    plan.effects = wish.effects(&local.to_string());
    Ok(Intent { plan, local, wish })
}

fn asked(error: &CommandError) -> Fault {
    Fault::from_error(FaultCode::DiskIo, error)
}

pub(crate) fn execute(task: &NvmeNamespacesTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = format!("one namespace with sectors of {} bytes over the whole controller", task.sector_size);
    let claimed = intend(task, ctx).and_then(|intent| {
        single::hold_to(expected, &intent.plan)?;
        ctx.cancel.check()?;
        let mut disks = Vec::new();
        for (planned, hints) in intent.plan.devices.iter().zip(&task.devices) {
            disks.push(ClaimedDisk::claim(&ctx.roots, ctx.scope, &planned.identity, hints.allow_removable)?);
        }
        let controller = ClaimedController::of(&ctx.roots, &intent.local, disks)?;
        let named = intent.wish.attached.clone();
        // Once more, of what is held.
        let now = Wish::of(task, &intent.local.to_string(), &named, &controller)?;
        if now != intent.wish {
            let message = format!("{} answers otherwise than when the plan was made", intent.local);
            return Err(Fault::new(FaultCode::PlanMismatch, message));
        }
        Ok((intent, controller))
    });
    let (intent, controller) = match claimed {
        Ok(claimed) => claimed,
        Err(fault) => return TaskResult::failed(&asked, Outcome::FailedUnchanged, fault),
    };
    let mut controller = Held { controller, name: intent.local.to_string() };
    let ended = recreate(&intent.wish, &mut controller, ctx);
    TaskResult::from_devices(&asked, results(&intent, &ended))
}

/// The disks that were, each with the end of all of them; where there was none, the controller.
fn results(intent: &Intent, ended: &Ended) -> Vec<DeviceResult> {
    let result = |identity: DiskIdentity, seen_as: String| DeviceResult {
        identity,
        seen_as,
        outcome: ended.outcome,
        changed: ended.changed,
        used: ended.used.clone(),
        fault: ended.fault.clone(),
        facts: ended.facts.clone(),
    };
    if intent.plan.devices.is_empty() {
        let local = &intent.local;
        let none = Disk { serial: local.serial.clone(), model: local.model.clone(), ..Disk::default() };
        return vec![result(DiskIdentity::of(&none), local.name.clone())];
    }
    intent.plan.devices.iter().map(|device| result(device.identity.clone(), device.seen_as.clone())).collect()
}

/// A claimed controller under its name for people.
struct Held {
    controller: ClaimedController,
    name: String,
}

impl Controller for Held {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> &dyn Passthrough {
        &self.controller
    }

    fn rescan(&mut self) -> Result<(), CommandError> {
        self.controller.release();
        self.controller.rescan()
    }

    fn shown(&self, namespace: u32) -> Option<Shown> {
        self.controller.shown(namespace)
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// For the result: what there is now.
fn facts(wish: &Wish, id: u32, blocks: u64) -> serde_json::Value {
    json!({
        "namespace": id,
        "size": blocks * u64::from(wish.format.bytes),
        "sector_size": wish.format.bytes,
        "lba_format": wish.format.index,
        "deleted": wish.doomed(),
    })
}

fn already(wish: &Wish) -> Ended {
    let namespace = wish.attached.first().copied().unwrap_or_default();
    let facts = json!({"namespace": namespace, "sector_size": wish.format.bytes, "deleted": []});
    Ended::verified(Changed::AlreadySo, "there was one namespace, of this sector size and over all of it", facts)
}

fn namespaces(device: &dyn Passthrough) -> Result<Vec<(u32, bool)>, Fault> {
    nvme::namespaces(device).map_err(|e| asked(&e))
}
