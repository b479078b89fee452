//! The disk's side of a write: what may go there now, what is held back, and reading back.

use std::sync::{LazyLock, Mutex, PoisonError};

use rand::seq::index::sample;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::ReadBack;
use speediso_model::units::Bytes;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::{ClaimedDisk, DiskError};

use crate::ctx::{Meter, TaskCtx};
use crate::gptedit::{EDGE, Edges};
use crate::single::OnDisk as _;

/// Large enough that a disk works at its full rate, small enough to have several in flight in a small machine.
pub(super) const CHUNK: usize = 2 << 20;

/// A disk whose first and last MiB are held back.
pub(super) struct Target<'a> {
    disk: &'a ClaimedDisk,
    read_back: ReadBack,
    kept: Mutex<Kept>,
}

struct Kept {
    edges: Edges,
    pieces: Vec<Piece>,
}

/// Something that was written, or that must be there.
struct Piece {
    offset: u64,
    length: usize,
    hash: blake3::Hash,
}

impl<'a> Target<'a> {
    /// Takes the partition table away: from here on the disk is not what it was.
    pub(super) fn begin(disk: &'a ClaimedDisk, read_back: ReadBack) -> Result<Self, Fault> {
        let edges = Edges::zeroed(disk.size());
        edges.write(disk)?;
        Ok(Self { disk, read_back, kept: Mutex::new(Kept { edges, pieces: Vec::new() }) })
    }

    pub(super) fn disk(&self) -> &'a ClaimedDisk {
        self.disk
    }

    /// Writes what belongs between the edges, and keeps the rest for the end. Whole sectors; any thread, any order.
    pub(super) fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let tail_at = self.disk.size() - EDGE;
        let end = offset + bytes.len() as u64;
        let index = |at: u64| usize::try_from(at.clamp(offset, end) - offset).unwrap_or(bytes.len());
        let (head, rest) = bytes.split_at(index(EDGE));
        let (middle, tail) = rest.split_at(index(tail_at) - head.len());
        if !head.is_empty() || !tail.is_empty() {
            let mut kept = self.kept();
            if let Ok(at) = usize::try_from(offset)
                && !head.is_empty()
            {
                kept.edges.head[at..at + head.len()].copy_from_slice(head);
            }
            if let Ok(at) = usize::try_from(end - tail.len() as u64 - tail_at.min(end))
                && !tail.is_empty()
            {
                kept.edges.tail[at..at + tail.len()].copy_from_slice(tail);
            }
        }
        if !middle.is_empty() {
            let at = offset + head.len() as u64;
            self.disk.write_at(at, middle)?;
            self.expect(at, middle);
        }
        Ok(())
    }

    /// The same of bytes whose hash is known already.
    pub(super) fn put_hashed(&self, offset: u64, bytes: &[u8], hash: blake3::Hash) -> Result<(), DiskError> {
        if !self.is_between_edges(offset, offset + bytes.len() as u64) {
            return self.put(offset, bytes);
        }
        self.disk.write_at(offset, bytes)?;
        self.expect_hash(offset, bytes.len(), hash);
        Ok(())
    }

    /// Makes a range read as zeroes, by whatever the disk is quickest at. The edges do so until the end anyway.
    pub(super) fn zero(&self, start: u64, end: u64) -> Result<(), DiskError> {
        let (from, to) = (start.max(EDGE), end.min(self.disk.size() - EDGE));
        if from < to {
            self.disk.zero_out(from, to - from)?;
            self.expect_zeroes(from, to);
        }
        Ok(())
    }

    pub(super) fn is_between_edges(&self, start: u64, end: u64) -> bool {
        start >= EDGE && end <= self.disk.size() - EDGE
    }

    fn expect(&self, offset: u64, bytes: &[u8]) {
        if self.read_back != ReadBack::None {
            self.expect_hash(offset, bytes.len(), blake3::hash(bytes));
        }
    }

    /// Notes what must be read back at `offset`.
    pub(super) fn expect_hash(&self, offset: u64, length: usize, hash: blake3::Hash) {
        if self.read_back != ReadBack::None {
            self.kept().pieces.push(Piece { offset, length, hash });
        }
    }

    /// Notes zeroes that must be read back.
    pub(super) fn expect_zeroes(&self, start: u64, end: u64) {
        static ZEROES: LazyLock<blake3::Hash> = LazyLock::new(|| blake3::hash(&vec![0; CHUNK]));
        let (mut at, end) = (start.max(EDGE), end.min(self.disk.size() - EDGE));
        while self.read_back != ReadBack::None && at < end {
            let length = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let hash = if length == CHUNK { *ZEROES } else { blake3::hash(&vec![0; length]) };
            self.expect_hash(at, length, hash);
            at += length as u64;
        }
    }

    /// Start and end as they are to be.
    pub(super) fn into_edges(self) -> Edges {
        self.kept.into_inner().unwrap_or_else(PoisonError::into_inner).edges
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Every change is one copy or one push.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what was written from the medium again.
    pub(super) fn read_back(&self, ctx: &TaskCtx) -> Result<ReadBackDone, Fault> {
        let disk = self.disk;
        let mut pieces = std::mem::take(&mut self.kept().pieces);
        pieces.sort_unstable_by_key(|p| p.offset);
        let n = pieces.len();
        let (chosen, seed): (Vec<usize>, Option<u64>) = match self.read_back {
            ReadBack::None => {
                return Ok(ReadBackDone {
                    method: "not read back but for start and end (as ordered)".into(),
                    facts: json!({"mode": "none"}),
                });
            }
            ReadBack::Full => ((0..n).collect(), None),
            ReadBack::Sample => {
                let seed: u64 = rand::rng().random();
                let mut chosen = sample(&mut StdRng::seed_from_u64(seed), n, n.div_ceil(16)).into_vec();
                chosen.extend([0, n.saturating_sub(1)]);
                chosen.sort_unstable();
                chosen.dedup();
                chosen.retain(|i| *i < n);
                (chosen, Some(seed))
            }
        };
        ctx.reporter.step_began("read back");
        let total: u64 = chosen.iter().map(|i| pieces[*i].length as u64).sum();
        let written: u64 = pieces.iter().map(|p| p.length as u64).sum();
        let mut meter = Meter::new(ctx, "reading back", disk.name(), Some(total));
        let mut buffer = AlignedBuffer::zeroed(pieces.iter().map(|p| p.length).max().unwrap_or(0));
        let mut read = 0;
        for piece in chosen.iter().map(|i| &pieces[*i]) {
            ctx.cancel.check()?;
            let bytes = &mut buffer[..piece.length];
            disk.read_at(piece.offset, bytes).on(disk)?;
            if blake3::hash(bytes) != piece.hash {
                return Err(Fault::new(
                    FaultCode::ReadBackMismatch,
                    format!(
                        "{} returns something else than was written between bytes {} and {}",
                        disk.name(),
                        piece.offset,
                        piece.offset + piece.length as u64
                    ),
                ));
            }
            read += piece.length as u64;
            meter.at(read);
        }
        ctx.reporter.step_ended("read back", &format!("{} compared", Bytes(read)));
        Ok(ReadBackDone {
            method: match seed {
                None => "read back whole from the medium".into(),
                Some(_) => format!("{} of {} read back from the medium", Bytes(read), Bytes(written)),
            },
            facts: json!({"mode": if seed.is_some() { "sample" } else { "full" }, "bytes": read, "seed": seed}),
        })
    }
}

pub(super) struct ReadBackDone {
    pub(super) method: String,
    pub(super) facts: Value,
}
