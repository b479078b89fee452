//! Partition tables, to be read only: GPT and MBR.
//!
//! A disk whose table is damaged in any way is kept whole, so nothing is repaired or guessed here.

use std::io;
use std::ops::Range;

use flate2::Crc;
use uuid::Uuid;

use super::ReadAt;
use super::bytes::{byte, le16, le32, le64};

const MOST_ENTRIES: u32 = 1024;
/// As many as the kernel follows in an extended partition, and more than anybody has.
const MOST_LOGICAL: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableKind {
    Gpt,
    Mbr,
    /// Nothing like a table.
    None,
}

impl TableKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
            Self::None => "no partition table",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("reading the partition table")]
    Read(#[from] io::Error),
    #[error("the partition table is damaged: {0}")]
    Damaged(&'static str),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// As the kernel counts them.
    pub number: u32,
    /// In a GPT.
    pub name: String,
    /// Of the partition itself, in a GPT.
    pub uuid: Option<Uuid>,
    /// Bytes of the disk.
    pub range: Range<u64>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Gpt(Uuid),
    Mbr(u8),
}

impl Partition {
    /// What the table says it is a part of: then no filesystem in it is looked at, whatever there seems to be.
    pub(super) fn container(&self) -> Option<&'static str> {
        const GPT: [(u128, &str); 7] = [
            (0xa19d_880f_05fc_4d3b_a006_743f_0f84_911e, "a member of an md array"),
            (0xe6d6_d379_f507_44c2_a23c_238f_2a3d_f928, "LVM"),
            (0xca7d_7ccb_63ed_4c53_861c_1742_5360_59cc, "LUKS"),
            (0x6a89_8cc3_1dd2_11b2_99a6_0800_2073_6631, "ZFS"),
            (0x516e_7cba_6ecf_11d6_8ff8_0002_2d09_712b, "ZFS"),
            (0xaf9b_60a0_1431_4f62_bc68_3311_714a_69ad, "Windows dynamic disk"),
            (0xe75c_af8f_f680_4cee_afa3_b001_e56e_fc2d, "Storage Spaces"),
        ];
        match self.kind {
            Kind::Gpt(uuid) => GPT.iter().find(|(known, _)| *known == uuid.as_u128()).map(|(_, name)| *name),
            Kind::Mbr(0xfd) => Some("a member of an md array"),
            Kind::Mbr(0x8e) => Some("LVM"),
            Kind::Mbr(0xe8) => Some("LUKS"),
            Kind::Mbr(0xbf) => Some("ZFS"),
            Kind::Mbr(0x42) => Some("Windows dynamic disk"),
            Kind::Mbr(_) => None,
        }
    }
}

/// What a disk is divided into.
#[derive(Clone, Debug)]
pub struct Table {
    pub kind: TableKind,
    /// In the order of the disk, none overlapping another.
    pub partitions: Vec<Partition>,
}

impl Table {
    /// # Errors
    /// When there is something like a table, and anything about it is not as it must be.
    pub fn read(disk: &dyn ReadAt, sector_size: u32) -> Result<Self, TableError> {
        let sector = u64::from(sector_size);
        if disk.size() < 4 * sector {
            return Ok(Self { kind: TableKind::None, partitions: Vec::new() });
        }
        let first = read(disk, 0, 512)?;
        let mbr = mbr_entries(&first);
        let (kind, mut partitions) = if is_gpt(&read(disk, sector, 512)?) {
            (TableKind::Gpt, gpt(disk, sector)?)
        } else if is_gpt(&read(disk, (disk.size() / sector - 1) * sector, 512)?) {
            return Err(TableError::Damaged("of the GPT there is only the backup at the end of the disk"));
        } else if mbr.iter().any(|entry| entry.kind == 0xee) {
            return Err(TableError::Damaged("the protective MBR has no GPT behind it"));
        } else if mbr.is_empty() {
            (TableKind::None, Vec::new())
        } else {
            (TableKind::Mbr, mbr_partitions(disk, sector, &mbr)?)
        };
        partitions.sort_by_key(|partition| partition.range.start);
        if partitions.iter().any(|partition| partition.range.end > disk.size()) {
            return Err(TableError::Damaged("a partition goes beyond the end of the disk"));
        }
        if partitions.windows(2).any(|pair| pair[0].range.end > pair[1].range.start) {
            return Err(TableError::Damaged("partitions overlap"));
        }
        Ok(Self { kind, partitions })
    }
}

fn read(disk: &dyn ReadAt, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    disk.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

/// Sectors `first..end` in bytes.
fn range(first: u64, end: u64, sector: u64) -> Option<Range<u64>> {
    let range = first.checked_mul(sector)?..end.checked_mul(sector)?;
    (!range.is_empty()).then_some(range)
}

fn is_gpt(header: &[u8]) -> bool {
    header.starts_with(b"EFI PART")
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// UEFI 2.10, 5.3.
fn gpt(disk: &dyn ReadAt, sector: u64) -> Result<Vec<Partition>, TableError> {
    let damaged = |why| Err(TableError::Damaged(why));
    let mut header = read(disk, sector, 512)?;
    let (length, expected) = (le32(&header, 12), le32(&header, 16));
    if !(92..=512).contains(&length) {
        return damaged("the length of the GPT's header is impossible");
    }
    header.truncate(length as usize);
    header[16..20].fill(0);
    if crc32(&header) != expected {
        return damaged("the checksum of the GPT's header is wrong");
    }
    let (at, entries, size) = (le64(&header, 72), le32(&header, 80), le32(&header, 84));
    if entries > MOST_ENTRIES || ![128, 256, 512].contains(&size) {
        return damaged("the number or size of the GPT's entries is impossible");
    }
    let Some(at) = at.checked_mul(sector) else { return damaged("the GPT's entries are nowhere") };
    if at >= disk.size() {
        return damaged("the GPT's entries are nowhere");
    }
    let array = read(disk, at, (entries * size) as usize)?;
    if crc32(&array) != le32(&header, 88) {
        return damaged("the checksum of the GPT's entries is wrong");
    }
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(array.chunks(size as usize)) {
        let guid = |at: usize| {
            let bytes = entry.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied();
            Uuid::from_bytes_le(bytes.unwrap_or_default())
        };
        if guid(0).is_nil() {
            continue;
        }
        let Some(range) = le64(entry, 40).checked_add(1).and_then(|end| range(le64(entry, 32), end, sector)) else {
            return damaged("a partition ends before it begins");
        };
        let units: Vec<u16> = (0..36).map(|n| le16(entry, 56 + 2 * n)).take_while(|unit| *unit != 0).collect();
        let name = String::from_utf16_lossy(&units);
        partitions.push(Partition { number, name, uuid: Some(guid(16)), range, kind: Kind::Gpt(guid(0)) });
    }
    Ok(partitions)
}

struct MbrEntry {
    kind: u8,
    first: u32,
    count: u32,
    slot: u32,
}

/// None if the sector is the start of a filesystem, or of nothing: its last bytes are the same as a table's.
fn mbr_entries(sector: &[u8]) -> Vec<MbrEntry> {
    if sector.get(510..512) != Some(&[0x55, 0xaa]) {
        return Vec::new();
    }
    let entries = (0..4u32).map(|slot| {
        let entry = sector.get(446 + 16 * slot as usize..).unwrap_or_default();
        (byte(entry, 0), MbrEntry { kind: byte(entry, 4), first: le32(entry, 8), count: le32(entry, 12), slot })
    });
    let entries: Vec<_> = entries.collect();
    if entries.iter().any(|(status, _)| ![0, 0x80].contains(status)) {
        return Vec::new();
    }
    entries.into_iter().map(|(_, entry)| entry).filter(|entry| entry.kind != 0 && entry.count != 0).collect()
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

fn mbr_partitions(disk: &dyn ReadAt, sector: u64, entries: &[MbrEntry]) -> Result<Vec<Partition>, TableError> {
    let damaged = |why| Err(TableError::Damaged(why));
    let partition = |number, first: u64, count: u32, kind| {
        let range = range(first, first + u64::from(count), sector);
        range
            .map(|range| Partition { number, name: String::new(), uuid: None, range, kind: Kind::Mbr(kind) })
            .ok_or(TableError::Damaged("a partition is nowhere"))
    };
    let mut partitions = Vec::new();
    let mut logical = 5;
    for entry in entries {
        if !is_extended(entry.kind) {
            partitions.push(partition(entry.slot + 1, entry.first.into(), entry.count, entry.kind)?);
            continue;
        }
        let base = u64::from(entry.first);
        let mut at = base;
        for _ in 0..MOST_LOGICAL {
            let place = at.checked_mul(sector).filter(|place| place + 512 <= disk.size());
            let Some(place) = place else { return damaged("the chain of logical partitions leaves the disk") };
            let record = read(disk, place, 512)?;
            if record.get(510..512) != Some(&[0x55, 0xaa]) {
                return damaged("the chain of logical partitions is broken");
            }
            let records = mbr_entries(&record);
            for found in records.iter().filter(|found| !is_extended(found.kind)) {
                partitions.push(partition(logical, at + u64::from(found.first), found.count, found.kind)?);
                logical += 1;
            }
            match records.iter().find(|found| is_extended(found.kind)) {
                Some(next) if base + u64::from(next.first) > at => at = base + u64::from(next.first),
                Some(_) => return damaged("the chain of logical partitions goes back"),
                None => break,
            }
        }
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn tool(program: &str, args: &[&str], input: &str) -> String {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{program} is needed: {e}"));
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("told");
        let out = child.wait_with_output().expect("it ends");
        assert!(out.status.success(), "{program} {args:?}");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// sfdisk asks the device for the size of its sectors, so it is given one.
    fn made(script: &str, sector: u32) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(64 << 20).expect("sparse");
        let path = file.path().to_str().expect("plain");
        let device = tool("losetup", &["-f", "--show", "-b", &sector.to_string(), path], "");
        tool("sfdisk", &["-q", "--no-reread", &device], script);
        tool("losetup", &["-d", &device], "");
        std::fs::read(path).expect("it is there")
    }

    const GPT: &str = "label: gpt\nsize=8MiB, type=U, name=esp\nsize=16MiB, type=R, name=\"md 0\"\ntype=L, name=root, uuid=00000000-0000-0000-0000-0000000000AB\n";
    const MBR: &str =
        "label: dos\nsize=8MiB, type=c\nsize=8MiB, type=83\ntype=5\nsize=8MiB, type=8e\nsize=4MiB, type=83\n";

    #[test]
    fn tables_of_sfdisk_are_read_as_it_shows_them() {
        for sector in [512, 4096] {
            let disk = made(GPT, sector);
            let table = Table::read(&disk, sector).expect("good");
            assert_eq!(table.kind, TableKind::Gpt);
            let [esp, md, root] = &table.partitions[..] else { panic!("{table:?}") };
            assert_eq!((esp.number, esp.name.as_str(), esp.range.clone()), (1, "esp", 1 << 20..9 << 20));
            assert_eq!((md.name.as_str(), md.container()), ("md 0", Some("a member of an md array")));
            assert_eq!((root.range.start, root.container()), (25 << 20, None));
            assert_eq!(root.uuid, Some(Uuid::from_u128(0xab)));
        }
        let disk = made(MBR, 512);
        let table = Table::read(&disk, 512).expect("good");
        assert_eq!(table.kind, TableKind::Mbr);
        let numbers: Vec<_> = table.partitions.iter().map(|p| (p.number, p.range.end - p.range.start)).collect();
        assert_eq!(numbers, [(1, 8 << 20), (2, 8 << 20), (5, 8 << 20), (6, 4 << 20)]);
        assert_eq!(table.partitions[2].container(), Some("LVM"));
    }

    #[test]
    fn a_damaged_table_is_none() {
        let good = made(GPT, 512);
        let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut disk = good.clone();
            change(&mut disk);
            Table::read(&disk, 512).expect_err("damaged")
        };
        for at in [512 + 40, 512 + 80, 1024 + 32, 1024 + 60] {
            assert!(matches!(damaged(&|disk| disk[at] ^= 1), TableError::Damaged(_)), "{at}");
        }
        assert!(damaged(&|disk| disk[512] = 0).to_string().contains("backup"));
        let zeroed = |disk: &mut Vec<u8>| {
            disk[512] = 0;
            let last = disk.len() - 512;
            disk[last] = 0;
        };
        assert!(damaged(&zeroed).to_string().contains("protective"));
        // Two entries of one place.
        let mut disk = made(MBR, 512);
        let first = disk[446 + 8..446 + 16].to_vec();
        disk[462 + 8..462 + 16].copy_from_slice(&first);
        assert!(Table::read(&disk, 512).expect_err("overlap").to_string().contains("overlap"));
        let disk = vec![0; 1 << 20];
        assert_eq!(Table::read(&disk, 512).expect("empty").kind, TableKind::None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(gpt in any::<bool>(), flips in prop::collection::vec((0usize..8192, any::<u8>()), 1..20)) {
            let mut disk = vec![0; 1 << 20];
            if gpt {
                disk[512..520].copy_from_slice(b"EFI PART");
            }
            disk[510..512].copy_from_slice(&[0x55, 0xaa]);
            for (at, value) in flips {
                disk[at] = value;
            }
            for sector in [512, 4096] {
                if let Ok(table) = Table::read(&disk, sector) {
                    prop_assert!(table.partitions.iter().all(|p| !p.range.is_empty() && p.range.end <= 1 << 20));
                }
            }
        }
    }
}
