//! Arithmetic whose result is the same on every processor, in every width: IEEE 754 leaves no freedom in any of these
//! operations, and nothing here is contracted or reordered.

use std::sync::LazyLock;

use super::Width;

/// A cache line of numbers that are worked on side by side.
pub type Lanes<T> = [T; 8];

/// A prime just below 2^32 that makes long cycles of multiply-with-carry.
const FACTOR: u64 = 4_294_957_665;
const CONSTANTS: [f64; 3] = [1.732_050_807_568_877_2, 2.236_067_977_499_79, 1.259_921_049_894_873];

/// Multiply with carry in every lane.
pub fn integer_rounds(width: Width, lanes: &mut Lanes<u64>, rounds: u32) {
    match width {
        #[cfg(target_arch = "x86_64")]
        _ if width != Width::Plain && width.is_here() => super::x86::integers(width, lanes, FACTOR, rounds),
        _ => {
            for lane in lanes {
                for _ in 0..rounds {
                    *lane = (*lane & 0xffff_ffff) * FACTOR + (*lane >> 32);
                }
            }
        }
    }
}

/// Multiplication, addition, square root and division in every lane. Positive numbers stay positive and bounded.
pub fn float_rounds(width: Width, lanes: &mut Lanes<f64>, rounds: u32) {
    let [a, b, c] = CONSTANTS;
    match width {
        #[cfg(target_arch = "x86_64")]
        _ if width != Width::Plain && width.is_here() => super::x86::floats(width, lanes, CONSTANTS, rounds),
        _ => {
            for lane in lanes {
                for _ in 0..rounds {
                    *lane = (*lane * a + b).sqrt() / c;
                }
            }
        }
    }
}

/// AES rounds by the processor's own instruction; `None` without it.
#[must_use]
pub fn aes_rounds(block: [u8; 16], key: [u8; 16], rounds: u32) -> Option<[u8; 16]> {
    #[cfg(target_arch = "x86_64")]
    return super::x86::aes(block, key, rounds);
    #[cfg(target_arch = "aarch64")]
    return super::arm::aes(block, key, rounds);
}

/// CRC-32C by the processor's own instruction; `None` without it.
#[must_use]
pub fn crc32c(words: &[u64]) -> Option<u32> {
    #[cfg(target_arch = "x86_64")]
    return super::x86::crc32c(words);
    #[cfg(target_arch = "aarch64")]
    return super::arm::crc32c(words);
}

/// The same AES rounds in plain code (FIPS 197, 5.1), for comparison: no cipher, and its time tells its input.
#[must_use]
pub fn aes_rounds_plain(mut block: [u8; 16], key: [u8; 16], rounds: u32) -> [u8; 16] {
    for _ in 0..rounds {
        let mut next = [0; 16];
        for column in 0..4 {
            // ShiftRows takes row r of a column from the r-th column to the right.
            let s: [u8; 4] = std::array::from_fn(|row| S_BOX[usize::from(block[(column + row) % 4 * 4 + row])]);
            for row in 0..4 {
                let (a, b) = (s[row], s[(row + 1) % 4]);
                next[column * 4 + row] = double(a) ^ double(b) ^ b ^ s[(row + 2) % 4] ^ s[(row + 3) % 4];
            }
        }
        block = std::array::from_fn(|i| next[i] ^ key[i]);
    }
    block
}

/// Twice, in the field of FIPS 197.
const fn double(a: u8) -> u8 {
    (a << 1) ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

static S_BOX: LazyLock<[u8; 256]> = LazyLock::new(|| {
    let mut table = [0; 256];
    // 3 generates the field and 0xf6 is its inverse: p runs through all, q through their inverses.
    let (mut p, mut q) = (1_u8, 1_u8);
    loop {
        p ^= double(p);
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        q ^= if q & 0x80 != 0 { 0x09 } else { 0 };
        table[usize::from(p)] = q ^ q.rotate_left(1) ^ q.rotate_left(2) ^ q.rotate_left(3) ^ q.rotate_left(4) ^ 0x63;
        if p == 1 {
            break;
        }
    }
    table[0] = 0x63;
    table
});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_width_counts_alike(lanes: [u64; 8], floats in prop::array::uniform8(1e-3..1e3_f64), rounds in 0_u32..200) {
            let (mut plain, mut plain_floats) = (lanes, floats);
            // Below the modulus, as multiply-with-carry asks.
            plain.iter_mut().for_each(|lane| *lane >>= 1);
            let lanes = plain;
            integer_rounds(Width::Plain, &mut plain, rounds);
            float_rounds(Width::Plain, &mut plain_floats, rounds);
            for width in Width::ALL.into_iter().filter(|w| w.is_here()) {
                let (mut wide, mut wide_floats) = (lanes, floats);
                integer_rounds(width, &mut wide, rounds);
                float_rounds(width, &mut wide_floats, rounds);
                prop_assert_eq!(wide, plain);
                prop_assert_eq!(wide_floats.map(f64::to_bits), plain_floats.map(f64::to_bits));
            }
        }

        #[test]
        fn the_instruction_and_the_text_book_agree(block: [u8; 16], key: [u8; 16], rounds in 0_u32..50) {
            if let Some(by_instruction) = aes_rounds(block, key, rounds) {
                prop_assert_eq!(by_instruction, aes_rounds_plain(block, key, rounds));
            }
        }
    }

    #[test]
    fn known_answers() {
        // FIPS 197, appendix B: the state at the start of round 1, its round key, and the state at the start of round 2.
        let hex = |text: &str| -> [u8; 16] {
            std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
        };
        let state = hex("193de3bea0f4e22b9ac68d2ae9f84808");
        let key = hex("a0fafe1788542cb123a339392a6c7605");
        assert_eq!(aes_rounds_plain(state, key, 1), hex("a49c7ff2689f352b6b5bea43026a5049"));
        // RFC 3720, B.4: 32 bytes of zeros.
        if let Some(sum) = crc32c(&[0; 4]) {
            assert_eq!(sum, 0x8a91_36aa);
        }
    }
}
