//! The processor's wide units: filling and comparing memory with them, and arithmetic that can be checked.
//!
//! Every function exists in each [`Width`] that the processor has and gives the same in all of them as in plain code.

mod arithmetic;
#[cfg(target_arch = "aarch64")]
mod arm;
mod line;
mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use self::arithmetic::{Lanes, aes_rounds, aes_rounds_plain, crc32c, float_rounds, integer_rounds};
pub use self::line::{forget, hammer};
pub use self::words::{Pattern, differs, fill};

/// How many bits are worked on at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    /// Plain code, on every processor.
    Plain,
    Sse2,
    Avx2,
    Avx512,
}

impl Width {
    pub const ALL: [Self; 4] = [Self::Plain, Self::Sse2, Self::Avx2, Self::Avx512];

    /// Whether this processor, and the kernel, have it.
    #[must_use]
    pub fn is_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let here = match self {
            Self::Plain | Self::Sse2 => true,
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            Self::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
        };
        #[cfg(not(target_arch = "x86_64"))]
        let here = self == Self::Plain;
        here
    }

    /// For memory. 512 bits are no faster there, and slow some processors down.
    #[must_use]
    pub fn for_memory() -> Self {
        [Self::Avx2, Self::Sse2].into_iter().find(|width| width.is_here()).unwrap_or(Self::Plain)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}
