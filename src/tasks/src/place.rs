//! Where something goes: a claimed disk, or a part of one. Offsets count from its start, and nothing gets out of it.

use speediso_model::fault::Fault;
use speediso_sys::claim::{ClaimedDisk, DiskError};

use crate::single::OnDisk as _;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    disk: &'a ClaimedDisk,
    start: u64,
    length: u64,
}

impl<'a> From<&'a ClaimedDisk> for Place<'a> {
    fn from(disk: &'a ClaimedDisk) -> Self {
        Self { disk, start: 0, length: disk.size() }
    }
}

impl<'a> Place<'a> {
    /// `None` if that is not inside of the disk.
    pub(crate) fn part(disk: &'a ClaimedDisk, start: u64, length: u64) -> Option<Self> {
        let inside = start.checked_add(length).is_some_and(|end| end <= disk.size());
        inside.then_some(Self { disk, start, length })
    }

    pub(crate) fn disk(&self) -> &'a ClaimedDisk {
        self.disk
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.length == self.disk.size()
    }

    pub(crate) fn name(&self) -> &'a str {
        self.disk.name()
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    pub(crate) fn size(&self) -> u64 {
        self.length
    }

    pub(crate) fn sector_size(&self) -> u64 {
        self.disk.sector_size()
    }

    pub(crate) fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.disk.write_at(self.on_disk("writing", offset, data.len() as u64)?, data)
    }

    pub(crate) fn read_at(&self, offset: u64, data: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(self.on_disk("reading", offset, data.len() as u64)?, data)
    }

    pub(crate) fn zero_out(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.disk.zero_out(self.on_disk("zeroing", offset, length)?, length)
    }

    /// Of the whole disk.
    pub(crate) fn flush(&self) -> Result<(), Fault> {
        self.disk.flush().on(self.disk)
    }

    fn on_disk(&self, operation: &'static str, offset: u64, length: u64) -> Result<u64, DiskError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(self.start + offset),
            _ => Err(DiskError::Ended {
                operation,
                device: self.name().to_owned(),
                offset: self.start.saturating_add(offset),
            }),
        }
    }
}
