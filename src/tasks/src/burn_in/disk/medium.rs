//! What a disk step reads and writes. Reading needs no more than a look; writing takes a claimed disk.

use speediso_model::fault::{Fault, FaultCode};
use speediso_sys::claim::{ClaimedDisk, DiskError};
use speediso_sys::passthrough::Passthrough;
use speediso_sys::peek::Peek;

/// A request that the disk did not carry out.
#[derive(Clone, Debug)]
pub(super) struct Failed(pub(super) String);

pub(super) trait Medium: Sync {
    fn name(&self) -> &str;
    fn size(&self) -> u64;
    fn sector_size(&self) -> u64;
    fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), Failed>;
    /// Whether the descriptor still leads to the whole disk: the error itself does not tell.
    fn is_there(&self) -> bool;
    /// The way to the disk itself, where it has one.
    fn device(&self) -> Option<&dyn Passthrough>;
}

pub(super) trait Writable: Medium {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), Failed>;
    /// To the medium, and what is read next comes from there.
    fn flush(&self) -> Result<(), Failed>;
}

impl From<DiskError> for Failed {
    fn from(error: DiskError) -> Self {
        let fault = Fault::from_error(FaultCode::DiskIo, &error);
        Self(std::iter::once(fault.message).chain(fault.causes).collect::<Vec<_>>().join(": "))
    }
}

impl Medium for ClaimedDisk {
    fn name(&self) -> &str {
        Self::name(self)
    }

    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn sector_size(&self) -> u64 {
        Self::sector_size(self)
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), Failed> {
        Ok(Self::read_at(self, offset, data)?)
    }

    fn is_there(&self) -> bool {
        self.is_still_there()
    }

    fn device(&self) -> Option<&dyn Passthrough> {
        Some(self)
    }
}

impl Writable for ClaimedDisk {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), Failed> {
        Ok(Self::write_at(self, offset, data)?)
    }

    fn flush(&self) -> Result<(), Failed> {
        Ok(Self::flush(self)?)
    }
}

impl Medium for Peek {
    fn name(&self) -> &str {
        &self.disk().name
    }

    fn size(&self) -> u64 {
        self.disk().size.0
    }

    fn sector_size(&self) -> u64 {
        u64::from(self.disk().logical_sectors)
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), Failed> {
        Self::read_at(self, offset, data).map_err(|fault| Failed(fault.to_string()))
    }

    fn is_there(&self) -> bool {
        self.is_still_there()
    }

    fn device(&self) -> Option<&dyn Passthrough> {
        Some(self)
    }
}
