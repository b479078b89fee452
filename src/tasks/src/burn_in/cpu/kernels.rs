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

    /// Found by `cargo nextest run -p speediso-tasks known_results`, in plain code only.
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

const KNOWN: [[u64; SEEDS]; 9] = [[0; SEEDS]; 9];

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

/// Every bit of every word, and their order, in one.
fn fold(words: &[u64]) -> u64 {
    words
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum: u64, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29))
}

fn integer(random: &mut Random) -> u64 {
    let (mut a, mut b) = (random.next(), random.next() | 1);
    let mut sum = 0_u64;
    for _ in 0..200_000 {
        let product = u128::from(a) * u128::from(b);
        // Both halves count; truncation is what is meant.
        let (low, high) = ((product & u128::from(u64::MAX)) as u64, (product >> 64) as u64);
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
    let (mut x, mut y) = (random.float(), random.float());
    for _ in 0..100_000 {
        x = (x * 1.234_567_89 + y).sqrt() / 1.1;
        y = x.mul_add(0.75, y / (x + 1.0)) * 0.5 + 0.25;
    }
    fold(&[x.to_bits(), y.to_bits()])
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
    let mut sum = Vec::with_capacity(4 * 8);
    for _ in 0..4 {
        let mut lanes: vector::Lanes<f64> = std::array::from_fn(|_| random.float());
        // The iteration draws every number to one point: a few rounds at a time, so that a wrong bit does not heal.
        for _ in 0..2_000 {
            vector::float_rounds(width, &mut lanes, 3);
            for lane in &mut lanes {
                *lane += random.float();
            }
        }
        sum.extend(lanes.map(f64::to_bits));
    }
    fold(&sum)
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
