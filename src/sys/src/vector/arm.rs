//! What 64-bit ARM processors have instructions of their own for.

use std::arch::aarch64::{__crc32cd, vaeseq_u8, vaesmcq_u8, vdupq_n_u8, veorq_u8, vld1q_u8, vst1q_u8};

/// `block` through `rounds` rounds of encryption with one key. `None` without the AES extension.
pub(super) fn aes(block: [u8; 16], key: [u8; 16], rounds: u32) -> Option<[u8; 16]> {
    #[target_feature(enable = "neon,aes")]
    fn run(block: [u8; 16], key: [u8; 16], rounds: u32) -> [u8; 16] {
        // SAFETY: 16 bytes that live here, without a need for alignment.
        let (mut state, key) = unsafe { (vld1q_u8(block.as_ptr()), vld1q_u8(key.as_ptr())) };
        for _ in 0..rounds {
            // The instruction adds its key first and FIPS 197's round last.
            state = veorq_u8(vaesmcq_u8(vaeseq_u8(state, vdupq_n_u8(0))), key);
        }
        let mut bytes = [0; 16];
        // SAFETY: as above.
        unsafe { vst1q_u8(bytes.as_mut_ptr(), state) };
        bytes
    }
    // SAFETY: the processor has the extension, as is asked first.
    std::arch::is_aarch64_feature_detected!("aes").then(|| unsafe { run(block, key, rounds) })
}

/// `None` without the CRC extension.
pub(super) fn crc32c(words: &[u64]) -> Option<u32> {
    #[target_feature(enable = "crc")]
    fn run(words: &[u64]) -> u32 {
        !words.iter().fold(!0, |sum, word| __crc32cd(sum, *word))
    }
    // SAFETY: the processor has the extension, as is asked first.
    std::arch::is_aarch64_feature_detected!("crc").then(|| unsafe { run(words) })
}
