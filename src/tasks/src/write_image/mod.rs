//! Writing a disk image onto a disk.
//!
//! The order is what makes a failed write harmless: everything that can be known is checked before the first write; then
//! start and end of the disk are zeroed; then the middle is written; then the digest of the whole source must be right
//! and the middle must read back; only then are the end and the start written, in that order.

mod chunked;
mod qcow2;
mod source;
mod stream;
mod target;
mod writer;

use std::time::Instant;

use serde_json::{Value, json};
use speediso_image::gptgeometry;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{ImageFormat, ImageSource};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Action, Plan, PlanDigest};
use speediso_model::task::{ReadBack, WriteImageTask};
use speediso_model::trust::Trust;
use speediso_model::units::{Bytes, MIB};
use speediso_sys::claim::ClaimedDisk;

use self::chunked::Chunked;
use self::qcow2::Qcow2;
use self::stream::Stream;
use self::target::Target;
use crate::ctx::TaskCtx;
use crate::gptedit::{self, EDGE, Edges};
use crate::single::{self, Ended, OnDisk as _, mib_per_second};

const KIND: &str = "write_image";

pub(crate) fn plan(task: &WriteImageTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    single::plan_for(KIND, &task.device, ctx, |disk| {
        if disk.size.0 < 2 * EDGE {
            return Err(Fault::new(FaultCode::DiskTooSmall, format!("{} is smaller than 2 MiB", disk.name)));
        }
        if let Some(size) = task.image.size.filter(|size| *size > disk.size) {
            return Err(too_large(size.0, disk.size.0, &disk.name));
        }
        Ok(vec![
            Action { what: "take the partition table away".into(), offset: Bytes(0), length: disk.size },
            Action {
                what: format!("write the image {} over the whole disk, its start last", task.image.trust_shown()),
                offset: Bytes(0),
                length: disk.size,
            },
        ])
    })
}

pub(crate) fn execute(task: &WriteImageTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let asked = format!("write {} with read-back {}", task.image.shown(), read_back_name(task.read_back));
    single::execute_on(&asked, &task.device, expected, ctx, || plan(task, ctx), |disk| run(task, disk, ctx))
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
    fn open(task: &WriteImageTask, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<Self, Fault> {
        match task.image.format {
            ImageFormat::Raw => Stream::open(&task.image, disk, ctx).map(Self::Stream),
            ImageFormat::Manifest => Chunked::open(&task.image, disk, ctx).map(|c| Self::Chunked(Box::new(c))),
            ImageFormat::Qcow2 => Qcow2::open(&task.image, disk, ctx).map(|q| Self::Qcow2(Box::new(q))),
        }
    }

    fn write(self, task: &WriteImageTask, target: &Target<'_>, ctx: &TaskCtx) -> Result<Body, Fault> {
        match self {
            Self::Stream(stream) => stream.write(&task.image, target, ctx),
            Self::Qcow2(qcow2) => qcow2.write(&task.image, target, ctx),
            Self::Chunked(chunked) => chunked.write(&task.image, task.mode, target, ctx),
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

fn check_sector_size(image: Option<u32>, disk: &ClaimedDisk) -> Result<(), Fault> {
    match image.filter(|sector| u64::from(*sector) != disk.sector_size()) {
        None => Ok(()),
        Some(sector) => Err(Fault::new(
            FaultCode::SectorSizeMismatch,
            format!("the image is made for sectors of {sector} bytes, {} has {}", disk.name(), disk.sector_size()),
        )),
    }
}

fn run(task: &WriteImageTask, disk: &ClaimedDisk, ctx: &TaskCtx) -> Ended {
    if ctx.resuming && task.image.format != ImageFormat::Manifest {
        ctx.reporter
            .notice("an interrupted run of this task is not taken up: the image is written from its start again");
    }
    let opened = match Opened::open(task, disk, ctx) {
        Ok(opened) => opened,
        Err(fault) => return Ended::unchanged(fault),
    };
    // From here on the disk changes.
    match write(task, opened, disk, ctx) {
        Ok(ended) => ended,
        Err(fault) => abandon(disk, fault),
    }
}

/// Leaves no partition table behind. If even that cannot be made sure, nobody knows what the disk is.
fn abandon(disk: &ClaimedDisk, fault: Fault) -> Ended {
    match Edges::zeroed(disk.size()).write(disk) {
        Ok(()) => Ended::failed(
            Outcome::FailedChanged,
            "streamed, then abandoned",
            fault.because(format!("{} has no partition table now and does not boot", disk.name())),
        ),
        Err(also) => Ended::failed(
            Outcome::Unknown,
            "streamed, then abandoned",
            fault.because(format!("taking the partition table away failed too: {also}")),
        ),
    }
}

fn write(task: &WriteImageTask, opened: Opened, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<Ended, Fault> {
    let begun = Instant::now();
    ctx.reporter.step_began("write");
    let target = Target::begin(disk, task.read_back)?;
    let body = opened.write(task, &target, ctx)?;
    let size = body.size;
    if let Some(announced) = task.image.size.filter(|s| s.0 != size) {
        return Err(Fault::new(
            FaultCode::ImageFormat,
            format!("{} holds {size} bytes, the order names {}", task.image.shown(), announced.0),
        ));
    }
    disk.flush().on(disk)?;
    let write_time = begun.elapsed();
    ctx.reporter.step_ended("write", &format!("{} at {} MiB/s", Bytes(size), mib_per_second(size, write_time)));

    let read_back = target.read_back(ctx)?;

    ctx.reporter.step_began("finish");
    let mut edges = target.into_edges();
    let table_sector = gptgeometry::sector_size(&edges.head);
    // Once more: not every format shows its start before it is written.
    check_sector_size(table_sector, disk)?;
    if table_sector.is_some() {
        edges = gptedit::relocate(edges, disk.sector_size())?;
    }
    edges.write(disk)?;
    let table_read = disk.reread_table().on(disk)?;
    ctx.reporter.step_ended("finish", "the partition table is in place");

    let mut facts = json!({
        "bytes": size,
        "trusted": task.image.trust_shown(),
        "write_seconds": (write_time.as_secs_f64() * 10.0).round() / 10.0,
        "write_mib_per_s": mib_per_second(size, write_time),
        "total_seconds": (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
        "read_back": read_back.facts,
        "kernel_read_the_table": table_read,
        "peak_memory_mib": peak_memory_mib(ctx),
    });
    if let (Some(facts), Value::Object(more)) = (facts.as_object_mut(), body.facts) {
        facts.extend(more);
    }
    let used = format!("{}, start written last, {}", body.method, read_back.method);
    Ok(Ended::verified(Changed::Changed, used, facts))
}

/// Highest resident memory of this process so far, as the kernel counts it.
fn peak_memory_mib(ctx: &TaskCtx) -> Option<u64> {
    let status = std::fs::read_to_string(ctx.roots.proc.join("self/status")).ok()?;
    let kib: u64 =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024 / MIB)
}
