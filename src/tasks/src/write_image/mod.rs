//! Writing an image onto one or several disks, or into a partition.
//!
//! The order is what makes a failed write harmless: everything that can be known is checked before the first write; then
//! start and end of the disk are zeroed; then the middle is written; then the digest of the whole source must be right
//! and the middle must read back; only then are the end and the start written, in that order.

mod chunked;
mod file_system;
mod leg;
mod notes;
mod qcow2;
mod room;
mod source;
mod stream;
mod table;
mod tar;
mod target;
mod writer;

use std::borrow::Cow;
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use speediso_image::gptgeometry;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{ImageFormat, ImageSource};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::task::{Grow, ReadBack, WriteImageTask};
use speediso_model::trust::Trust;
use speediso_model::units::{Bytes, MIB};
use speediso_sys::claim::ClaimedDisk;

use self::chunked::Chunked;
pub(crate) use self::chunked::{Job, job_at};
use self::leg::Leg;
use self::qcow2::Qcow2;
use self::room::Room;
use self::stream::Stream;
use self::target::{Target, check_sector_size};
use crate::ctx::TaskCtx;
use crate::gptedit::{EDGE, Edges};
use crate::place::Place;
use crate::raid::members;
use crate::single::{self, Ended, OnDisk as _, mib_per_second};
use crate::table::{self as table_of_disk, Entry};

const KIND: &str = "write_image";

pub(crate) fn plan(task: &WriteImageTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    let hints: Vec<_> = task.devices().collect();
    single::plan_for_all(KIND, &hints, ctx, |disk| {
        Room::find(task, || table_of_disk::peek(disk, ctx))?.actions(task, disk.size.0, &disk.name)
    })
}

pub(crate) fn execute(task: &WriteImageTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = format!("write {} with read-back {}", task.image.shown(), read_back_name(task.read_back));
    match claim(task, expected, ctx) {
        Ok((disks, rooms)) => {
            let ended = run(task, &disks, &rooms, ctx);
            let results = disks.iter().zip(ended).map(|(disk, ended)| single::device_result(disk, ended, ctx));
            TaskResult::from_devices(&asked, results.collect())
        }
        Err(fault) => TaskResult::failed(&asked, Outcome::FailedUnchanged, fault),
    }
}

/// All of the disks or none, each with what the image may have of it, which must still be what the plan says.
fn claim(task: &WriteImageTask, expected: &PlanDigest, ctx: &TaskCtx) -> Result<(Vec<ClaimedDisk>, Vec<Room>), Fault> {
    let plan = plan(task, &ctx.unprobed())?;
    single::hold_to(expected, &plan)?;
    ctx.cancel.check()?;
    let (mut disks, mut rooms) = (Vec::new(), Vec::new());
    for (device, hints) in plan.devices.iter().zip(task.devices()) {
        let disk = ClaimedDisk::claim(&ctx.roots, ctx.scope, &device.identity, hints.allow_removable)?;
        let room = Room::find(task, || table_of_disk::read(Place::from(&disk)))?;
        if room.actions(task, disk.size(), disk.name())? != device.actions {
            return Err(Fault::new(
                FaultCode::PlanMismatch,
                format!("the partition table of {} changed after the plan was made", disk.name()),
            ));
        }
        disks.push(disk);
        rooms.push(room);
    }
    Ok((disks, rooms))
}

fn read_back_name(mode: ReadBack) -> &'static str {
    match mode {
        ReadBack::Full => "full",
        ReadBack::Sample => "sample",
        ReadBack::None => "none",
    }
}

fn too_large(image: u64, disk: u64, name: &str) -> Fault {
    Fault::new(
        FaultCode::ImageTooLarge,
        format!("the image has {} ({image} bytes), {name} only {} ({disk} bytes)", Bytes(image), Bytes(disk)),
    )
}

/// An image whose beginning was found good; nothing was written yet.
enum Opened {
    Stream(Stream),
    Qcow2(Box<Qcow2>),
    Chunked(Box<Chunked>),
}

impl Opened {
    fn open(image: &ImageSource, target: &Target<'_>, ctx: &TaskCtx) -> Result<Self, Fault> {
        match image.format {
            ImageFormat::Raw => Stream::open(image, target, ctx).map(Self::Stream),
            ImageFormat::Manifest => Chunked::open(image, target, ctx).map(|c| Self::Chunked(Box::new(c))),
            ImageFormat::Qcow2 => Qcow2::open(image, target, ctx).map(|q| Self::Qcow2(Box::new(q))),
            ImageFormat::Tar => Err(Fault::new(FaultCode::Internal, "files are not written as a disk")),
        }
    }

    /// The first bytes of the disk, at least as many as a partition table takes, where they are known before the first
    /// write.
    fn head(&self, task: &WriteImageTask) -> Result<Option<Cow<'_, [u8]>>, Fault> {
        let matters = task.partition.is_some() || !task.keep_partitions.is_empty() || task.grow != Grow::No;
        match self {
            Self::Stream(stream) => Ok(Some(stream.head().into())),
            Self::Qcow2(qcow2) => Ok(qcow2.head().map(Into::into)),
            // A request more, and the manifest says itself for which sectors it is.
            Self::Chunked(chunked) if matters => chunked.head(&task.image).map(|head| Some(head.into())),
            Self::Chunked(_) => Ok(None),
        }
    }

    fn write(self, task: &WriteImageTask, target: &Target<'_>, ctx: &TaskCtx) -> Result<Body, Fault> {
        match self {
            Self::Stream(stream) => stream.write(&task.image, target, ctx),
            Self::Qcow2(qcow2) => qcow2.write(&task.image, target, ctx),
            Self::Chunked(chunked) => chunked.write(&task.image, task.mode, task.share, target, ctx),
        }
    }
}

/// What was written, and how it is known to be right.
struct Body {
    size: u64,
    method: String,
    facts: Value,
}

/// How the bytes of the source were made sure of, in words.
fn trusted(image: &ImageSource) -> &'static str {
    match image.trust() {
        Ok(Trust::Signature(_)) => "signature of the whole source checked",
        Ok(Trust::Digest(_) | Trust::Checksums(_)) => "digest of the whole source checked",
        Ok(Trust::Anything) | Err(_) => "source NOT verified (as ordered)",
    }
}

fn run(task: &WriteImageTask, disks: &[ClaimedDisk], rooms: &[Room], ctx: &TaskCtx) -> Vec<Ended> {
    let unchanged = |fault: Fault| disks.iter().map(|_| Ended::unchanged(fault.clone())).collect();
    if ctx.resuming && task.image.format != ImageFormat::Manifest {
        ctx.reporter
            .notice("an interrupted run of this task is not taken up: the image is written from its start again");
    }
    let legs = disks.iter().zip(rooms).map(|(disk, room)| Leg::new(place(disk, room)?, room));
    let legs: Result<Vec<Leg<'_>>, Fault> = legs.collect();
    let legs = match legs {
        Ok(legs) => legs,
        Err(fault) => return unchanged(fault),
    };
    if task.image.format == ImageFormat::Tar {
        return legs.iter().map(|leg| tar::run(task, leg, ctx)).collect();
    }
    let target = Target::new(legs, task.read_back);
    let opened = Opened::open(&task.image, &target, ctx).and_then(|opened| {
        fits(task, &opened, &target, rooms)?;
        Ok(opened)
    });
    let opened = match opened {
        Ok(opened) => opened,
        Err(fault) => return unchanged(fault),
    };
    // From here on the disks change.
    let begun = Instant::now();
    ctx.reporter.step_began("write");
    let written = if target.begin() { write(task, opened, &target, begun, ctx).map(Some) } else { Ok(None) };
    thread::scope(|scope| {
        let end = |leg, room| match &written {
            Ok(Some(written)) => finish(task, leg, room, written, ctx),
            Ok(None) => abandon(leg, Fault::new(FaultCode::Internal, "no disk was left to write to")),
            Err(fault) => abandon(leg, fault.clone()),
        };
        let threads: Vec<_> =
            target.legs().iter().zip(rooms).map(|(leg, room)| scope.spawn(move || end(leg, room))).collect();
        let panicked = || Fault::new(FaultCode::Internal, "the thread that finished the disk panicked");
        let results = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Ended::failed(Outcome::Unknown, "streamed, not finished", panicked()))
        });
        results.collect()
    })
}

fn place<'a>(disk: &'a ClaimedDisk, room: &Room) -> Result<Place<'a>, Fault> {
    match room {
        Room::Disk | Room::Around { .. } => Ok(Place::from(disk)),
        Room::Partition(entry) => Place::part(disk, entry.start, entry.end - entry.start).ok_or_else(|| {
            Fault::new(
                FaultCode::PartitionTable,
                format!("partition {} lies outside of {}", entry.describe(), disk.name()),
            )
        }),
    }
}

/// What can be known of the table before anything is written: that it is for these disks, leaves alone what is kept, and
/// can be grown as ordered.
fn fits(task: &WriteImageTask, opened: &Opened, target: &Target<'_>, rooms: &[Room]) -> Result<(), Fault> {
    let Some(head) = opened.head(task)? else { return Ok(()) };
    let table = gptgeometry::sector_size(&head);
    target.check_sector_size(table)?;
    target.check_size(gptgeometry::disk_size(&head).unwrap_or(0))?;
    for (leg, room) in target.legs().iter().zip(rooms) {
        if task.partition.is_some() {
            if table.is_some() {
                return Err(Fault::new(
                    FaultCode::ImageFormat,
                    format!("{} is an image of a whole disk, not of a partition", task.image.shown()),
                ));
            }
        } else {
            let mut edges = Edges::zeroed(leg.place().size());
            let known = head.len().min(edges.head.len());
            edges.head[..known].copy_from_slice(&head[..known]);
            table::finish(task, room, edges, leg.place())?;
        }
    }
    Ok(())
}

/// Leaves nothing that starts or can be mounted. If even that cannot be made sure, nobody knows what the disk is.
fn abandon(leg: &Leg<'_>, fault: Fault) -> Ended {
    let (fault, name) = (leg.broken().cloned().unwrap_or(fault), leg.place().name());
    match leg.clear() {
        Ok(()) => Ended::failed(Outcome::FailedChanged, "streamed, then abandoned", fault.because(leg.left_over())),
        Err(also) => Ended::failed(
            Outcome::Unknown,
            "streamed, then abandoned",
            fault.because(format!("clearing the start of what was written to {name} failed too: {also}")),
        ),
    }
}

/// The image is on the disks, but for what is held back.
struct Written {
    body: Body,
    begun: Instant,
    seconds: f64,
    mib_per_second: f64,
}

fn write(
    task: &WriteImageTask,
    opened: Opened,
    target: &Target<'_>,
    begun: Instant,
    ctx: &TaskCtx,
) -> Result<Written, Fault> {
    let body = opened.write(task, target, ctx)?;
    let size = body.size;
    if let Some(announced) = task.image.size.filter(|s| s.0 != size) {
        return Err(Fault::new(
            FaultCode::ImageFormat,
            format!("{} holds {size} bytes, the order names {}", task.image.shown(), announced.0),
        ));
    }
    target.flush();
    let elapsed = begun.elapsed();
    let rate = mib_per_second(size, elapsed);
    ctx.reporter.step_ended("write", &format!("{} at {rate} MiB/s", Bytes(size)));
    Ok(Written { body, begun, seconds: elapsed.as_secs_f64(), mib_per_second: rate })
}

fn finish(task: &WriteImageTask, leg: &Leg<'_>, room: &Room, written: &Written, ctx: &TaskCtx) -> Ended {
    if let Some(fault) = leg.broken() {
        return abandon(leg, fault.clone());
    }
    complete(task, leg, room, written, ctx).unwrap_or_else(|fault| abandon(leg, fault))
}

fn complete(
    task: &WriteImageTask,
    leg: &Leg<'_>,
    room: &Room,
    written: &Written,
    ctx: &TaskCtx,
) -> Result<Ended, Fault> {
    let place = leg.place();
    let read_back = leg.read_back(task.read_back, ctx)?;
    // Of an array: before anything makes it bootable.
    members::check(place.disk(), ctx).map_err(|(_, fault)| fault)?;
    ctx.reporter.step_began("finish");
    let is_partition = !place.is_whole();
    let (edges, last) = if is_partition {
        (leg.edges(), None)
    } else {
        let edges = leg.edges();
        // Once more: not every format shows its start before it is written.
        check_sector_size(gptgeometry::sector_size(&edges.head), place)?;
        let finished = table::finish(task, room, edges, place)?;
        (finished.edges, finished.last)
    };
    leg.write_inner()?;
    let grown = match (task.grow, last) {
        (Grow::FileSystem, Some(last)) if last.start >= EDGE && last.end <= place.size() - EDGE => {
            let partition = Place::part(place.disk(), last.start, last.end - last.start);
            let grown = file_system::grow(partition.ok_or_else(outside)?, ctx)?;
            edges.write(place)?;
            Some(grown)
        }
        // Its start or its end is among what was held back.
        (Grow::FileSystem, last) => {
            edges.write(place)?;
            let whole = (place.start(), place.start() + place.size());
            let (start, end) = last.map_or(whole, |last| (last.start, last.end));
            Some(file_system::grow(Place::part(place.disk(), start, end - start).ok_or_else(outside)?, ctx)?)
        }
        _ => {
            edges.write(place)?;
            None
        }
    };
    let table_read = if is_partition { None } else { Some(place.disk().reread_table().on(place.disk())?) };
    ctx.reporter
        .step_ended("finish", if is_partition { "the partition is whole" } else { "the partition table is in place" });

    let tenth = |seconds: f64| (seconds * 10.0).round() / 10.0;
    let mut facts = json!({
        "bytes": written.body.size,
        "trusted": task.image.trust_shown(),
        "write_seconds": tenth(written.seconds),
        "write_mib_per_s": written.mib_per_second,
        "total_seconds": tenth(written.begun.elapsed().as_secs_f64()),
        "read_back": read_back.facts,
        "peak_memory_mib": peak_memory_mib(ctx),
    });
    if let (Some(facts), Value::Object(more)) = (facts.as_object_mut(), &written.body.facts) {
        facts.extend(more.clone());
        facts.extend(table_read.map(|read| ("kernel_read_the_table".into(), json!(read))));
        facts.extend(grown.map(|grown| ("grown".into(), grown)));
        if let Some(last) = last.filter(|last| last.grown > 0) {
            let grown = json!({"number": last.number, "bytes": last.end - last.start, "grown_by": last.grown});
            facts.insert("last_partition".into(), grown);
        }
        if !room.kept().is_empty() {
            let kept: Vec<String> = room.kept().iter().map(Entry::describe).collect();
            facts.insert("kept_partitions".into(), json!(kept));
        }
    }
    let used = format!("{}, start written last, {}", written.body.method, read_back.method);
    Ok(Ended::verified(Changed::Changed, used, facts))
}

fn outside() -> Fault {
    Fault::new(FaultCode::Internal, "a partition outside of its disk")
}

/// Highest resident memory of this process so far, as the kernel counts it.
fn peak_memory_mib(ctx: &TaskCtx) -> Option<u64> {
    let status = std::fs::read_to_string(ctx.roots.proc.join("self/status")).ok()?;
    let kib: u64 =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024 / MIB)
}
