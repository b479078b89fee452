//! A disk image whose last partition has become smaller: a table that ends with it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use flate2::Crc;

use crate::used::{Filesystem, Partition, Table, TableError, TableKind};

/// Of the disk's size.
const ALIGNMENT: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ShrinkError {
    #[error("only a disk with a GPT can be shrunk, this one has {0}")]
    NoGpt(&'static str),
    #[error("the disk has no partition")]
    NoPartition,
    #[error("the last partition would begin at {start} and end at {end}")]
    Impossible { start: u64, end: u64 },
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("writing the smaller partition table")]
    Write(#[source] io::Error),
}

/// What tools can shrink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Ext,
    Ntfs,
}

impl Kind {
    /// By what a survey calls it.
    #[must_use]
    pub fn named(holds: &str) -> Option<Self> {
        match holds {
            _ if holds == Filesystem::Ext.name() => Some(Self::Ext),
            _ if holds == Filesystem::Ntfs.name() => Some(Self::Ntfs),
            _ => None,
        }
    }
}

/// How many bytes of its partition an ext2/3/4 takes by its own word.
///
/// # Errors
/// When its superblock cannot be read, or is none.
pub fn ext_size(partition: &File) -> io::Result<u64> {
    let mut superblock = [0; 1024];
    partition.read_exact_at(&mut superblock, 1024)?;
    let half = |at: usize| word(&superblock, at) & 0xffff_ffff;
    // s_blocks_count, its upper half with the feature 64bit, s_log_block_size.
    let high = if half(0x60) & 0x80 == 0 { 0 } else { half(0x150) };
    let shift = u32::try_from(half(0x18) + 10).unwrap_or(u32::MAX);
    let size = (high << 32 | half(4)).checked_mul(1u64.checked_shl(shift).unwrap_or(0));
    size.filter(|size| *size > 0).ok_or_else(|| io::Error::other("its size is impossible"))
}

/// The partition behind which there is no other.
///
/// # Errors
/// When there is no good GPT, or nothing in it.
pub fn last_partition(disk: &File, sector_size: u32) -> Result<Partition, ShrinkError> {
    let table = Table::read(disk, sector_size)?;
    if table.kind != TableKind::Gpt {
        return Err(ShrinkError::NoGpt(table.kind.name()));
    }
    table.partitions.into_iter().last().ok_or(ShrinkError::NoPartition)
}

/// Lets the disk end behind its last partition, of which only `content` bytes count. Its new size.
///
/// # Errors
/// When the table is not good, or cannot be written: then the file is of no use any more.
pub fn cut_behind(disk: &File, sector_size: u32, content: u64) -> Result<u64, ShrinkError> {
    let last = last_partition(disk, sector_size)?;
    let sector = u64::from(sector_size);
    // Exactly there: the last sector of an NTFS's partition is the backup of its boot sector.
    let end = (last.range.start + content).next_multiple_of(sector).min(last.range.end);
    if end <= last.range.start {
        return Err(ShrinkError::Impossible { start: last.range.start, end });
    }
    // The backup of the table takes no more than the first copy does, and that is before the first MiB.
    let size = end.next_multiple_of(ALIGNMENT) + ALIGNMENT;
    rewrite(disk, sector, last.number, end, size).map_err(ShrinkError::Write)?;
    // What is there now must be what the reader, and any other, takes for good.
    let again = last_partition(disk, sector_size)?;
    if again.range != (last.range.start..end) {
        return Err(ShrinkError::Impossible { start: again.range.start, end: again.range.end });
    }
    Ok(size)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_le_bytes)
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_le_bytes()
}

/// UEFI 2.10, 5.3. The table was read before: its numbers are possible.
fn rewrite(disk: &File, sector: u64, number: u32, end: u64, size: u64) -> io::Result<()> {
    let mut header = vec![0; usize::try_from(sector).unwrap_or(512)];
    disk.read_exact_at(&mut header, sector)?;
    let half = |at: usize| u32::try_from(word(&header, at) & 0xffff_ffff).unwrap_or_default();
    let (length, entry) = (half(12) as usize, half(84) as usize);
    let entries_at = word(&header, 72);
    let mut entries = vec![0; half(80) as usize * entry];
    disk.read_exact_at(&mut entries, entries_at * sector)?;
    let place = (number as usize - 1) * entry + 40;
    entries[place..place + 8].copy_from_slice(&(end / sector - 1).to_le_bytes());

    let last = size / sector - 1;
    let array = (entries.len() as u64).div_ceil(sector);
    let backup_entries = last - array;
    header[48..56].copy_from_slice(&(backup_entries - 1).to_le_bytes());
    header[88..92].copy_from_slice(&crc32(&entries));
    let sealed = |own: u64, other: u64, entries: u64| {
        let mut header = header.clone();
        header[24..32].copy_from_slice(&own.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[72..80].copy_from_slice(&entries.to_le_bytes());
        header[16..20].fill(0);
        let crc = crc32(&header[..length]);
        header[16..20].copy_from_slice(&crc);
        header
    };
    disk.set_len(end)?;
    disk.set_len(size)?;
    disk.write_all_at(&entries, entries_at * sector)?;
    disk.write_all_at(&sealed(1, last, entries_at), sector)?;
    disk.write_all_at(&entries, backup_entries * sector)?;
    disk.write_all_at(&sealed(last, 1, backup_entries), last * sector)?;

    // 5.2.3: the record of type EE covers the disk, or as much as 32 bits can say.
    let mut mbr = [0; 512];
    disk.read_exact_at(&mut mbr, 0)?;
    for record in (446..510).step_by(16) {
        if mbr[record + 4] == 0xee {
            mbr[record + 12..record + 16].copy_from_slice(&u32::try_from(last).unwrap_or(u32::MAX).to_le_bytes());
        }
    }
    disk.write_all_at(&mbr, 0)
}
