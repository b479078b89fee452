//! A disk to be read: one that is only looked at for a plan, or one that is claimed.

use speediso_model::fault::{Fault, FaultCode};
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::peek::Peek;

use super::arrange::Span;
use crate::gptedit::Edges;
use crate::single::OnDisk as _;

#[derive(Clone, Copy, Debug)]
pub(super) enum Medium<'a> {
    Seen(&'a Peek),
    Claimed(&'a ClaimedDisk),
}

impl<'a> Medium<'a> {
    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Seen(peek) => &peek.disk().name,
            Self::Claimed(disk) => disk.name(),
        }
    }

    pub(super) fn size(self) -> u64 {
        match self {
            Self::Seen(peek) => peek.disk().size.0,
            Self::Claimed(disk) => disk.size(),
        }
    }

    /// Logical, in bytes.
    pub(super) fn sector(self) -> u64 {
        match self {
            Self::Seen(peek) => u64::from(peek.disk().logical_sectors),
            Self::Claimed(disk) => disk.sector_size(),
        }
    }

    /// From the medium. Whole sectors, into an aligned buffer.
    pub(super) fn read(self, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        match self {
            Self::Seen(peek) => peek.read_at(offset, bytes),
            Self::Claimed(disk) => disk.read_at(offset, bytes).on(disk),
        }
    }

    pub(super) fn edges(self) -> Result<Edges, Fault> {
        Edges::read_by(self.size(), |offset, bytes| self.read(offset, bytes))
    }

    /// The beginning of a part, up to `most` bytes of it.
    pub(super) fn start_of(self, span: Span, most: usize) -> Result<AlignedBuffer, Fault> {
        let length = usize::try_from(span.length()).unwrap_or(usize::MAX).min(most);
        if length == 0 {
            return Err(Fault::new(FaultCode::Internal, "a partition without any bytes"));
        }
        let mut bytes = AlignedBuffer::zeroed(length);
        self.read(span.start, &mut bytes)?;
        Ok(bytes)
    }
}
