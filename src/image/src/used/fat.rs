//! FAT12, FAT16 and FAT32: an entry for each cluster, zero if it is free. All copies of the table must be the same.

use super::bytes::{byte, le16, le32};
use super::{Doubt, FreeMap, ReadAt as _, Window};

/// At a time. A multiple of every size of entry and of sector.
const PIECE: u64 = 1 << 20;

/// A boot sector is recognised by numbers that fit together, since its few letters mean nothing.
pub(super) fn is_one(start: &[u8]) -> bool {
    let jump = (byte(start, 0) == 0xeb && byte(start, 2) == 0x90) || byte(start, 0) == 0xe9;
    jump && start.get(510..512) == Some(&[0x55, 0xaa])
        && le16(start, 11).is_power_of_two()
        && (512..=4096).contains(&le16(start, 11))
        && byte(start, 13).is_power_of_two()
        && le16(start, 14) != 0
        && (1..=2).contains(&byte(start, 16))
        && (byte(start, 21) == 0xf0 || byte(start, 21) >= 0xf8)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Twelve,
    Sixteen,
    ThirtyTwo,
}

struct Boot {
    width: Width,
    /// Of the first table, in bytes.
    table: u64,
    table_length: u64,
    tables: u64,
    /// Of the first cluster, in bytes.
    data: u64,
    cluster: u64,
    clusters: u64,
    media: u8,
    root: u64,
}

impl Boot {
    fn parse(bytes: &[u8], size: u64) -> Result<Self, Doubt> {
        let sector = u64::from(le16(bytes, 11));
        let either = |short: u16, long: u32| if short == 0 { u64::from(long) } else { u64::from(short) };
        let total = either(le16(bytes, 19), le32(bytes, 32));
        let table_sectors = either(le16(bytes, 22), le32(bytes, 36));
        let (reserved, tables) = (u64::from(le16(bytes, 14)), u64::from(byte(bytes, 16)));
        let root_sectors = (u64::from(le16(bytes, 17)) * 32).div_ceil(sector);
        let data = reserved + tables * table_sectors + root_sectors;
        let per_cluster = u64::from(byte(bytes, 13));
        if total <= data || total * sector > size || table_sectors == 0 {
            return Err(Doubt::Inconsistent("the sizes in its boot sector are impossible"));
        }
        let clusters = (total - data) / per_cluster;
        // The specification's way, by the count alone; but a FAT32 says so a second time.
        let width = match clusters {
            0..4085 => Width::Twelve,
            4085..65525 => Width::Sixteen,
            _ => Width::ThirtyTwo,
        };
        if (width == Width::ThirtyTwo) != (le16(bytes, 22) == 0) {
            return Err(Doubt::Inconsistent("the number of clusters is not that of its kind"));
        }
        let boot = Self {
            width,
            table: reserved * sector,
            table_length: table_sectors * sector,
            tables,
            data: data * sector,
            cluster: per_cluster * sector,
            clusters,
            media: byte(bytes, 21),
            root: if width == Width::ThirtyTwo { le32(bytes, 44).into() } else { 0 },
        };
        if boot.bytes_of(clusters + 2) > boot.table_length {
            return Err(Doubt::Inconsistent("its table is too short for its clusters"));
        }
        if width == Width::ThirtyTwo && (le16(bytes, 40) & 0x80 != 0 || le16(bytes, 42) != 0) {
            return Err(Doubt::Feature("tables that are not copies of one another, or an unknown version".into()));
        }
        // What Linux notes while it is mounted.
        if byte(bytes, if width == Width::ThirtyTwo { 65 } else { 37 }) & 1 != 0 {
            return Err(Doubt::Unclean("it is marked as mounted"));
        }
        Ok(boot)
    }

    /// How many bytes so many entries take.
    fn bytes_of(&self, entries: u64) -> u64 {
        match self.width {
            Width::Twelve => (entries * 3).div_ceil(2),
            Width::Sixteen => entries * 2,
            Width::ThirtyTwo => entries * 4,
        }
    }

    fn entry(&self, bytes: &[u8], n: usize) -> u32 {
        match self.width {
            Width::Twelve => {
                let pair = u32::from(le16(bytes, n * 3 / 2));
                if n.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }
            }
            Width::Sixteen => le16(bytes, n * 2).into(),
            // The upper four bits belong to nobody.
            Width::ThirtyTwo => le32(bytes, n * 4) & 0x0fff_ffff,
        }
    }

    /// The two first entries: the kind of medium, and whether it was unmounted.
    fn check_first(&self, bytes: &[u8]) -> Result<(), Doubt> {
        if self.entry(bytes, 0) & 0xff != u32::from(self.media) {
            return Err(Doubt::Inconsistent("its table and its boot sector do not agree about the medium"));
        }
        let (clean, good) = match self.width {
            Width::Twelve => return Ok(()),
            Width::Sixteen => (0x8000, 0x4000),
            Width::ThirtyTwo => (0x0800_0000, 0x0400_0000),
        };
        match self.entry(bytes, 1) {
            flags if flags & clean == 0 => Err(Doubt::Unclean("its table says so")),
            flags if flags & good == 0 => Err(Doubt::Unclean("its table tells of read errors")),
            _ => Ok(()),
        }
    }
}

pub(super) fn free(window: &Window<'_>) -> Result<FreeMap, Doubt> {
    let boot = Boot::parse(&window.read(0, 512)?, window.size())?;
    let mut free = FreeMap::default();
    // Of the entries: FAT12 has one piece only, so none is cut in two.
    let (entries, mut at, mut next) = (boot.clusters + 2, 0, 0);
    let end = boot.bytes_of(entries);
    while at < end {
        let length = usize::try_from(PIECE.min(end - at)).unwrap_or_default();
        let piece = window.read(boot.table + at, length)?;
        for copy in 1..boot.tables {
            if window.read(boot.table + copy * boot.table_length + at, length)? != piece {
                return Err(Doubt::Inconsistent("the copies of its table differ"));
            }
        }
        if at == 0 {
            boot.check_first(&piece)?;
        }
        let mut here = 0;
        while next < entries && boot.bytes_of(next + 1) <= at + length as u64 {
            let cluster = next;
            next += 1;
            let is_free = boot.entry(&piece, here) == 0;
            here += 1;
            if !is_free || cluster < 2 {
                continue;
            }
            if cluster == boot.root {
                return Err(Doubt::Inconsistent("its root directory is marked as free"));
            }
            let start = boot.data + (cluster - 2) * boot.cluster;
            if !free.push(start..start + boot.cluster) {
                return Err(Doubt::Inconsistent("its clusters do not follow one another"));
            }
        }
        at += PIECE;
    }
    Ok(free)
}
