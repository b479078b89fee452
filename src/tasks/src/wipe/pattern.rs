//! Bytes that are known, and different in every sector and in every run: the last pass of an overwrite, canaries, and what
//! a burn-in writes.
//!
//! Each 512 bytes begin with a magic, the run's seed and their own offset, and are filled from these. So a sector that
//! was written elsewhere (a bad address line, a remapped or cached block), left from an older wipe, or not written at
//! all does not pass for this one.

/// A sector of the pattern, whatever the disk's own sector size is.
pub(crate) const UNIT: usize = 512;

/// What the bytes are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Overwrite,
    Canary,
    BurnIn,
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Overwrite => b"SPDWIPE1",
            Self::Canary => b"SPDCANR1",
            Self::BurnIn => b"SPDBURN1",
        }
    }
}

/// One run's pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pattern {
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
}

impl Pattern {
    /// What `buffer` must hold at `offset`. Both are multiples of 512.
    pub(crate) fn fill(self, offset: u64, buffer: &mut [u8]) {
        let mut at = offset;
        for unit in buffer.chunks_exact_mut(UNIT) {
            self.fill_unit(at, unit);
            at += UNIT as u64;
        }
    }

    fn fill_unit(self, at: u64, unit: &mut [u8]) {
        unit[..8].copy_from_slice(self.kind.magic());
        unit[8..16].copy_from_slice(&self.seed.to_le_bytes());
        unit[16..24].copy_from_slice(&at.to_le_bytes());
        // SplitMix64's finaliser makes neighbouring offsets unlike; a counter fills the rest at memory speed.
        let mut word = mix(self.seed ^ mix(at));
        for place in unit[24..].chunks_exact_mut(8) {
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Offset of the first byte that is not the pattern's.
    pub(crate) fn first_difference(self, offset: u64, found: &[u8]) -> Option<u64> {
        let mut wanted = [0; UNIT];
        let mut at = offset;
        for unit in found.chunks_exact(UNIT) {
            self.fill_unit(at, &mut wanted);
            if wanted != *unit {
                let i = wanted.iter().zip(unit).position(|(w, f)| w != f)?;
                return Some(at + i as u64);
            }
            at += UNIT as u64;
        }
        None
    }

    /// What a whole unit of this kind says of itself: the seed it was made with, and the offset it was written for.
    pub(crate) fn origin(kind: Kind, unit: &[u8]) -> Option<(u64, u64)> {
        let word = |at: usize| unit.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (seed, offset) = (word(8)?, word(16)?);
        let whole = Self { kind, seed }.first_difference(offset, unit.get(..UNIT)?).is_none();
        whole.then_some((seed, offset))
    }

    /// How many units of this run's pattern begin in `bytes`, wherever they were written to.
    pub(crate) fn count_in(self, bytes: &[u8]) -> u64 {
        let head = |unit: &&[u8]| unit[..8] == *self.kind.magic() && unit[8..16] == self.seed.to_le_bytes();
        bytes.chunks_exact(UNIT).filter(head).count() as u64
    }
}

/// The seed of the whole unit of a pattern that was written at `offset`, if `unit` is one.
pub(crate) fn seed_of(kind: Kind, offset: u64, unit: &[u8]) -> Option<u64> {
    let seed = u64::from_le_bytes(unit.get(8..16)?.try_into().ok()?);
    let pattern = Pattern { kind, seed };
    pattern.first_difference(offset, unit.get(..UNIT)?).is_none().then_some(seed)
}

pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(seed: u64) -> Pattern {
        Pattern { kind: Kind::Overwrite, seed }
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(seed: u64, sector in 0u64..1 << 40, units in 1usize..20, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let offset = sector * 512;
            let mut bytes = vec![0; units * 512];
            pattern(seed).fill(offset, &mut bytes);
            prop_assert_eq!(pattern(seed).first_difference(offset, &bytes), None);
            prop_assert_eq!(seed_of(Kind::Overwrite, offset, &bytes), Some(seed));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(pattern(seed).first_difference(offset, &bytes), Some(offset + at as u64));
            prop_assert!(at >= 512 || seed_of(Kind::Overwrite, offset, &bytes).is_none());
        }

        #[test]
        fn no_sector_passes_for_another_or_for_an_older_wipe(seed: u64, other: u64, a in 0u64..1 << 40, b in 0u64..1 << 40) {
            prop_assume!(seed != other && a != b);
            let (mut x, mut y, mut z) = ([0; 512], [0; 512], [0; 512]);
            pattern(seed).fill(a * 512, &mut x);
            pattern(seed).fill(b * 512, &mut y);
            pattern(other).fill(a * 512, &mut z);
            prop_assert!(x != y && x != z);
            prop_assert_eq!(pattern(seed).count_in(&[x, z, y].concat()), 2);
            let canary = Pattern { kind: Kind::Canary, seed };
            prop_assert_eq!(canary.count_in(&x), 0);
        }
    }
}
