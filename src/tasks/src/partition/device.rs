//! Devices that stand on a part of a claimed disk while something is made in it: a loop device, and what lies on that.
//! Whatever happens, they go in the opposite order.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::Format;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::window::Window;

use super::arrange::Span;
use super::format::{self, Place};
use super::medium::Medium;
use super::superblock::{self, Found, PROBE};
use crate::tools::Toolbox;

/// A loop device over a part of the disk: the claim is never let go of for it.
pub(super) fn window(disk: &ClaimedDisk, span: Span) -> Result<Window<'_>, Fault> {
    Window::open(disk, span.start, span.length()).map_err(|e| no_window(disk.name(), &e))
}

/// The same for looking only.
pub(super) fn peephole(medium: Medium<'_>, span: Span) -> Result<Window<'_>, Fault> {
    let opened = match medium {
        Medium::Seen(peek) => Window::of_peek(peek, span.start, span.length()),
        Medium::Claimed(disk) => Window::read_only(disk, span.start, span.length()),
    };
    opened.map_err(|e| no_window(medium.name(), &e))
}

fn no_window(disk: &str, error: &std::io::Error) -> Fault {
    Fault::new(FaultCode::Io, format!("no loop device to show {disk} by (kernel module loop)"))
        .because(error.to_string())
}

/// Writes everything out, and sees that nobody is left on it.
pub(super) fn close(window: Window<'_>, disk: &ClaimedDisk, span: Span) -> Result<(), Fault> {
    window.close().map_err(|e| {
        Fault::new(FaultCode::DiskIo, format!("writing out what was made at byte {} of {}", span.start, disk.name()))
            .because(e.to_string())
    })
}

/// Makes a file system on a device of ours, and reads its superblock from the medium.
pub(super) fn make(wanted: &Format, device: &Path, place: Place, toolbox: &Toolbox<'_>) -> Result<(), Fault> {
    format::make(wanted, device, place, toolbox)?;
    let found = look(device, 0, place.length)?;
    let so = found.as_ref().map_or_else(|| Err("there is nothing".to_owned()), |found| format::is_so(wanted, found));
    so.map_err(|why| {
        Fault::new(
            FaultCode::VerifyFailed,
            format!("{} was made on {}, but {why}", wanted.describe(), device.display()),
        )
    })
}

/// What begins at a place of a device, by the medium.
pub(super) fn look(device: &Path, at: u64, length: u64) -> Result<Option<Found>, Fault> {
    Ok(superblock::recognise(&start(device, at, length)?))
}

/// As much as holds every superblock, or less if there is less.
pub(super) fn start(device: &Path, at: u64, length: u64) -> Result<AlignedBuffer, Fault> {
    let length = usize::try_from(length).unwrap_or(PROBE).min(PROBE);
    let mut start = AlignedBuffer::zeroed(length.max(4096));
    let mut read = || {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(device)?;
        file.read_exact_at(&mut start, at)
    };
    read().map_err(|e| {
        Fault::new(FaultCode::DiskIo, format!("reading what is on {} at byte {at}", device.display()))
            .because(e.to_string())
    })?;
    Ok(start)
}

/// A device by device mapper.
pub(super) fn mapped(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}
