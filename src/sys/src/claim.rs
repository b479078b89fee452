//! The only way to a destructive call.
//!
//! A [`ClaimedDisk`] is made from the identity in a plan: the one disk that has it is opened exclusively, and must still
//! have it by what the open descriptor says. While it lives the kernel gives the disk to nobody else: no mount, no swap, no md,
//! no second claim. Every method that changes the disk is here, and none takes a name.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::time::Duration;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::{Rejection, describe, unusable};
use speediso_model::inventory::Disk;
use speediso_model::plan::DiskIdentity;

use crate::buffer::ALIGNMENT;
use crate::disks::{self, DiskScope};
use crate::inflight;
use crate::ioctl;
use crate::reader::DiskReader;
use crate::roots::Roots;

/// Reading or writing a claimed disk failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{operation} {length} bytes at byte {offset} of {device}")]
    Io {
        operation: &'static str,
        device: String,
        offset: u64,
        length: u64,
        #[source]
        source: io::Error,
    },
    /// The kernel took or gave nothing, without an error: the disk ends here, or has gone.
    #[error("{operation} at byte {offset} of {device}: the disk ends there")]
    Ended { operation: &'static str, device: String, offset: u64 },
    /// A mistake of ours.
    #[error("{operation} {length} bytes at byte {offset} of {device} does not fall on sectors")]
    Misaligned { operation: &'static str, device: String, offset: u64, length: u64 },
}

/// A disk that was matched by its identity and is held exclusively.
#[derive(Debug)]
pub struct ClaimedDisk {
    file: File,
    disk: Disk,
    identity: DiskIdentity,
}

impl ClaimedDisk {
    /// Opens the disk of this identity exclusively and looks again at what was opened.
    ///
    /// The identity comes from a plan, and the plan from hints that matched one disk.
    ///
    /// # Errors
    /// `disk-changed` when no disk here, or not the one that was opened, has this identity; `disk-in-use` when somebody
    /// else holds it. Nothing was changed in any of them.
    pub fn claim(
        roots: &Roots,
        scope: DiskScope,
        identity: &DiskIdentity,
        allow_removable: bool,
    ) -> Result<Self, Fault> {
        let disks = disks::read(roots, scope)
            .map_err(|e| Fault::from_error(FaultCode::Io, &e).because("listing the disks in /sys/block"))?;
        let same: Vec<&Disk> = disks.iter().filter(|d| DiskIdentity::of(d) == *identity).collect();
        let [chosen] = same.as_slice() else {
            let code = if same.is_empty() { FaultCode::DiskChanged } else { FaultCode::AmbiguousDisk };
            let mut fault = Fault::new(code, format!("{} disks here are the one planned for, {identity}", same.len()));
            fault.causes = disks.iter().map(describe).collect();
            return Err(fault);
        };
        let usable = |disk: &Disk| match unusable(disk, allow_removable) {
            Some(Rejection::Unusable { code, reason }) => {
                Err(Fault::new(code, format!("{}: {reason}", describe(disk))))
            }
            Some(Rejection::Differs { .. }) | None => Ok(()),
        };
        usable(chosen)?;
        let file = open_exclusively(chosen)?;
        let disk = disks::identify(roots, &file).map_err(|e| {
            Fault::new(FaultCode::DiskVanished, format!("{} went away while it was opened", describe(chosen)))
                .because(e.to_string())
        })?;
        if DiskIdentity::of(&disk) != *identity {
            return Err(Fault::new(
                FaultCode::DiskChanged,
                format!("{} was chosen, but what opened under its name is {}", describe(chosen), describe(&disk)),
            ));
        }
        // Between the list and the opening somebody may have mounted it.
        usable(&disk)?;
        Ok(Self { file, disk, identity: identity.clone() })
    }

    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    #[must_use]
    pub fn identity(&self) -> &DiskIdentity {
        &self.identity
    }

    /// The kernel's name this time, for reports.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.disk.name
    }

    /// In bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.disk.size.0
    }

    /// Logical, in bytes: the unit of every offset and length.
    #[must_use]
    pub fn sector_size(&self) -> u64 {
        u64::from(self.disk.logical_sectors)
    }

    /// Writes all of `data`, past the page cache.
    ///
    /// # Errors
    /// With offset and length of what could not be written; parts before it may have been.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.check("writing", offset, data)?;
        let _asked = self.ask("writing", offset, data.len() as u64);
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            match self.file.write_at(&data[done..], at) {
                Ok(0) => {
                    return Err(DiskError::Ended { operation: "writing", device: self.disk.name.clone(), offset: at });
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error("writing", at, (data.len() - done) as u64, e)),
            }
        }
        Ok(())
    }

    /// Fills `data` from the medium, past the page cache.
    ///
    /// # Errors
    /// With offset and length of what could not be read.
    pub fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), DiskError> {
        self.check("reading", offset, data)?;
        let _asked = self.ask("reading", offset, data.len() as u64);
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            match self.file.read_at(&mut data[done..], at) {
                Ok(0) => {
                    return Err(DiskError::Ended { operation: "reading", device: self.disk.name.clone(), offset: at });
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error("reading", at, (data.len() - done) as u64, e)),
            }
        }
        Ok(())
    }

    /// Another descriptor of the same disk that can only read, and that may outlive the claim.
    ///
    /// # Errors
    /// When it cannot be opened, or is another disk by now.
    pub fn reader(&self) -> Result<DiskReader, DiskError> {
        DiskReader::of(&self.file, &self.disk.name, self.size(), self.sector_size(), self.identity.diskseq)
    }

    /// Makes a range read as zeroes, by whatever the device is quickest at. No erasure: never evidence of a wipe.
    ///
    /// # Errors
    /// When the kernel or the device declines.
    pub fn zero_out(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let _asked = self.ask("zeroing", offset, length);
        ioctl::zero_out(&self.file, offset, length).map_err(|e| self.error("zeroing", offset, length, e))
    }

    /// Tells the device that a range is unused; what it reads as afterwards is undefined.
    ///
    /// # Errors
    /// When the device has no such command.
    pub fn discard(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let _asked = self.ask("discarding", offset, length);
        ioctl::discard(&self.file, offset, length).map_err(|e| self.error("discarding", offset, length, e))
    }

    /// Makes what was written survive a power cut: flushes the drive's own cache, and drops the kernel's, so that what
    /// is read next comes from the medium.
    ///
    /// # Errors
    /// An error here may be of any write before.
    pub fn flush(&self) -> Result<(), DiskError> {
        let _asked = self.ask("flushing", 0, self.size());
        self.file
            .sync_all()
            .and_then(|()| ioctl::flush_buffers(&self.file))
            .map_err(|e| self.error("flushing", 0, self.size(), e))
    }

    /// Lets the kernel see the new partition table. `false` if this device never has partitions (a loop device without
    /// partition scanning).
    ///
    /// # Errors
    /// When the kernel declines, because a partition is in use for instance.
    pub fn reread_table(&self) -> Result<bool, DiskError> {
        const TRIES: u32 = 20;
        // The kernel reads the disk for it.
        let _asked = self.ask("re-reading the partition table", 0, self.size());
        for attempt in 1.. {
            match ioctl::reread_partitions(&self.file) {
                Ok(()) => return Ok(true),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
                // Whoever watches for new disks (udev) holds the partitions for a moment.
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempt < TRIES => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(e) => return Err(self.error("re-reading the partition table", 0, 0, e)),
            }
        }
        Ok(false)
    }

    /// Logical, in bytes, as the kernel has it now: after a format it is not what it was when the disk was claimed.
    #[must_use]
    pub fn current_sector_size(&self) -> Option<u32> {
        ioctl::logical_sector_size(&self.file).ok()
    }

    /// Whether the descriptor still leads to the disk it was opened for, whole.
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        ioctl::size_in_bytes(&self.file).is_ok_and(|size| size == self.size())
            && ioctl::disk_sequence(&self.file) == self.identity.diskseq
    }

    /// The fault for an error on this disk. The errno is not trusted: a disk that was pulled shows as ENOSPC or EIO,
    /// so the device is looked at again, for a moment, since its requests fail before the kernel takes it away.
    #[must_use]
    pub fn fault(&self, error: &DiskError) -> Fault {
        const LOOKS: u32 = 30;
        const BETWEEN: Duration = Duration::from_millis(100);
        let stays = || {
            (0..LOOKS).all(|look| {
                std::thread::sleep(if look == 0 { Duration::ZERO } else { BETWEEN });
                self.is_still_there()
            })
        };
        let code = match error {
            DiskError::Misaligned { .. } => FaultCode::Internal,
            _ if stays() => FaultCode::DiskIo,
            _ => FaultCode::DiskVanished,
        };
        Fault::from_error(code, error)
    }

    pub(crate) fn into_parts(self) -> (File, Disk, DiskIdentity) {
        (self.file, self.disk, self.identity)
    }

    /// For a loop device over it and for commands to it: whoever has the descriptor could write anything.
    pub(crate) fn descriptor(&self) -> &File {
        &self.file
    }

    fn ask(&self, operation: &'static str, offset: u64, length: u64) -> inflight::Asked {
        inflight::ask(operation, &self.disk.name, offset, length)
    }

    fn check(&self, operation: &'static str, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let (length, sector) = (data.len() as u64, self.sector_size());
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.size());
        let aligned = offset.is_multiple_of(sector)
            && length.is_multiple_of(sector)
            && data.as_ptr().addr().is_multiple_of(ALIGNMENT.min(usize::try_from(sector).unwrap_or(ALIGNMENT)));
        if !inside {
            return Err(DiskError::Ended { operation, device: self.disk.name.clone(), offset });
        }
        if !aligned {
            return Err(DiskError::Misaligned { operation, device: self.disk.name.clone(), offset, length });
        }
        Ok(())
    }

    fn error(&self, operation: &'static str, offset: u64, length: u64, source: io::Error) -> DiskError {
        DiskError::Io { operation, device: self.disk.name.clone(), offset, length, source }
    }
}

fn open_exclusively(disk: &Disk) -> Result<File, Fault> {
    // Opening may read: a partition table that the kernel has not seen yet.
    let _asked = inflight::ask("opening", &disk.name, 0, disk.size.0);
    // O_EXCL on a block device without O_CREAT: fails with EBUSY if the kernel or anybody has claimed it (open(2)).
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_EXCL | libc::O_DIRECT | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(&disk.name)
    };
    open().map_err(|e| {
        let code = match e.raw_os_error() {
            Some(libc::EBUSY) => FaultCode::DiskInUse,
            Some(libc::EROFS | libc::EACCES | libc::EPERM) => FaultCode::DiskReadOnly,
            Some(libc::ENXIO | libc::ENODEV | libc::ENOENT | libc::ENOMEDIUM) => FaultCode::DiskVanished,
            _ => FaultCode::DiskIo,
        };
        Fault::new(code, format!("opening {} exclusively", describe(disk))).because(e.to_string())
    })
}
