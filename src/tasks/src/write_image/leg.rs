//! One disk under a write: what goes there now, what is held back, what is never touched.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rand::seq::index::sample;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::ReadBack;
use speediso_model::units::Bytes;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::DiskError;

use super::room::Room;
use crate::ctx::{Meter, TaskCtx};
use crate::gptedit::{EDGE, Edges};
use crate::place::Place;
use crate::single::OnDisk as _;

/// Of each partition that a kept table still shows, so that none of its old or new contents can be recognised before
/// the end: superblocks lie at most 64 KiB from the start (btrfs).
const START: u64 = 128 << 10;
/// Of a protective MBR, what the BIOS would run.
const BOOT_CODE: usize = 440;

/// A disk, or partition, whose first and last MiB are held back.
pub(super) struct Leg<'a> {
    place: Place<'a>,
    spans: Vec<Span>,
    held: Mutex<Held>,
    /// Start and end as they are left if the write fails, and of what is kept in them in any case.
    fallback: Edges,
    kept: Vec<Range<u64>>,
    /// Why nothing more goes there.
    broken: OnceLock<Fault>,
}

/// What is not written as it comes.
struct Span {
    range: Range<u64>,
    /// Index of the buffer that holds it back; without one it is never written.
    buffer: Option<usize>,
}

struct Held {
    /// Of the spans; the first is the start of the place, the last its end.
    buffers: Vec<AlignedBuffer>,
    pieces: Vec<Piece>,
}

/// Something that was written, or that must be there. There is one for every chunk of a write of terabytes, so it is
/// small: a disk does not forge hashes, of which half will do.
#[derive(Clone, Copy)]
struct Piece {
    /// Offset and, in the lower 16 bits, length, in units of 512 bytes.
    place: u64,
    hash: [u64; 2],
}

impl Piece {
    const UNIT: u64 = 512;

    fn new(offset: u64, length: usize, hash: blake3::Hash) -> Self {
        debug_assert!(length as u64 / Self::UNIT <= 0xffff, "{length} bytes are more than a chunk has");
        Self { place: ((offset / Self::UNIT) << 16) | (length as u64 / Self::UNIT), hash: half(hash) }
    }

    fn offset(self) -> u64 {
        (self.place >> 16) * Self::UNIT
    }

    fn length(self) -> usize {
        index((self.place & 0xffff) * Self::UNIT)
    }
}

fn half(hash: blake3::Hash) -> [u64; 2] {
    let bytes = hash.as_bytes();
    [0, 8].map(|at| bytes[at..at + 8].iter().fold(0, |sum, b| (sum << 8) | u64::from(*b)))
}

impl<'a> Leg<'a> {
    /// Looks only.
    pub(super) fn new(place: Place<'a>, room: &Room) -> Result<Self, Fault> {
        let (tail_at, mut fallback) = (place.size() - EDGE, Edges::zeroed(place.size()));
        let mut ranges = vec![(0..EDGE, true), (tail_at..place.size(), true)];
        if let Room::Around { kept, lost } = room {
            fallback = Edges::read(place)?;
            fallback.head[..BOOT_CODE].fill(0);
            let inside = |range: Range<u64>| range.start.clamp(EDGE, tail_at)..range.end.clamp(EDGE, tail_at);
            let starts = lost.iter().map(|e| (inside(e.start..e.end.min(e.start + START)), true));
            ranges.extend(starts.chain(kept.iter().map(|e| (inside(e.start..e.end), false))));
        }
        ranges.retain(|(range, _)| !range.is_empty());
        ranges.sort_by_key(|(range, _)| range.start);
        if let Some(pair) = ranges.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
            return Err(Fault::new(
                FaultCode::PartitionTable,
                format!("partitions that begin at bytes {} and {} overlap", pair[0].0.start, pair[1].0.start),
            ));
        }
        let (mut spans, mut buffers) = (Vec::new(), Vec::new());
        for (range, held) in ranges {
            let buffer = held.then_some(buffers.len());
            if held {
                buffers.push(AlignedBuffer::zeroed(length(&range)));
            }
            spans.push(Span { range, buffer });
        }
        let held = Mutex::new(Held { buffers, pieces: Vec::new() });
        let kept = room.kept().iter().map(|e| e.start..e.end).collect();
        Ok(Self { place, spans, held, fallback, kept, broken: OnceLock::new() })
    }

    /// Takes away what the disk could be started or mounted by. From here on it is not what it was; also what is done
    /// when a write failed.
    pub(super) fn clear(&self) -> Result<(), Fault> {
        for span in &self.inner() {
            self.place.write_at(span.start, &AlignedBuffer::zeroed(length(span))).on(self.place.disk())?;
        }
        self.fallback.write(self.place)
    }

    /// What [`Leg::clear`] leaves, for people.
    pub(super) fn left_over(&self) -> String {
        let name = self.place.name();
        if !self.place.is_whole() {
            return format!("the partition at byte {} of {name} holds no file system now", self.place.start());
        }
        if self.kept.is_empty() {
            return format!("{name} has no partition table now and does not boot");
        }
        format!(
            "{name} keeps its old partition table and what was to be kept; the other partitions are empty or half written, and it does not boot"
        )
    }

    /// What is held back besides start and end.
    fn inner(&self) -> Vec<Range<u64>> {
        let held = self.spans.iter().filter(|span| span.buffer.is_some());
        let is_edge = |range: &Range<u64>| range.start == 0 || range.end == self.place.size();
        held.map(|span| span.range.clone()).filter(|range| !is_edge(range)).collect()
    }

    pub(super) fn place(&self) -> Place<'a> {
        self.place
    }

    pub(super) fn broken(&self) -> Option<&Fault> {
        self.broken.get()
    }

    /// Nothing more goes there.
    pub(super) fn give_up(&self, fault: Fault) {
        // The first reason is the one that counts.
        let _ = self.broken.set(fault);
    }

    /// What lies between the spans.
    fn gaps(&self, start: u64, end: u64) -> Vec<Range<u64>> {
        let (mut at, mut gaps) = (start, Vec::new());
        for span in self.spans.iter().filter(|s| s.range.start < end && s.range.end > start) {
            if at < span.range.start {
                gaps.push(at..span.range.start);
            }
            at = span.range.end.min(end);
        }
        if at < end {
            gaps.push(at..end);
        }
        gaps
    }

    /// Whether all of it is written as it comes.
    pub(super) fn is_plain(&self, start: u64, end: u64) -> bool {
        !self.spans.iter().any(|s| s.range.start < end && s.range.end > start)
    }

    /// Writes what may be written now and holds back the rest. Whole sectors; any thread, any order. `hash` is that of
    /// all the bytes, if what is written is to be read back.
    pub(super) fn put(&self, offset: u64, bytes: &[u8], hash: Option<blake3::Hash>) -> Result<(), DiskError> {
        let end = offset + bytes.len() as u64;
        if self.is_plain(offset, end) {
            self.place.write_at(offset, bytes)?;
            if let Some(hash) = hash {
                self.expect(offset, bytes.len(), hash);
            }
            return Ok(());
        }
        let slice = |range: &Range<u64>| &bytes[index(range.start - offset)..index(range.end - offset)];
        for gap in self.gaps(offset, end) {
            let part = slice(&gap);
            self.place.write_at(gap.start, part)?;
            if hash.is_some() {
                self.expect(gap.start, part.len(), blake3::hash(part));
            }
        }
        let mut held = self.held();
        for span in &self.spans {
            let both = span.range.start.max(offset)..span.range.end.min(end);
            if let Some(index) = span.buffer
                && both.start < both.end
            {
                let at = length(&(span.range.start..both.start));
                held.buffers[index][at..at + length(&both)].copy_from_slice(slice(&both));
            }
        }
        Ok(())
    }

    /// Makes a range read as zeroes, by whatever the disk is quickest at. What is held back does so until told otherwise.
    pub(super) fn zero(&self, start: u64, end: u64) -> Result<Vec<Range<u64>>, DiskError> {
        let gaps = self.gaps(start, end);
        for gap in &gaps {
            self.place.zero_out(gap.start, gap.end - gap.start)?;
        }
        Ok(gaps)
    }

    /// Notes what must be read back at `offset`.
    pub(super) fn expect(&self, offset: u64, length: usize, hash: blake3::Hash) {
        self.held().pieces.push(Piece::new(offset, length, hash));
    }

    /// Start and end as they are to be.
    pub(super) fn edges(&self) -> Edges {
        let mut edges = Edges::zeroed(self.place.size());
        let held = self.held();
        if let (Some(head), Some(tail)) = (held.buffers.first(), held.buffers.last()) {
            edges.head.copy_from_slice(head);
            edges.tail.copy_from_slice(tail);
        }
        let tail_at = self.place.size() - EDGE;
        for kept in &self.kept {
            let both = index(kept.start.min(EDGE))..index(kept.end.min(EDGE));
            edges.head[both.clone()].copy_from_slice(&self.fallback.head[both]);
            let both = index(kept.start.saturating_sub(tail_at))..index(kept.end.saturating_sub(tail_at));
            edges.tail[both.clone()].copy_from_slice(&self.fallback.tail[both]);
        }
        edges
    }

    /// Writes what was held back besides start and end, and looks whether it arrived.
    pub(super) fn write_inner(&self) -> Result<(), Fault> {
        let (place, held) = (self.place, self.held());
        let inner = self.spans.iter().filter_map(|s| s.buffer.map(|i| (&s.range, &held.buffers[i])));
        let inner: Vec<_> = inner.filter(|(r, _)| r.start != 0 && r.end != place.size()).collect();
        if inner.is_empty() {
            return Ok(());
        }
        for (range, bytes) in &inner {
            place.write_at(range.start, bytes).on(place.disk())?;
        }
        place.flush()?;
        for (range, bytes) in &inner {
            let mut back = AlignedBuffer::zeroed(bytes.len());
            place.read_at(range.start, &mut back).on(place.disk())?;
            if back[..] != bytes[..] {
                return Err(differs(place, range.start, bytes.len()));
            }
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change is one copy or one push.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what was written from the medium again.
    pub(super) fn read_back(&self, mode: ReadBack, ctx: &TaskCtx) -> Result<ReadBackDone, Fault> {
        let place = self.place;
        let mut pieces = std::mem::take(&mut self.held().pieces);
        pieces.sort_unstable_by_key(|p| p.place);
        let n = pieces.len();
        let (chosen, seed): (Vec<usize>, Option<u64>) = match mode {
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
        let total: u64 = chosen.iter().map(|i| pieces[*i].length() as u64).sum();
        let written: u64 = pieces.iter().map(|p| p.length() as u64).sum();
        let mut meter = Meter::new(ctx, "reading back", place.name(), Some(total));
        let mut buffer = AlignedBuffer::zeroed(pieces.iter().map(|p| p.length()).max().unwrap_or(0));
        let mut read = 0;
        for piece in chosen.iter().map(|i| &pieces[*i]) {
            ctx.cancel.check()?;
            let bytes = &mut buffer[..piece.length()];
            place.read_at(piece.offset(), bytes).on(place.disk())?;
            if half(blake3::hash(bytes)) != piece.hash {
                return Err(differs(place, piece.offset(), piece.length()));
            }
            read += piece.length() as u64;
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

fn length(range: &Range<u64>) -> usize {
    index(range.end - range.start)
}

/// Of something in a buffer.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn differs(place: Place<'_>, offset: u64, length: usize) -> Fault {
    let at = place.start() + offset;
    Fault::new(
        FaultCode::ReadBackMismatch,
        format!(
            "{} returns something else than was written between bytes {at} and {}",
            place.name(),
            at + length as u64
        ),
    )
}

pub(super) struct ReadBackDone {
    pub(super) method: String,
    pub(super) facts: Value,
}
