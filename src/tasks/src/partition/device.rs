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
use super::superblock::{self, Found, PROBE};
use crate::tools::Toolbox;

/// A loop device over a part of the disk: the claim is never let go of for it.
pub(super) fn window(disk: &ClaimedDisk, span: Span) -> Result<Window<'_>, Fault> {
    Window::open(disk, span.start, span.length()).map_err(|e| {
        Fault::new(FaultCode::Io, format!("no loop device to show {} by (kernel module loop)", disk.name()))
            .because(e.to_string())
    })
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
    let found = look(device, place.length)?;
    let so = found.as_ref().map_or_else(|| Err("there is nothing".to_owned()), |found| format::is_so(wanted, found));
    so.map_err(|why| {
        Fault::new(
            FaultCode::VerifyFailed,
            format!("{} was made on {}, but {why}", wanted.describe(), device.display()),
        )
    })
}

fn look(device: &Path, length: u64) -> Result<Option<Found>, Fault> {
    let length = usize::try_from(length).unwrap_or(PROBE).min(PROBE);
    let mut start = AlignedBuffer::zeroed(length.max(4096));
    let mut read = || {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(device)?;
        file.read_exact_at(&mut start, 0)
    };
    read().map_err(|e| {
        Fault::new(FaultCode::DiskIo, format!("reading back what was made on {}", device.display()))
            .because(e.to_string())
    })?;
    Ok(superblock::recognise(&start))
}

/// A device by device mapper.
pub(super) fn mapped(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}
