//! Looking at a disk without being able to change it: for plans, which are made before anything is claimed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_model::plan::DiskIdentity;

use crate::disks;
use crate::inflight;
use crate::ioctl;
use crate::roots::Roots;

/// A disk opened for reading only. Whoever acts on what was seen looks again at what it has claimed.
#[derive(Debug)]
pub struct Peek {
    file: File,
    disk: Disk,
}

impl Peek {
    /// # Errors
    /// `disk-changed` if what opens under its name is another disk; `disk-io` if it cannot be opened.
    pub fn open(roots: &Roots, disk: &Disk) -> Result<Self, Fault> {
        let failed = |e: io::Error| {
            Fault::new(FaultCode::DiskIo, format!("opening {} to look at it", describe(disk))).because(e.to_string())
        };
        let flags = libc::O_DIRECT | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&disk.name).map_err(failed)?;
        let opened = disks::identify(roots, &file).map_err(failed)?;
        if DiskIdentity::of(&opened) != DiskIdentity::of(disk) {
            return Err(Fault::new(
                FaultCode::DiskChanged,
                format!("{} was chosen, but what opened under its name is {}", describe(disk), describe(&opened)),
            ));
        }
        Ok(Self { file, disk: opened })
    }

    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Whether the descriptor still leads to the disk it was opened for, whole.
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        ioctl::size_in_bytes(&self.file).is_ok_and(|size| size == self.disk.size.0)
            && ioctl::disk_sequence(&self.file) == self.disk.diskseq
    }

    /// For questions only, see [`crate::passthrough`].
    pub(crate) fn descriptor(&self) -> &File {
        &self.file
    }

    /// Fills `data`, an aligned buffer, from the medium.
    ///
    /// # Errors
    /// `disk-io` with the place.
    pub fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), Fault> {
        let _asked = inflight::ask("reading", &self.disk.name, offset, data.len() as u64);
        self.file.read_exact_at(data, offset).map_err(|e| {
            Fault::new(
                FaultCode::DiskIo,
                format!("reading {} bytes at byte {offset} of {}", data.len(), describe(&self.disk)),
            )
            .because(e.to_string())
        })
    }
}
