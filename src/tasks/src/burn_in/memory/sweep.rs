//! Writing patterns and reading them back, a block at a time.
//!
//! A word's place is its virtual address over 8, so that no two words of all threads have the same. A sweep goes through
//! the whole part of a thread before it turns back: what is read comes from memory, as long as the part is larger than
//! the caches.

use std::ops::Range;
use std::time::{Duration, Instant};

use speediso_model::burn_in::{MemoryPattern, unit};
use speediso_sys::region::LockedRegion;
use speediso_sys::vector::{self, Pattern, Width};

use super::super::live::Live;
use super::super::meddle::Meddler;
use super::fault::{Faults, Kind, WrongWord};
use super::pieces::Pieces;

/// 32 KiB: stays in the first cache between being checked and being written again.
const BLOCK: usize = 4096;
/// Whether time is up is asked so often: every 4 MiB.
const ASK_EVERY: usize = 128;
/// Words of a row of a memory module as a bank has it: 8 KiB, of the machines since DDR3.
const ROW: usize = 1024;
/// How often two rows are read in turn. Enough to upset a weak module between two refreshes (64 ms), little enough to
/// come around.
const READS: u32 = 20_000;
/// Between two pairs of rows: all of them would take weeks.
const HAMMER_EVERY: usize = 64 << 20 >> 3;
/// Of the 64 places of a walking one, so many in a pass; the next pass goes on with the others.
const PLACES_PER_PASS: u64 = 4;
/// The golden ratio: odd, so that every place has its own word.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Clone, Copy)]
enum Act {
    Write(Fill),
    Check(Fill),
    /// Checks a block for the first, then writes the second over it.
    Turn(Fill, Fill),
}

/// What a place holds.
#[derive(Clone, Copy)]
enum Fill {
    Plain(Pattern),
    /// Row by row the one and its inverse.
    Rows(Pattern),
    /// A one that moves by a place from word to word.
    Walking(u64),
}

impl Fill {
    fn inverted(self) -> Self {
        match self {
            Self::Plain(pattern) => Self::Plain(pattern.inverted()),
            Self::Rows(pattern) => Self::Rows(pattern.inverted()),
            Self::Walking(_) => self,
        }
    }

    fn word(self, place: u64) -> u64 {
        match self {
            Self::Plain(pattern) => pattern.word(place),
            Self::Rows(pattern) if place / ROW as u64 % 2 == 1 => pattern.inverted().word(place),
            Self::Rows(pattern) => pattern.word(place),
            Self::Walking(offset) => 1 << ((place + offset) % 64),
        }
    }

    fn write(self, width: Width, words: &mut [u64], first: u64) {
        match self {
            Self::Plain(pattern) => vector::fill(width, words, pattern, first),
            Self::Rows(pattern) => {
                for (row, is_odd) in rows(words.len(), first) {
                    let place = first + row.start as u64;
                    vector::fill(width, &mut words[row], if is_odd { pattern.inverted() } else { pattern }, place);
                }
            }
            // One word of every 64 has its one in the same place.
            Self::Walking(_) => {
                let cycle: [u64; 64] = std::array::from_fn(|i| self.word(first + i as u64));
                for words in words.chunks_mut(64) {
                    words.copy_from_slice(&cycle[..words.len()]);
                }
            }
        }
    }

    fn differs(self, width: Width, words: &[u64], first: u64) -> bool {
        match self {
            Self::Plain(pattern) => vector::differs(width, words, pattern, first),
            Self::Rows(pattern) => rows(words.len(), first).any(|(row, is_odd)| {
                let place = first + row.start as u64;
                vector::differs(width, &words[row], if is_odd { pattern.inverted() } else { pattern }, place)
            }),
            Self::Walking(_) => {
                let cycle: [u64; 64] = std::array::from_fn(|i| self.word(first + i as u64));
                words.chunks(64).any(|words| *words != cycle[..words.len()])
            }
        }
    }
}

/// The parts of a block that lie in one row each, and whether that row is odd. Blocks begin at pages, not at rows.
fn rows(length: usize, first: u64) -> impl Iterator<Item = (Range<usize>, bool)> {
    let lead = usize::try_from(first % ROW as u64).unwrap_or(0);
    (0..(length + lead).div_ceil(ROW)).map(move |n| {
        let row = (n * ROW).saturating_sub(lead)..((n + 1) * ROW - lead).min(length);
        (row, (first / ROW as u64 + n as u64) % 2 == 1)
    })
}

pub(super) struct Sweeper<'a> {
    live: &'a Live<'a>,
    meddler: &'a dyn Meddler,
    node: u32,
    width: Width,
    faults: Faults,
    sweeps: u64,
    cut_off: bool,
    written: (u64, Duration),
    read: (u64, Duration),
}

impl<'a> Sweeper<'a> {
    pub(super) fn new(live: &'a Live<'a>, meddler: &'a dyn Meddler, node: u32) -> Self {
        Self {
            live,
            meddler,
            node,
            width: Width::for_memory(),
            faults: Faults::default(),
            sweeps: 0,
            cut_off: false,
            written: (0, Duration::ZERO),
            read: (0, Duration::ZERO),
        }
    }

    /// Whether the time was over before the last pattern was through.
    pub(super) fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// How often every word was read back and compared.
    pub(super) fn sweeps(&self) -> u64 {
        self.sweeps
    }

    /// Bytes per second: written, read.
    pub(super) fn rates(&self) -> (f64, f64) {
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let rate =
            |(bytes, time): (u64, Duration)| if bytes == 0 { 0.0 } else { bytes as f64 / time.as_secs_f64().max(1e-9) };
        (rate(self.written), rate(self.read))
    }

    pub(super) fn into_faults(self) -> Faults {
        self.faults
    }

    /// One pattern through all pieces, as often as it takes.
    pub(super) fn sweep(&mut self, kind: MemoryPattern, pieces: &mut Pieces, pass: u64) {
        let name = kind.name();
        let seed = pass.wrapping_mul(GOLDEN) ^ 0x0005_7eed_0000;
        let random = Fill::Plain(Pattern { start: seed, step: GOLDEN, mixed: true, flip: 0 });
        let mut go = |act: Act, downwards: bool| self.go(name, act, downwards, pieces);
        match kind {
            MemoryPattern::OwnAddress => {
                let own = Fill::Plain(Pattern {
                    start: 0,
                    step: 8,
                    mixed: false,
                    flip: if pass.is_multiple_of(2) { 0 } else { !0 },
                });
                go(Act::Write(own), false);
                go(Act::Check(own), false);
            }
            MemoryPattern::Random => {
                go(Act::Write(random), false);
                go(Act::Turn(random, random.inverted()), false);
                go(Act::Check(random.inverted()), false);
            }
            MemoryPattern::MovingInversions => {
                let words = [0, 0x5555_5555_5555_5555, 0x3333_3333_3333_3333, 0x00ff_00ff_00ff_00ff, seed];
                let word = words[usize::try_from(pass % words.len() as u64).unwrap_or(0)];
                let fill = Fill::Plain(Pattern::constant(word));
                go(Act::Write(fill), false);
                go(Act::Turn(fill, fill.inverted()), false);
                go(Act::Turn(fill.inverted(), fill), true);
                go(Act::Check(fill), true);
            }
            MemoryPattern::WalkingOnes => {
                for place in 0..PLACES_PER_PASS {
                    let walking = Fill::Walking((pass * PLACES_PER_PASS + place) * (64 / PLACES_PER_PASS + 1));
                    go(Act::Write(walking), false);
                    go(Act::Check(walking), false);
                }
            }
            MemoryPattern::Rows => {
                let rows =
                    Fill::Rows(Pattern::constant(if pass.is_multiple_of(2) { 0 } else { 0xaaaa_aaaa_aaaa_aaaa }));
                go(Act::Write(rows), false);
                go(Act::Turn(rows, rows.inverted()), false);
                go(Act::Check(rows.inverted()), false);
            }
            MemoryPattern::Neighbours => {
                let rows = Fill::Rows(Pattern::constant(if pass.is_multiple_of(2) { !0 } else { 0 }));
                go(Act::Write(rows), false);
                self.read_neighbours(pieces, pass);
                self.go(name, Act::Check(rows), false, pieces);
            }
        }
    }

    fn go(&mut self, name: &'static str, act: Act, downwards: bool, pieces: &mut Pieces) {
        for region in pieces.each(downwards) {
            if self.cut_off || (self.live.is_over() && self.sweeps > 0) {
                self.cut_off = true;
                return;
            }
            let begun = Instant::now();
            let bytes = self.go_through(name, act, downwards, region);
            let took = begun.elapsed();
            let (writes, reads) = match act {
                Act::Write(_) => (bytes, 0),
                Act::Check(_) => (0, bytes),
                // Half of the time each, as nobody can tell.
                Act::Turn(..) => (bytes, bytes),
            };
            let each = if writes > 0 && reads > 0 { took / 2 } else { took };
            if writes > 0 {
                self.written = (self.written.0 + writes, self.written.1 + each);
            }
            if reads > 0 {
                self.read = (self.read.0 + reads, self.read.1 + each);
            }
            if writes > 0 {
                let first = place_of(region);
                self.meddler.memory(region, first);
            }
        }
        self.live.sample(&format!("node {} written", self.node), self.rates().0, unit::BYTES_PER_SECOND);
        self.live.sample(&format!("node {} read back", self.node), self.rates().1, unit::BYTES_PER_SECOND);
        if !self.cut_off && matches!(act, Act::Check(_) | Act::Turn(..)) {
            self.sweeps += 1;
        }
    }

    /// Bytes done: all, unless the time is over.
    fn go_through(&mut self, name: &'static str, act: Act, downwards: bool, region: &mut LockedRegion) -> u64 {
        let first = place_of(region);
        let blocks = region.len().div_ceil(BLOCK);
        let mut words_done = 0;
        for n in 0..blocks {
            // A first sweep is finished whatever its time, unless nobody wants it any more: less proves nothing.
            let is_enough = || self.live.cut_short().is_some() || (self.live.is_over() && self.sweeps > 0);
            if n % ASK_EVERY == 0 && is_enough() {
                self.cut_off = true;
                break;
            }
            let block = if downwards { blocks - 1 - n } else { n };
            let from = block * BLOCK;
            let to = region.len().min(from + BLOCK);
            let place = first + from as u64;
            match act {
                Act::Write(fill) => fill.write(self.width, &mut region[from..to], place),
                Act::Check(fill) => self.check(name, fill, region, (from, to), place),
                Act::Turn(old, new) => {
                    self.check(name, old, region, (from, to), place);
                    new.write(self.width, &mut region[from..to], place);
                }
            }
            words_done += to - from;
        }
        (words_done * size_of::<u64>()) as u64
    }

    fn check(
        &mut self,
        name: &'static str,
        fill: Fill,
        region: &mut LockedRegion,
        (from, to): (usize, usize),
        place: u64,
    ) {
        if !fill.differs(self.width, &region[from..to], place) {
            return;
        }
        for at in from..to {
            let here = place + (at - from) as u64;
            let (expected, got) = (fill.word(here), region[at]);
            if expected == got {
                continue;
            }
            if self.faults.count() >= Faults::LOOKED_AT {
                self.faults.count_only(expected, got);
                continue;
            }
            let kind = self.look_again(region, at, here, expected);
            let physical = region.physical(at);
            let word = WrongWord { node: self.node, place: here, physical, pattern: name, expected, got, kind };
            self.live.fault(&word.to_string());
            self.faults.push(word);
        }
    }

    fn look_again(&self, region: &mut LockedRegion, at: usize, place: u64, expected: u64) -> Kind {
        vector::forget(&region[at..=at]);
        if std::hint::black_box(region[at]) == expected {
            return Kind::Transient;
        }
        region[at] = std::hint::black_box(expected);
        vector::forget(&region[at..=at]);
        self.meddler.again(&mut region[at], place);
        if std::hint::black_box(region[at]) == expected { Kind::Lost } else { Kind::Stuck }
    }

    /// Reads pairs of rows with one between them. What a bank takes for neighbours only the memory controller knows: this
    /// finds modules that are badly weak, and proves nothing of the others.
    fn read_neighbours(&mut self, pieces: &mut Pieces, pass: u64) {
        for region in pieces.each(false) {
            // Rows of one bank are further apart than a row on all machines with several channels and banks.
            for stride in [ROW, 16 * ROW, 32 * ROW] {
                let offset = usize::try_from(pass).unwrap_or(0).wrapping_mul(7 * ROW) % HAMMER_EVERY;
                for middle in (stride + offset..region.len().saturating_sub(stride)).step_by(HAMMER_EVERY) {
                    if self.live.is_over() {
                        return;
                    }
                    std::hint::black_box(vector::hammer(region, middle - stride, middle + stride, READS));
                }
            }
        }
    }
}

fn place_of(region: &LockedRegion) -> u64 {
    (region.as_ptr().addr() / size_of::<u64>()) as u64
}
