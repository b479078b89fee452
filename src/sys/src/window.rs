//! A part of a claimed disk as a device of its own, for those who need one: the kernel's file systems, and tools.
//!
//! The kernel mounts nothing that lies on a disk held exclusively, so the partition itself would have to be given out of
//! the hand. A loop device over the disk's own descriptor is not in the way of the claim: nobody else gets the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::claim::ClaimedDisk;
use crate::ioctl;

/// Where the kernel gives out loop devices.
const CONTROL: &str = "/dev/loop-control";

/// A loop device over part of a claimed disk. The kernel takes it away with its last user, whatever becomes of us.
#[derive(Debug)]
pub struct Window<'a> {
    file: File,
    path: PathBuf,
    _disk: &'a ClaimedDisk,
}

impl<'a> Window<'a> {
    /// # Errors
    /// When the kernel has no loop devices (module `loop`), or declines.
    pub fn open(disk: &'a ClaimedDisk, start: u64, length: u64) -> io::Result<Self> {
        // Another may take the free one first.
        const TRIES: u32 = 16;
        let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        let mut last = io::Error::other("no free loop device");
        for _ in 0..TRIES {
            let path = PathBuf::from(format!("/dev/loop{}", ioctl::free_loop(&control)?));
            let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(&path)?;
            let sector = u32::try_from(disk.sector_size()).map_err(io::Error::other)?;
            match ioctl::configure_loop(&file, disk.descriptor(), start, length, sector) {
                Ok(()) => return Ok(Self { file, path, _disk: disk }),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes everything out and waits until nobody else uses the device.
    ///
    /// # Errors
    /// What the disk said to what was still to be written; `EBUSY` if a file system stays mounted.
    pub fn close(self) -> io::Result<()> {
        self.settle()
    }

    fn settle(&self) -> io::Result<()> {
        const TRIES: u32 = 50;
        self.file.sync_all()?;
        ioctl::flush_buffers(&self.file)?;
        for attempt in 1.. {
            // Exclusive opening fails while a file system has it, which the kernel lets go of a moment after the unmount.
            match OpenOptions::new().read(true).custom_flags(libc::O_EXCL | libc::O_CLOEXEC).open(&self.path) {
                Ok(_) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempt < TRIES => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Drop for Window<'_> {
    /// Whoever gives up clears the place next: nothing that is still on its way may land there afterwards.
    fn drop(&mut self) {
        // They have a reason of their own to tell, and this can only be more of the same.
        let _ = self.settle();
    }
}
