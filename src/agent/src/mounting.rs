//! Mounting, with errors that say what and where.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use speediso_sys::loop_device::{self, Access};

/// A file system is mounted there, and not only the directory that it is mounted on.
pub(crate) fn is_mounted(place: &Path) -> io::Result<bool> {
    let Some(parent) = place.parent() else { return Ok(true) };
    match (fs::metadata(place), fs::metadata(parent)) {
        (Ok(here), Ok(above)) => Ok(here.dev() != above.dev()),
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

pub(crate) fn mount_at(from: &Path, at: &Path, kind: &str, flags: MsFlags, options: &str) -> io::Result<()> {
    mount(Some(from), at, Some(kind), flags, Some(options)).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("mounting {kind} on {}: {error}", at.display()))
    })
}

/// The squashfs in the first `length` bytes of `file`. The device between them goes with the mount.
pub(crate) fn squashfs(file: &File, length: u64, at: &Path) -> io::Result<()> {
    let (device, path) = loop_device::attach(file, 0, length, 512, Access::ReadOnly)?;
    fs::create_dir_all(at)?;
    mount_at(&path, at, "squashfs", MsFlags::MS_RDONLY | MsFlags::MS_NODEV, "")?;
    // From here on the mount holds the device.
    drop(device);
    Ok(())
}
