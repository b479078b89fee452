//! Making software RAID arrays, by `mdadm`.
//!
//! Everything is worked out before: which disks, which partitions on them, how large each array is. The disks are claimed
//! all or none, emptied where the arrays will be, and lent to `mdadm`; then the kernel's array and every superblock are
//! compared with the wish. An array that is there already is kept only if it is the one this boot made or the task names
//! by its UUID: an array of whoever had the machine before may look alike.

mod make;
mod mdadm;
pub(crate) mod members;
mod survey;
mod sync;
mod wish;

use serde_json::{Value, json};
use speediso_model::fault::Fault;
use speediso_model::outcome::{Changed, DeviceResult, Outcome, TaskResult};
use speediso_model::plan::{DiskIdentity, Plan, PlanDigest};
use speediso_model::raid::{InitialSync, RaidTask};
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::md::KnownArray;

use self::mdadm::Mdadm;
use self::survey::{Group, Survey, Way};
use self::sync::{Synced, Watched};
use crate::ctx::TaskCtx;
use crate::single::{self, Ended};

const KIND: &str = "raid";

/// What became of the arrays that share their disks.
type Done<'a> = (Group<'a>, Result<Vec<KnownArray>, (Outcome, Fault)>);

pub(crate) fn plan(task: &RaidTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    Ok(Survey::of(task, ctx)?.plan)
}

pub(crate) fn execute(task: &RaidTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = asked(task);
    let (survey, disks, mdadm) = match claim(task, expected, ctx) {
        Ok(claimed) => claimed,
        Err(fault) => return TaskResult::failed(&asked, Outcome::FailedUnchanged, fault),
    };
    let groups: Vec<Done<'_>> = survey
        .groups
        .into_iter()
        .zip(disks)
        .map(|(group, disks)| {
            let arrays = match &group.way {
                Way::Keep(known) => Ok(known.clone()),
                Way::Make => make::make(&group, disks, &mdadm, ctx),
                Way::Assemble => make::assemble(&group, disks, &mdadm, ctx),
            };
            (group, arrays)
        })
        .collect();
    let synced = synchronise(&groups, ctx);
    let mut output = Vec::new();
    let mut devices = Vec::new();
    for (group, arrays) in &groups {
        let ended = |facts: Value| match (arrays, &synced) {
            (Err((outcome, fault)), _) => Ended::failed(*outcome, "mdadm, not finished", fault.clone()),
            (Ok(_), Err((outcome, fault))) if is_watched(group) => {
                Ended::failed(*outcome, "mdadm; the members do not agree", fault.clone())
            }
            (Ok(_), _) => verified(group, facts),
        };
        for disk in &group.disks {
            let ended = ended(json!({"arrays": group.wishes.iter().map(|w| &w.array.name).collect::<Vec<_>>()}));
            devices.push(DeviceResult {
                identity: DiskIdentity::of(disk),
                seen_as: disk.name.clone(),
                outcome: ended.outcome,
                changed: ended.changed,
                used: ended.used,
                fault: ended.fault,
                facts: ended.facts,
            });
        }
        if let Ok(arrays) = arrays {
            output.extend(group.wishes.iter().zip(arrays).map(|(wish, known)| {
                let synced = synced.as_ref().ok().and_then(|all| all.iter().find(|s| s.name == known.name));
                told(wish, known, synced, ctx)
            }));
        }
    }
    TaskResult { output: Some(json!({ "arrays": output })), ..TaskResult::from_devices(&asked, devices) }
}

fn asked(task: &RaidTask) -> String {
    task.arrays.iter().map(|array| format!("{} {:?}", array.level, array.name)).collect::<Vec<_>>().join(", ")
}

/// All disks or none, and everything that can fail without a disk being touched.
fn claim<'a>(
    task: &'a RaidTask,
    expected: &PlanDigest,
    ctx: &TaskCtx,
) -> Result<(Survey<'a>, Vec<Vec<ClaimedDisk>>, Mdadm), Fault> {
    let survey = Survey::of(task, ctx)?;
    single::hold_to(expected, &survey.plan)?;
    ctx.cancel.check()?;
    let mdadm = Mdadm::find()?;
    let is_to_do = |group: &Group<'_>| !matches!(group.way, Way::Keep(_));
    let wishes: Vec<_> = survey.groups.iter().filter(|g| is_to_do(g)).flat_map(|g| &g.wishes).collect();
    if !wishes.is_empty() {
        mdadm::load(&wishes, &ctx.roots)?;
    }
    let claim = |group: &Group<'_>| {
        let disks = group.disks.iter().zip(&group.allow_removable).filter(|_| is_to_do(group));
        disks
            .map(|(disk, removable)| ClaimedDisk::claim(&ctx.roots, ctx.scope, &DiskIdentity::of(disk), *removable))
            .collect::<Result<Vec<_>, Fault>>()
    };
    let disks = survey.groups.iter().map(claim).collect::<Result<Vec<_>, Fault>>()?;
    Ok((survey, disks, mdadm))
}

fn is_watched(group: &Group<'_>) -> bool {
    group.wishes.iter().any(|wish| wish.array.initial_sync == InitialSync::Watch)
}

/// Waits for all that are to be watched, at once: the kernel itself takes turns where they share disks.
fn synchronise(groups: &[Done<'_>], ctx: &TaskCtx) -> Result<Vec<Synced>, (Outcome, Fault)> {
    let mut watched = Vec::new();
    for (group, arrays) in groups {
        let Ok(arrays) = arrays else { continue };
        for (wish, known) in group.wishes.iter().zip(arrays) {
            if wish.array.initial_sync == InitialSync::Watch && !sync::is_whole(&sync::look(&known.device, ctx)?) {
                watched.push(Watched {
                    name: known.name.clone(),
                    device: known.device.clone(),
                    n_members: wish.order.len(),
                    component: wish.slot.component,
                });
            }
        }
    }
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    ctx.reporter.step_began("synchronise");
    let synced = sync::watch(&watched, ctx)?;
    ctx.reporter.step_ended("synchronise", &format!("{} arrays", synced.len()));
    Ok(synced)
}

fn verified(group: &Group<'_>, facts: Value) -> Ended {
    match &group.way {
        Way::Make => Ended::verified(Changed::Changed, "mdadm; kernel and superblocks agree with the order", facts),
        Way::Assemble => Ended::verified(
            Changed::AlreadySo,
            "found by UUID and assembled, read-only until something writes; kernel and superblocks agree with the order",
            facts,
        ),
        Way::Keep(_) => Ended::verified(Changed::AlreadySo, "found as ordered, by kernel and superblocks", facts),
    }
}

fn told(wish: &wish::Wish<'_>, known: &KnownArray, synced: Option<&Synced>, ctx: &TaskCtx) -> Value {
    let sync = match (synced, wish.array.initial_sync) {
        (Some(synced), _) => json!({
            "state": "done",
            "seconds": synced.seconds,
            "mib_per_s": synced.mib_per_s,
            "compared": synced.compared,
        }),
        (None, InitialSync::Watch) => json!({"state": "done"}),
        (None, InitialSync::Deferred) if wish.array.level.is_redundant() => json!({
            "state": "deferred",
            "note": "until it is done the array does not survive the loss of a disk",
        }),
        (None, InitialSync::Deferred) => Value::Null,
    };
    json!({
        "name": known.name,
        "uuid": known.uuid,
        "device": format!("/dev/{}", known.device),
        "level": wish.array.level.number().to_string(),
        // By the kernel: stripes may offer a little more than was worked out.
        "size": sync::look(&known.device, ctx).ok().map(|array| array.size),
        "metadata": wish.array.metadata.version(),
        "partition": wish.slot.partition,
        "sync": sync,
    })
}
