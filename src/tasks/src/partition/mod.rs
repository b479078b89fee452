//! Partitioning disks: a table, and what goes into the partitions.
//!
//! What a power cut may leave, at any moment: the old table (with `keep`), no table, or the new one. Without `keep` the
//! table goes first; then the partitions are filled, by loop devices, since nothing shows them; the table comes last, its
//! end before its start. With `keep` the old table stays until everything is made, with the starts and ends of what is lost
//! already zeroed; then the new backup is written, flushed, and the new start after it: one of the two is always whole.

mod arrange;
mod capacity;
mod compare;
mod device;
pub(crate) mod format;
mod keep;
mod luks;
mod luks_header;
mod lvm;
mod make;
mod mbr;
mod medium;
mod old;
mod superblock;
mod volumes;
mod wish;

use std::cell::Cell;

use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::inventory::Disk;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Action, Plan, PlanDigest};
use speediso_model::task::PartitionTask;
use speediso_model::units::{Bytes, MIB};
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::peek::Peek;
use speediso_sys::topology::Topology;

use self::arrange::Span;
use self::compare::Compared;
use self::keep::Proof;
use self::medium::Medium;
use self::old::Old;
use self::wish::Wish;
use crate::ctx::TaskCtx;
use crate::gptedit::{EDGE, Edges};
use crate::single::{self, Ended, OnDisk as _};

const KIND: &str = "partition";
/// Where btrfs keeps its other superblocks: its tools would find an old file system by them.
const BTRFS_MIRRORS: [u64; 2] = [64 * MIB, 256 << 30];

pub(crate) fn plan(task: &PartitionTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    let layouts = task.disks();
    let hints: Vec<_> = layouts.iter().map(|layout| &layout.device).collect();
    // Each disk is planned for once, in the order of the hints.
    let mut remaining = layouts.iter();
    let mut seen = Vec::new();
    let mut plan = single::plan_for_all(KIND, &hints, ctx, |disk| {
        let layout = remaining.next().ok_or_else(|| Fault::new(FaultCode::Internal, "more disks than layouts"))?;
        let peek = Peek::open(&ctx.roots, disk)?;
        let medium = Medium::Seen(&peek);
        let old = Old::read(medium)?;
        let wish = Wish::new(layout, &old, Topology::of(&ctx.roots, disk), medium)?;
        wish.edges(medium)?;
        let actions = actions(&wish, disk);
        seen.push((peek, old, wish));
        Ok(actions)
    })?;
    capacity::check(task, &seen.iter().map(|(_, _, wish)| wish))?;
    ctx.tools.check(&make::programs(task))?;
    let compared = compared(task, &seen, ctx);
    let is_so = compared.iter().all(Compared::is_so);
    for ((device, (_, old, wish)), compared) in plan.devices.iter_mut().zip(&seen).zip(&compared) {
        device.found = if is_so {
            vec!["everything as ordered: nothing will be changed".into()]
        } else {
            what_was(old, wish, compared)
        };
    }
    plan.effects = task.volume_groups.iter().flat_map(effects).collect();
    Ok(plan)
}

/// How the disks compare with the order before they are claimed: for people, no part of the plan's digest. What concerns
/// several of them is told of the first.
fn compared(task: &PartitionTask, seen: &[(Peek, Old, Wish)], ctx: &TaskCtx) -> Vec<Compared> {
    let unread = |fault: Fault| Compared { unread: vec![fault.to_string()], ..Compared::default() };
    let look = |(peek, _, wish): &(Peek, Old, Wish)| compare::outside(wish, Medium::Seen(peek)).unwrap_or_else(unread);
    let mut compared: Vec<Compared> = seen.iter().map(look).collect();
    if !compared.iter().all(Compared::is_so) || !make::has_inside(task) {
        return compared;
    }
    let disks: Vec<_> = seen.iter().map(|(peek, _, wish)| (Medium::Seen(peek), wish)).collect();
    let inside = match ctx.tools.at_hand(&make::inspecting(task), ctx) {
        Some(toolbox) => compare::inside(task, &disks, &toolbox).unwrap_or_else(unread),
        None => Compared { unread: vec!["what is inside of LVM and encryptions".into()], ..Compared::default() },
    };
    if let Some(first) = compared.first_mut() {
        first.add(inside);
    }
    compared
}

/// What a plan says of a disk whose layout is not known to be as ordered.
fn what_was(old: &Old, wish: &Wish, compared: &Compared) -> Vec<String> {
    let differs = compared.differs.iter().map(|what| format!("not as ordered: {what}"));
    let unread = compared.unread.iter().map(|what| format!("not seen before the work begins: {what}"));
    wish::what_was(old, wish).into_iter().chain(differs).chain(unread).collect()
}

fn actions(wish: &Wish, disk: &Disk) -> Vec<Action> {
    let action = |what: String, span: Span| Action { what, offset: Bytes(span.start), length: Bytes(span.length()) };
    let all = Span { start: 0, end: disk.size.0 };
    let table = match wish.kept.len() {
        0 => format!("write a new partition table ({}); everything else is lost", wish.table.name()),
        n => format!("replace the partition table ({}), keeping {n} partitions", wish.table.name()),
    };
    let kept = wish.kept.iter().map(|p| action(format!("keep partition {}", p.number), p.span));
    let new = wish.entries.iter().map(|new| action(new.describe(), new.span));
    std::iter::once(action(table, all)).chain(kept).chain(new).collect()
}

fn effects(group: &speediso_model::task::VolumeGroup) -> Vec<String> {
    let volumes = group.volumes.iter().map(|volume| {
        let content = volume.content.as_ref().map_or_else(|| "empty".to_owned(), |content| content.describe());
        format!("volume {}/{} ({}, {}): {content}", group.name, volume.name, volume.kind.segment_type(), volume.size)
    });
    std::iter::once(format!("make volume group {}", group.name)).chain(volumes).collect()
}

/// One disk of the task while it is worked on.
struct Work {
    disk: ClaimedDisk,
    wish: Wish,
    proofs: Vec<Proof>,
    /// Whether anything was written to it.
    touched: Cell<bool>,
}

impl Work {
    fn medium(&self) -> Medium<'_> {
        Medium::Claimed(&self.disk)
    }
}

pub(crate) fn execute(task: &PartitionTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = task.table.name();
    match prepare(task, expected, ctx) {
        Ok(work) => {
            let done = run(task, &work, ctx);
            let results = work.iter().enumerate();
            let results = results.map(|(n, work)| single::device_result(&work.disk, ended(n, work, &done, ctx), ctx));
            TaskResult::from_devices(asked, results.collect())
        }
        Err(fault) => TaskResult::failed(asked, Outcome::FailedUnchanged, fault),
    }
}

/// Claims every disk and looks at it again.
fn prepare(task: &PartitionTask, expected: &PlanDigest, ctx: &TaskCtx) -> Result<Vec<Work>, Fault> {
    let plan = plan(task, ctx)?;
    single::hold_to(expected, &plan)?;
    ctx.cancel.check()?;
    let layouts = task.disks();
    let mut work = Vec::new();
    for (device, layout) in plan.devices.iter().zip(&layouts) {
        let disk = ClaimedDisk::claim(&ctx.roots, ctx.scope, &device.identity, layout.device.allow_removable)?;
        let medium = Medium::Claimed(&disk);
        let old = Old::read(medium)?;
        let wish = Wish::new(layout, &old, Topology::of(&ctx.roots, disk.disk()), medium)?;
        wish.edges(medium)?;
        if actions(&wish, disk.disk()) != device.actions {
            return Err(Fault::new(
                FaultCode::PlanMismatch,
                format!("{} is not as it was when the plan was made", disk.name()),
            ));
        }
        let proofs =
            wish.kept.iter().map(|p| Proof::take(p, task.keep_check, medium, ctx)).collect::<Result<_, _>>()?;
        work.push(Work { disk, wish, proofs, touched: Cell::new(false) });
    }
    Ok(work)
}

/// What became of all disks together.
enum Done {
    AlreadySo,
    Made { groups: Value, facts: Vec<Value> },
    Failed(Fault),
}

fn run(task: &PartitionTask, work: &[Work], ctx: &TaskCtx) -> Done {
    is_so(task, work, ctx)
        .and_then(|is_so| if is_so { Ok(Done::AlreadySo) } else { make(task, work, ctx) })
        .unwrap_or_else(Done::Failed)
}

/// Whether all of it is there. Looks, and changes nothing.
fn is_so(task: &PartitionTask, work: &[Work], ctx: &TaskCtx) -> Result<bool, Fault> {
    for work in work {
        if !compare::outside(&work.wish, work.medium())?.is_so() {
            return Ok(false);
        }
    }
    if !make::has_inside(task) {
        return Ok(true);
    }
    let toolbox = ctx.tools.ready(&make::inspecting(task), &make::modules(task), ctx)?;
    ctx.reporter.step_began("compare");
    let disks: Vec<_> = work.iter().map(|work| (work.medium(), &work.wish)).collect();
    let compared = compare::inside(task, &disks, &toolbox)?;
    let why = compared.differs.iter().chain(&compared.unread);
    let why = why.fold(String::new(), |text, why| format!("{text}{}{why}", if text.is_empty() { "" } else { "; " }));
    let is_so = compared.is_so();
    ctx.reporter.step_ended("compare", if is_so { "everything is as ordered" } else { &why });
    Ok(is_so)
}

fn make(task: &PartitionTask, work: &[Work], ctx: &TaskCtx) -> Result<Done, Fault> {
    let toolbox = ctx.tools.ready(&make::programs(task), &make::modules(task), ctx)?;
    // From here on the disks change.
    ctx.reporter.step_began("clear");
    work.iter().try_for_each(clear)?;
    ctx.reporter.step_ended("clear", "no table shows what was there");
    let disks: Vec<_> = work.iter().map(|work| (&work.disk, &work.wish)).collect();
    let groups = make::fill(task, &disks, &toolbox, ctx)?;
    for work in work {
        work.disk.flush().on(&work.disk)?;
        make::verify(&work.wish, &work.disk)?;
    }
    ctx.reporter.step_began("partition table");
    let facts = work.iter().map(|work| finish(work, ctx)).collect::<Result<Vec<_>, _>>()?;
    ctx.reporter.step_ended("partition table", "read back");
    Ok(Done::Made { groups, facts })
}

/// Takes away what was there, so that nothing of it comes to light again: the table unless something is kept, starts and ends of
/// the partitions that go, and of those that come.
fn clear(work: &Work) -> Result<(), Fault> {
    let Work { disk, wish, touched, .. } = work;
    touched.set(true);
    if wish.kept.is_empty() {
        Edges::zeroed(disk.size()).write(disk)?;
    }
    let mut zeroes = AlignedBuffer::zeroed(usize::try_from(EDGE).unwrap_or(1 << 20));
    let lost = wish.lost.iter().map(|p| p.span).filter(|span| span.end <= disk.size());
    let lost: Vec<Span> = lost.filter(|span| wish.kept.iter().all(|kept| !kept.span.overlaps(*span))).collect();
    for span in lost.into_iter().chain(wish.entries.iter().map(|new| new.span)) {
        let edge = EDGE.min(span.length());
        let length = usize::try_from(edge).unwrap_or_default();
        for at in [span.start, span.end - edge] {
            disk.write_at(at, &zeroes[..length]).on(disk)?;
        }
        let sector = usize::try_from(disk.sector_size().max(4096)).unwrap_or(4096);
        for mirror in BTRFS_MIRRORS.map(|mirror| span.start + mirror).into_iter().filter(|at| at + 4096 <= span.end) {
            // Only what is one: at these places there may be nothing of the kind.
            disk.read_at(mirror, &mut zeroes[..sector]).on(disk)?;
            let is_one = zeroes.get(0x40..0x48) == Some(b"_BHRfS_M");
            zeroes.fill(0);
            if is_one {
                disk.write_at(mirror, &zeroes[..sector]).on(disk)?;
            }
        }
    }
    disk.flush().on(disk)
}

/// The table, which makes it so.
fn finish(work: &Work, ctx: &TaskCtx) -> Result<Value, Fault> {
    let Work { disk, wish, proofs, .. } = work;
    let medium = work.medium();
    let written = wish.edges(medium)?.write(disk).and_then(|()| disk.reread_table().on(disk));
    let seen = written.and_then(|read| Ok((read, wish.is_table(medium)?)));
    let table_read = match seen {
        Ok((read, true)) => read,
        failed => {
            if wish.kept.is_empty() {
                // Half of a table is worse than none. If this fails too, the first error says more.
                let _ = Edges::zeroed(disk.size()).write(disk);
            }
            return Err(failed.err().unwrap_or_else(|| {
                Fault::new(FaultCode::VerifyFailed, format!("the table of {} reads back differently", disk.name()))
            }));
        }
    };
    for new in wish.entries.iter().filter(|new| new.spec.content.is_none()) {
        if !wish::is_empty(new.span, medium)? {
            return Err(Fault::new(
                FaultCode::VerifyFailed,
                format!("partition {} of {} was emptied and is not empty", new.number, disk.name()),
            ));
        }
    }
    // Once more, now that the kernel has seen the table and may have shown it to others.
    make::verify(wish, disk)?;
    let kept = proofs.iter().map(|proof| proof.hold(medium, ctx)).collect::<Result<Vec<_>, _>>()?;
    let partitions = wish.entries.iter().map(|new| {
        json!({
            "number": new.number,
            "name": new.spec.name,
            "start": new.span.start,
            "bytes": new.span.length(),
            "content": new.spec.content.as_ref().map(|content| content.describe()),
        })
    });
    Ok(json!({
        "partitions": partitions.collect::<Vec<_>>(),
        "kept": kept,
        "aligned_to": wish.grain,
        "kernel_read_the_table": table_read,
    }))
}

/// How it ended for the n-th disk.
fn ended(n: usize, work: &Work, done: &Done, ctx: &TaskCtx) -> Ended {
    let table = work.wish.table.name();
    match done {
        Done::AlreadySo => Ended::verified(
            Changed::AlreadySo,
            format!("{table} and what is in it, found as ordered"),
            json!({"partitions": work.wish.entries.len()}),
        ),
        Done::Made { groups, facts } => {
            let mut facts = facts.get(n).cloned().unwrap_or_default();
            if groups.as_array().is_some_and(|groups| !groups.is_empty()) {
                facts["volume_groups"] = groups.clone();
            }
            Ended::verified(Changed::Changed, format!("{table}, read back"), facts)
        }
        Done::Failed(fault) if !work.touched.get() => Ended::unchanged(fault.clone()),
        Done::Failed(fault) => {
            let mut fault = fault.clone();
            // What an operator wants to know first.
            for proof in &work.proofs {
                fault = match proof.hold(work.medium(), ctx) {
                    Ok(same) => fault.because(format!("the kept partition {} is as it was", same["number"])),
                    Err(changed) => fault.because(changed.to_string()),
                };
            }
            let outcome = match fault.code {
                FaultCode::DiskHung => Outcome::Unknown,
                _ => Outcome::FailedChanged,
            };
            let has = if work.wish.kept.is_empty() { "no partition table" } else { "the old partition table" };
            let fault = fault.because(format!("{} has {has}, or the new one whole", work.disk.name()));
            Ended::failed(outcome, format!("{table}, not finished"), fault)
        }
    }
}
