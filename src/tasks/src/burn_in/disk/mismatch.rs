//! What a sector that is not as it was written says about what happened to it.
//!
//! Every 512 bytes of the pattern name the run, the pass and the place that they were written for. So a write that went
//! elsewhere, one that never happened, and bits that changed can be told apart.

use crate::wipe::pattern::{Kind, Pattern, UNIT};

/// Bits of a pass in a run's seed.
const PASS_BITS: u32 = 16;
/// More than so many different bits of 4096 are no damage to this sector but another content.
const FEW_BITS: u32 = 256;

/// One run's passes over a disk: each has a pattern of its own, and all of them are this run's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    seed: u64,
}

impl Run {
    /// Another one each time, so that what an earlier run left does not pass for this one's.
    pub(super) fn new(random: u64) -> Self {
        Self { seed: random & !((1 << PASS_BITS) - 1) }
    }

    pub(super) fn pass(self, pass: u16) -> Pattern {
        Pattern { kind: Kind::BurnIn, seed: self.seed | u64::from(pass) }
    }

    fn pass_of(self, seed: u64) -> Option<u16> {
        let ours = seed & !((1 << PASS_BITS) - 1) == self.seed;
        u16::try_from(seed & ((1 << PASS_BITS) - 1)).ok().filter(|_| ours)
    }
}

/// Which passes a sector may have been written last in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Only(u16),
    /// Any up to this one: after random writes nobody keeps which sector was written when.
    UpTo(u16),
}

/// Why a sector differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Mismatch {
    /// Few bits are others than were written. `stays` if they were the same when read again.
    Bits { bits: u32, to_zero: u32, to_one: u32, stays: bool },
    /// It holds what this run wrote for another place.
    Misdirected { meant_for: u64 },
    /// It holds what was there before: the write was told done and was not.
    Lost { holds: Old },
    /// Something that is nothing of the above.
    Foreign,
}

/// What a sector held before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Old {
    /// Written by this run in an earlier pass.
    Pass(u16),
    /// Written by an earlier burn-in or wipe.
    EarlierRun,
    Zeroes,
    Ones,
}

impl Mismatch {
    /// The name of its count.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bits { stays: true, .. } => "stuck_bits",
            Self::Bits { stays: false, .. } => "transient_bits",
            Self::Misdirected { .. } => "misdirected_writes",
            Self::Lost { .. } => "lost_writes",
            Self::Foreign => "foreign_content",
        }
    }
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bits { bits, to_zero, to_one, stays } => {
                let way = match (to_zero, to_one) {
                    (_, 0) => "all read as 0",
                    (0, _) => "all read as 1",
                    _ => "both ways",
                };
                let again = if *stays { "the same when read again" } else { "other ones when read again" };
                write!(f, "{bits} wrong bits ({way}), {again}")
            }
            Self::Misdirected { meant_for } => write!(f, "holds what was written for byte {meant_for}"),
            Self::Lost { holds } => match holds {
                Old::Pass(pass) => write!(f, "holds what pass {pass} wrote there: a later write was lost"),
                Old::EarlierRun => write!(f, "holds what an earlier run wrote: the write was lost"),
                Old::Zeroes => write!(f, "holds zeroes: the write was lost"),
                Old::Ones => write!(f, "holds ones only: the write was lost"),
            },
            Self::Foreign => write!(f, "holds something that was never written there by this run"),
        }
    }
}

/// A sector that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wrong {
    pub(super) offset: u64,
    pub(super) mismatch: Mismatch,
}

/// Compares what was read at `offset` with what must be there. `again` reads a unit once more, for telling damage on the
/// medium from damage on the way; `None` if it cannot be read.
pub(super) fn compare(
    run: Run,
    wanted: Wanted,
    offset: u64,
    found: &[u8],
    mut again: impl FnMut(u64) -> Option<[u8; UNIT]>,
    mut tell: impl FnMut(Wrong),
) {
    let last = match wanted {
        Wanted::Only(pass) | Wanted::UpTo(pass) => pass,
    };
    // Nearly always everything is right, and that is decided at the speed of memory.
    if matches!(wanted, Wanted::Only(_)) && run.pass(last).first_difference(offset, found).is_none() {
        return;
    }
    for (n, unit) in found.chunks_exact(UNIT).enumerate() {
        let at = offset + (n * UNIT) as u64;
        if let Some(mismatch) = judge(run, wanted, last, at, unit) {
            let mismatch = match mismatch {
                Mismatch::Bits { bits, to_zero, to_one, .. } => {
                    let stays = again(at).is_some_and(|second| second == *unit);
                    Mismatch::Bits { bits, to_zero, to_one, stays }
                }
                other => other,
            };
            tell(Wrong { offset: at, mismatch });
        }
    }
}

fn judge(run: Run, wanted: Wanted, last: u16, at: u64, unit: &[u8]) -> Option<Mismatch> {
    if let Some((seed, offset)) = Pattern::origin(Kind::BurnIn, unit) {
        return match (run.pass_of(seed), wanted) {
            (Some(_), _) if offset != at => Some(Mismatch::Misdirected { meant_for: offset }),
            (Some(pass), Wanted::Only(wanted)) if pass == wanted => None,
            (Some(pass), Wanted::UpTo(most)) if pass <= most => None,
            (Some(pass), _) => Some(Mismatch::Lost { holds: Old::Pass(pass) }),
            (None, _) => Some(Mismatch::Lost { holds: Old::EarlierRun }),
        };
    }
    for (byte, old) in [(0, Old::Zeroes), (0xff, Old::Ones)] {
        if unit.iter().all(|b| *b == byte) {
            return Some(Mismatch::Lost { holds: old });
        }
    }
    // The nearest of what it may have been: damaged bits may have been written in any of the passes.
    let passes = match wanted {
        Wanted::Only(pass) => pass..=pass,
        Wanted::UpTo(pass) => 0..=pass,
    };
    let named = unit.get(8..16).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let named = named.and_then(|seed| run.pass_of(seed)).filter(|pass| passes.contains(pass));
    let nearest = [named, Some(last), Some(*passes.start())]
        .into_iter()
        .flatten()
        .map(|pass| difference(run.pass(pass), at, unit))
        .min_by_key(|(bits, ..)| *bits)?;
    let (bits, to_zero, to_one) = nearest;
    if bits <= FEW_BITS {
        return Some(Mismatch::Bits { bits, to_zero, to_one, stays: false });
    }
    let wiped = [Kind::Overwrite, Kind::Canary].into_iter().any(|kind| Pattern::origin(kind, unit).is_some());
    Some(if wiped { Mismatch::Lost { holds: Old::EarlierRun } } else { Mismatch::Foreign })
}

/// Bits that differ, those that should be 1, and those that should be 0.
fn difference(pattern: Pattern, at: u64, unit: &[u8]) -> (u32, u32, u32) {
    let mut wanted = [0; UNIT];
    pattern.fill(at, &mut wanted);
    let count = |bits: &dyn Fn(u8, u8) -> u8| wanted.iter().zip(unit).map(|(w, f)| bits(*w, *f).count_ones()).sum();
    let (to_zero, to_one): (u32, u32) = (count(&|w, f| w & !f), count(&|w, f| !w & f));
    (to_zero + to_one, to_zero, to_one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unit(pattern: Pattern, at: u64) -> [u8; UNIT] {
        let mut unit = [0; UNIT];
        pattern.fill(at, &mut unit);
        unit
    }

    fn found(run: Run, wanted: Wanted, at: u64, unit: &[u8], second: Option<[u8; UNIT]>) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        compare(run, wanted, at, unit, |_| second, |w| wrong.push(w));
        wrong
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let run = Run::new(0x1234_5678_9abc_def0);
        let at = 40 * 512;
        let one = |unit: [u8; UNIT]| found(run, Wanted::Only(3), at, &unit, Some(unit)).pop().map(|w| w.mismatch);
        let lost = |holds| Some(Mismatch::Lost { holds });
        assert_eq!(one(unit(run.pass(3), at)), None);
        assert_eq!(one(unit(run.pass(3), 80 * 512)), Some(Mismatch::Misdirected { meant_for: 80 * 512 }));
        assert_eq!(one(unit(run.pass(2), at)), lost(Old::Pass(2)));
        assert_eq!(one(unit(Run::new(99 << 32).pass(3), at)), lost(Old::EarlierRun));
        assert_eq!(one(unit(Pattern { kind: Kind::Overwrite, seed: 7 }, at)), lost(Old::EarlierRun));
        assert_eq!(one([0; UNIT]), lost(Old::Zeroes));
        assert_eq!(one([0xff; UNIT]), lost(Old::Ones));
        assert_eq!(one([0x5a; UNIT]), Some(Mismatch::Foreign));
        let later = found(run, Wanted::UpTo(3), at, &unit(run.pass(4), at), None);
        assert_eq!(later[0].mismatch, Mismatch::Lost { holds: Old::Pass(4) });
        assert!(found(run, Wanted::UpTo(3), at, &unit(run.pass(0), at), None).is_empty());
    }

    proptest! {
        #[test]
        fn damaged_bits_are_counted_and_read_again(
            seed: u64, sector in 0u64..1 << 40, pass in 0u16..20, upto: bool, stays: bool,
            flips in prop::collection::btree_set(0usize..UNIT * 8, 1..60),
        ) {
            let (run, at) = (Run::new(seed), sector * 512);
            let mut bad = unit(run.pass(pass), at);
            flips.iter().for_each(|bit| bad[bit / 8] ^= 1 << (bit % 8));
            let again = if stays { bad } else { unit(run.pass(pass), at) };
            let wanted = if upto { Wanted::UpTo(pass) } else { Wanted::Only(pass) };
            let wrong = found(run, wanted, at, &bad, Some(again));
            prop_assert_eq!(wrong.len(), 1);
            let bits = u32::try_from(flips.len()).unwrap_or(0);
            let Mismatch::Bits { bits: b, to_zero, to_one, stays: s } = wrong[0].mismatch else {
                return Err(TestCaseError::fail(format!("{:?}", wrong[0])));
            };
            prop_assert_eq!((b, to_zero + to_one, s), (bits, bits, stays));
        }
    }
}
