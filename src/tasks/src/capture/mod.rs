//! From a disk, or one of its partitions, to a manifest image on a server.
//!
//! The disk is claimed, so that nobody changes it meanwhile, and only read. What its filesystems are sure not to use is
//! left out (`speediso_image::used`); everything else is packed and sent as it is read, staged nowhere. The manifest
//! goes last, once the server is known to hold exactly what was sent: before that there is no image.

mod destination;
mod disk;
mod look;
mod put;
mod stored;

use std::cell::Cell;
use std::io::Write as _;
use std::ops::Range;
use std::time::Instant;

use serde_json::json;
use speediso_image::manifest::{PackOptions, PackedFiles, StoreError, pack_to};
use speediso_model::capture::CaptureTask;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Changed, TaskResult};
use speediso_model::plan::{Action, Plan, PlanDigest};
use speediso_model::units::Bytes;
use speediso_sys::claim::ClaimedDisk;

use self::destination::Destination;
use self::disk::{Content, Direct};
use self::look::{Depth, Looked};
use crate::ctx::{Meter, TaskCtx};
use crate::single::{self, Ended, mib_per_second};

const KIND: &str = "capture";

pub(crate) fn plan(task: &CaptureTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    plan_to(Depth::FreeSpace, task, ctx)
}

/// What stands on the disk is for people and not part of the plan's digest, so it need not be looked at again.
fn plan_to(depth: Depth, task: &CaptureTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    Destination::of(task, ctx)?;
    let mut found = Vec::new();
    let mut plan = single::plan_for(KIND, &task.device, ctx, |disk| {
        let looked = look::unclaimed(disk, task.partition.as_ref(), depth)?;
        let what = match &task.partition {
            Some(partition) => format!("read {partition}; nothing is changed"),
            None => "read the disk; nothing is changed".to_owned(),
        };
        found = looked.lines();
        let Range { start, end } = looked.range;
        Ok(vec![Action { what, offset: Bytes(start), length: Bytes(end - start) }])
    })?;
    plan.destructive = false;
    plan.effects.push(format!("send what is in use of it to {}", task.to));
    for device in &mut plan.devices {
        device.found.append(&mut found);
    }
    Ok(plan)
}

pub(crate) fn execute(task: &CaptureTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    let planned = Cell::new(None);
    single::execute_on(
        KIND,
        &task.device,
        expected,
        ctx,
        || {
            let plan = plan_to(Depth::Table, task, ctx)?;
            planned.set(plan.devices.first().and_then(|device| {
                let action = device.actions.first()?;
                Some((action.offset.0, action.length.0))
            }));
            Ok(plan)
        },
        |disk| capture(task, planned.get(), disk, ctx).unwrap_or_else(Ended::unchanged),
    )
}

fn capture(task: &CaptureTask, planned: Option<(u64, u64)>, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<Ended, Fault> {
    let began = Instant::now();
    let destination = Destination::of(task, ctx)?;
    ctx.reporter.step_began("look at the disk");
    let direct = Direct::new(disk, ctx);
    let looked = look::at(&direct, disk.disk(), task.partition.as_ref(), Depth::FreeSpace).map_err(|f| direct.or(f))?;
    let Range { start, end } = looked.range;
    if planned != Some((start, end - start)) {
        return Err(Fault::new(
            FaultCode::DiskChanged,
            format!("the partition table of {} is not the one of the plan any more", disk.name()),
        ));
    }
    ctx.reporter.step_ended("look at the disk", &looked.lines().join("; "));
    destination.must_be_empty()?;

    ctx.reporter.step_began("read and send");
    let sent = send_data(task, &looked, &direct, &destination, ctx);
    let made = sent.and_then(|files| destination.complete(&files).map(|done| (files, done)));
    let (files, done) = made.inspect_err(|fault| destination.take_back(fault))?;
    ctx.reporter.step_ended("read and send", &format!("{} stored", Bytes(files.summary.data_size)));

    let used = (end - start) - looked.free();
    let facts = json!({
        "digest": files.summary.manifest_sha256,
        "disk_bytes": end - start,
        "used_bytes": used,
        "stored_bytes": files.summary.data_size,
        "chunks": files.summary.chunks,
        "chunk_size": files.summary.chunk_size,
        "filesystems": looked.survey.found,
        "kept_whole_because": looked.survey.table_doubt.as_ref().map(ToString::to_string),
        "image": {"url": done.url, "digest": files.summary.manifest_sha256, "format": "manifest", "compression": "none"},
        "mib_per_second": mib_per_second(used, began.elapsed()),
    });
    Ok(Ended::verified(Changed::AlreadySo, format!("read once, sent to {}, {}", task.to, done.how), facts))
}

/// Packs and sends the data, and has the server's word for it that it holds the same.
fn send_data(
    task: &CaptureTask,
    looked: &Looked,
    direct: &Direct<'_>,
    destination: &Destination<'_>,
    ctx: &TaskCtx,
) -> Result<PackedFiles, Fault> {
    let options = PackOptions {
        chunk_size: None,
        level: (task.level > 0).then_some(i32::from(task.level)),
        key: None,
        name: destination.name(),
    };
    let mut content = Content::new(direct, &looked.survey.free, looked.range.clone());
    let mut meter = Meter::new(ctx, "capturing", direct.name(), Some(looked.range.end - looked.range.start));
    let mut upload = destination.begin_data();
    let packed = pack_to(&mut content, looked.sector_size, &options, &mut upload, &mut |at| meter.at(at));
    let files =
        match packed.and_then(|files| upload.flush().map(|()| files).map_err(|source| StoreError::Sink { source })) {
            Ok(files) => files,
            // The upload is given up, which the server sees as a connection that broke.
            Err(StoreError::Sink { .. }) => return Err(upload.fault()),
            Err(StoreError::Source { source, .. }) => {
                drop(upload);
                return Err(direct.or(Fault::from_error(FaultCode::DiskIo, &source)));
            }
            Err(error) => return Err(Fault::from_error(FaultCode::Unsupported, &error)),
        };
    let sent = upload.finish()?;
    if sent.length != files.summary.data_size {
        return Err(Fault::new(FaultCode::Internal, "what was packed is not what was sent"));
    }
    destination.check_data(&sent)?;
    Ok(files)
}
