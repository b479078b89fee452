//! A claimed disk as bytes that can be read anywhere, and as what is to be packed of it.

use std::cell::RefCell;
use std::io;
use std::ops::Range;

use speediso_image::manifest::PackSource;
use speediso_image::used::{FreeMap, ReadAt};
use speediso_model::fault::Fault;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;

use crate::ctx::TaskCtx;

/// At once.
const PIECE: usize = 1 << 20;

/// Reads past the kernel's cache: whole sectors into aligned memory, and from there.
pub(super) struct Direct<'a> {
    disk: &'a ClaimedDisk,
    ctx: &'a TaskCtx,
    piece: RefCell<AlignedBuffer>,
    /// What an `io::Error` of ours stands for.
    fault: RefCell<Option<Fault>>,
}

impl<'a> Direct<'a> {
    pub(super) fn new(disk: &'a ClaimedDisk, ctx: &'a TaskCtx) -> Self {
        Self { disk, ctx, piece: RefCell::new(AlignedBuffer::zeroed(PIECE)), fault: RefCell::new(None) }
    }

    pub(super) fn name(&self) -> &str {
        self.disk.name()
    }

    /// Why reading failed, if it did; else the other fault.
    pub(super) fn or(&self, other: Fault) -> Fault {
        self.fault.take().unwrap_or(other)
    }

    fn stop(&self, fault: Fault) -> io::Error {
        let error = io::Error::other(fault.clone());
        self.fault.replace(Some(fault));
        error
    }
}

impl ReadAt for Direct<'_> {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let sector = self.disk.sector_size();
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.size()) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the disk ends before"));
        }
        let mut piece = self.piece.borrow_mut();
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            self.ctx.cancel.check().map_err(|fault| self.stop(fault))?;
            let start = at - at % sector;
            let skip = usize::try_from(at - start).unwrap_or_default();
            let whole = (skip + rest.len()).next_multiple_of(usize::try_from(sector).unwrap_or(PIECE)).min(PIECE);
            self.disk.read_at(start, &mut piece[..whole]).map_err(|e| self.stop(self.disk.fault(&e)))?;
            let n = rest.len().min(whole - skip);
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(&piece[skip..skip + n]);
            (at, rest) = (at + n as u64, later);
        }
        Ok(())
    }
}

/// A part of the disk without what is free in it.
pub(super) struct Content<'a> {
    direct: &'a Direct<'a>,
    free: &'a FreeMap,
    range: Range<u64>,
}

impl<'a> Content<'a> {
    pub(super) fn new(direct: &'a Direct<'a>, free: &'a FreeMap, range: Range<u64>) -> Self {
        Self { direct, free, range }
    }
}

impl PackSource for Content<'_> {
    fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Reads from the first byte in use to the last one, so that a bad sector in free space harms nobody, and takes out
    /// what is free between.
    fn read(&mut self, offset: u64, chunk: &mut [u8]) -> io::Result<bool> {
        let end = offset + chunk.len() as u64;
        let (mut first, mut last) = (offset, end);
        for free in self.free.within(offset..end) {
            if free.start == first {
                first = free.end;
            }
            if free.end == end {
                last = free.start;
            }
        }
        if first >= end {
            self.direct.ctx.cancel.check().map_err(|fault| self.direct.stop(fault))?;
            return Ok(false);
        }
        chunk.fill(0);
        let place = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
        self.direct.read_at(self.range.start + first, &mut chunk[place(first)..place(last)])?;
        for free in self.free.within(first..last) {
            chunk[place(free.start)..place(free.end)].fill(0);
        }
        Ok(true)
    }
}
