//! Making what disks hold unreadable, and seeing that it is.
//!
//! Of each disk it is asked what it can do ([`probe`]), and `model` chooses the method. Either the host overwrites every
//! addressable sector, the last time with a [`pattern`] that is read back from the medium ([`overwrite`], level *clear*);
//! or the device erases itself ([`erase`]), and [`canary`] marks that were planted before must be gone afterwards. Nothing
//! here discards or asks the device to zero: what reads as zeroes need not have been overwritten. Disks are worked on in
//! parallel; each ends by itself, and the worst counts.

mod areas;
mod boot_partitions;
mod canary;
mod chosen;
mod erase;
pub(crate) mod flow;
mod log;
mod open;
mod overwrite;
pub(crate) mod pattern;
pub(crate) mod probe;
mod profile;
mod report;
#[cfg(test)]
pub(crate) mod simulator;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

use std::thread;
use std::time::Instant;

use speediso_model::abilities::{Abilities, choose, is_sanitize};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, DeviceResult, Outcome, TaskResult};
use speediso_model::plan::{Action, DiskIdentity, Plan, PlanDigest, PlannedDevice};
use speediso_model::task::{RecordedDisk, WipePass, WipeTargets, WipeTask, WipeVerify};
use speediso_model::units::Bytes;
use speediso_model::wipe::{WipeLevel, WipeMethod};
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::passthrough::Passthrough;
use speediso_sys::peek::Peek;

use self::canary::Planted;
pub(crate) use self::chosen::choose_disks;
use self::chosen::{absent, lost_sight_of};
use self::erase::Before;
use self::flow::Load;
use self::log::Log;
use self::open::Opening;
use self::overwrite::boot_seed;
use self::report::{Begun, Yield};
use self::target::Target;
use crate::ctx::TaskCtx;
use crate::single::{self, Ended, device_result};

const KIND: &str = "wipe";

pub(crate) fn plan(task: &WipeTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    let all = single::read_disks(ctx)?;
    let mut devices = Vec::new();
    let mut thaws = false;
    for disk in choose_disks(&task.devices, &all)? {
        let seen = Peek::open(&ctx.roots, disk)?;
        thaws |= Opening::of(task, disk, &probe::abilities(disk, &seen)).thaws;
        devices.push(PlannedDevice {
            identity: DiskIdentity::of(disk),
            seen_as: disk.name.clone(),
            actions: actions(task, disk, &seen)?,
            found: single::signatures(ctx, &disk.name),
        });
    }
    let mut effects: Vec<String> = absent(task, &all)
        .map(|disk| {
            format!("recorded and not here: {disk}; whatever becomes of the others, the outcome will be unknown")
        })
        .collect();
    if thaws {
        open::check_suspend(&ctx.roots)?;
        effects.push("the machine is suspended to memory for a moment, and answers nobody meanwhile".into());
    }
    let plan = Plan { task: KIND.into(), destructive: true, devices, effects, untouched: Vec::new() };
    Ok(plan.with_untouched(&all))
}

/// What will be done to one disk, or why it cannot be done.
fn actions(task: &WipeTask, disk: &Disk, device: &dyn Passthrough) -> Result<Vec<Action>, Fault> {
    let found = probe::abilities(disk, device);
    let opening = Opening::of(task, disk, &found);
    let abilities = &opening.abilities;
    let method = method(task, disk, abilities)?;
    let hidden = task.covers_hidden_areas();
    let mut actions = opening.in_words();
    if let Abilities::Ata(ata) = abilities
        && hidden
        && (ata.hidden_by_hpa().0 > 0 || ata.hidden_by_dco().0 > 0)
    {
        let (hpa, overlay) = (ata.hidden_by_hpa(), ata.hidden_by_dco());
        actions.push(format!("open for good a host protected area of {hpa} and an overlay of {overlay}"));
    }
    actions.extend(in_words(task, method));
    for area in areas::of(disk, abilities, method, hidden).iter().skip(1).filter(|a| a.size.0 > 0) {
        let covered = if area.covered { "also" } else { "not covered:" };
        actions.push(format!("{covered} {} ({}): {}", area.name, area.size, area.how));
    }
    actions.push(probe::in_words(abilities));
    Ok(actions.into_iter().map(|what| Action { what, offset: Bytes(0), length: disk.size }).collect())
}

fn method(task: &WipeTask, disk: &Disk, abilities: &Abilities) -> Result<WipeMethod, Fault> {
    choose(task, disk, abilities).map_err(|declined| {
        let level = task.level.name();
        let message = format!("{} has no method for level {level} that the task permits", describe(disk));
        let mut fault = Fault::new(FaultCode::Unsupported, message);
        fault.causes = declined.iter().map(ToString::to_string).collect();
        fault
    })
}

fn in_words(task: &WipeTask, method: WipeMethod) -> Vec<String> {
    let level = method.level().name();
    if method != WipeMethod::Overwrite {
        let searched = match task.verify {
            WipeVerify::Full => "the whole disk".to_owned(),
            WipeVerify::SamplePercent(percent) => format!("{percent} % of the disk, and start and end,"),
        };
        return vec![format!(
            "{level} by {}: plant marks, let the device erase itself, search {searched} for the marks",
            method.name()
        )];
    }
    let verify = match task.verify {
        WipeVerify::Full => "all of it".to_owned(),
        WipeVerify::SamplePercent(percent) => format!("{percent} % at random, and start and end,"),
    };
    let passes = task.passes_before.iter().map(|pass| match pass {
        WipePass::Zeroes => "overwrite with zeroes".to_owned(),
        WipePass::Random => "overwrite with random bytes".to_owned(),
    });
    passes.chain([format!("{level}: overwrite with a known pattern and read {verify} back")]).collect()
}

fn asked(task: &WipeTask) -> String {
    let names = |names: Vec<&str>, none: &str| if names.is_empty() { none.to_owned() } else { names.join(" or ") };
    let methods = names(task.methods.iter().map(|m| m.name()).collect(), "any method");
    let allowed = names(task.allow.iter().map(|l| l.name()).collect(), "nothing else");
    format!("{} by {methods}, allowing {allowed}", task.level.name())
}

pub(crate) fn execute(task: &WipeTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = asked(task);
    let (disks, missing) = match claim_all(task, expected, ctx) {
        Ok(claimed) => claimed,
        Err(fault) => return TaskResult::failed(&asked, Outcome::FailedUnchanged, fault),
    };
    let frozen = match thaw(task, &disks, ctx) {
        Ok(frozen) => frozen,
        Err(fault) => return TaskResult::failed(&asked, Outcome::FailedUnchanged, fault),
    };
    let load = Load::for_disks(disks.len());
    let wipe = |disk: &ClaimedDisk| match frozen.iter().find(|(name, _)| name == disk.name()) {
        Some((_, fault)) => Ended::unchanged(fault.clone()),
        None => run(task, disk, load, ctx),
    };
    let mut results: Vec<DeviceResult> = thread::scope(|scope| {
        let workers: Vec<_> = disks.iter().map(|disk| (disk, scope.spawn(|| wipe(disk)))).collect();
        workers
            .into_iter()
            .map(|(disk, worker)| {
                let ended = worker.join().unwrap_or_else(|_| {
                    let fault = Fault::new(FaultCode::Internal, format!("wiping {} panicked", disk.name()));
                    Ended::failed(Outcome::Unknown, "none", fault)
                });
                device_result(disk, ended, ctx)
            })
            .collect()
    });
    results.extend(missing.iter().map(lost_sight_of));
    TaskResult::from_devices(&asked, results)
}

/// Suspends the machine if a disk needs it. Gives those that are frozen nevertheless.
fn thaw(task: &WipeTask, disks: &[ClaimedDisk], ctx: &TaskCtx) -> Result<Vec<(String, Fault)>, Fault> {
    let needs = |disk: &&ClaimedDisk| Opening::of(task, disk.disk(), &probe::abilities(disk.disk(), *disk)).thaws;
    let frozen: Vec<&ClaimedDisk> = disks.iter().filter(needs).collect();
    if frozen.is_empty() {
        return Ok(Vec::new());
    }
    let step = "suspend the machine, to thaw frozen disks";
    ctx.reporter.step_began(step);
    open::suspend(&ctx.roots)?;
    ctx.reporter.step_ended(step, "it is awake again");
    let still = |disk: &&ClaimedDisk| open::check_thawed(*disk).err().map(|fault| (disk.name().to_owned(), fault));
    Ok(frozen.iter().filter_map(still).collect())
}

/// All of them or none: a wipe that cannot have one of its disks changes nothing on the others.
fn claim_all(
    task: &WipeTask,
    expected: &PlanDigest,
    ctx: &TaskCtx,
) -> Result<(Vec<ClaimedDisk>, Vec<RecordedDisk>), Fault> {
    let plan = plan(task, ctx)?;
    single::hold_to(expected, &plan)?;
    ctx.cancel.check()?;
    let all = single::read_disks(ctx)?;
    // Only those hints permit a removable disk that mean this one.
    let removable = |identity: &DiskIdentity| match &task.devices {
        WipeTargets::AllDisks => false,
        WipeTargets::Hints(hints) => hints
            .iter()
            .filter(|hints| hints.allow_removable)
            .any(|hints| all.iter().any(|disk| DiskIdentity::of(disk) == *identity && hints.differs(disk).is_none())),
    };
    let mut claimed = Vec::new();
    for planned in &plan.devices {
        let disk = ClaimedDisk::claim(&ctx.roots, ctx.scope, &planned.identity, removable(&planned.identity))?;
        // Once more, of the descriptor that is held.
        if actions(task, disk.disk(), &disk)? != planned.actions {
            let message = format!("{} answers otherwise than when the plan was made", describe(disk.disk()));
            return Err(Fault::new(FaultCode::PlanMismatch, message));
        }
        claimed.push(disk);
    }
    // Not the list from above: a disk may have gone meanwhile.
    let all = single::read_disks(ctx)?;
    Ok((claimed, absent(task, &all).cloned().collect()))
}

/// How far a wipe has come, for when it fails.
#[derive(Debug, Default)]
struct Progressed {
    /// Whether anything may have been written.
    begun: bool,
    pass: usize,
    bytes: u64,
}

fn run(task: &WipeTask, device: &dyn Target, load: Load, ctx: &TaskCtx) -> Ended {
    let mut done = Progressed::default();
    let mut log = Log::default();
    let fault = match wipe(task, device, load, ctx, &mut done, &mut log) {
        Ok(ended) => return ended,
        Err(fault) => fault,
    };
    let statuses: Vec<String> =
        log.statuses.iter().map(|s| format!("{}: {} [{}]", s.command, s.meaning, s.raw)).collect();
    if !done.begun && !log.begun {
        return Ended::unchanged(fault);
    }
    let mut fault = fault;
    if done.pass > 0 {
        fault = fault.because(format!(
            "{} had been overwritten in pass {} of {}",
            Bytes(done.bytes),
            done.pass,
            task.passes_before.len() + 1
        ));
    }
    fault.causes.extend(statuses);
    let outcome = if log.unknown { Outcome::Unknown } else { Outcome::FailedChanged };
    Ended::failed(outcome, "not finished", fault)
}

fn wipe(
    task: &WipeTask,
    device: &dyn Target,
    load: Load,
    ctx: &TaskCtx,
    done: &mut Progressed,
    log: &mut Log,
) -> Result<Ended, Fault> {
    ctx.cancel.check()?;
    let name = device.name();
    let mut abilities = probe::abilities(device.disk(), device);
    let begun = Begun { at: jiff::Timestamp::now(), clock: Instant::now(), health: probe::health(&abilities, device) };

    let mut steps = Vec::new();
    // What cannot be wiped even with its password off keeps its password.
    method(task, device.disk(), &Opening::of(task, device.disk(), &abilities).abilities)?;
    if let Some((opened, text)) = open::unlock(task, device, &abilities, log)? {
        abilities = opened;
        steps.push(text);
    }
    let mut method = method(task, device.disk(), &abilities)?;
    let mut adopted = false;
    let before = erase::before(device, &abilities)?;
    if let Before::Going(kind) = before {
        // Ours if it is of the kind that would be begun now, or, where the device does not tell, if this task has begun one.
        adopted = is_sanitize(method) && (kind == Some(method) || (kind.is_none() && ctx.resuming));
        let text = if adopted {
            format!("{name} is sanitizing itself already, as this task wants it: it is watched to its end")
        } else {
            format!("{name} is sanitizing itself for another reason: that has to end first")
        };
        ctx.reporter.notice(&text);
        steps.push(text);
        done.begun |= adopted;
        erase::watch(device, &abilities, ctx, log)?;
        if !adopted {
            // It answers more than while it was busy.
            abilities = probe::abilities(device.disk(), device);
            method = self::method(task, device.disk(), &abilities)?;
        }
    }
    if let Abilities::Ata(ata) = &abilities
        && task.covers_hidden_areas()
        && !adopted
    {
        steps.extend(areas::open(ata, method, device, log)?);
    }
    let mut yielded = if method == WipeMethod::Overwrite {
        let written = overwrite::overwrite(task, device, load, ctx, done)?;
        Yield {
            steps: written.steps,
            verification: written.verification,
            mib_per_second: Some(written.mib_per_second),
            profile: written.profile,
        }
    } else {
        let erasure = Erasure { method, adopted, may_be_closed: before == Before::MayBeClosed };
        by_device(task, erasure, device, &abilities, load, ctx, done, log)?
    };
    steps.append(&mut yielded.steps);
    if let Abilities::Nvme(nvme) = &abilities {
        steps.extend(boot_partitions::overwrite(nvme, task.covers_hidden_areas(), device, ctx, log)?);
    }
    yielded.steps = steps;
    let table_read = device.reread_table().map_err(|e| device.fault(&e))?;
    if !table_read {
        yielded.steps.push("the kernel never reads partitions of this disk".into());
    }
    let report = report::make(task, method, device, &abilities, begun, yielded, log);
    if !report.slow_parts.is_empty() {
        let n = report.slow_parts.len();
        ctx.reporter.notice(&format!("{name} is slow in {n} of {} parts: look at its health", profile::PARTS));
    }
    let reached = report.reached.map_or("no level for the member disks", WipeLevel::name);
    let used = format!("{reached} by {}: {}", method.name(), report.verification.in_words);
    let facts = serde_json::to_value(&report).map_err(|e| Fault::from_error(FaultCode::Internal, &e))?;
    Ok(Ended::verified(Changed::Changed, used, facts))
}

/// An erasure by the device itself.
#[derive(Clone, Copy)]
struct Erasure {
    method: WipeMethod,
    /// It has ended already: it was going on before.
    adopted: bool,
    /// The last one may have failed, and then nothing can be written before this one succeeds.
    may_be_closed: bool,
}

/// Plants marks, lets the device work, and searches for the marks.
#[allow(clippy::too_many_arguments, reason = "all that a method has to know; a struct would only rename them")]
fn by_device(
    task: &WipeTask,
    erasure: Erasure,
    device: &dyn Target,
    abilities: &Abilities,
    load: Load,
    ctx: &TaskCtx,
    done: &mut Progressed,
    log: &mut Log,
) -> Result<Yield, Fault> {
    let (name, Erasure { method, adopted, may_be_closed }) = (device.name(), erasure);
    let marks = Planted::on(device, boot_seed(&ctx.roots, device.disk(), "canaries"));
    let mut steps = Vec::new();
    let mut was_planted = adopted && ctx.resuming;
    if !adopted {
        ctx.reporter.step_began(&format!("erase {name}"));
        if method == WipeMethod::OpalRevert {
            // A locked disk takes no marks, and a wrong PSID must not cost any: so first it is opened by a revert, and
            // the one after the marks shows whether its reverts erase.
            erase::erase(method, task, device, abilities, ctx, log)?;
            steps.push("reverted once, which leaves it open".into());
        }
        done.begun = true;
        match marks.plant(device) {
            Ok(()) => {
                was_planted = true;
                steps.push(format!("planted marks (seed {:016x})", marks.seed));
            }
            Err(fault) if may_be_closed => {
                let text = format!("{name} takes no marks, as after a sanitize that has failed: {fault}");
                ctx.reporter.notice(&text);
                steps.push(text);
            }
            Err(fault) => return Err(fault),
        }
        erase::erase(method, task, device, abilities, ctx, log)?;
        ctx.reporter.step_ended(&format!("erase {name}"), &format!("{} has ended with success", method.name()));
        steps.push(format!("{}, ended with success", method.name()));
    }
    // What the kernel keeps of the disk is of before.
    device.flush().map_err(|e| device.fault(&e))?;
    ctx.reporter.step_began(&format!("verify {name}"));
    let verification = marks.search(task.verify, was_planted, device, load, ctx)?;
    ctx.reporter.step_ended(&format!("verify {name}"), &verification.in_words);
    steps.push(verification.in_words.clone());
    Ok(Yield { steps, verification, mib_per_second: None, profile: Vec::new() })
}
