//! Streaming a disk image onto a disk.
//!
//! Three threads, each with bounded buffers: the runtime fetches, this one hashes the source and decodes, a third
//! writes. The order is what makes a failed write harmless: everything that can be known is checked before the first
//! write; then start and end of the disk are zeroed; then the middle is written; then the digest of the whole source
//! must be right and the middle must read back; only then are the end and the start written, in that order.

mod sink;

use std::io::{Cursor, Read};
use std::time::Instant;

use serde_json::json;
use speediso_image::container::{self, PROBE_LENGTH};
use speediso_image::decode::{DecodeError, announced_size, decoder};
use speediso_image::digest::{Hashed, Hashing};
use speediso_image::gptgeometry;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{Compression, ImageSource};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Action, Plan, PlanDigest};
use speediso_model::task::{ReadBack, WriteImageTask};
use speediso_model::units::{Bytes, MIB};
use speediso_sys::claim::ClaimedDisk;

use crate::ctx::TaskCtx;
use crate::fetch::{self, FetchError};
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
                what: format!("write the image {} over the whole disk, its start last", task.image.digest),
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

fn run(task: &WriteImageTask, disk: &ClaimedDisk, ctx: &TaskCtx) -> Ended {
    let opened = match Opened::open(&task.image, disk, ctx) {
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

/// An image whose beginning was fetched and found good; nothing was written yet.
struct Opened {
    decoded: Box<dyn Read + Send>,
    hashed: Hashed,
    /// The first MiB of the disk, decoded, or less if the image ends there.
    head: Vec<u8>,
    gpt_sector: Option<u32>,
    total: Option<u64>,
}

impl Opened {
    fn open(image: &ImageSource, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<Self, Fault> {
        let mut fetched = fetch::open(&image.url, ctx)?;
        let length = fetched.length;
        let mut start = Vec::new();
        (&mut fetched).take(PROBE_LENGTH as u64).read_to_end(&mut start).map_err(|e| source_fault(&e, image))?;
        container::agree(image.compression, &start)
            .map_err(|what| Fault::new(FaultCode::ImageFormat, format!("{}: {what}", image.shown())))?;

        let total = match image.compression {
            Compression::None => length,
            Compression::Zstd => announced_size(image.compression, &start).or(image.size.map(|s| s.0)),
        };
        if let Some(total) = total.filter(|total| *total > disk.size()) {
            return Err(too_large(total, disk.size(), disk.name()));
        }
        let (source, hashed) = Hashing::new(Cursor::new(start).chain(fetched));
        let mut decoded = decoder(image.compression, image.max_window, source).map_err(|e| source_fault(&e, image))?;
        let mut head = Vec::new();
        (&mut decoded).take(EDGE).read_to_end(&mut head).map_err(|e| source_fault(&e, image))?;
        if (head.len() as u64) < EDGE {
            return Err(Fault::new(
                FaultCode::ImageFormat,
                format!("{} holds {} bytes: that is no disk image", image.shown(), head.len()),
            ));
        }
        let gpt_sector = gptgeometry::sector_size(&head);
        if let Some(sector) = gpt_sector.filter(|s| u64::from(*s) != disk.sector_size()) {
            return Err(Fault::new(
                FaultCode::SectorSizeMismatch,
                format!("the image is made for sectors of {sector} bytes, {} has {}", disk.name(), disk.sector_size()),
            ));
        }
        Ok(Self { decoded, hashed, head, gpt_sector, total })
    }
}

fn write(task: &WriteImageTask, mut opened: Opened, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<Ended, Fault> {
    let begun = Instant::now();
    ctx.reporter.step_began("write");
    let mut edges = Edges::zeroed(disk.size());
    edges.write(disk)?;

    let written = sink::write_middle(&mut opened.decoded, &mut edges, opened.total, disk, ctx)
        .map_err(|e| e.into_fault(&task.image, disk))?;
    let size = EDGE + written.length;
    let Some((digest, source_bytes)) = opened.hashed.so_far() else {
        return Err(Fault::new(FaultCode::Internal, "the digest of the source was lost"));
    };
    if digest != task.image.digest {
        return Err(Fault::new(
            FaultCode::ImageDigestMismatch,
            format!("{} is {digest}, the order names {}", task.image.shown(), task.image.digest),
        ));
    }
    if let Some(announced) = task.image.size.filter(|s| s.0 != size) {
        return Err(Fault::new(
            FaultCode::ImageFormat,
            format!("{} holds {size} bytes, the order names {}", task.image.shown(), announced.0),
        ));
    }
    disk.flush().on(disk)?;
    let write_time = begun.elapsed();
    ctx.reporter.step_ended("write", &format!("{} at {} MiB/s", Bytes(size), mib_per_second(size, write_time)));

    let read_back = sink::read_back(&written, task.read_back, disk, ctx)?;

    ctx.reporter.step_began("finish");
    edges.head.copy_from_slice(&opened.head);
    if opened.gpt_sector.is_some() {
        edges = gptedit::relocate(edges, disk.sector_size())?;
    }
    edges.write(disk)?;
    let table_read = disk.reread_table().on(disk)?;
    ctx.reporter.step_ended("finish", "the partition table is in place");

    Ok(Ended::verified(
        Changed::Changed,
        format!("streamed, digest of the whole source checked, start written last, {}", read_back.method),
        json!({
            "bytes": size,
            "source_bytes": source_bytes,
            "digest": digest,
            "write_seconds": (write_time.as_secs_f64() * 10.0).round() / 10.0,
            "write_mib_per_s": mib_per_second(size, write_time),
            "total_seconds": (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            "read_back": read_back.facts,
            "kernel_read_the_table": table_read,
            "peak_memory_mib": peak_memory_mib(ctx),
        }),
    ))
}

/// The fault for an error that came out of the decoding reader.
fn source_fault(error: &std::io::Error, image: &ImageSource) -> Fault {
    let url = image.shown();
    if let Some(fetch) = FetchError::of(error) {
        return Fault::new(fetch.code(), format!("fetching {url}: {fetch}"));
    }
    let code = match DecodeError::of(error) {
        Some(DecodeError::Truncated) => FaultCode::ImageTruncated,
        Some(DecodeError::TrailingData) => FaultCode::ImageTrailingData,
        Some(DecodeError::WindowTooLarge(_)) => FaultCode::ImageWindow,
        Some(DecodeError::Damaged(_)) => FaultCode::ImageFormat,
        None => FaultCode::Io,
    };
    Fault::new(code, format!("reading {url}: {error}"))
}

/// Highest resident memory of this process so far, as the kernel counts it.
fn peak_memory_mib(ctx: &TaskCtx) -> Option<u64> {
    let status = std::fs::read_to_string(ctx.roots.proc.join("self/status")).ok()?;
    let kib: u64 =
        status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024 / MIB)
}
