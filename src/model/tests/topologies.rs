//! Whatever the machine and whatever the hints: the disk that is taken is the one that was meant, or none is.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use proptest::string::string_regex;
use speediso_model::hints::{Pick, RootDeviceHints, SkipList, Verdict};
use speediso_model::inventory::{Disk, Exclusion, Transport, Use};
use speediso_model::plan::DiskIdentity;
use speediso_model::units::Bytes;

/// Few values, so that disks are alike and hints match often.
fn disk() -> impl Strategy<Value = Disk> {
    let texts = ("[AB]{0,2}", "[MN]", prop::option::of("naa\\.5000[1-3]{12}"), prop::option::of("pci-[1-3]"));
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1), prop::bool::weighted(0.1), any::<bool>());
    (texts, 1u64..4, flags).prop_map(|((serial, model, wwn, by_path), gib, (removable, read_only, held, turns))| Disk {
        serial,
        model,
        wwn,
        by_path,
        size: Bytes::gib(gib),
        removable,
        read_only,
        rotational: turns,
        tran: if turns { Transport::Sas } else { Transport::Nvme },
        in_use: if held { vec![Use::Swap { device: "/dev/x1".into() }] } else { Vec::new() },
        logical_sectors: 512,
        ..Disk::default()
    })
}

fn disks() -> impl Strategy<Value = Vec<Disk>> {
    prop::collection::vec(disk(), 0..7).prop_map(|mut disks| {
        for (n, disk) in disks.iter_mut().enumerate() {
            disk.diskseq = Some(n as u64 + 1);
            disk.name = format!("/dev/sd{n}");
        }
        disks
    })
}

fn hints() -> impl Strategy<Value = RootDeviceHints> {
    let text = |values: &str| {
        let written = string_regex(&format!("(|s!= |s< |<in> |<or> B <or> ){values}")).unwrap();
        prop::option::weighted(0.4, written.prop_map(|text| text.parse().unwrap()))
    };
    let size = prop::option::weighted(0.4, "(|>= |< |!= )[1-3]GiB".prop_map(|text| text.parse().unwrap()));
    let pick = prop_oneof![
        3 => Just(Pick::Only),
        1 => Just(Pick::Smallest),
        1 => Just(Pick::Largest),
        1 => Just(Pick::FirstByPath),
        1 => Just(Pick::SmallestThenByPath),
    ];
    let rotational = prop::option::weighted(0.2, any::<bool>());
    (text("[AB]"), text("[MN]"), size, rotational, pick, any::<bool>()).prop_map(
        |(serial, model, size, rotational, pick, allow_removable)| RootDeviceHints {
            serial,
            model,
            size,
            rotational,
            pick,
            allow_removable,
            ..RootDeviceHints::default()
        },
    )
}

/// The machine after a reboot: other names, another order.
fn renamed(disks: &[Disk], by: usize) -> Vec<Disk> {
    let mut other = disks.to_vec();
    if !other.is_empty() {
        let by = by % other.len();
        other.rotate_left(by);
    }
    other.reverse();
    for (n, disk) in other.iter_mut().enumerate() {
        disk.name = format!("/dev/nvme{n}n1");
    }
    other
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn the_disk_that_was_meant_or_none(disks in disks(), hints in hints(), skip in hints(), by in 0usize..7) {
        let mut disks = disks;
        let skip = SkipList(vec![RootDeviceHints { pick: Pick::Only, ..skip }]);
        skip.mark(&mut disks);
        let (explanation, chosen) = hints.explain(&disks);
        let taken: Vec<&str> =
            explanation.disks.iter().filter(|c| c.verdict == Verdict::Taken).map(|c| c.name.as_str()).collect();
        prop_assert_eq!(explanation.disks.len(), disks.len());

        if let Ok(disk) = &chosen {
            prop_assert_eq!(&taken, &[disk.name.as_str()]);
            prop_assert!(!hints.is_empty() && hints.differs(disk).is_none());
            prop_assert!(disk.in_use.is_empty() && !disk.read_only && disk.excluded.is_none());
            prop_assert!(!disk.removable || hints.allow_removable);
            // Nobody else could have been meant.
            let others: Vec<&Disk> = disks.iter().filter(|other| other.name != disk.name).collect();
            let rivals = || others.iter().filter(|other| {
                hints.differs(other).is_none() && !matches!(other.excluded, Some(Exclusion::Skipped { .. }))
            });
            match hints.pick {
                Pick::Only => prop_assert_eq!(rivals().count(), 0),
                Pick::Smallest => prop_assert!(rivals().all(|r| r.size > disk.size || r.removable)),
                Pick::Largest => prop_assert!(rivals().all(|r| r.size < disk.size || r.removable)),
                _ => prop_assert!(rivals().all(|r| r.in_use.is_empty() && !r.read_only)),
            }
        } else {
            prop_assert!(taken.is_empty());
        }

        let after = renamed(&disks, by);
        let again = hints.resolve(&after);
        let identity = |found: &Result<&Disk, _>| found.as_ref().ok().map(|disk| DiskIdentity::of(disk));
        prop_assert_eq!(identity(&again), identity(&chosen), "names or order decide");
    }
}
