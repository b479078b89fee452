//! XFS: each allocation group has its free space in a B+tree by block number.
//!
//! The leaves are walked from the left; their extents must grow and together be what the group's header says, so a tree
//! that loops or branches back ends by itself.

use super::bytes::{be16, be32, be64, byte, crc32c, le32};
use super::{Doubt, FreeMap, ReadAt as _, Window, xfslog};

// sb_features_* of version 5, by fs/xfs/libxfs/xfs_format.h.
/// finobt, rmapbt, reflink, inobtcnt.
const RO_COMPAT_KNOWN: u32 = 0xf;
/// ftype, sparse inodes, meta_uuid, bigtime, nrext64, exchange-range, parent pointers. Not: needs repair, metadir.
const INCOMPAT_KNOWN: u32 = 0xef;

pub(super) fn is_one(start: &[u8]) -> bool {
    start.starts_with(b"XFSB")
}

struct Super {
    block_size: u64,
    blocks: u64,
    group_blocks: u64,
    groups: u64,
    group_shift: u32,
    sector: u64,
    log_start: u64,
    log_blocks: u64,
    /// Version 5: with checksums.
    checksums: bool,
}

impl Super {
    fn parse(bytes: &[u8]) -> Result<Self, Doubt> {
        let version = be16(bytes, 0x64);
        let checksums = version & 0xf == 5;
        if !checksums && version & 0xf != 4 {
            return Err(Doubt::Feature(format!("version {}", version & 0xf)));
        }
        let fs = Self {
            block_size: be32(bytes, 4).into(),
            blocks: be64(bytes, 8),
            group_blocks: be32(bytes, 0x54).into(),
            groups: be32(bytes, 0x58).into(),
            group_shift: byte(bytes, 0x7c).into(),
            sector: be16(bytes, 0x66).into(),
            log_start: be64(bytes, 0x30),
            log_blocks: be32(bytes, 0x60).into(),
            checksums,
        };
        let sizes = (512..=65536).contains(&fs.block_size)
            && fs.block_size.is_power_of_two()
            && (512..=32768).contains(&fs.sector)
            && fs.sector.is_power_of_two()
            && fs.group_shift < 32
            && (64..=1 << fs.group_shift).contains(&fs.group_blocks)
            && fs.groups == fs.blocks.div_ceil(fs.group_blocks);
        if !sizes {
            return Err(Doubt::Inconsistent("the numbers in its superblock are impossible"));
        }
        if byte(bytes, 0x7e) != 0 {
            return Err(Doubt::Unclean("it was not made to its end"));
        }
        if checksums {
            fs.check_features(bytes)?;
        }
        Ok(fs)
    }

    fn check_features(&self, bytes: &[u8]) -> Result<(), Doubt> {
        let sector = usize::try_from(self.sector).unwrap_or_default();
        // In the byte order of its author, as crc32c has it, unlike all else.
        if !checksum_is(bytes.get(..sector).unwrap_or_default(), 0xe0) {
            return Err(Doubt::Inconsistent("the checksum of the superblock is wrong"));
        }
        for (at, known, name) in
            [(0xd4, RO_COMPAT_KNOWN, "ro_compat"), (0xd8, INCOMPAT_KNOWN, "incompat"), (0xdc, 0, "log_incompat")]
        {
            if be32(bytes, at) & !known != 0 {
                return Err(Doubt::Feature(format!("{name} {:#x}", be32(bytes, at) & !known)));
            }
        }
        Ok(())
    }

    fn blocks_of(&self, group: u64) -> u64 {
        self.group_blocks.min(self.blocks - group * self.group_blocks)
    }
}

/// Whether the little-endian CRC-32C at `at` is that of the rest.
fn checksum_is(bytes: &[u8], at: usize) -> bool {
    let (Some(before), Some(after)) = (bytes.get(..at), bytes.get(at + 4..)) else { return false };
    !crc32c(crc32c(crc32c(!0, before), &[0; 4]), after) == le32(bytes, at)
}

pub(super) fn free(window: &Window<'_>) -> Result<FreeMap, Doubt> {
    let start = window.read(0, usize::try_from(window.size().min(32768)).unwrap_or_default())?;
    let fs = Super::parse(&start)?;
    if fs.blocks.checked_mul(fs.block_size).is_none_or(|size| size > window.size()) {
        return Err(Doubt::Inconsistent("it is larger than its partition"));
    }
    if fs.log_start == 0 {
        return Err(Doubt::Feature("its log is on another disk".into()));
    }
    // A block's number is that of its group and that in its group, each in bits of its own.
    let (group, block) = (fs.log_start >> fs.group_shift, fs.log_start & ((1 << fs.group_shift) - 1));
    if group >= fs.groups || block + fs.log_blocks > fs.blocks_of(group) {
        return Err(Doubt::Inconsistent("its log lies outside of it"));
    }
    let log = (group * fs.group_blocks + block) * fs.block_size;
    xfslog::check(window, log, fs.log_blocks * fs.block_size)?;
    let mut free = FreeMap::default();
    for group in 0..fs.groups {
        Group { fs: &fs, window, number: group }.walk(&mut free)?;
    }
    let log = log..log + fs.log_blocks * fs.block_size;
    if free.touches(&log) {
        return Err(Doubt::Inconsistent("its log is marked as free"));
    }
    Ok(free)
}

struct Group<'a> {
    fs: &'a Super,
    window: &'a Window<'a>,
    number: u64,
}

impl Group<'_> {
    /// In bytes of the partition.
    fn place(&self, block: u64) -> u64 {
        (self.number * self.fs.group_blocks + block) * self.fs.block_size
    }

    fn walk(&self, free: &mut FreeMap) -> Result<(), Doubt> {
        let impossible = |why| Err(Doubt::Inconsistent(why));
        let sector = usize::try_from(self.fs.sector).unwrap_or_default();
        let header = self.window.read(self.place(0) + self.fs.sector, sector)?;
        if !header.starts_with(b"XAGF") || be32(&header, 4) != 1 || u64::from(be32(&header, 8)) != self.number {
            return impossible("a group has no header of its free space");
        }
        if self.fs.checksums && !checksum_is(&header, 216) {
            return impossible("the checksum of a group's header is wrong");
        }
        if u64::from(be32(&header, 12)) != self.fs.blocks_of(self.number) {
            return impossible("a group has not the length that its header says");
        }
        let (root, levels, expected) = (be32(&header, 16), be32(&header, 28), u64::from(be32(&header, 52)));
        if !(1..=16).contains(&levels) {
            return impossible("a tree of free space has an impossible height");
        }
        // Superblock and headers come first; the trees' own blocks are none of their extents.
        let mut last = (4 * self.fs.sector).div_ceil(self.fs.block_size);
        let (mut node, mut found) = (root, 0);
        for level in (1..levels).rev() {
            node = self.first_child(node, level)?;
        }
        loop {
            let block = self.block(node, 0)?;
            let extents = self.entries(&block, 8)?;
            for extent in block[self.header()..].chunks_exact(8).take(extents) {
                let (start, length) = (u64::from(be32(extent, 0)), u64::from(be32(extent, 4)));
                let end = start + length;
                if start < last || length == 0 || end > self.fs.blocks_of(self.number) {
                    return impossible("the extents of a tree of free space do not grow");
                }
                (last, found) = (end, found + length);
                if !free.push(self.place(start)..self.place(end)) {
                    return impossible("the extents of a tree of free space do not grow");
                }
            }
            node = match be32(&block, 12) {
                u32::MAX => break,
                // An empty leaf would let the walk go on for ever.
                _ if extents == 0 => return impossible("a tree of free space has an empty leaf"),
                next => next,
            };
        }
        if found != expected {
            return impossible("a group has not as much free space as its header says");
        }
        Ok(())
    }

    fn header(&self) -> usize {
        if self.fs.checksums { 56 } else { 16 }
    }

    fn block(&self, number: u32, level: u32) -> Result<Vec<u8>, Doubt> {
        let bad = |why| Err(Doubt::Inconsistent(why));
        if u64::from(number) >= self.fs.blocks_of(self.number) {
            return bad("a block of a tree of free space lies outside of its group");
        }
        let size = usize::try_from(self.fs.block_size).unwrap_or_default();
        let block = self.window.read(self.place(number.into()), size)?;
        let magic: &[u8; 4] = if self.fs.checksums { b"AB3B" } else { b"ABTB" };
        if !block.starts_with(magic) || u32::from(be16(&block, 4)) != level {
            return bad("a block of a tree of free space is none");
        }
        let right_place = || u64::from(be32(&block, 48)) == self.number && checksum_is(&block, 52);
        if self.fs.checksums && !right_place() {
            return bad("a block of a tree of free space is damaged");
        }
        Ok(block)
    }

    /// How many entries of so many bytes it says it has.
    fn entries(&self, block: &[u8], size: usize) -> Result<usize, Doubt> {
        let entries = usize::from(be16(block, 6));
        if entries > (block.len() - self.header()) / size {
            return Err(Doubt::Inconsistent("a block of a tree of free space has more entries than room"));
        }
        Ok(entries)
    }

    /// All keys stand before all pointers, each at its place in a full block.
    fn first_child(&self, number: u32, level: u32) -> Result<u32, Doubt> {
        let block = self.block(number, level)?;
        if self.entries(&block, 12)? == 0 {
            return Err(Doubt::Inconsistent("a tree of free space has an empty node"));
        }
        let most = (block.len() - self.header()) / 12;
        Ok(be32(&block, self.header() + 8 * most))
    }
}
