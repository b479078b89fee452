//! Tables that nobody sane would make, thousands of them: each is refused, or what comes of it is sound.
#![allow(clippy::expect_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// An image of 4 MiB with three partitions.
fn image(sector: u64) -> Vec<u8> {
    let size = 4 * MIB;
    let disk = create(size, sector, None).expect("created");
    let first = MIB / sector;
    let last = disk.header().last_usable;
    let part = |name: &str, first_lba, last_lba| Partition {
        part_type_guid: gpt::partition_types::LINUX_FS,
        part_guid: uuid::Uuid::from_u128(u128::from(first_lba)),
        first_lba,
        last_lba,
        flags: 0,
        name: name.into(),
    };
    let partitions = BTreeMap::from([
        (1, part("esp", first, first + 63)),
        (2, part("boot", first + 64, first + 127)),
        (3, part("root", first + 128, last)),
    ]);
    let edges = finish(disk, sector, partitions).expect("finished");
    let mut bytes = vec![0; usize::try_from(size).expect("small")];
    bytes[..EDGE_LENGTH].copy_from_slice(&edges.head);
    let tail_at = bytes.len() - EDGE_LENGTH;
    bytes[tail_at..].copy_from_slice(&edges.tail);
    bytes
}

/// ISO 3309, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes) as usize
}

/// Makes both checksums right, as far as the header leads to bytes that are there.
fn seal(disk: &mut [u8], header: usize, sector: usize) {
    let start = usize::try_from(long(disk, header + 72)).unwrap_or(usize::MAX).saturating_mul(sector);
    let length = word(disk, header + 80).saturating_mul(word(disk, header + 84));
    if let Some(entries) = start.checked_add(length).and_then(|end| disk.get(start..end)) {
        let sum = crc32(entries).to_le_bytes();
        disk[header + 88..header + 92].copy_from_slice(&sum);
    }
    disk[header + 16..header + 20].fill(0);
    let sum = crc32(&disk[header..header + 92]).to_le_bytes();
    disk[header + 16..header + 20].copy_from_slice(&sum);
}

#[derive(Clone, Debug)]
struct Change {
    /// In the header, or in one of the entries.
    entry: Option<usize>,
    field: usize,
    value: u64,
}

fn change() -> impl Strategy<Value = Change> {
    let value = prop_oneof![
        Just(0),
        Just(1),
        Just(2),
        33..36u64,
        0..9000u64,
        8180..8200u64,
        (0..64u32).prop_map(|bit| 1 << bit),
        (0..8u64).prop_map(|less| u64::MAX - less),
        (0..4u64).prop_map(|less| u64::from(u32::MAX) - less),
        any::<u64>(),
    ];
    // UEFI 2.10, tables 5-5 and 5-6.
    let header = prop::sample::select(vec![0, 8, 12, 20, 24, 32, 40, 48, 56, 72, 80, 84]);
    let entry = prop::sample::select(vec![0, 16, 32, 40, 48, 56, 120]);
    prop_oneof![
        (header, value.clone()).prop_map(|(field, value)| Change { entry: None, field, value }),
        (0..128usize, entry, value).prop_map(|(n, field, value)| Change { entry: Some(n % 5), field, value }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn a_table_is_refused_or_made_sound(
        changes in prop::collection::vec(change(), 1..5),
        four_k in any::<bool>(),
        more in prop_oneof![Just(0u64), 1..3000u64],
        at_the_end in any::<bool>(),
        sealed in prop::bool::weighted(0.9),
    ) {
        let sector = if four_k { 4096 } else { 512usize };
        let mut disk = image(sector as u64);
        // The copy at the end counts where the one at the start is none.
        let header = if at_the_end { disk.len() - sector } else { sector };
        let entries = usize::try_from(long(&disk, header + 72)).expect("sound") * sector;
        if at_the_end {
            disk[sector..sector + 8].fill(0);
        }
        for Change { entry, field, value } in &changes {
            let at = entry.map_or(header + field, |n| entries + 128 * n + field);
            let width = if entry.is_none() && matches!(field, 8 | 12 | 20 | 80 | 84) { 4 } else { 8 };
            disk[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        if sealed {
            seal(&mut disk, header, sector);
        }
        let size = 4 * MIB + more * sector as u64;
        let mut edges = Edges::zeroed(size);
        edges.head.copy_from_slice(&disk[..EDGE_LENGTH]);
        if more == 0 {
            edges.tail.copy_from_slice(&disk[disk.len() - EDGE_LENGTH..]);
        }
        let made = open(edges, sector as u64).and_then(|table| {
            let partitions = table.partitions().clone();
            finish(table, sector as u64, partitions)
        });
        let Ok(made) = made else { return Ok(()) };
        prop_assert!(made.head[..440] == disk[..440], "the boot code was changed");
        let table = open(made, sector as u64).expect("what was made opens");
        let (primary, backup) = (table.primary_header().expect("primary"), table.backup_header().expect("backup"));
        let last = size / sector as u64 - 1;
        prop_assert_eq!((primary.current_lba, primary.backup_lba, backup.current_lba), (1, last, last));
        prop_assert_eq!((primary.first_usable, primary.last_usable), (backup.first_usable, backup.last_usable));
        prop_assert!(primary.part_start == 2 && backup.part_start > primary.last_usable);
        let array = (u64::from(primary.num_parts) * 128).div_ceil(sector as u64);
        prop_assert!(primary.first_usable >= 2 + array && backup.part_start + array <= last);
        let mut used: Vec<_> = table.partitions().values().filter(|p| p.is_used()).collect();
        used.sort_by_key(|p| p.first_lba);
        for p in &used {
            prop_assert!(primary.first_usable <= p.first_lba && p.first_lba <= p.last_lba && p.last_lba <= primary.last_usable);
        }
        prop_assert!(used.windows(2).all(|pair| pair[0].last_lba < pair[1].first_lba));
    }
}
