//! What would be done, from what is there now.

use std::collections::BTreeSet;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_model::outcome::DeviceResult;
use speediso_model::plan::{Action, DiskIdentity, Plan, PlannedDevice};
use speediso_model::stack::{Stack, Step};
use speediso_model::teardown::TeardownTask;
use speediso_model::units::Bytes;
use speediso_sys::blkid::{self, ProbeError, Survey};
use speediso_sys::fabrics::{self, Controller};
use speediso_sys::roots::Roots;
use speediso_sys::stack;

use super::boot::{self, Pointing};
use super::chosen::{Chosen, choose};
use super::{KIND, clear, ties};
use crate::ctx::TaskCtx;
use crate::single::{self, Ended};

/// A disk of the task.
pub(super) struct Target {
    pub(super) identity: DiskIdentity,
    /// As sysfs calls it.
    pub(super) name: String,
    pub(super) allow_removable: bool,
    /// To be let go of afterwards.
    pub(super) controllers: Vec<Controller>,
    seen_as: String,
}

impl Target {
    pub(super) fn result(&self, ended: Ended) -> DeviceResult {
        DeviceResult {
            identity: self.identity.clone(),
            seen_as: self.seen_as.clone(),
            outcome: ended.outcome,
            changed: ended.changed,
            used: ended.used,
            fault: ended.fault,
            facts: ended.facts,
        }
    }
}

pub(super) struct Intent {
    pub(super) plan: Plan,
    pub(super) targets: Vec<Target>,
    pub(super) steps: Vec<Step>,
    pub(super) entries: Vec<Pointing>,
    /// The program that looks at disks as a child.
    pub(super) probe: PathBuf,
}

pub(super) fn read(task: &TeardownTask, ctx: &TaskCtx) -> Result<Intent, Fault> {
    let Some(probe) = ctx.probe.clone() else {
        return Err(Fault::new(FaultCode::ToolMissing, "there is no program to look at the disks with"));
    };
    let all = single::read_disks(ctx)?;
    let chosen = choose(&task.devices, &all)?;
    let named: BTreeSet<String> = chosen.iter().map(|c| kernel_name(&ctx.roots, c.disk)).collect();
    let stack = stack::read(&ctx.roots, ctx.scope)
        .map_err(|e| Fault::from_error(FaultCode::Io, &e).because("looking at what stands on the disks"))?;
    let steps = stack.take_down(&named, task.unmount).map_err(|fault| explained(fault, &stack, &named, &all, ctx))?;

    let disks: Vec<&Disk> = chosen.iter().map(|c| c.disk).collect();
    let surveys = survey_all(&probe, &disks).into_iter().zip(&disks);
    let surveys = surveys.map(|(survey, disk)| survey.map_err(|e| unsurveyed(disk, &e)));
    let surveys: Vec<Survey> = surveys.collect::<Result<_, _>>()?;
    let together: Vec<(&Disk, &Survey)> = chosen.iter().map(|c| c.disk).zip(&surveys).collect();
    ties::refuse_strangers(&probe, &together, &all)?;
    let entries = boot::pointing(ctx, &chosen, &all)?;
    let targets: Vec<Target> = chosen.iter().map(|c| target(c, task.disconnect, ctx)).collect();
    refuse_shared_controllers(&targets, &all, ctx)?;

    let mut effects: Vec<String> = steps.iter().map(ToString::to_string).collect();
    effects.extend(entries.iter().map(ToString::to_string));
    let mut controllers: Vec<String> =
        targets.iter().flat_map(|t| &t.controllers).map(|controller| format!("disconnect {controller}")).collect();
    controllers.sort();
    controllers.dedup();
    effects.extend(controllers);
    let devices = together
        .iter()
        .map(|(disk, survey)| PlannedDevice {
            identity: DiskIdentity::of(disk),
            seen_as: disk.name.clone(),
            actions: actions(survey),
            found: survey.signatures.iter().filter(|s| !s.is_trace()).map(ToString::to_string).collect(),
        })
        .collect();
    let plan = Plan { task: KIND.into(), destructive: true, devices, effects, untouched: Vec::new() };
    Ok(Intent { plan: plan.with_untouched(&all), targets, steps, entries, probe })
}

/// The stack knows disks by the kernel's names, which tell nobody in which bay they are.
fn explained(mut fault: Fault, stack: &Stack, named: &BTreeSet<String>, all: &[Disk], ctx: &TaskCtx) -> Fault {
    let spanned = stack.under(&stack.over(named));
    let is_stranger = |name: &String| spanned.contains(name) && !named.contains(name);
    let strangers = all.iter().filter(|disk| is_stranger(&kernel_name(&ctx.roots, disk)));
    fault.causes.extend(strangers.map(|disk| format!("not named: {}", describe(disk))));
    // The general advice is to order what was just refused.
    fault.advice = "do as the message says, then order the teardown again".into();
    fault
}

/// The kernel writes a `/` in a name as `!` in sysfs.
pub(super) fn kernel_name(roots: &Roots, disk: &Disk) -> String {
    let name = Path::new(&disk.name).strip_prefix(&roots.dev).map_or(disk.name.as_str().into(), Path::to_string_lossy);
    name.replace('/', "!")
}

fn target(chosen: &Chosen<'_>, disconnect: bool, ctx: &TaskCtx) -> Target {
    let name = kernel_name(&ctx.roots, chosen.disk);
    let controllers = if disconnect { fabrics::controllers(&ctx.roots, &name) } else { Vec::new() };
    Target {
        identity: DiskIdentity::of(chosen.disk),
        name,
        allow_removable: chosen.allow_removable,
        controllers,
        seen_as: chosen.disk.name.clone(),
    }
}

/// With a controller goes every disk behind it.
fn refuse_shared_controllers(targets: &[Target], all: &[Disk], ctx: &TaskCtx) -> Result<(), Fault> {
    let ours: Vec<&Controller> = targets.iter().flat_map(|target| &target.controllers).collect();
    for disk in all {
        let name = kernel_name(&ctx.roots, disk);
        if ours.is_empty() || targets.iter().any(|target| target.name == name) {
            continue;
        }
        if let Some(shared) = fabrics::controllers(&ctx.roots, &name).iter().find(|c| ours.contains(c)) {
            return Err(Fault::new(
                FaultCode::DiskInUse,
                format!(
                    "{} comes through {shared} too, and is not named in the task; nothing was changed",
                    describe(disk)
                ),
            ));
        }
    }
    Ok(())
}

/// Several at a time: disks that have to be waited for do not add up.
pub(super) fn survey_all(probe: &Path, disks: &[&Disk]) -> Vec<Result<Survey, ProbeError>> {
    const AT_ONCE: usize = 8;
    let next = AtomicUsize::new(0);
    let work = || {
        let mine = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        let mine = mine.map_while(|n| Some((n, disks.get(n)?)));
        mine.map(|(n, disk)| (n, blkid::survey_device(probe, Path::new(&disk.name)))).collect::<Vec<_>>()
    };
    let mut surveys = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE.min(disks.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|e| resume_unwind(e))).collect::<Vec<_>>()
    });
    surveys.sort_by_key(|(n, _)| *n);
    surveys.into_iter().map(|(_, survey)| survey).collect()
}

pub(super) fn unsurveyed(disk: &Disk, error: &ProbeError) -> Fault {
    let code = match error {
        ProbeError::Deadline(_) => FaultCode::DiskHung,
        _ => FaultCode::DiskIo,
    };
    let mut fault = Fault::from_error(code, error);
    fault.message = format!("{} could not be looked at: {}", describe(disk), fault.message);
    fault.because("what cannot be looked at cannot be seen to be clear; a wipe does not need to")
}

fn actions(survey: &Survey) -> Vec<Action> {
    let mut actions = Vec::new();
    for signature in &survey.signatures {
        actions.extend(signature.magics.iter().map(|magic| Action {
            what: format!("clear {signature}"),
            offset: Bytes(magic.offset),
            length: Bytes(magic.length),
        }));
    }
    if !actions.is_empty() {
        actions.extend(survey.ranges.iter().flat_map(|range| {
            clear::edges(range).map(|(offset, length)| Action {
                what: match range.partition {
                    Some(number) => format!("zero an end of partition {number}"),
                    None => "zero an end of the disk".into(),
                },
                offset: Bytes(offset),
                length: Bytes(length),
            })
        }));
    }
    actions
}
