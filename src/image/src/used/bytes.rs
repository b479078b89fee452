//! Numbers out of untrusted bytes, and the checksum that filesystems share.

/// What is not there reads as zero; whoever asks has looked at the length where that matters.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

pub(super) fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

/// Two halves of a number that outgrew its first place.
pub(super) fn wide(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

const TABLE: [u32; 256] = {
    // Castagnoli's polynomial, reflected.
    let mut table = [0; 256];
    let mut n = 0u32;
    while n < 256 {
        let (mut value, mut bit) = (n, 0);
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[n as usize] = value;
        n += 1;
    }
    table
};

/// CRC-32C without inversion at either end, to go on from `crc`.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ crc >> 8)
}

/// Calls `run` with each longest run of zero bits among the first `bits`; bit 0 is the lowest of the first byte.
pub(super) fn zero_runs(bytes: &[u8], bits: u64, mut run: impl FnMut(u64, u64)) {
    let mut begin = None;
    let mut at = 0;
    for chunk in bytes.chunks(8) {
        if at >= bits {
            break;
        }
        let mut word = [0xff; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let mut word = u64::from_le_bytes(word);
        let here = (bits - at).min(chunk.len() as u64 * 8);
        if here < 64 {
            word |= u64::MAX << here;
        }
        let mut bit = 0;
        while bit < here {
            let left = word >> bit;
            if begin.is_none() {
                let used = u64::from(left.trailing_ones()).min(here - bit);
                bit += used;
                if bit < here {
                    begin = Some(at + bit);
                }
            } else {
                // Beyond the top of the word there are zeroes that are none of its bits.
                let free = u64::from(left.trailing_zeros()).min(here - bit);
                bit += free;
                if bit < here
                    && let Some(begin) = begin.take()
                {
                    run(begin, at + bit);
                }
            }
        }
        at += here;
    }
    if let Some(begin) = begin {
        run(begin, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        // RFC 3720, B.4, and the usual check value; both with inversion.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn runs_are_those_that_the_bits_have(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..40), less in 0u64..20) {
            let bits = (bytes.len() as u64 * 8).saturating_sub(less);
            let mut found = vec![true; usize::try_from(bits).expect("small")];
            let mut last = None;
            zero_runs(&bytes, bits, |start, end| {
                assert!(start < end && last.is_none_or(|last| start > last), "{start} to {end} after {last:?}");
                last = Some(end);
                found[usize::try_from(start).expect("small")..usize::try_from(end).expect("small")].fill(false);
            });
            let expected: Vec<bool> = (0..found.len()).map(|n| bytes[n / 8] >> (n % 8) & 1 == 1).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
