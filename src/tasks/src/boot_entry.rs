//! Making the firmware boot the disk.
//!
//! Of a mirror every member gets its entry, so that the machine boots whichever disk is lost.
//!
//! Under UEFI: the loader is looked for in the disk's EFI system partition, an entry for it is written, older entries of
//! the same meaning are removed, and everything is read back. Under a BIOS there is no entry to write; what can be
//! seen is whether the disk has boot code.

mod array;
mod esp;
mod firmware;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use serde_json::json;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, DeviceResult, Outcome, TaskResult};
use speediso_model::plan::{DiskIdentity, Plan, PlanDigest, PlannedDevice};
use speediso_model::task::BootEntryTask;
use speediso_sys::{disks, efi};

use crate::ctx::TaskCtx;
use crate::single::{Ended, hold_to, read_disks};

const KIND: &str = "boot_entry";
/// Partition table and disk signature of an MBR begin here; what stands before is boot code.
const BOOT_CODE: usize = 440;

/// What would be done, worked out without changing anything.
struct Intent {
    plan: Plan,
    disk: Disk,
    way: Way,
}

enum Way {
    Firmware(Box<firmware::Change>),
    BootCode,
}

pub(crate) fn plan(task: &BootEntryTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    match intend(task, ctx) {
        Ok(intent) => Ok(intent.plan),
        // The dry run of a whole installation comes here before the image does. Carrying this plan out is refused with
        // the very fault, as long as it holds.
        Err(fault) if matches!(fault.code, FaultCode::LoaderMissing | FaultCode::PartitionTable) => {
            let all = read_disks(ctx)?;
            let disk = task.device.resolve(&all)?;
            let effect = format!("make the firmware boot this disk once it has a boot loader; now {}", fault.message);
            Ok(plan_for(disk, vec![effect], &all))
        }
        Err(fault) => Err(fault),
    }
}

fn plan_for(disk: &Disk, effects: Vec<String>, all: &[Disk]) -> Plan {
    Plan {
        task: KIND.to_owned(),
        destructive: false,
        devices: vec![PlannedDevice {
            identity: DiskIdentity::of(disk),
            seen_as: disk.name.clone(),
            actions: Vec::new(),
            found: Vec::new(),
        }],
        effects,
        untouched: Vec::new(),
    }
    .with_untouched(all)
}

pub(crate) fn execute(task: &BootEntryTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = format!("boot entry {:?}, {:?}", task.label, task.position);
    let intent = match intend(task, ctx).and_then(|intent| hold_to(expected, &intent.plan).map(|()| intent)) {
        Ok(intent) => intent,
        Err(fault) => return TaskResult::failed(&asked, Outcome::FailedUnchanged, fault),
    };
    if let Err(fault) = ctx.cancel.check() {
        return TaskResult::failed(&asked, Outcome::FailedUnchanged, fault);
    }
    let ended = match &intent.way {
        Way::Firmware(change) => {
            ctx.reporter.step_began("firmware");
            let ended = change.carry_out(&ctx.roots);
            ctx.reporter.step_ended("firmware", &ended.used);
            ended
        }
        Way::BootCode => Ended::verified(
            Changed::AlreadySo,
            "BIOS: no firmware entry; boot code present; the boot order is the firmware setup's",
            json!({ "boot_mode": "bios" }),
        ),
    };
    TaskResult::from_devices(
        &asked,
        vec![DeviceResult {
            identity: DiskIdentity::of(&intent.disk),
            seen_as: intent.disk.name,
            outcome: ended.outcome,
            changed: ended.changed,
            used: ended.used,
            fault: ended.fault,
            facts: ended.facts,
        }],
    )
}

fn intend(task: &BootEntryTask, ctx: &TaskCtx) -> Result<Intent, Fault> {
    let all = read_disks(ctx)?;
    let disk = task.device.resolve(&all)?.clone();
    let file = open(&disk, ctx)?;
    let (way, effects) = if efi::is_uefi(&ctx.roots) {
        let loader = task.loader.as_deref();
        let targets = match disk.array {
            Some(_) => array::targets(&file, &disk, loader, &all, ctx)?,
            None => vec![esp::find(&file, &disk, loader)?],
        };
        let change = firmware::Change::towards(&ctx.roots, &task.label, task.position, targets)?;
        let effects = change.effects();
        (Way::Firmware(Box::new(change)), effects)
    } else {
        if disk.array.is_some() {
            array::check_readable_by_firmware(&disk, ctx)?;
        }
        check_boot_code(&file, &disk)?;
        (Way::BootCode, vec!["BIOS: no firmware entry to write; the disk has boot code".to_owned()])
    };
    let plan = plan_for(&disk, effects, &all);
    Ok(Intent { plan, disk, way })
}

/// Opens the disk for reading and makes sure that what was opened is what was chosen.
fn open(disk: &Disk, ctx: &TaskCtx) -> Result<File, Fault> {
    let unreadable = |e: std::io::Error| {
        Fault::from_error(FaultCode::DiskIo, &e).because(format!("looking for a boot loader on {}", describe(disk)))
    };
    let file = OpenOptions::new().read(true).open(&disk.name).map_err(unreadable)?;
    let opened = disks::identify(&ctx.roots, &file).map_err(unreadable)?;
    if DiskIdentity::of(&opened) != DiskIdentity::of(disk) {
        return Err(Fault::new(FaultCode::DiskChanged, format!("{} became {}", describe(disk), describe(&opened))));
    }
    Ok(file)
}

fn check_boot_code(file: &File, disk: &Disk) -> Result<(), Fault> {
    let mut sector = [0; 512];
    file.read_exact_at(&mut sector, 0).map_err(|e| {
        Fault::from_error(FaultCode::DiskIo, &e).because(format!("reading the start of {}", describe(disk)))
    })?;
    let missing = |what: &str| {
        Err(Fault::new(FaultCode::LoaderMissing, format!("{} {what}: a BIOS would not boot it", describe(disk))))
    };
    if sector[510..] != [0x55, 0xaa] {
        return missing("has no boot signature 55 AA in its first sector");
    }
    if sector[..BOOT_CODE].iter().all(|b| *b == 0) {
        return missing("has no boot code in its first sector");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
