//! Files into a new file system of a partition.
//!
//! There is no start to hold back while a kernel has the file system mounted, so what makes a failure harmless is that
//! start and end of the partition are zeroed again. Whether all files arrived is seen by looking: the file system is
//! unmounted, mounted again for reading, and every file of it compared with what the archive said.

mod facts;
mod unpack;

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use rand::Rng as _;
use serde_json::json;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::Changed;
use speediso_model::task::{FileSystemKind, Format, NewFileSystem, ReadBack, WriteImageTask};
use speediso_model::units::Bytes;
use speediso_sys::volume::{Directory, Volume};
use speediso_sys::window::Window;

use self::facts::{Facts, Sampling, Sum};
use self::unpack::{UnpackError, is_for_fsck, unpack};
use super::leg::Leg;
use super::source::{Source, source_fault};
use super::{abandon, trusted};
use crate::ctx::{Meter, TaskCtx};
use crate::partition::format;
use crate::place::Place;
use crate::single::Ended;
use crate::tools::Toolbox;

pub(super) fn run(task: &WriteImageTask, leg: &Leg<'_>, ctx: &TaskCtx) -> Ended {
    let Some(new) = &task.file_system else {
        return Ended::unchanged(Fault::new(FaultCode::TaskInvalid, "files need a file system to be unpacked into"));
    };
    // Before anything is lost for their sake.
    let toolbox = ctx.tools.ready(&[format::program(new.kind.into())], &[new.kind.name()], ctx);
    let opened = toolbox.and_then(|toolbox| Ok((toolbox, Source::open(&task.image, ctx)?)));
    let (toolbox, source) = match opened {
        Ok(opened) => opened,
        Err(fault) => return Ended::unchanged(fault),
    };
    // From here on the partition changes.
    write(task, new, source, leg, &toolbox, ctx).unwrap_or_else(|fault| abandon(leg, fault))
}

fn write(
    task: &WriteImageTask,
    new: &NewFileSystem,
    mut source: Source,
    leg: &Leg<'_>,
    toolbox: &Toolbox<'_>,
    ctx: &TaskCtx,
) -> Result<Ended, Fault> {
    let (place, begun) = (leg.place(), Instant::now());
    leg.clear()?;
    ctx.reporter.step_began("make file system");
    let window = open_window(place)?;
    let wanted =
        Format { kind: new.kind.into(), label: new.label.clone(), uuid: new.uuid.map(|uuid| uuid.to_string()) };
    format::make(&wanted, window.path(), format::Place::of(place), toolbox)?;
    ctx.reporter.step_ended("make file system", new.kind.name());

    ctx.reporter.step_began("unpack");
    let sampling = Sampling { mode: task.read_back, seed: rand::rng().random() };
    let volume = mount(&window, new.kind, true, place)?;
    let mut meter = Meter::new(ctx, "unpacking", place.name(), None);
    let unpacked = unpack(&mut *source.decoded, &volume, new.kind, sampling, &mut meter, ctx)
        .map_err(|e| fault(e, task, place))?;
    volume.sync().map_err(|e| disk_fault("writing the files out", &e, place))?;
    drop(volume);
    // The decoder's own end is the source's end, or it would have said so.
    drop(source.decoded);
    let sum = source.hashed.sum(&task.image)?;
    close(window, place)?;
    ctx.reporter.step_ended("unpack", &format!("{} files, {}", unpacked.sum.files, Bytes(unpacked.bytes)));

    let read_back = match task.read_back {
        ReadBack::None => "not read back (as ordered)",
        ReadBack::Sample => "every file looked at again, the content of one in sixteen read back",
        ReadBack::Full => "every file read back",
    };
    if task.read_back != ReadBack::None {
        ctx.reporter.step_began("read back");
        let found = look(new.kind, sampling, place, ctx)?;
        if found != unpacked.sum {
            return Err(Fault::new(
                FaultCode::ReadBackMismatch,
                format!(
                    "the file system on {} (byte {}) does not hold what was unpacked: {} files of {}, or others",
                    place.name(),
                    place.start(),
                    found.files,
                    unpacked.sum.files
                ),
            ));
        }
        ctx.reporter.step_ended("read back", &format!("{} files compared", found.files));
    }
    let facts = json!({
        "files": unpacked.sum.files,
        "bytes": unpacked.bytes,
        "source_bytes": sum.length,
        "digest": sum.digest,
        "trusted": task.image.trust_shown(),
        "connections_lost": sum.resumed,
        "file_system": new.kind.name(),
        "read_back": {"mode": task.read_back, "seed": (task.read_back == ReadBack::Sample).then_some(sampling.seed)},
        "total_seconds": (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    });
    let used = format!("unpacked into a new {}, {}, {read_back}", new.kind.name(), trusted(&task.image));
    Ok(Ended::verified(Changed::Changed, used, facts))
}

fn open_window(place: Place<'_>) -> Result<Window<'_>, Fault> {
    Window::open(place.disk(), place.start(), place.size()).map_err(|e| {
        Fault::new(FaultCode::Io, format!("no loop device to show {} by", place.name())).because(e.to_string())
    })
}

fn mount(window: &Window<'_>, kind: FileSystemKind, writable: bool, place: Place<'_>) -> Result<Volume, Fault> {
    Volume::mount(window.path(), kind.name(), writable).map_err(|e| match e.kind() {
        io::ErrorKind::Unsupported => {
            Fault::new(FaultCode::ToolMissing, format!("this kernel has no driver for {}", kind.name()))
        }
        _ => disk_fault("mounting the new file system", &e, place),
    })
}

fn close(window: Window<'_>, place: Place<'_>) -> Result<(), Fault> {
    window.close().map_err(|e| disk_fault("writing the file system out", &e, place))?;
    place.flush()
}

/// The sum over all that is there now, from the medium.
fn look(kind: FileSystemKind, sampling: Sampling, place: Place<'_>, ctx: &TaskCtx) -> Result<Sum, Fault> {
    let window = open_window(place)?;
    let volume = mount(&window, kind, false, place)?;
    let sum = walk(&volume, kind, sampling, place, ctx);
    drop(volume);
    close(window, place)?;
    sum
}

fn walk(
    volume: &Volume,
    kind: FileSystemKind,
    sampling: Sampling,
    place: Place<'_>,
    ctx: &TaskCtx,
) -> Result<Sum, Fault> {
    let failed = |e: io::Error| disk_fault("reading the files back", &e, place);
    let mut sum = Sum::default();
    let root = volume.directory(&PathBuf::new()).map_err(failed)?;
    let facts = Facts::read(&PathBuf::new(), &root.at(OsStr::new(".")), sampling).map_err(failed)?;
    sum.add(facts.hash(&PathBuf::new()));
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        ctx.cancel.check()?;
        let directory: Directory = volume.directory(&path).map_err(failed)?;
        for entry in std::fs::read_dir(directory.at(OsStr::new("."))).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let inside = path.join(&name);
            if is_for_fsck(&inside, kind) {
                continue;
            }
            let facts = Facts::read(&inside, &directory.at(&name), sampling).map_err(failed)?;
            sum.add(facts.hash(&inside));
            if facts.content == facts::Content::Directory {
                waiting.push(inside);
            }
        }
    }
    Ok(sum)
}

fn disk_fault(what: &str, error: &io::Error, place: Place<'_>) -> Fault {
    Fault::new(FaultCode::DiskIo, format!("{what} on {} (byte {})", place.name(), place.start()))
        .because(error.to_string())
}

fn fault(error: UnpackError, task: &WriteImageTask, place: Place<'_>) -> Fault {
    match error {
        UnpackError::Refused(fault) => fault,
        UnpackError::Source(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Fault::new(FaultCode::ImageTruncated, format!("{}: the archive ends in the middle", task.image.shown()))
        }
        UnpackError::Source(error) => match source_fault(&error, &task.image) {
            // Neither fetching nor decoding: the archive itself.
            fault if fault.code == FaultCode::Io => {
                Fault::new(FaultCode::ImageFormat, format!("{}: {error}", task.image.shown()))
            }
            fault => fault,
        },
        UnpackError::Made { path, error } if error.kind() == io::ErrorKind::StorageFull => Fault::new(
            FaultCode::ImageTooLarge,
            format!(
                "the files do not fit into {} on {}: full at {:?}",
                Bytes(place.size()),
                place.name(),
                path.display()
            ),
        ),
        UnpackError::Made { path, error } => disk_fault(&format!("making {:?}", path.display()), &error, place),
    }
}
