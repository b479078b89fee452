//! The kernels: each turns a seed into one number, and which number is known.

use sha2::{Digest as _, Sha256};
use speediso_sys::vector::{self, Width};

/// How many seeds have known results.
pub(super) const SEEDS: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kernel {
    /// Multiplication of 64 by 64 bits, division, rotation, counting of bits.
    Integer,
    /// Sorting: comparisons, branches, loads and stores.
    Sort,
    /// SHA-256, by the processor's instructions where it has them.
    Sha256,
    /// Double precision in plain code, with fused multiplication too.
    Float,
    IntegerVector(Width),
    FloatVector(Width),
    Aes,
    Crc32c,
    /// Copying through the caches.
    Copy,
}

/// Memory that a kernel works in, kept from turn to turn: allocating is not what is tested.
pub(super) struct Scratch {
    words: Vec<u64>,
    copy: Vec<u64>,
}

/// 256 KiB: more than a first-level cache has, less than most second-level ones.
const WORDS: usize = 32 * 1024;

impl Default for Scratch {
    fn default() -> Self {
        Self { words: vec![0; WORDS], copy: vec![0; WORDS] }
    }
}

impl Kernel {
    pub(super) const ALL: [Self; 13] = [
        Self::Integer,
        Self::Sort,
        Self::Sha256,
        Self::Float,
        Self::IntegerVector(Width::Sse2),
        Self::IntegerVector(Width::Avx2),
        Self::IntegerVector(Width::Avx512),
        Self::FloatVector(Width::Sse2),
        Self::FloatVector(Width::Avx2),
        Self::FloatVector(Width::Avx512),
        Self::Aes,
        Self::Crc32c,
        Self::Copy,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Sort => "sort",
            Self::Sha256 => "sha256",
            Self::Float => "float",
            Self::IntegerVector(Width::Plain) => "integer-plain",
            Self::IntegerVector(Width::Sse2) => "integer-sse2",
            Self::IntegerVector(Width::Avx2) => "integer-avx2",
            Self::IntegerVector(Width::Avx512) => "integer-avx512",
            Self::FloatVector(Width::Plain) => "float-plain",
            Self::FloatVector(Width::Sse2) => "float-sse2",
            Self::FloatVector(Width::Avx2) => "float-avx2",
            Self::FloatVector(Width::Avx512) => "float-avx512",
            Self::Aes => "aes",
            Self::Crc32c => "crc32c",
            Self::Copy => "copy",
        }
    }

    /// Whether this processor has what it needs.
    pub(super) fn is_here(self) -> bool {
        match self {
            Self::IntegerVector(width) | Self::FloatVector(width) => width.is_here(),
            Self::Aes => vector::aes_rounds([0; 16], [0; 16], 1).is_some(),
            Self::Crc32c => vector::crc32c(&[0]).is_some(),
            _ => true,
        }
    }

    pub(super) fn run(self, seed: usize, scratch: &mut Scratch) -> u64 {
        let mut random = Random(0x5eed_0000 + seed as u64);
        match self {
            Self::Integer => integer(&mut random),
            Self::Sort => {
                scratch.words.iter_mut().for_each(|word| *word = random.next());
                scratch.words.sort_unstable();
                fold(&scratch.words)
            }
            Self::Sha256 => sha256(&mut random),
            Self::Float => float(&mut random),
            Self::IntegerVector(width) => integer_vector(width, &mut random),
            Self::FloatVector(width) => float_vector(width, &mut random),
            Self::Aes => {
                aes(&mut random, |block, key, rounds| vector::aes_rounds(block, key, rounds).unwrap_or_default())
            }
            Self::Crc32c => crc32c(&mut random, scratch, |words| vector::crc32c(words).unwrap_or_default()),
            Self::Copy => {
                scratch.words.iter_mut().for_each(|word| *word = random.next());
                for turn in 1..=8 {
                    scratch.copy.copy_from_slice(&scratch.words);
                    scratch.words.copy_from_slice(&scratch.copy);
                    scratch.words.rotate_left(turn);
                }
                fold(&scratch.words)
            }
        }
    }

    /// Found outside of this program, by plain code in another language; the tests find them again.
    pub(super) fn expected(self, seed: usize) -> u64 {
        let known: &[u64; SEEDS] = match self {
            Self::Integer => &KNOWN[0],
            Self::Sort => &KNOWN[1],
            Self::Sha256 => &KNOWN[2],
            Self::Float => &KNOWN[3],
            Self::IntegerVector(_) => &KNOWN[4],
            Self::FloatVector(_) => &KNOWN[5],
            Self::Aes => &KNOWN[6],
            Self::Crc32c => &KNOWN[7],
            Self::Copy => &KNOWN[8],
        };
        known[seed % SEEDS]
    }

    /// The same result by plain code: how the known ones were found, and what the tests compare with.
    #[cfg(test)]
    pub(super) fn run_plainly(self, seed: usize, scratch: &mut Scratch) -> u64 {
        let mut random = Random(0x5eed_0000 + seed as u64);
        match self {
            Self::IntegerVector(_) => integer_vector(Width::Plain, &mut random),
            Self::FloatVector(_) => float_vector(Width::Plain, &mut random),
            Self::Aes => aes(&mut random, vector::aes_rounds_plain),
            Self::Crc32c => crc32c(&mut random, scratch, |words| {
                const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
                let mut digest = CRC.digest();
                words.iter().for_each(|word| digest.update(&word.to_le_bytes()));
                digest.finalize()
            }),
            other => other.run(seed, scratch),
        }
    }
}

const KNOWN: [[u64; SEEDS]; 9] = [
    [0x9317_5a08_ded3_275b, 0x7d79_2eea_51f8_a8d2, 0x41ba_bc6a_996c_89f2, 0x091c_aad8_8447_62e7],
    [0x901a_2ff2_e225_85bc, 0xd574_a95d_f3c0_4348, 0xf56a_3d1e_2085_cb67, 0x372e_085e_22a6_e394],
    [0x38c9_a321_32dc_5b82, 0xf8a2_772e_4099_11f6, 0xc7e4_6a05_dd86_17c5, 0x12a8_23ce_afec_1e70],
    [0x75dd_b01b_026f_913b, 0x6b94_9937_e042_17ec, 0x8646_af91_634b_bc77, 0x5619_aefb_e8e2_f4a9],
    [0xe0a3_36b1_33fd_a2f7, 0x5d41_8934_39ba_b35c, 0xb15d_7f8a_805c_d249, 0x78f1_7fc8_b223_792e],
    [0x5b20_a77f_cbbb_ba98, 0x1703_8ab4_3cd7_e003, 0x078a_22a1_35c2_2850, 0x447b_c968_632f_cbb4],
    [0xd209_6168_fa2b_d74e, 0x035e_2f19_1801_983e, 0x1ba8_311a_6c51_2358, 0xcf24_adc0_ad95_6a60],
    [0x6eac_0610_b23d_b223, 0x3a48_ff96_223f_fd93, 0xbc2f_eb07_c049_00df, 0x381e_8e04_be60_5e9a],
    [0x15e7_5592_66a8_9585, 0xb5cb_b2d8_f1b6_5934, 0xf21f_6a6d_4247_0ed7, 0x27c6_3e1f_6c6f_ff6c],
];

/// SplitMix64: the same numbers everywhere, and no two seeds alike.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// From 1 to 2.
    fn float(&mut self) -> f64 {
        f64::from_bits(0x3ff0_0000_0000_0000 | (self.next() >> 12))
    }

    fn block(&mut self) -> [u8; 16] {
        let (low, high) = (self.next().to_le_bytes(), self.next().to_le_bytes());
        std::array::from_fn(|i| if i < 8 { low[i] } else { high[i - 8] })
    }
}

const FOLD: u64 = 0xcbf2_9ce4_8422_2325;

/// Every bit of every word, and their order, in one: each step is a bijection.
fn fold(words: &[u64]) -> u64 {
    words.iter().fold(FOLD, |sum, word| folded(sum, *word))
}

fn folded(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
}

fn integer(random: &mut Random) -> u64 {
    let (mut a, mut b) = (random.next(), random.next() | 1);
    let mut sum = 0_u64;
    for _ in 0..200_000 {
        let (low, high) = a.carrying_mul(b, 0);
        let quotient = low / (high | 1);
        a = low.rotate_left(high.count_ones()) ^ quotient;
        b = (b ^ high).wrapping_add(a >> 3) | 1;
        sum = sum.wrapping_add(u64::from(a.leading_zeros())).wrapping_add(a % b);
    }
    fold(&[a, b, sum])
}

fn sha256(random: &mut Random) -> u64 {
    let mut block: Vec<u8> = (0..512).flat_map(|_| random.next().to_le_bytes()).collect();
    for _ in 0..128 {
        let digest = Sha256::digest(&block);
        let at = usize::from(digest[0]) * 8;
        block[at..at + 32].copy_from_slice(&digest);
    }
    let digest = Sha256::digest(&block);
    fold(&digest.chunks_exact(8).map(|part| part.iter().fold(0, |w, b| w << 8 | u64::from(*b))).collect::<Vec<_>>())
}

fn float(random: &mut Random) -> u64 {
    let mut sum = FOLD;
    // The iteration draws every number to one point: a few rounds at a time, so that a wrong bit does not heal.
    for _ in 0..20_000 {
        let (mut x, mut y) = (random.float(), random.float());
        for _ in 0..3 {
            x = (x * 1.234_567_89 + y).sqrt() / 1.1;
            y = x.mul_add(0.75, y / (x + 1.0)) * 0.5 + 0.25;
        }
        sum = folded(folded(sum, x.to_bits()), y.to_bits());
    }
    sum
}

fn integer_vector(width: Width, random: &mut Random) -> u64 {
    let mut sum = Vec::with_capacity(16 * 8);
    for _ in 0..16 {
        // Below the modulus, as multiply-with-carry asks.
        let mut lanes: vector::Lanes<u64> = std::array::from_fn(|_| random.next() >> 1);
        vector::integer_rounds(width, &mut lanes, 20_000);
        sum.extend(lanes);
    }
    fold(&sum)
}

fn float_vector(width: Width, random: &mut Random) -> u64 {
    // As above.
    (0..8_000).fold(FOLD, |sum, _| {
        let mut lanes: vector::Lanes<f64> = std::array::from_fn(|_| random.float());
        vector::float_rounds(width, &mut lanes, 3);
        lanes.into_iter().fold(sum, |sum, lane| folded(sum, lane.to_bits()))
    })
}

fn aes(random: &mut Random, rounds: impl Fn([u8; 16], [u8; 16], u32) -> [u8; 16]) -> u64 {
    let mut sum = Vec::new();
    for _ in 0..8 {
        let block = rounds(random.block(), random.block(), 10_000);
        sum.extend(block.chunks_exact(8).map(|part| part.iter().fold(0, |w, b| w << 8 | u64::from(*b))));
    }
    fold(&sum)
}

fn crc32c(random: &mut Random, scratch: &mut Scratch, sum: impl Fn(&[u64]) -> u32) -> u64 {
    scratch.words.iter_mut().for_each(|word| *word = random.next());
    let sums: Vec<u64> = (0..4).map(|i| u64::from(sum(&scratch.words[i * 1000..]))).collect();
    fold(&sums)
}
