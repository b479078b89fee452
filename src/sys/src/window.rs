//! A part of a disk as a device of its own, for those who need one: the kernel's file systems, and tools.
//!
//! The kernel mounts nothing that lies on a disk held exclusively, so the partition itself would have to be given out of
//! the hand. A loop device over the disk's own descriptor is not in the way of the claim: nobody else gets the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::claim::ClaimedDisk;
use crate::ioctl;
use crate::loop_device::{self, Access};
use crate::peek::Peek;

/// A loop device over part of a disk. The kernel takes it away with its last user, whatever becomes of us.
#[derive(Debug)]
pub struct Window<'a> {
    file: File,
    path: PathBuf,
    _disk: PhantomData<&'a ()>,
}

impl<'a> Window<'a> {
    /// # Errors
    /// When the kernel has no loop devices (module `loop`), or declines.
    pub fn open(disk: &'a ClaimedDisk, start: u64, length: u64) -> io::Result<Self> {
        Self::over(disk.descriptor(), disk.sector_size(), start, length, Access::Write)
    }

    /// Through which nothing can be written.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn read_only(disk: &'a ClaimedDisk, start: u64, length: u64) -> io::Result<Self> {
        Self::over(disk.descriptor(), disk.sector_size(), start, length, Access::ReadOnly)
    }

    /// Through which nothing can be written, for a disk that nobody has claimed.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn of_peek(peek: &'a Peek, start: u64, length: u64) -> io::Result<Self> {
        Self::over(peek.descriptor(), u64::from(peek.disk().logical_sectors), start, length, Access::ReadOnly)
    }

    /// Through which nothing can be written, over a part of a device that is open already.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub fn of_device(device: &'a File, sector: u64, start: u64, length: u64) -> io::Result<Self> {
        Self::over(device, sector, start, length, Access::ReadOnly)
    }

    fn over(backing: &'a File, sector: u64, start: u64, length: u64, access: Access) -> io::Result<Self> {
        let sector = u32::try_from(sector).map_err(io::Error::other)?;
        let (file, path) = loop_device::attach(backing, start, length, sector, access)?;
        Ok(Self { file, path, _disk: PhantomData })
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
