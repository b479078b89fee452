//! Reading a disk that somebody else, or another part of us, writes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

use crate::buffer::AlignedBuffer;
use crate::claim::DiskError;
use crate::{inflight, ioctl};

/// A descriptor for reading past the page cache. It holds no claim: whoever claims the disk next is not kept from it.
#[derive(Debug)]
pub struct DiskReader {
    file: File,
    device: String,
    size: u64,
    sector_size: u64,
}

impl DiskReader {
    pub(crate) fn of(
        claimed: &File,
        device: &str,
        size: u64,
        sector_size: u64,
        diskseq: Option<u64>,
    ) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Io {
            operation: "opening for reading",
            device: device.to_owned(),
            offset: 0,
            length: size,
            source,
        };
        // Through the open descriptor: a name in /dev may lead elsewhere by now.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(format!("/proc/self/fd/{}", claimed.as_raw_fd()))
            .map_err(failed)?;
        if ioctl::disk_sequence(&file) != diskseq {
            return Err(failed(io::Error::other("another disk answers under its number")));
        }
        Ok(Self { file, device: device.to_owned(), size, sector_size })
    }

    /// Fills the first `length` bytes of `buffer`, whole sectors.
    ///
    /// # Errors
    /// With offset and length of what could not be read.
    pub fn read_at(&self, offset: u64, buffer: &mut AlignedBuffer, length: usize) -> Result<(), DiskError> {
        const OPERATION: &str = "reading";
        let ended = |offset| DiskError::Ended { operation: OPERATION, device: self.device.clone(), offset };
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= self.size);
        let Some(buffer) = buffer.get_mut(..length).filter(|_| inside) else { return Err(ended(offset)) };
        if !offset.is_multiple_of(self.sector_size) || !(length as u64).is_multiple_of(self.sector_size) {
            let (device, length) = (self.device.clone(), length as u64);
            return Err(DiskError::Misaligned { operation: OPERATION, device, offset, length });
        }
        let _asked = inflight::ask(OPERATION, &self.device, offset, length as u64);
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            match self.file.read_at(&mut buffer[done..], at) {
                Ok(0) => return Err(ended(at)),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let (device, length) = (self.device.clone(), (length - done) as u64);
                    return Err(DiskError::Io { operation: OPERATION, device, offset: at, length, source });
                }
            }
        }
        Ok(())
    }
}
