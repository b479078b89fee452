//! Reading a disk: all along it with large requests, and anywhere with small ones.

use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::seq::SliceRandom as _;

use super::findings::Findings;
use super::map::{REGIONS, Region};
use super::medium::{Failed, Medium};
use super::twice::Twice;
use super::work::{Phase, Requests, carry_out};
use crate::ctx::TaskCtx;
use crate::wipe::flow::{self, Load, Piece};

pub(super) const READ_ERRORS: &str = "read_errors";

/// The part of a disk that is read: all of it, or the same share of each of 256 stretches, so that the map still spans the
/// disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    size: u64,
    stretch: u64,
    wanted: u64,
}

impl Share {
    pub(super) fn of(size: u64, percent: u8, chunk: usize) -> Self {
        let chunk = chunk as u64;
        let stretch = (size / REGIONS / chunk * chunk).max(chunk);
        if percent >= 100 || size < stretch {
            return Self { size, stretch: size, wanted: size };
        }
        let wanted = (stretch * u64::from(percent) / 100).next_multiple_of(chunk).clamp(chunk, stretch);
        Self { size, stretch, wanted }
    }

    pub(super) fn pieces(self, chunk: usize) -> impl Iterator<Item = Piece> + Send {
        let step = usize::try_from(self.stretch).unwrap_or(usize::MAX);
        (0..self.size)
            .step_by(step.max(1))
            .flat_map(move |from| flow::pieces(from, from.saturating_add(self.wanted).min(self.size), chunk))
    }

    pub(super) fn bytes(self) -> u64 {
        let (whole, rest) = (self.size / self.stretch, self.size % self.stretch);
        whole * self.wanted + rest.min(self.wanted)
    }

    /// Regions of what was read as regions of the disk.
    fn spread(self, regions: &mut [Region]) {
        let place = |at: u64| at / self.wanted * self.stretch + at % self.wanted;
        for region in regions {
            let end = place(region.offset + region.length - 1) + 1;
            region.offset = place(region.offset);
            region.length = end - region.offset;
        }
    }
}

/// From one end to the other.
pub(super) fn sequentially<M: Medium + ?Sized>(
    disk: &M,
    share: Share,
    load: Load,
    findings: &Findings<'_>,
    ctx: &TaskCtx,
    check: impl Fn(u64, &[u8]) + Sync,
) -> Phase {
    let requests = Requests {
        stage: "reading all along",
        errors: READ_ERRORS,
        load,
        total: Some(share.bytes()),
        mapped: true,
        findings,
    };
    let read = |offset: u64, part: &mut [u8]| -> Result<(), Failed> { disk.read_at(offset, part) };
    let mut phase = carry_out(disk, ctx, &requests, share.pieces(load.chunk), |_, _| {}, read, check);
    share.spread(&mut phase.regions);
    phase
}

/// Small requests all over the disk, for as long as is said; every second one where it was read before, if `twice` knows
/// such places.
pub(super) fn randomly<M: Medium + ?Sized>(
    disk: &M,
    time: Duration,
    load: Load,
    twice: Option<&Twice>,
    findings: &Findings<'_>,
    ctx: &TaskCtx,
) -> Phase {
    let block = load.chunk as u64;
    let blocks = disk.size() / block;
    let end = Instant::now() + time;
    let mut known = twice.map(Twice::places).unwrap_or_default();
    known.shuffle(&mut rand::rng());
    let mut back = known.into_iter().cycle();
    let mut n = 0_u64;
    let pieces = std::iter::from_fn(move || {
        (blocks > 0 && Instant::now() < end).then(|| {
            n += 1;
            let offset = if n.is_multiple_of(2) { back.next() } else { None };
            let offset = offset.unwrap_or_else(|| rand::rng().random_range(0..blocks) * block);
            Piece { offset, length: load.chunk }
        })
    });
    let requests =
        Requests { stage: "reading anywhere", errors: READ_ERRORS, load, total: None, mapped: false, findings };
    let read = |offset: u64, part: &mut [u8]| -> Result<(), Failed> { disk.read_at(offset, part) };
    let check = |offset: u64, found: &[u8]| {
        if let Some(twice) = twice {
            twice.again(disk, offset, found, findings);
        }
    };
    carry_out(disk, ctx, &requests, pieces, |_, _| {}, read, check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_share_spans_the_disk_and_counts_right(size in 1u64..1 << 36, percent in 1u8..=100) {
            let size = size.next_multiple_of(512);
            let chunk = 1 << 19;
            let share = Share::of(size, percent, chunk);
            let (mut bytes, mut last, mut n) = (0, 0, 0);
            for piece in share.pieces(chunk) {
                prop_assert!(piece.offset >= last && piece.length > 0);
                last = piece.offset + piece.length as u64;
                prop_assert!(last <= size);
                bytes += piece.length as u64;
                n += 1;
            }
            prop_assert_eq!(bytes, share.bytes());
            prop_assert!(percent < 100 || bytes == size);
            prop_assert!(bytes.saturating_mul(100) >= size * u64::from(percent) / 2 && n > 0);
            prop_assert!(size < 1 << 28 || last > size - size / 100, "the end is reached too");
        }
    }

    #[test]
    fn a_map_of_a_share_names_places_on_the_disk() {
        let share = Share::of(1 << 30, 25, 1 << 19);
        let region = Region { offset: 3 << 20, length: 1 << 20, slowest: 1.0, median: 1.0 };
        let mut regions = [region];
        share.spread(&mut regions);
        assert_eq!((regions[0].offset, regions[0].length), (12 << 20, 1 << 20));
    }
}
