//! What has to be found on the medium again. However large the disk, the notes stay small: once there are many, those of
//! neighbours become one.

use blake3::Hash;

/// Notes before neighbours are put together: 4 MiB of memory.
const MANY: usize = 1 << 17;

/// Pieces of one length, one behind the other, each of which has a hash.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) offset: u64,
    /// Of each of them, in bytes.
    pub(super) length: u32,
    pub(super) pieces: u32,
    /// Of all of them: see [`seal`].
    seal: u128,
}

impl Run {
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.length) * u64::from(self.pieces)
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + self.bytes()
    }

    /// Whether these are the hashes of its pieces.
    pub(super) fn is(&self, hashes: impl Iterator<Item = Hash>) -> bool {
        let seals = (0..).zip(hashes).map(|(n, hash)| seal(self.offset + n * u64::from(self.length), &hash));
        seals.fold(0, u128::wrapping_add) == self.seal
    }

    /// The two as one, if `next` goes on where this ends, in pieces of the same length.
    fn with(&self, next: &Self) -> Option<Self> {
        let fits = next.offset == self.end() && next.length == self.length;
        let pieces = self.pieces.checked_add(next.pieces).filter(|_| fits)?;
        Some(Self { pieces, seal: self.seal.wrapping_add(next.seal), ..*self })
    }
}

/// A hash together with its place, so that the sum over several tells two that have changed places. A disk does not forge
/// hashes: a sum of halves will do.
fn seal(offset: u64, hash: &Hash) -> u128 {
    let bound = blake3::Hasher::new().update(hash.as_bytes()).update(&offset.to_le_bytes()).finalize();
    bound.as_bytes().iter().take(16).fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

pub(super) struct Notes {
    runs: Vec<Run>,
    many: usize,
}

impl Notes {
    pub(super) fn new() -> Self {
        Self::with_room(MANY)
    }

    fn with_room(many: usize) -> Self {
        Self { runs: Vec::new(), many }
    }

    /// In any order.
    pub(super) fn add(&mut self, offset: u64, length: u32, hash: &Hash) {
        if self.runs.len() == self.many {
            self.shorten();
        }
        self.runs.push(Run { offset, length, pieces: 1, seal: seal(offset, hash) });
    }

    /// By place.
    pub(super) fn into_runs(mut self) -> Vec<Run> {
        self.runs.sort_unstable_by_key(|run| run.offset);
        self.runs
    }

    /// Two by two, so that a difference can still be told to lie in a small part of the disk.
    fn shorten(&mut self) {
        self.runs.sort_unstable_by_key(|run| run.offset);
        let mut kept = 0;
        let mut at = 0;
        while let Some(run) = self.runs.get(at).copied() {
            let both = self.runs.get(at + 1).and_then(|next| run.with(next));
            at += if both.is_some() { 2 } else { 1 };
            self.runs[kept] = both.unwrap_or(run);
            kept += 1;
        }
        self.runs.truncate(kept);
        // What lies scattered cannot be put together: more notes then, rather than trying again at each of them.
        if kept > self.many / 4 * 3 {
            self.many *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Notes, Run};

    const LENGTH: u32 = 4096;

    fn content(place: u64) -> [u8; 8] {
        place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
    }

    fn is_as(run: &Run, what: impl Fn(u64) -> [u8; 8]) -> bool {
        let places = (0..run.pieces).map(|n| run.offset + u64::from(n) * u64::from(run.length));
        run.is(places.map(|place| blake3::hash(&what(place))))
    }

    fn noted(places: &[u64], many: usize) -> Vec<Run> {
        let mut notes = Notes::with_room(many);
        for place in places {
            notes.add(*place, LENGTH, &blake3::hash(&content(*place)));
        }
        notes.into_runs()
    }

    #[test]
    fn a_large_disk_takes_no_more_notes_than_a_small_one() {
        let places: Vec<u64> = (0..100_000).map(|n| n * u64::from(LENGTH)).collect();
        let runs = noted(&places, 64);
        assert!(runs.len() <= 64);
        assert!(runs.iter().all(|run| is_as(run, content)));
    }

    proptest! {
        #[test]
        fn every_piece_is_looked_at_once_and_any_that_changed_is_noticed(
            places in prop::collection::btree_set(0_u64..3000, 1..800).prop_map(Vec::from_iter).prop_shuffle(),
            many in 4_usize..64,
            changed in any::<prop::sample::Index>(),
        ) {
            let places: Vec<u64> = places.iter().map(|place| place * u64::from(LENGTH)).collect();
            let runs = noted(&places, many);
            prop_assert!(runs.windows(2).all(|pair| pair[0].end() <= pair[1].offset));
            let bytes: u64 = runs.iter().map(Run::bytes).sum();
            prop_assert_eq!(bytes, places.len() as u64 * u64::from(LENGTH));
            prop_assert!(runs.iter().all(|run| is_as(run, content)));
            let changed = *changed.get(&places);
            let other = |place| if place == changed { *b"another!" } else { content(place) };
            let found: Vec<&Run> = runs.iter().filter(|run| !is_as(run, other)).collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert!((found[0].offset..found[0].end()).contains(&changed));
        }

        #[test]
        fn two_that_have_changed_places_are_noticed(first in 0_u64..16, second in 0_u64..16) {
            prop_assume!(first != second);
            let places: Vec<u64> = (0..16).map(|n| n * u64::from(LENGTH)).collect();
            let runs = noted(&places, 4);
            let (first, second) = (first * u64::from(LENGTH), second * u64::from(LENGTH));
            let swapped = |place| match place {
                place if place == first => content(second),
                place if place == second => content(first),
                place => content(place),
            };
            prop_assert!(runs.iter().any(|run| !is_as(run, swapped)));
        }
    }
}
