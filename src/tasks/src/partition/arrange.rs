//! Where partitions go: sizes into the gaps between what is kept. Pure.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::PartitionSize;
use speediso_model::units::{Bytes, MIB};
use speediso_sys::topology::Topology;

/// An array's stripe beyond that is a figure that firmware made up.
const LARGEST_GRAIN: u64 = 256 * MIB;

/// A part of a disk, in bytes; the end does not belong to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Span {
    pub(super) fn length(self) -> u64 {
        self.end - self.start
    }

    pub(super) fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Where partitions begin: at `offset` behind a multiple of `size`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grain {
    pub(super) size: u64,
    offset: u64,
}

impl Grain {
    /// 1 MiB, which is a multiple of every sector and of every erase block that matters; or the smallest multiple of it
    /// that is one of the disk's own unit, too.
    pub(super) fn of(topology: Topology, sector: u64) -> Self {
        let physical = topology.physical.max(sector);
        // USB bridges report 33,553,920 bytes, and others what is no multiple of their own blocks.
        let is_real = |unit: u64| unit > 0 && unit.is_multiple_of(physical);
        let mut size = MIB;
        for unit in [topology.optimal, topology.minimum, physical] {
            let joint = lcm(size, unit);
            if is_real(unit) && joint <= LARGEST_GRAIN {
                size = joint;
            }
        }
        let offset = topology.offset % physical;
        Self { size, offset: if offset.is_multiple_of(sector) { offset } else { 0 } }
    }

    /// The first place where a partition may begin that is not before `at`.
    fn next(self, at: u64) -> Option<u64> {
        at.saturating_sub(self.offset).checked_next_multiple_of(self.size)?.checked_add(self.offset)
    }
}

fn lcm(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a.checked_div(x).map_or(0, |times| times.saturating_mul(b))
}

/// One place for each of the sizes, in their order. Each goes into the first gap that has room for it; what takes the
/// rest goes, last, into the largest.
pub(super) fn arrange(usable: Span, grain: Grain, kept: &[Span], sizes: &[PartitionSize]) -> Result<Vec<Span>, Fault> {
    let mut gaps = gaps(usable, grain, kept);
    let total: u64 = gaps.iter().map(|gap| gap.length()).sum();
    let length = |size: PartitionSize| match size {
        // Not above the file system's own idea of a MiB, so that "1 GiB" is one.
        PartitionSize::Bytes(bytes) => bytes.0.checked_next_multiple_of(MIB).unwrap_or(u64::MAX),
        // Down to what begins the next one, so that percents that make 100 fit.
        PartitionSize::Percent(of) => {
            u64::try_from(u128::from(total) * u128::from(of) / 100).unwrap_or(total) / grain.size * grain.size
        }
        PartitionSize::Rest => 0,
    };
    let mut places = Vec::with_capacity(sizes.len());
    for (i, size) in sizes.iter().enumerate() {
        let later = sizes.get(i + 1..).unwrap_or_default();
        let place = if *size == PartitionSize::Rest {
            let reserved =
                later.iter().map(|size| length(*size).checked_next_multiple_of(grain.size).unwrap_or(u64::MAX));
            let reserved = reserved.fold(0, u64::saturating_add);
            let largest = gaps.iter().enumerate().max_by_key(|(i, gap)| (gap.length(), std::cmp::Reverse(*i)));
            largest.and_then(|(at, gap)| {
                let end = gap.end.checked_sub(reserved)?;
                // With nothing behind it, all of it; else up to where the next one begins.
                let length = end.checked_sub(gap.start)?;
                let unit = if later.is_empty() { MIB } else { grain.size };
                Some((at, length / unit * unit))
            })
        } else {
            let wanted = length(*size);
            gaps.iter().position(|gap| wanted <= gap.length()).map(|at| (at, wanted))
        };
        let Some((at, length)) = place.filter(|(_, length)| *length > 0) else {
            return Err(no_room(i, length(*size), &gaps));
        };
        let gap = &mut gaps[at];
        let span = Span { start: gap.start, end: gap.start + length };
        gap.start = grain.next(span.end).map_or(gap.end, |next| next.min(gap.end));
        places.push(span);
    }
    Ok(places)
}

fn no_room(i: usize, wanted: u64, gaps: &[Span]) -> Fault {
    let left = gaps.iter().map(|gap| gap.length()).max().unwrap_or(0);
    let wanted = if wanted == 0 { "at least 1 MiB".to_owned() } else { Bytes(wanted).to_string() };
    Fault::new(
        FaultCode::DiskTooSmall,
        format!("partitions[{i}] does not fit: it wants {wanted}, the largest gap has {}", Bytes(left)),
    )
}

/// What is free, from where partitions may begin.
fn gaps(usable: Span, grain: Grain, kept: &[Span]) -> Vec<Span> {
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    let mut gaps = Vec::new();
    let mut at = usable.start;
    for next in kept.iter().copied().chain([Span { start: usable.end, end: usable.end }]) {
        let end = next.start.min(usable.end) / MIB * MIB;
        if let Some(start) = grain.next(at)
            && start < end
        {
            gaps.push(Span { start, end });
        }
        at = at.max(next.end);
    }
    gaps
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Topology = Topology { physical: 512, minimum: 512, optimal: 0, offset: 0 };

    fn grain(topology: Topology) -> Grain {
        Grain::of(topology, 512)
    }

    fn bytes(n: u64) -> PartitionSize {
        PartitionSize::Bytes(Bytes(n))
    }

    #[test]
    fn the_grain_is_the_disks_own_where_that_makes_sense() {
        let size = |physical, minimum, optimal| grain(Topology { physical, minimum, optimal, offset: 0 }).size;
        assert_eq!(size(512, 512, 0), MIB);
        assert_eq!(size(4096, 4096, 4096), MIB);
        assert_eq!(size(4096, 65536, 196_608), 3 * MIB, "three data disks of 64 KiB");
        assert_eq!(size(4096, 4096, 33_553_920), MIB, "no multiple of its own blocks");
        assert_eq!(size(512, 512, 33_553_920), MIB, "a stripe of 63 GiB with ours");
        assert_eq!(size(512, 524_288, 4 * MIB), 4 * MIB);
        assert_eq!(size(0, 0, 0), MIB);
        let shifted = grain(Topology { physical: 4096, minimum: 4096, optimal: 0, offset: 3584 });
        assert_eq!((shifted.next(0), shifted.next(MIB)), (Some(3584), Some(MIB + 3584)));
    }

    #[test]
    fn sizes_are_what_they_say() {
        let all = Span { start: MIB, end: 101 * MIB };
        let spans = |sizes: &[PartitionSize]| {
            let places = arrange(all, grain(PLAIN), &[], sizes).expect("fits");
            places.iter().map(|s| (s.start / MIB, s.length() / MIB)).collect::<Vec<_>>()
        };
        let (rest, percent) = (PartitionSize::Rest, PartitionSize::Percent);
        assert_eq!(spans(&[bytes(1), rest]), [(1, 1), (2, 99)]);
        assert_eq!(spans(&[percent(50), percent(30), percent(20)]), [(1, 50), (51, 30), (81, 20)]);
        assert_eq!(spans(&[bytes(10 * MIB), rest, bytes(20 * MIB)]), [(1, 10), (11, 70), (81, 20)]);
        assert_eq!(spans(&[percent(10), rest, percent(10)]), [(1, 10), (11, 80), (91, 10)]);
        for bad in [&[bytes(u64::MAX)][..], &[bytes(100 * MIB), rest], &[bytes(MIB), percent(100)], &[percent(0)]] {
            assert_eq!(arrange(all, grain(PLAIN), &[], bad).expect_err("no room").code, FaultCode::DiskTooSmall);
        }
    }

    #[test]
    fn what_is_kept_stays_in_between() {
        let all = Span { start: MIB, end: 101 * MIB };
        // From sector 63, as it was done once.
        let kept = [Span { start: 50 * MIB + 63 * 512, end: 60 * MIB + 512 }];
        let places = arrange(all, grain(PLAIN), &kept, &[bytes(45 * MIB), bytes(10 * MIB), PartitionSize::Rest]);
        let places: Vec<_> = places.expect("fits").iter().map(|s| (s.start / MIB, s.end / MIB)).collect();
        assert_eq!(places, [(1, 46), (61, 71), (71, 101)]);
    }

    fn size() -> impl Strategy<Value = PartitionSize> {
        prop_oneof![(1u64..1 << 30).prop_map(bytes), (1u8..60).prop_map(PartitionSize::Percent)]
    }

    proptest! {
        #[test]
        fn places_are_aligned_apart_inside_and_beside_what_is_kept(
            (total, sector) in (4u64..8192, prop::sample::select(vec![512u64, 4096])),
            stripe in prop::sample::select(vec![0u64, 4096, 65536, 196_608, 3 * MIB, 33_553_920, 5 * MIB + 512]),
            shift in prop::sample::select(vec![0u64, 512, 3584, 4096]),
            holes in prop::collection::vec((0u64..1 << 32, 1u64..1 << 28), 0..4),
            sizes in prop::collection::vec(size(), 0..8),
            rest in any::<Option<prop::sample::Index>>(),
        ) {
            let usable = Span { start: MIB, end: total * MIB };
            let grain = Grain::of(Topology { physical: 4096, minimum: 4096, optimal: stripe, offset: shift }, sector);
            let mut kept: Vec<Span> = Vec::new();
            for (start, length) in holes {
                let span = Span { start: start / sector * sector, end: (start + length).next_multiple_of(sector) };
                if span.end <= usable.end && kept.iter().all(|k| !k.overlaps(span)) { kept.push(span); }
            }
            let mut sizes = sizes;
            if let Some(at) = rest {
                let at = if kept.is_empty() { at.index(sizes.len() + 1) } else { sizes.len() };
                sizes.insert(at, PartitionSize::Rest);
            }
            if let Ok(places) = arrange(usable, grain, &kept, &sizes) {
                prop_assert_eq!(places.len(), sizes.len());
                for (i, (place, size)) in places.iter().zip(&sizes).enumerate() {
                    prop_assert!(place.start >= usable.start && place.end <= usable.end && place.length() >= MIB);
                    prop_assert!((place.start - grain.offset).is_multiple_of(grain.size));
                    prop_assert!(place.start.is_multiple_of(sector) && place.end.is_multiple_of(sector));
                    prop_assert!(places[..i].iter().chain(&kept).all(|other| !other.overlaps(*place)));
                    if let PartitionSize::Bytes(wanted) = size {
                        prop_assert!(place.length() >= wanted.0 && place.length() < wanted.0 + MIB);
                    }
                }
            }
        }
    }
}
