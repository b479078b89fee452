//! Writing a claimed disk and reading it back: all of it once, then blocks anywhere.
//!
//! Random writes go in rounds. A round has a pattern of its own, takes no block twice, is flushed, and is read back
//! before the next one begins, so that nobody needs to remember what was written when. At last the whole disk is read: a
//! write that also landed elsewhere has damaged something by then.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use speediso_model::fault::Fault;
use speediso_sys::buffer::AlignedBuffer;

use super::findings::Findings;
use super::medium::Writable;
use super::mismatch::{Run, Wanted, compare};
use super::reading::{self, Share};
use super::work::{Phase, Requests, carry_out};
use crate::ctx::TaskCtx;
use crate::wipe::flow::{self, Load, Piece};
use crate::wipe::pattern::UNIT;

const WRITE_ERRORS: &str = "write_errors";
const FLUSH_ERRORS: &str = "flush_errors";

/// Blocks of a round.
const ROUND: u64 = 4096;
/// Passes are told apart by 16 bits.
const MOST_ROUNDS: u16 = u16::MAX - 1;

/// What writing came to.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) sequential: Phase,
    pub(super) random_write: Phase,
    pub(super) random_read: Phase,
    pub(super) read_back: Phase,
    pub(super) rounds: u16,
}

impl Written {
    pub(super) fn broken_off(&self) -> Option<&Fault> {
        [&self.sequential, &self.random_write, &self.random_read, &self.read_back]
            .into_iter()
            .find_map(|phase| phase.broken_off.as_ref())
    }
}

/// How a disk is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) large: Load,
    pub(super) small: Load,
    pub(super) random_for: Duration,
}

/// Where writing failed: what is there now was not promised by anybody.
#[derive(Debug, Default)]
struct NotWritten(Mutex<BTreeSet<u64>>);

impl NotWritten {
    fn note(&self, offset: u64, length: usize) {
        let mut units = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        units.extend((offset..offset + length as u64).step_by(UNIT));
    }

    fn written_again(&self, offset: u64, length: usize) {
        let mut units = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !units.is_empty() {
            (offset..offset + length as u64).step_by(UNIT).for_each(|at| _ = units.remove(&at));
        }
    }

    fn has(&self, offset: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&offset)
    }
}

/// Writes and verifies a whole disk.
pub(super) fn verified(disk: &dyn Writable, plan: Plan, findings: &Findings<'_>, ctx: &TaskCtx) -> Written {
    let work = Work { disk, run: Run::new(rand::random()), findings, missing: NotWritten::default(), ctx };
    let size = disk.size() / UNIT as u64 * UNIT as u64;
    let mut written = Written::default();

    let pieces = flow::pieces(0, size, plan.large.chunk);
    written.sequential = work.write("writing all along", 0, plan.large, Some(size), pieces);
    if written.sequential.broken_off.is_some() {
        return written;
    }

    let end = Instant::now() + plan.random_for;
    while !plan.random_for.is_zero() && Instant::now() < end && written.rounds < MOST_ROUNDS {
        written.rounds += 1;
        work.round(plan.small, &mut written);
        if written.random_write.broken_off.is_some() || written.random_read.broken_off.is_some() {
            return written;
        }
    }

    let wanted = if written.rounds == 0 { Wanted::Only(0) } else { Wanted::UpTo(written.rounds) };
    let whole = Share::of(size, 100, plan.large.chunk);
    let check = |offset: u64, found: &[u8]| work.verify(wanted, offset, found);
    written.read_back = reading::sequentially(disk, whole, plan.large, findings, ctx, check);
    written
}

/// What all phases on one disk have in common.
struct Work<'a> {
    disk: &'a dyn Writable,
    run: Run,
    findings: &'a Findings<'a>,
    missing: NotWritten,
    ctx: &'a TaskCtx,
}

impl Work<'_> {
    /// One round of random writes, and their reading back.
    fn round(&self, load: Load, written: &mut Written) {
        let pass = written.rounds;
        let block = load.chunk as u64;
        let blocks = self.disk.size() / block;
        // Half of a small disk at most, or looking for a block that is not taken would take for ever.
        let wanted = usize::try_from(ROUND.min(blocks.div_ceil(2))).unwrap_or(0);
        let mut random = rand::rng();
        let mut chosen = BTreeSet::new();
        while chosen.len() < wanted {
            chosen.insert(random.random_range(0..blocks) * block);
        }
        let mut order: Vec<u64> = chosen.into_iter().collect();
        order.shuffle(&mut random);
        let pieces = |order: Vec<u64>| order.into_iter().map(move |offset| Piece { offset, length: load.chunk });
        written.random_write.add(self.write("writing anywhere", pass, load, None, pieces(order.clone())));
        if written.random_write.broken_off.is_some() {
            return;
        }
        order.shuffle(&mut random);
        let requests = Requests {
            stage: "reading anywhere",
            errors: reading::READ_ERRORS,
            load,
            total: None,
            mapped: false,
            findings: self.findings,
        };
        let check = |offset: u64, found: &[u8]| self.verify(Wanted::Only(pass), offset, found);
        let read = |offset: u64, part: &mut [u8]| self.disk.read_at(offset, part);
        let phase = carry_out(self.disk, self.ctx, &requests, pieces(order), |_, _| {}, read, check);
        written.random_read.add(phase);
    }

    /// Writes the pattern of a pass, to the medium.
    fn write(
        &self,
        stage: &'static str,
        pass: u16,
        load: Load,
        total: Option<u64>,
        pieces: impl Iterator<Item = Piece> + Send,
    ) -> Phase {
        let pattern = self.run.pass(pass);
        let findings = self.findings;
        let requests = Requests { stage, errors: WRITE_ERRORS, load, total, mapped: total.is_some(), findings };
        let ask = |offset: u64, part: &mut [u8]| {
            let answer = self.disk.write_at(offset, part);
            match &answer {
                Ok(()) => self.missing.written_again(offset, part.len()),
                Err(_) => self.missing.note(offset, part.len()),
            }
            answer
        };
        let fill = |piece: Piece, buffer: &mut [u8]| pattern.fill(piece.offset, buffer);
        let mut phase = carry_out(self.disk, self.ctx, &requests, pieces, fill, ask, |_, _| {});
        // Also when it was broken off: what was written is on the medium then, and not in a cache.
        if let Err(failed) = self.disk.flush() {
            let too_many = findings.failed(FLUSH_ERRORS, self.disk.name(), 0, self.disk.size(), failed.0);
            phase.broken_off = phase.broken_off.or(too_many.err());
        }
        phase
    }

    fn verify(&self, wanted: Wanted, offset: u64, found: &[u8]) {
        let again = |at: u64| {
            let sector = self.disk.sector_size().max(UNIT as u64);
            let begin = at / sector * sector;
            let mut buffer = AlignedBuffer::zeroed(usize::try_from(sector).ok()?);
            self.disk.read_at(begin, &mut buffer).ok()?;
            let from = usize::try_from(at - begin).ok()?;
            buffer.get(from..from + UNIT)?.try_into().ok()
        };
        compare(self.run, wanted, offset, found, again, |wrong| {
            if !self.missing.has(wrong.offset) {
                self.findings.wrong(&wrong);
            }
        });
    }
}
