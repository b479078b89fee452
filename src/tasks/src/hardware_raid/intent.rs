//! What a task means on this machine: which controller, what is to be done there, and which disks of the system go.

use std::path::Path;

use serde_json::{Value, json};
use speediso_hwraid::quirks::{self, ControllerRule, Family};
use speediso_hwraid::{
    Adaptor, Goal, PciFunction, Refusal, Tool as _, ToolError, View, Volume, Waits, bare_wwn, resolve,
};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hardware_raid::HardwareRaidTask;
use speediso_model::hints::{Rejection, describe, unusable};
use speediso_model::inventory::Disk;
use speediso_model::plan::{Action, DiskIdentity, Plan, PlannedDevice};
use speediso_model::units::Bytes;
use speediso_sys::pci;

use super::KIND;
use super::program::Program;
use crate::ctx::TaskCtx;
use crate::single::{read_disks, signatures};

const HOW_TO_ADD: &str = "add the tool to the ramdisk as docs/hardware-raid.md says, and order again";

pub(super) struct Intent {
    pub(super) plan: Plan,
    pub(super) goal: Goal,
    pub(super) view: View,
    pub(super) program: Program,
    /// Disks of the system that go away.
    pub(super) lost: Vec<Disk>,
    family: Family,
    function: PciFunction,
}

/// A controller that the kernel has and its tool shows.
struct Found {
    function: PciFunction,
    family: Family,
    program: Program,
    view: View,
}

pub(super) fn intend(task: &HardwareRaidTask, ctx: &TaskCtx) -> Result<Intent, Fault> {
    let Found { function, family, program, view } = find(task, ctx)?;
    let adaptor = family.adaptor();
    let goal = resolve(task, &view, adaptor.keeps_names()).map_err(|refusal| refused(&refusal, &view))?;
    let waits = |e: Waits| {
        let mut fault = Fault::from_error(FaultCode::Unsupported, &e);
        fault.advice = "docs/hardware-raid.md says what is done on which controller; nothing was changed".into();
        fault
    };
    let mut steps = goal.teardown(adaptor, &view).map_err(waits)?;
    steps.extend(goal.creation(adaptor, &view).map_err(waits)?);
    if goal.boot.is_some() {
        // The volume may have no number yet; whether the tool can be told at all does not depend on it.
        steps.extend(goal.booting(adaptor, &view, "new").map_err(waits)?);
    }
    let all = read_disks(ctx)?;
    let below = below(ctx, &function.address)?;
    let here: Vec<&Disk> = all.iter().filter(|d| below.contains(&kernel_name(d))).collect();
    let lost: Vec<Disk> = here.into_iter().filter(|disk| goes(disk, &goal, &view)).cloned().collect();
    for disk in &lost {
        if let Some(Rejection::Unusable { code, reason }) = unusable(disk, true) {
            return Err(Fault::new(code, format!("{} would go away with its volume, but {reason}", describe(disk))));
        }
    }
    // Not its status: a battery that learns would change the plan.
    let mut effects =
        vec![format!("controller {} at {}, firmware {}", view.controller, function.address, view.controller.firmware)];
    effects.extend(goal.reasons.iter().map(|reason| format!("because {reason}")));
    effects.extend(steps.iter().map(|step| step.what.clone()));
    effects.extend(goal.kept.iter().map(|volume| format!("{volume} on {} stays", volume.members.join(", "))));
    if goal.is_met() {
        effects.push("everything is as wished; nothing is changed".into());
    }
    let device = |disk: &Disk| PlannedDevice {
        identity: DiskIdentity::of(disk),
        seen_as: disk.name.clone(),
        actions: vec![Action { what: "goes away with all it holds".into(), offset: Bytes(0), length: disk.size }],
        found: signatures(ctx, &disk.name),
    };
    let plan = Plan {
        task: KIND.to_owned(),
        destructive: true,
        devices: lost.iter().map(device).collect(),
        effects,
        untouched: Vec::new(),
    };
    Ok(Intent { plan: plan.with_untouched(&all), goal, view, program, lost, family, function })
}

fn refused(refusal: &Refusal, view: &View) -> Fault {
    let code = match refusal {
        Refusal::Ambiguous { .. } | Refusal::SameSerial { .. } => FaultCode::AmbiguousDisk,
        Refusal::TooFew { .. } | Refusal::Drive { .. } | Refusal::Mixed { .. } => FaultCode::NoMatchingDisk,
        Refusal::TooLarge { .. } => FaultCode::DiskTooSmall,
        Refusal::Differs { .. } | Refusal::PreservedCache => FaultCode::DiskInUse,
        Refusal::HbaMode { .. } => FaultCode::Unsupported,
    };
    let mut fault = Fault::from_error(code, refusal);
    fault.causes.extend(refusal.causes().iter().cloned());
    fault.causes.push(format!("on {}", view.controller));
    fault.advice = refusal.advice().into();
    fault
}

/// The one controller that is meant, with its tool and what that shows.
fn find(task: &HardwareRaidTask, ctx: &TaskCtx) -> Result<Found, Fault> {
    let functions = pci::storage_controllers(&ctx.roots)
        .map_err(|e| Fault::from_error(FaultCode::Io, &e).because("listing the PCI bus"))?;
    let known: Vec<(PciFunction, &ControllerRule)> =
        functions.into_iter().map(from_sys).filter_map(|f| Some((f.clone(), quirks::recognise(&f)?))).collect();
    let hints = task.controller.clone().unwrap_or_default();
    let at = |f: &PciFunction| hints.pci_address.as_ref().is_none_or(|a| a.eq_ignore_ascii_case(&f.address));
    let meant: Vec<&(PciFunction, &ControllerRule)> = known.iter().filter(|(f, _)| at(f)).collect();
    if meant.is_empty() {
        let mut fault = Fault::new(FaultCode::Unsupported, "there is no hardware RAID controller here that is meant");
        fault.causes = known.iter().map(|(f, rule)| named(f, rule)).collect();
        fault.advice = "compare the order's controller with those listed".into();
        return Err(fault);
    }
    // Without a serial number all of them must be looked at only if there is one.
    if meant.len() > 1 && hints.serial.is_none() {
        return Err(ambiguous(meant.iter().map(|(f, rule)| named(f, rule)).collect()));
    }
    let mut found = Vec::new();
    let mut others = Vec::new();
    for (function, rule) in meant {
        let alike = known.iter().filter(|(_, r)| r.family == rule.family).count();
        let one = look(function, rule, alike, ctx)?;
        let serial = &one.view.controller.serial;
        match &hints.serial {
            Some(wanted) if !wanted.trim().eq_ignore_ascii_case(serial) => others.push(one.view.controller.to_string()),
            _ => found.push(one),
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (Some(one), false) => {
            Err(ambiguous(found.iter().chain([&one]).map(|f| f.view.controller.to_string()).collect()))
        }
        (None, _) => {
            let serial = hints.serial.unwrap_or_default();
            let mut fault =
                Fault::new(FaultCode::Unsupported, format!("no controller here has serial number {serial}"));
            fault.causes = others;
            fault.advice = "compare the order's controller with those listed".into();
            Err(fault)
        }
    }
}

fn from_sys(f: pci::Function) -> PciFunction {
    PciFunction {
        address: f.address,
        vendor: f.vendor,
        device: f.device,
        subsystem_vendor: f.subsystem_vendor,
        driver: f.driver,
    }
}

fn named(function: &PciFunction, rule: &ControllerRule) -> String {
    format!("{} at {} [{:04x}:{:04x}]", rule.name, function.address, function.vendor, function.device)
}

fn ambiguous(causes: Vec<String>) -> Fault {
    let mut fault = Fault::new(
        FaultCode::AmbiguousDisk,
        format!("{} controllers are here, and the order names none", causes.len()),
    );
    fault.causes = causes;
    fault.advice = "name the controller by its PCI address or serial number".into();
    fault
}

/// Asks the controller's tool. `alike` is how many of its family the kernel has.
fn look(function: &PciFunction, rule: &ControllerRule, alike: usize, ctx: &TaskCtx) -> Result<Found, Fault> {
    let Some(family) = rule.family else {
        let mut fault =
            Fault::new(FaultCode::Unsupported, format!("{} has no adaptor in this version", named(function, rule)));
        fault.advice = "use software RAID, or configure it in its own setup".into();
        return Err(fault);
    };
    let files = family.files();
    // The tree that the live system has beside its /sys; in a test, the test's own.
    let root = ctx.roots.sys.parent().unwrap_or(Path::new("/"));
    let Some(program) = Program::find(files, root) else {
        let text = format!(
            "{} is configured by {}, which is not in this live system",
            named(function, rule),
            files.comes_from
        );
        let mut fault = Fault::new(FaultCode::ToolMissing, text);
        fault.causes = vec![format!("looked for {}", files.paths.join(", "))];
        fault.advice = HOW_TO_ADD.into();
        return Err(fault);
    };
    let views = family.adaptor().look(&program).map_err(|e| told(&e))?;
    let view = this_one(function, alike, views)?;
    Ok(Found { function: function.clone(), family, program, view })
}

/// Which of the tool's controllers the kernel's function is.
fn this_one(function: &PciFunction, alike: usize, mut views: Vec<View>) -> Result<View, Fault> {
    let is_it = |v: &View| v.controller.pci_addresses.contains(&function.address);
    let at: Vec<usize> = (0..views.len()).filter(|i| is_it(&views[*i])).collect();
    match at.as_slice() {
        [i] => return Ok(views.swap_remove(*i)),
        // One here and one there are the same, if the tool does not say that it is elsewhere.
        [] if alike == 1 && views.len() == 1 && views[0].controller.pci_addresses.is_empty() => {
            return Ok(views.swap_remove(0));
        }
        _ => {}
    }
    let text = format!("the tool shows no controller that is surely the one at {}", function.address);
    let mut fault = Fault::new(FaultCode::AmbiguousDisk, text);
    fault.causes =
        views.iter().map(|v| format!("{} at {}", v.controller, v.controller.pci_addresses.join(" or "))).collect();
    fault.advice = "compare the tool's listing with lspci; nothing was changed".into();
    Err(fault)
}

fn told(error: &ToolError) -> Fault {
    let mut fault = Fault::from_error(FaultCode::ToolFailed, error);
    if let ToolError::NotUnderstood { printed, .. } | ToolError::Declined { printed, .. } = error {
        fault.causes.push(printed.clone());
    }
    fault
}

fn kernel_name(disk: &Disk) -> String {
    disk.name.rsplit('/').next().unwrap_or_default().to_owned()
}

fn below(ctx: &TaskCtx, address: &str) -> Result<Vec<String>, Fault> {
    pci::disks_below(&ctx.roots, address)
        .map_err(|e| Fault::from_error(FaultCode::Io, &e).because("listing the disks in /sys/block"))
}

/// Whether a disk of this controller goes away. One that cannot be told stays only if nothing is taken away.
fn goes(disk: &Disk, goal: &Goal, view: &View) -> bool {
    let wwn = disk.wwn.as_deref().and_then(bare_wwn);
    let same = |other: &Option<String>| wwn.is_some() && *other == wwn;
    if let Some(volume) = view.volumes.iter().find(|v| same(&v.wwn)) {
        return goal.delete.iter().any(|gone| gone.id == volume.id);
    }
    let used = || goal.create.iter().flat_map(|new| new.drives.iter().chain(&new.spares));
    let serial = disk.serial.trim();
    let is_drive = |d: &speediso_hwraid::Drive| same(&d.wwn) || (!serial.is_empty() && d.serial == serial);
    if let Some(drive) = view.drives.iter().find(|d| is_drive(d)) {
        return used().any(|d| d.slot == drive.slot);
    }
    !goal.delete.is_empty() || !goal.make_good.is_empty() || used().any(|d| d.exposed)
}

impl Intent {
    pub(super) fn adaptor(&self) -> &'static dyn Adaptor {
        self.family.adaptor()
    }

    pub(super) fn look_again(&self, adaptor: &dyn Adaptor) -> Result<View, Fault> {
        let views = adaptor.look(&self.program).map_err(|e| told(&e))?;
        let same =
            |v: &View| v.controller.id == self.view.controller.id && v.controller.serial == self.view.controller.serial;
        views.into_iter().find(same).ok_or_else(|| {
            let text = format!("{} is no longer listed by {}", self.view.controller, self.program.name());
            Fault::new(FaultCode::ToolFailed, text)
        })
    }

    /// The kernel's disk of a volume, once there is one.
    pub(super) fn kernel_disk(&self, ctx: &TaskCtx, volume: &Volume) -> Result<Option<Disk>, Fault> {
        let below = below(ctx, &self.function.address)?;
        let is_size = |disk: &Disk| {
            let slack = volume.size.within.saturating_add(volume.size.bytes / 100);
            disk.size.0.abs_diff(volume.size.bytes) <= slack
        };
        let is_name = |disk: &Disk| match (&volume.wwn, disk.wwn.as_deref().and_then(bare_wwn)) {
            (Some(wanted), Some(found)) => *wanted == found,
            // A controller that gives no name: the size must do, and it is not a disk from before.
            (None, _) => !self.lost.iter().any(|gone| gone.diskseq == disk.diskseq && gone.name == disk.name),
            (Some(_), None) => false,
        };
        Ok(read_disks(ctx)?.into_iter().find(|d| below.contains(&kernel_name(d)) && is_name(d) && is_size(d)))
    }

    pub(super) fn method(&self) -> String {
        if self.goal.is_met() {
            return format!("{}: looked, nothing to do", self.program.name());
        }
        format!("{}, judged by its listing and the kernel's disks; quirks {}", self.program.name(), quirks::version())
    }

    /// What the task yields: the controller as it is now, and by what later tasks can name the disks of its volumes.
    pub(super) fn report(&self, ctx: &TaskCtx, now: &View) -> Value {
        let disk = |volume: &Volume| self.kernel_disk(ctx, volume).ok().flatten();
        let volumes: Vec<Value> = now
            .volumes
            .iter()
            .map(|v| {
                let disk = disk(v);
                json!({
                    "id": v.id, "name": v.name, "level": v.level.to_string(), "size": v.size.bytes,
                    "drives": v.members, "wwn": v.wwn,
                    "disk": disk.as_ref().map(|d| &d.name), "serial": disk.as_ref().map(|d| &d.serial),
                })
            })
            .collect();
        json!({
            "controller": now.controller, "pci_address": self.function.address, "tool": self.program.name(),
            "quirks": quirks::version(), "volumes": volumes, "drives": now.drives, "foreign": now.foreign,
        })
    }
}
