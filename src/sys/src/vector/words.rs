//! What memory is filled with, and whether it still holds it.

use super::Width;

/// A word for every place. With an odd `step` no two places of 2^64 hold the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern {
    pub start: u64,
    pub step: u64,
    /// Makes neighbours look unrelated.
    pub mixed: bool,
    /// Inverted at the end.
    pub flip: u64,
}

impl Pattern {
    #[must_use]
    pub const fn constant(word: u64) -> Self {
        Self { start: word, step: 0, mixed: false, flip: 0 }
    }

    #[must_use]
    pub const fn inverted(self) -> Self {
        Self { flip: !self.flip, ..self }
    }

    pub(super) const fn counter(&self, place: u64) -> u64 {
        self.start.wrapping_add(self.step.wrapping_mul(place))
    }

    /// What belongs at a place.
    #[must_use]
    pub const fn word(&self, place: u64) -> u64 {
        let mut word = self.counter(place);
        if self.mixed {
            // Each of the three is a bijection, so different counters stay different.
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
        }
        word ^ self.flip
    }
}

/// Writes the pattern; `first` is the place of the first word.
pub fn fill(width: Width, words: &mut [u64], pattern: Pattern, first: u64) {
    let (chunks, tail) = words.as_chunks_mut::<8>();
    let behind = first + chunks.len() as u64 * 8;
    match width {
        #[cfg(target_arch = "x86_64")]
        _ if width != Width::Plain && width.is_here() => super::x86::fill(width, chunks, pattern, first),
        _ => {
            for (place, word) in (first..).zip(chunks.as_flattened_mut()) {
                *word = pattern.word(place);
            }
        }
    }
    for (place, word) in (behind..).zip(tail) {
        *word = pattern.word(place);
    }
}

/// Whether any word is not what the pattern says.
#[must_use]
pub fn differs(width: Width, words: &[u64], pattern: Pattern, first: u64) -> bool {
    let (chunks, tail) = words.as_chunks::<8>();
    let behind = first + chunks.len() as u64 * 8;
    let plain = |place: u64, words: &[u64]| (place..).zip(words).any(|(place, word)| *word != pattern.word(place));
    let differ = match width {
        #[cfg(target_arch = "x86_64")]
        _ if width != Width::Plain && width.is_here() => super::x86::differs(width, chunks, pattern, first),
        _ => plain(first, chunks.as_flattened()),
    };
    differ || plain(behind, tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_width_fills_and_finds_alike(
            start: u64, step: u64, mixed: bool, flip: u64, first in 0_u64..1 << 60, n in 0_usize..70,
            wrong in prop::option::of((0_usize..70, 0_u32..64)),
        ) {
            let pattern = Pattern { start, step, mixed, flip };
            let expected: Vec<u64> = (0..n as u64).map(|i| pattern.word(first + i)).collect();
            for width in Width::ALL.into_iter().filter(|w| w.is_here()) {
                let mut words = vec![!0; n];
                fill(width, &mut words, pattern, first);
                prop_assert_eq!(&words, &expected, "{:?}", width);
                prop_assert!(!differs(width, &words, pattern, first));
                if let Some((at, bit)) = wrong && at < n {
                    words[at] ^= 1 << bit;
                    prop_assert!(differs(width, &words, pattern, first), "{width:?} {at} {bit}");
                }
            }
        }
    }

    #[test]
    fn no_two_places_hold_the_same() {
        let pattern = Pattern { start: 1, step: 0x9e37_79b9_7f4a_7c15, mixed: true, flip: 0 };
        let mut seen: Vec<u64> =
            (0..100_000).chain((1 << 40)..(1 << 40) + 1000).map(|place| pattern.word(place)).collect();
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
