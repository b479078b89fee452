//! The last pass of a wipe: bytes that are known, and different in every sector and in every run.
//!
//! Each 512 bytes begin with a magic, the run's seed and their own offset, and are filled from these. So a sector that
//! was written elsewhere (a bad address line, a remapped or cached block), left from an older wipe, or not written at
//! all does not pass for this one.

/// A sector of the pattern, whatever the disk's own sector size is.
const UNIT: usize = 512;
const MAGIC: &[u8; 8] = b"SPDWIPE1";

/// One run's pattern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pattern {
    pub(super) seed: u64,
}

impl Pattern {
    /// What `buffer` must hold at `offset`. Both are multiples of 512.
    pub(super) fn fill(self, offset: u64, buffer: &mut [u8]) {
        for (i, unit) in buffer.chunks_exact_mut(UNIT).enumerate() {
            self.fill_unit(offset + (i * UNIT) as u64, unit);
        }
    }

    fn fill_unit(self, at: u64, unit: &mut [u8]) {
        unit[..8].copy_from_slice(MAGIC);
        unit[8..16].copy_from_slice(&self.seed.to_le_bytes());
        unit[16..24].copy_from_slice(&at.to_le_bytes());
        // SplitMix64's finaliser makes neighbouring offsets unlike; a counter fills the rest at memory speed.
        let mut word = mix(self.seed ^ mix(at));
        for place in unit[24..].chunks_exact_mut(8) {
            word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
            place.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Offset of the first byte that is not the pattern's. `scratch` is as long as `found`.
    pub(super) fn first_difference(self, offset: u64, found: &[u8], scratch: &mut [u8]) -> Option<u64> {
        let wanted = &mut scratch[..found.len()];
        self.fill(offset, wanted);
        if wanted == found {
            return None;
        }
        let i = wanted.iter().zip(found).position(|(w, f)| w != f)?;
        Some(offset + i as u64)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(seed: u64, sector in 0u64..1 << 40, units in 1usize..20, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let pattern = Pattern { seed };
            let offset = sector * 512;
            let mut bytes = vec![0; units * 512];
            let mut scratch = vec![0; bytes.len()];
            pattern.fill(offset, &mut bytes);
            prop_assert_eq!(pattern.first_difference(offset, &bytes, &mut scratch), None);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(pattern.first_difference(offset, &bytes, &mut scratch), Some(offset + at as u64));
        }

        #[test]
        fn no_sector_passes_for_another_or_for_an_older_wipe(seed: u64, other: u64, a in 0u64..1 << 40, b in 0u64..1 << 40) {
            prop_assume!(seed != other && a != b);
            let (mut x, mut y, mut z) = ([0; 512], [0; 512], [0; 512]);
            Pattern { seed }.fill(a * 512, &mut x);
            Pattern { seed }.fill(b * 512, &mut y);
            Pattern { seed: other }.fill(a * 512, &mut z);
            prop_assert!(x != y && x != z);
        }
    }
}
