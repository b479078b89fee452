//! The usual engines, where they are present: what they are told is ours, what they print is parsed.

mod fio;
mod gpu;
mod stress_ng;

pub(super) use self::fio::Fio;
pub(super) use self::gpu::Gpu;
pub(super) use self::stress_ng::StressNg;

/// More than any of them prints.
const OUTPUT: u64 = 8 << 20;
