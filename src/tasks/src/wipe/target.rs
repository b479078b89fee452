//! What a wipe works on: a claimed disk, or in tests a simulated one. Nothing else can be one.

use std::time::Duration;

use speediso_model::fault::Fault;
use speediso_model::inventory::Disk;
use speediso_sys::claim::{ClaimedDisk, DiskError};
use speediso_sys::passthrough::Passthrough;

pub(super) trait Target: Passthrough {
    fn disk(&self) -> &Disk;
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError>;
    fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), DiskError>;
    /// To the medium, and what is read next comes from there.
    fn flush(&self) -> Result<(), DiskError>;
    fn fault(&self, error: &DiskError) -> Fault;
    fn reread_table(&self) -> Result<bool, DiskError>;
    /// Between two looks at a device that works by itself.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn name(&self) -> &str {
        &self.disk().name
    }

    fn size(&self) -> u64 {
        self.disk().size.0
    }

    fn sector_size(&self) -> u64 {
        u64::from(self.disk().logical_sectors)
    }
}

impl Target for ClaimedDisk {
    fn disk(&self) -> &Disk {
        Self::disk(self)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        Self::write_at(self, offset, data)
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), DiskError> {
        Self::read_at(self, offset, data)
    }

    fn flush(&self) -> Result<(), DiskError> {
        Self::flush(self)
    }

    fn fault(&self, error: &DiskError) -> Fault {
        Self::fault(self, error)
    }

    fn reread_table(&self) -> Result<bool, DiskError> {
        Self::reread_table(self)
    }
}

/// Turns a disk's error into its fault.
pub(super) trait On<T> {
    fn on(self, device: &dyn Target) -> Result<T, Fault>;
}

impl<T> On<T> for Result<T, DiskError> {
    fn on(self, device: &dyn Target) -> Result<T, Fault> {
        self.map_err(|e| device.fault(&e))
    }
}
