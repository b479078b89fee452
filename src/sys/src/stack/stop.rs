//! Taking down one step, and seeing that it is down.
//!
//! What goes is told by the kernel's name, and names come and go: right before each call the device is looked at again,
//! and must be the one of the plan in number, kind and what it stands on.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use speediso_model::stack::{Act, Device, Step, What};

use super::{number, number_at, read, users};
use crate::disks::DiskScope;
use crate::dm;
use crate::inflight;
use crate::roots::Roots;

#[derive(Debug, thiserror::Error)]
pub enum StopError {
    #[error("looking at what stands on the disks")]
    Read(#[source] io::Error),
    #[error("{0} is not what it was when the plan was made")]
    Changed(String),
    #[error("{device} is busy{}", held_by(.users))]
    Busy { device: String, users: Vec<String> },
    #[error("the kernel declined")]
    Declined(#[source] io::Error),
    #[error("the kernel took the order, but {0} is still there")]
    StillThere(String),
}

fn held_by(users: &[String]) -> String {
    if users.is_empty() { String::new() } else { format!(": held by {}", users.join(", ")) }
}

mod raw {
    // linux/raid/md_u.h: STOP_ARRAY.
    nix::ioctl_none!(stop_array, 9, 0x32);
}

/// Whoever watches for new devices (udev) holds each for a moment.
const PATIENCE: Duration = Duration::from_secs(4);
/// What the kernel takes away on its own time: caches are written out, arrays let go of their members.
const SETTLE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// Does it, and looks again. A device that has gone by itself since the plan is down, too.
///
/// # Errors
/// When the device is another than planned, when it is busy, or when it is still there afterwards.
pub fn carry_out(roots: &Roots, scope: DiskScope, step: &Step) -> Result<(), StopError> {
    let begun = Instant::now();
    loop {
        match now(roots, scope, step)? {
            None => return Ok(()),
            Some(device) if !device.is_same(&step.device) => return Err(StopError::Changed(step.device.to_string())),
            Some(_) => {}
        }
        let _asked = inflight::ask("taking down", &step.device.name, 0, 0);
        match call(roots, step) {
            Ok(()) => break,
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && begun.elapsed() < PATIENCE => std::thread::sleep(POLL),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => return Err(busy(roots, step)),
            Err(e) => return Err(StopError::Declined(e)),
        }
    }
    let begun = Instant::now();
    while now(roots, scope, step)?.is_some() {
        if begun.elapsed() > SETTLE {
            return Err(StopError::StillThere(step.device.to_string()));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The device as it is, as long as this step has anything left to do.
fn now(roots: &Roots, scope: DiskScope, step: &Step) -> Result<Option<Device>, StopError> {
    let stack = read(roots, scope).map_err(StopError::Read)?;
    let Some(device) = stack.get(&step.device.name) else { return Ok(None) };
    let is_left = match &step.act {
        Act::SwapOff { of } => device.swaps.contains(of),
        Act::Unmount { at } => device.mounts.iter().any(|mount| mount.at == *at),
        // A stopped array stays for a moment as a name without members.
        Act::Stop => !device.on.is_empty(),
    };
    Ok(is_left.then(|| device.clone()))
}

fn call(roots: &Roots, step: &Step) -> io::Result<()> {
    let device = &step.device;
    match (&step.act, &device.what) {
        (Act::SwapOff { of }, _) => swap_off(Path::new(of)),
        (Act::Unmount { at }, _) => Ok(umount2(Path::new(at), MntFlags::UMOUNT_NOFOLLOW)?),
        (Act::Stop, What::Array { .. }) => stop_array(roots, device),
        (Act::Stop, What::Mapped { targets, .. }) => {
            let number = number(&device.number).ok_or_else(unnumbered)?;
            let mapper = dm::Control::open(roots)?;
            if targets.iter().any(|kind| kind == "multipath") {
                // Without a path it would wait for one for ever.
                mapper.fail_without_path(number)?;
            }
            mapper.remove(number)
        }
        (Act::Stop, What::Cached | What::CacheWaiting | What::CacheSet) => {
            let name = device.name.strip_prefix("bcache/").unwrap_or(&device.name);
            let dir: PathBuf = match device.what {
                What::CacheSet => roots.sys.join("fs/bcache").join(name),
                _ => roots.sys.join("class/block").join(name).join("bcache"),
            };
            std::fs::write(dir.join("stop"), "1")
        }
        (Act::Stop, What::Disk | What::Partition | What::Btrfs | What::Loop { .. } | What::Other) => {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}

fn unnumbered() -> io::Error {
    io::Error::other("the device has no number")
}

fn swap_off(path: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: swapoff takes a string that ends in 0 and lives until after the call. nix has no call for it.
    if unsafe { libc::swapoff(path.as_ptr()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn stop_array(roots: &Roots, device: &Device) -> io::Result<()> {
    let path = roots.dev.join(&device.name);
    let file = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(&path)?;
    // The node may be another's by now; the descriptor is what the order goes to.
    if number_at(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))).as_ref() != Some(&device.number) {
        return Err(io::Error::other(format!("{} is not device {}", path.display(), device.number)));
    }
    // SAFETY: STOP_ARRAY takes no argument.
    unsafe { raw::stop_array(file.as_raw_fd()) }?;
    Ok(())
}

fn busy(roots: &Roots, step: &Step) -> StopError {
    let (device, users) = match &step.act {
        Act::Unmount { at } => {
            let number = number_at(Path::new(at)).unwrap_or_default();
            (format!("the file system at {at}"), users::of_file_system(roots, &number))
        }
        _ => (step.device.name.clone(), users::of_device(roots, &step.device.number)),
    };
    StopError::Busy { device, users }
}
