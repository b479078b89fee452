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

use super::notes::{Notes, Run};
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
    notes: Notes,
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
        let held = Mutex::new(Held { buffers, notes: Notes::new() });
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
        // More than a chunk has: what cannot be noted will not be found either, so it is no success.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.held().notes.add(offset, length, &hash);
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
                return Err(differs(place, range.start, bytes.len() as u64));
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
        let runs = std::mem::replace(&mut self.held().notes, Notes::new()).into_runs();
        let (chosen, seed) = match mode {
            ReadBack::None => {
                return Ok(ReadBackDone {
                    method: "not read back but for start and end (as ordered)".into(),
                    facts: json!({"mode": "none"}),
                });
            }
            ReadBack::Full => (None, None),
            ReadBack::Sample => {
                let seed: u64 = rand::rng().random();
                (Some(sampled(runs.len(), seed)), Some(seed))
            }
        };
        ctx.reporter.step_began("read back");
        let written: u64 = runs.iter().map(Run::bytes).sum();
        let runs: Vec<Run> = match chosen {
            None => runs,
            Some(chosen) => chosen.into_iter().map(|n| runs[n]).collect(),
        };
        let total: u64 = runs.iter().map(Run::bytes).sum();
        let mut meter = Meter::new(ctx, "reading back", place.name(), Some(total));
        let mut buffer = AlignedBuffer::zeroed(runs.iter().map(|run| run.length as usize).max().unwrap_or(0));
        let mut read = 0;
        for run in &runs {
            let mut hashes = Vec::with_capacity(run.pieces as usize);
            for n in 0..u64::from(run.pieces) {
                ctx.cancel.check()?;
                let bytes = &mut buffer[..run.length as usize];
                place.read_at(run.offset + n * u64::from(run.length), bytes).on(place.disk())?;
                hashes.push(blake3::hash(bytes));
                read += u64::from(run.length);
                meter.at(read);
            }
            if !run.is(hashes.into_iter()) {
                return Err(differs(place, run.offset, run.bytes()));
            }
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

/// One in sixteen, and always the first and the last.
fn sampled(runs: usize, seed: u64) -> Vec<usize> {
    let mut chosen = sample(&mut StdRng::seed_from_u64(seed), runs, runs.div_ceil(16)).into_vec();
    chosen.extend([0, runs.saturating_sub(1)]);
    chosen.sort_unstable();
    chosen.dedup();
    chosen.retain(|n| *n < runs);
    chosen
}

fn length(range: &Range<u64>) -> usize {
    index(range.end - range.start)
}

/// Of something in a buffer.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn differs(place: Place<'_>, offset: u64, length: u64) -> Fault {
    let at = place.start() + offset;
    Fault::new(
        FaultCode::ReadBackMismatch,
        format!("{} returns something else than was written between bytes {at} and {}", place.name(), at + length),
    )
}

pub(super) struct ReadBackDone {
    pub(super) method: String,
    pub(super) facts: Value,
}
