//! Proof that a kept partition did not change: the hash of its bytes before, and after.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::layout::KeepCheck;
use speediso_model::units::{GIB, MIB};
use speediso_sys::buffer::AlignedBuffer;

use super::medium::Medium;
use super::old::Partition;
use crate::ctx::{Meter, TaskCtx};

/// Up to here everything is read: half a minute of the slowest disk.
const ALL_UP_TO: u64 = GIB;
/// Of a larger one, from either end.
const EDGE: u64 = 16 * MIB;
/// And so many pieces between, wherever the seed says.
const PIECES: u64 = 512;
const PIECE: u64 = MIB;

/// What was read of a partition, and its hash.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    partition: Partition,
    check: KeepCheck,
    seed: u64,
    bytes: u64,
    hash: blake3::Hash,
}

impl Proof {
    pub(super) fn take(
        partition: &Partition,
        check: KeepCheck,
        medium: Medium<'_>,
        ctx: &TaskCtx,
    ) -> Result<Self, Fault> {
        Self::with_seed(partition, check, rand::random(), medium, ctx)
    }

    fn with_seed(
        partition: &Partition,
        check: KeepCheck,
        seed: u64,
        medium: Medium<'_>,
        ctx: &TaskCtx,
    ) -> Result<Self, Fault> {
        let span = partition.span;
        let parts = parts(span.length(), check, seed);
        let bytes = parts.iter().map(|(_, length)| length).sum();
        let mut meter = Meter::new(ctx, "reading what is kept", medium.name(), Some(bytes));
        let mut buffer = AlignedBuffer::zeroed(usize::try_from(PIECE).unwrap_or(1 << 20));
        let mut hasher = blake3::Hasher::new();
        let mut done = 0;
        for (offset, length) in parts {
            let mut at = offset;
            while at < offset + length {
                ctx.cancel.check()?;
                let n = (offset + length - at).min(PIECE);
                let piece = &mut buffer[..usize::try_from(n).unwrap_or_default()];
                medium.read(span.start + at, piece)?;
                hasher.update(piece);
                at += n;
                done += n;
                meter.at(done);
            }
        }
        Ok(Self { partition: partition.clone(), check, seed, bytes, hash: hasher.finalize() })
    }

    /// Reads the same bytes again.
    pub(super) fn hold(&self, medium: Medium<'_>, ctx: &TaskCtx) -> Result<Value, Fault> {
        let after = Self::with_seed(&self.partition, self.check, self.seed, medium, ctx)?;
        if after.hash != self.hash {
            return Err(Fault::new(
                FaultCode::VerifyFailed,
                format!(
                    "partition {} of {} was to be kept, and is not what it was",
                    self.partition.describe(),
                    medium.name()
                ),
            )
            .because(format!("BLAKE3 of {} bytes was {}, is {}", self.bytes, self.hash, after.hash)));
        }
        let is_all = self.bytes == self.partition.span.length();
        Ok(json!({
            "number": self.partition.number,
            "bytes": self.partition.span.length(),
            "bytes_read": self.bytes,
            "seed": (!is_all).then_some(self.seed),
            "blake3_before": self.hash.to_hex().as_str(),
            "blake3_after": after.hash.to_hex().as_str(),
        }))
    }
}

/// What is read, as offset and length: everything, or both ends and a sample that goes over all of it.
fn parts(length: u64, check: KeepCheck, seed: u64) -> Vec<(u64, u64)> {
    if check == KeepCheck::Full || length <= ALL_UP_TO {
        return vec![(0, length)];
    }
    let mut random = StdRng::seed_from_u64(seed);
    // One piece at random out of each of as many equal stretches; larger partitions than 1 GiB have room in each.
    let middle = length - 2 * EDGE;
    let stretch = middle / PIECES / PIECE * PIECE;
    let mut parts = vec![(0, EDGE)];
    parts.extend((0..PIECES).map(|n| {
        let pieces = stretch / PIECE;
        (EDGE + n * stretch + random.random_range(0..pieces.max(1)) * PIECE, PIECE.min(stretch))
    }));
    parts.push((length - EDGE, EDGE));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sample_is_inside_in_order_and_the_same_each_time(sectors in 1u64..1 << 34, seed: u64) {
            let length = sectors * 512;
            let sample = parts(length, KeepCheck::Sample, seed);
            prop_assert_eq!(&sample, &parts(length, KeepCheck::Sample, seed));
            let mut at = 0;
            for (offset, n) in &sample {
                prop_assert!(*offset >= at && *n > 0);
                at = offset + n;
            }
            prop_assert_eq!(at, length, "the end is always read");
            prop_assert_eq!(sample[0].0, 0, "and the start");
        }
    }
}
