//! Reading back what was written, all of it or a sample that others can choose again.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::WipeVerify;
use speediso_model::units::Bytes;
use speediso_model::wipe::{Sample, Verification, VerificationKind};

use super::flow::{self, Load, Piece};
use super::pattern::{Pattern, mix};
use super::target::{On as _, Target};
use crate::ctx::{Meter, TaskCtx};

/// Of a sample, whatever the size of the requests is.
const SAMPLE_UNIT: u64 = 64 << 10;
/// Units among which as many percent are chosen.
const WINDOW: u64 = 100;

/// The units of a sample: of every hundred as many as percent are asked for, chosen by the seed, and the first and the
/// last of the disk.
pub(super) fn sampled(seed: u64, percent: u8, units: u64) -> impl Iterator<Item = u64> + Send {
    (0..units.div_ceil(WINDOW)).flat_map(move |window| {
        let begin = window * WINDOW;
        let length = WINDOW.min(units - begin);
        // The first places of a shuffled window (Fisher and Yates).
        let wanted = (length * u64::from(percent)).div_ceil(100);
        let mut order: Vec<u64> = (begin..begin + length).collect();
        for i in 0..wanted {
            let random = mix(seed ^ mix(begin + i));
            let (i, j) = (usize::try_from(i).unwrap_or(0), usize::try_from(i + random % (length - i)).unwrap_or(0));
            order.swap(i, j);
        }
        order.truncate(usize::try_from(wanted).unwrap_or(order.len()));
        order.extend([0, units - 1].into_iter().filter(|edge| (begin..begin + length).contains(edge)));
        order.sort_unstable();
        order.dedup();
        order
    })
}

/// Where to look, in order, and the record of how that was chosen.
pub(super) fn places(
    mode: WipeVerify,
    size: u64,
    chunk: usize,
    seed: u64,
) -> (Box<dyn Iterator<Item = Piece> + Send>, u64, Option<Sample>) {
    match mode {
        WipeVerify::Full => (Box::new(flow::pieces(0, size, chunk)), size, None),
        WipeVerify::SamplePercent(percent) => {
            let units = size.div_ceil(SAMPLE_UNIT);
            let piece = move |unit: u64| {
                let offset = unit * SAMPLE_UNIT;
                Piece { offset, length: usize::try_from(SAMPLE_UNIT.min(size - offset)).unwrap_or(0) }
            };
            let (count, total) = sampled(seed, percent, units)
                .fold((0, 0), |(count, total), unit| (count + 1, total + piece(unit).length as u64));
            let sample = Sample { percent, seed: format!("{seed:016x}"), unit: Bytes(SAMPLE_UNIT), units: count };
            (Box::new(sampled(seed, percent, units).map(piece)), total, Some(sample))
        }
    }
}

/// Compares the medium with the pattern.
pub(super) fn pattern(
    mode: WipeVerify,
    pattern: Pattern,
    device: &dyn Target,
    load: Load,
    ctx: &TaskCtx,
) -> Result<Verification, Fault> {
    let (places, total, sample) = places(mode, device.size(), load.chunk, rand::random());
    let mut meter = Meter::new(ctx, "verifying", device.name(), Some(total));
    let mut read = 0;
    flow::run(
        load,
        places,
        ctx,
        |piece, buffer| {
            device.read_at(piece.offset, buffer).on(device)?;
            match pattern.first_difference(piece.offset, buffer) {
                None => Ok(()),
                Some(at) => Err(Fault::new(
                    FaultCode::ReadBackMismatch,
                    format!("{} does not return at byte {at} what was written there", device.name()),
                )),
            }
        },
        |piece| {
            read += piece.length as u64;
            meter.at(read);
        },
    )?;
    let (kind, in_words) = match mode {
        WipeVerify::Full => (VerificationKind::Full, "read back whole from the medium and compared".to_owned()),
        WipeVerify::SamplePercent(percent) => (
            VerificationKind::Sample,
            format!("{percent} % at random, and start and end, read back from the medium and compared"),
        ),
    };
    Ok(Verification {
        kind,
        bytes: Bytes(read),
        sample,
        pattern_seed: Some(format!("{:016x}", pattern.seed)),
        canaries: None,
        in_words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sample_is_as_large_as_it_says_and_the_same_again(seed: u64, percent in 1u8..=100, units in 1u64..5000) {
            let chosen: Vec<u64> = sampled(seed, percent, units).collect();
            prop_assert!(chosen.windows(2).all(|w| w[0] < w[1]), "in order, none twice");
            prop_assert!(chosen.first() == Some(&0) && chosen.last() == Some(&(units - 1)));
            let n = chosen.len() as u64;
            let least = (units * u64::from(percent)).div_ceil(100).min(units);
            prop_assert!(n >= least && n <= least + units.div_ceil(WINDOW) + 2, "{n} of {units}, {percent} %");
            prop_assert!(sampled(seed, percent, units).eq(chosen));
        }
    }

    #[test]
    fn another_seed_looks_elsewhere() {
        let of = |seed| sampled(seed, 5, 10_000).collect::<Vec<_>>();
        assert_ne!(of(1), of(2));
        // No stretch of two windows is left out.
        assert!(of(3).windows(2).all(|w| w[1] - w[0] < 2 * WINDOW));
    }
}
