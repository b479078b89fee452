//! The same loops in three widths. A chunk is a cache line: one, two or four registers.

use std::arch::x86_64::*;

use super::Width;
use super::words::Pattern;

// What ships is built for size. There a loop over registers stays a loop, and costs half of the bandwidth: so the
// registers of a chunk are written out, by their numbers.
macro_rules! width {
    (
        $module:ident, $feature:literal, $lanes:literal, [$($n:literal)+],
        $ints:ty, $load:ident, $store:ident, $splat:ident, $add:ident, $xor:ident, $or:ident, $shl:ident, $shr:ident,
        $mul:ident, $floats:ty, $fload:ident, $fstore:ident, $fsplat:ident, $fmul:ident, $fadd:ident, $fdiv:ident,
        $fsqrt:ident
    ) => {
        pub(super) mod $module {
            use super::*;

            macro_rules! load {
                ($words:expr, $at:literal) => {{
                    let part: &[u64] = &$words[$at * $lanes..][..$lanes];
                    // SAFETY: `part` has as many words as a register; the load asks for no alignment.
                    unsafe { $load(part.as_ptr().cast()) }
                }};
            }

            macro_rules! store {
                ($words:expr, $at:literal, $vector:expr) => {{
                    let part: &mut [u64] = &mut $words[$at * $lanes..][..$lanes];
                    // SAFETY: `part` has as many words as a register; the store asks for no alignment.
                    unsafe { $store(part.as_mut_ptr().cast(), $vector) }
                }};
            }

            /// What belongs in a register, whose counters then go on.
            macro_rules! next {
                ($state:expr, $step:expr, $flip:expr) => {{
                    let mut word = $state;
                    $state = $add(word, $step);
                    if MIXED {
                        word = $xor(word, $shl::<13>(word));
                        word = $xor(word, $shr::<7>(word));
                        word = $xor(word, $shl::<17>(word));
                    }
                    $xor(word, $flip)
                }};
            }

            #[target_feature(enable = $feature)]
            pub(in super::super) fn fill<const MIXED: bool>(chunks: &mut [[u64; 8]], pattern: Pattern, first: u64) {
                let counters = start(pattern, first);
                let mut states = [$(load!(counters, $n)),+];
                let step = $splat(pattern.step.wrapping_mul(8).cast_signed());
                let flip = $splat(pattern.flip.cast_signed());
                for chunk in chunks {
                    $(store!(chunk, $n, next!(states[$n], step, flip));)+
                }
            }

            #[target_feature(enable = $feature)]
            pub(in super::super) fn differs<const MIXED: bool>(
                chunks: &[[u64; 8]],
                pattern: Pattern,
                first: u64,
            ) -> bool {
                let counters = start(pattern, first);
                let mut states = [$(load!(counters, $n)),+];
                let step = $splat(pattern.step.wrapping_mul(8).cast_signed());
                let flip = $splat(pattern.flip.cast_signed());
                let mut wrong = [$splat(0); 8 / $lanes];
                for chunk in chunks {
                    $(wrong[$n] = $or(wrong[$n], $xor(load!(chunk, $n), next!(states[$n], step, flip)));)+
                }
                let mut bits = [0_u64; 8];
                $(store!(bits, $n, wrong[$n]);)+
                bits.into_iter().any(|b| b != 0)
            }

            #[target_feature(enable = $feature)]
            pub(in super::super) fn integers(lanes: &mut [u64; 8], factor: u64, rounds: u32) {
                let mut states = [$(load!(lanes, $n)),+];
                let factor = $splat(factor.cast_signed());
                for _ in 0..rounds {
                    $(states[$n] = $add($mul(states[$n], factor), $shr::<32>(states[$n]));)+
                }
                $(store!(lanes, $n, states[$n]);)+
            }

            #[target_feature(enable = $feature)]
            pub(in super::super) fn floats(lanes: &mut [f64; 8], [a, b, c]: [f64; 3], rounds: u32) {
                let (a, b, c) = ($fsplat(a), $fsplat(b), $fsplat(c));
                for part in lanes.chunks_exact_mut($lanes) {
                    // SAFETY: `part` has as many numbers as a register; neither load nor store asks for alignment.
                    let mut state: $floats = unsafe { $fload(part.as_ptr()) };
                    for _ in 0..rounds {
                        state = $fdiv($fsqrt($fadd($fmul(state, a), b)), c);
                    }
                    // SAFETY: as above.
                    unsafe { $fstore(part.as_mut_ptr(), state) };
                }
            }
        }
    };
}

fn start(pattern: Pattern, first: u64) -> [u64; 8] {
    let mut words = [0; 8];
    for (place, word) in (first..).zip(&mut words) {
        *word = pattern.counter(place);
    }
    words
}

width!(
    sse2,
    "sse2",
    2,
    [0 1 2 3],
    __m128i,
    _mm_loadu_si128,
    _mm_storeu_si128,
    _mm_set1_epi64x,
    _mm_add_epi64,
    _mm_xor_si128,
    _mm_or_si128,
    _mm_slli_epi64,
    _mm_srli_epi64,
    _mm_mul_epu32,
    __m128d,
    _mm_loadu_pd,
    _mm_storeu_pd,
    _mm_set1_pd,
    _mm_mul_pd,
    _mm_add_pd,
    _mm_div_pd,
    _mm_sqrt_pd
);
width!(
    avx2,
    "avx2",
    4,
    [0 1],
    __m256i,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_set1_epi64x,
    _mm256_add_epi64,
    _mm256_xor_si256,
    _mm256_or_si256,
    _mm256_slli_epi64,
    _mm256_srli_epi64,
    _mm256_mul_epu32,
    __m256d,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_mul_pd,
    _mm256_add_pd,
    _mm256_div_pd,
    _mm256_sqrt_pd
);
width!(
    avx512,
    "avx512f",
    8,
    [0],
    __m512i,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_set1_epi64,
    _mm512_add_epi64,
    _mm512_xor_si512,
    _mm512_or_si512,
    _mm512_slli_epi64,
    _mm512_srli_epi64,
    _mm512_mul_epu32,
    __m512d,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_set1_pd,
    _mm512_mul_pd,
    _mm512_add_pd,
    _mm512_div_pd,
    _mm512_sqrt_pd
);

/// Calls a function of the module for the width. Only for widths that are here.
macro_rules! call {
    ($width:expr, $function:ident $(::<$mixed:literal>)?, $($argument:expr),*) => {
        match $width {
            Width::Avx512 if Width::Avx512.is_here() => {
                // SAFETY: the processor has AVX-512F, as was just asked.
                unsafe { avx512::$function$(::<$mixed>)?($($argument),*) }
            }
            Width::Avx512 | Width::Avx2 if Width::Avx2.is_here() => {
                // SAFETY: the processor has AVX2, as was just asked.
                unsafe { avx2::$function$(::<$mixed>)?($($argument),*) }
            }
            _ => {
                // SAFETY: SSE2 is part of every x86-64.
                unsafe { sse2::$function$(::<$mixed>)?($($argument),*) }
            }
        }
    };
}

pub(super) fn fill(width: Width, chunks: &mut [[u64; 8]], pattern: Pattern, first: u64) {
    if pattern.mixed {
        call!(width, fill::<true>, chunks, pattern, first);
    } else {
        call!(width, fill::<false>, chunks, pattern, first);
    }
}

pub(super) fn differs(width: Width, chunks: &[[u64; 8]], pattern: Pattern, first: u64) -> bool {
    if pattern.mixed {
        call!(width, differs::<true>, chunks, pattern, first)
    } else {
        call!(width, differs::<false>, chunks, pattern, first)
    }
}

pub(super) fn integers(width: Width, lanes: &mut [u64; 8], factor: u64, rounds: u32) {
    call!(width, integers, lanes, factor, rounds);
}

pub(super) fn floats(width: Width, lanes: &mut [f64; 8], constants: [f64; 3], rounds: u32) {
    call!(width, floats, lanes, constants, rounds);
}

/// `block` through `rounds` rounds of encryption with one key. `None` without AES-NI.
pub(super) fn aes(block: [u8; 16], key: [u8; 16], rounds: u32) -> Option<[u8; 16]> {
    #[target_feature(enable = "aes")]
    fn run(block: [u8; 16], key: [u8; 16], rounds: u32) -> [u8; 16] {
        let half = |bytes: [u8; 16], n: usize| i64::from_le_bytes(std::array::from_fn(|i| bytes[8 * n + i]));
        let key = _mm_set_epi64x(half(key, 1), half(key, 0));
        let mut state = _mm_set_epi64x(half(block, 1), half(block, 0));
        for _ in 0..rounds {
            state = _mm_aesenc_si128(state, key);
        }
        let (low, high) = (_mm_cvtsi128_si64(state), _mm_cvtsi128_si64(_mm_unpackhi_epi64(state, state)));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&low.to_le_bytes());
        bytes[8..].copy_from_slice(&high.to_le_bytes());
        bytes
    }
    // SAFETY: the processor has AES-NI, as is asked first.
    std::arch::is_x86_feature_detected!("aes").then(|| unsafe { run(block, key, rounds) })
}

/// `None` without SSE 4.2.
pub(super) fn crc32c(words: &[u64]) -> Option<u32> {
    #[target_feature(enable = "sse4.2")]
    fn run(words: &[u64]) -> u32 {
        let sum = words.iter().fold(u64::from(!0_u32), |sum, word| _mm_crc32_u64(sum, *word));
        // The upper half is 0 by the instruction's definition.
        !u32::try_from(sum).unwrap_or_default()
    }
    // SAFETY: the processor has SSE 4.2, as is asked first.
    std::arch::is_x86_feature_detected!("sse4.2").then(|| unsafe { run(words) })
}
