//! Bytes that follow from a key and a number: whoever knows both can say what must arrive.

/// Of one direction of one stream, or of datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload {
    key: u64,
}

/// SplitMix64's finaliser.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Payload {
    pub(crate) fn new(key: u64) -> Self {
        Self { key }
    }

    /// Words that look random enough for line codes and scramblers, at the speed of memory.
    fn words(self, number: u64) -> impl Iterator<Item = u64> {
        let first = mix(self.key ^ mix(number));
        (1..).map(move |n: u64| first.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub(crate) fn fill(self, number: u64, bytes: &mut [u8]) {
        for (place, word) in bytes.chunks_mut(8).zip(self.words(number)) {
            let length = place.len();
            place.copy_from_slice(&word.to_le_bytes()[..length]);
        }
    }

    pub(crate) fn is(self, number: u64, bytes: &[u8]) -> bool {
        bytes.chunks(8).zip(self.words(number)).all(|(found, word)| *found == word.to_le_bytes()[..found.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_changed_bit_is_seen(key: u64, number: u64, length in 1usize..3000, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = vec![0; length];
            Payload::new(key).fill(number, &mut bytes);
            prop_assert!(Payload::new(key).is(number, &bytes));
            let at = at.index(length);
            bytes[at] ^= 1 << bit;
            prop_assert!(!Payload::new(key).is(number, &bytes));
        }
    }

    #[test]
    fn another_number_or_key_is_another_payload() {
        let mut bytes = [0; 64];
        Payload::new(1).fill(1, &mut bytes);
        assert!(!Payload::new(1).is(2, &bytes) && !Payload::new(2).is(1, &bytes));
    }
}
