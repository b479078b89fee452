//! ext2, ext3 and ext4: one bitmap for each group of blocks, found through the group descriptors.
//!
//! Block numbers, not clusters: `bigalloc` is not understood. A group that is marked as uninitialised has no bitmap on
//! the disk; what is used there are its own tables, as the kernel's `ext4_init_block_bitmap` has it. Of every group the
//! number of free blocks must be what its descriptor says, its checksums must be right if it has any, and no table of any group may
//! lie in what is free.

use std::ops::Range;

use super::bytes::{byte, crc32c, le16, le32, wide, zero_runs};
use super::{Doubt, FreeMap, ReadAt as _, Window};

const SUPERBLOCK: usize = 1024;
const MAGIC: u16 = 0xef53;

// Features by their names in fs/ext4/ext4.h.
const COMPAT_KNOWN: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | SPARSE_SUPER2 | 0x400 | 0x800 | 0x1000;
const SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_KNOWN: u32 =
    0x2 | META_BG | 0x40 | WIDE | 0x100 | 0x200 | 0x400 | 0x1000 | CSUM_SEED | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const WIDE: u32 = 0x80;
const CSUM_SEED: u32 = 0x2000;
const RO_COMPAT_KNOWN: u32 =
    SPARSE_SUPER | 0x2 | 0x4 | 0x8 | GDT_CSUM | 0x20 | 0x40 | 0x100 | METADATA_CSUM | 0x1000 | 0x2000 | 0x8000;
const SPARSE_SUPER: u32 = 0x1;
const GDT_CSUM: u32 = 0x10;
const METADATA_CSUM: u32 = 0x400;
const ORPHANS_PRESENT: u32 = 0x1_0000;

const BLOCK_UNINIT: u16 = 0x2;
/// 64 TiB in blocks of 4 KiB; the places of their tables take 40 MiB here.
const MOST_GROUPS: u64 = 1 << 19;

pub(super) fn is_one(start: &[u8]) -> bool {
    le16(start, SUPERBLOCK + 0x38) == MAGIC
}

struct Super {
    block_size: u64,
    blocks: u64,
    first_block: u64,
    per_group: u64,
    groups: u64,
    inode_table: u64,
    descriptor_size: usize,
    /// Groups from which on each metagroup holds its own descriptors, times that; none without the feature.
    first_meta: Option<u64>,
    reserved: u64,
    sparse: Sparse,
    /// Of checksums; none without them.
    seed: Option<u32>,
    uninitialised: bool,
}

/// Which groups have a copy of the superblock.
enum Sparse {
    All,
    Powers,
    Two([u64; 2]),
}

impl Super {
    fn parse(bytes: &[u8]) -> Result<Self, Doubt> {
        let (compat, incompat, ro_compat) = (le32(bytes, 0x5c), le32(bytes, 0x60), le32(bytes, 0x64));
        if incompat & RECOVER != 0 {
            return Err(Doubt::Unclean("its journal has changes that were not made yet"));
        }
        if ro_compat & ORPHANS_PRESENT != 0 {
            return Err(Doubt::Unclean("it has files that were deleted while they were open"));
        }
        if le16(bytes, 0x3a) != 1 {
            return Err(Doubt::Unclean("it is mounted somewhere, or has errors"));
        }
        for (word, known, name) in [
            (compat, COMPAT_KNOWN, "compat"),
            (incompat, INCOMPAT_KNOWN, "incompat"),
            (ro_compat, RO_COMPAT_KNOWN, "ro_compat"),
        ] {
            if word & !known != 0 {
                return Err(Doubt::Feature(format!("{name} {:#x}", word & !known)));
            }
        }
        if le32(bytes, 0x4c) > 1 || le32(bytes, 0x18) > 6 || le32(bytes, 0x18) != le32(bytes, 0x1c) {
            return Err(Doubt::Feature("an unknown revision or block size".into()));
        }
        let csum = ro_compat & METADATA_CSUM != 0;
        if csum && (byte(bytes, 0x175) != 1 || crc32c(!0, &bytes[..0x3fc]) != le32(bytes, 0x3fc)) {
            return Err(Doubt::Inconsistent("the checksum of the superblock is wrong"));
        }
        let seed = if incompat & CSUM_SEED != 0 { le32(bytes, 0x270) } else { crc32c(!0, &bytes[0x68..0x78]) };
        let wide_numbers = incompat & WIDE != 0;
        let block_size = 1024 << le32(bytes, 0x18);
        let descriptor_size = if wide_numbers { usize::from(le16(bytes, 0xfe)) } else { 32 };
        let inode_size = if le32(bytes, 0x4c) == 0 { 128 } else { u64::from(le16(bytes, 0x58)) };
        let blocks = wide(le32(bytes, 4), if wide_numbers { le32(bytes, 0x150) } else { 0 });
        let (first_block, per_group) = (u64::from(le32(bytes, 0x14)), u64::from(le32(bytes, 0x20)));
        let impossible = Err(Doubt::Inconsistent("the numbers in its superblock are impossible"));
        let descriptor_good = (32..=1024).contains(&descriptor_size) && descriptor_size.is_power_of_two();
        if !descriptor_good || (wide_numbers && descriptor_size < 64) || first_block != u64::from(block_size == 1024) {
            return impossible;
        }
        if per_group < 256 || per_group > 8 * block_size || !per_group.is_multiple_of(8) || blocks <= first_block {
            return impossible;
        }
        let groups = (blocks - first_block).div_ceil(per_group);
        if groups > MOST_GROUPS {
            return impossible;
        }
        Ok(Self {
            block_size,
            blocks,
            first_block,
            per_group,
            groups,
            inode_table: (u64::from(le32(bytes, 0x28)) * inode_size).div_ceil(block_size),
            descriptor_size,
            first_meta: (incompat & META_BG != 0).then(|| u64::from(le32(bytes, 0x104))),
            reserved: u64::from(le16(bytes, 0xce)),
            sparse: if compat & SPARSE_SUPER2 != 0 {
                Sparse::Two([le32(bytes, 0x24c).into(), le32(bytes, 0x250).into()])
            } else if ro_compat & SPARSE_SUPER != 0 {
                Sparse::Powers
            } else {
                Sparse::All
            },
            seed: csum.then_some(seed),
            uninitialised: csum || ro_compat & GDT_CSUM != 0,
        })
    }

    fn per_descriptor_block(&self) -> u64 {
        self.block_size / self.descriptor_size as u64
    }

    fn descriptor_blocks(&self) -> u64 {
        self.groups.div_ceil(self.per_descriptor_block())
    }

    fn group(&self, number: u64) -> Range<u64> {
        let start = self.first_block + number * self.per_group;
        start..self.blocks.min(start + self.per_group)
    }

    fn has_super(&self, group: u64) -> bool {
        let power = |base: u64| {
            let mut n = base;
            while n < group {
                n *= base;
            }
            n == group
        };
        match self.sparse {
            Sparse::All => true,
            Sparse::Powers => group <= 1 || power(3) || power(5) || power(7),
            Sparse::Two(copies) => group == 0 || copies.contains(&group),
        }
    }

    /// Whether this block of descriptors is kept in its own metagroup.
    fn is_meta(&self, descriptor_block: u64) -> bool {
        self.first_meta.is_some_and(|first| descriptor_block >= first)
    }

    /// Where the n-th block of descriptors is.
    fn descriptor_block(&self, n: u64) -> u64 {
        if !self.is_meta(n) {
            return self.first_block + 1 + n;
        }
        let group = n * self.per_descriptor_block();
        self.group(group).start + u64::from(self.has_super(group))
    }

    /// How many blocks at the start of a group are superblock and descriptors.
    fn front(&self, group: u64) -> u64 {
        let copy = u64::from(self.has_super(group));
        let metagroup = group / self.per_descriptor_block();
        if self.is_meta(metagroup) {
            let place = group % self.per_descriptor_block();
            return copy + u64::from(place <= 1 || place == self.per_descriptor_block() - 1);
        }
        let old = self.first_meta.map_or_else(|| self.descriptor_blocks(), |first| first.min(self.descriptor_blocks()));
        if copy == 0 { 0 } else { 1 + old + self.reserved }
    }
}

/// What a descriptor says of its group.
struct Group {
    number: u64,
    bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    free: u64,
    uninitialised: bool,
    bitmap_checksum: u32,
}

impl Group {
    fn parse(number: u64, bytes: &[u8], fs: &Super) -> Result<Self, Doubt> {
        let high = |at| if fs.descriptor_size >= 64 { le32(bytes, at) } else { 0 };
        let high16 = |at| if fs.descriptor_size >= 64 { u32::from(le16(bytes, at)) } else { 0 };
        if let Some(seed) = fs.seed {
            // Group numbers are below MOST_GROUPS.
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let mut crc = crc32c(seed, &number.to_le_bytes());
            crc = crc32c(crc, &bytes[..0x1e]);
            crc = crc32c(crc, &[0; 2]);
            crc = crc32c(crc, &bytes[0x20..]);
            if crc & 0xffff != u32::from(le16(bytes, 0x1e)) {
                return Err(Doubt::Inconsistent("the checksum of a group's descriptor is wrong"));
            }
        }
        let group = Self {
            number,
            bitmap: wide(le32(bytes, 0), high(0x20)),
            inode_bitmap: wide(le32(bytes, 4), high(0x24)),
            inode_table: wide(le32(bytes, 8), high(0x28)),
            free: u64::from(u32::from(le16(bytes, 0xc)) | high16(0x2c) << 16),
            uninitialised: fs.uninitialised && le16(bytes, 0x12) & BLOCK_UNINIT != 0,
            bitmap_checksum: u32::from(le16(bytes, 0x18)) | high16(0x38) << 16,
        };
        let inside = |start: u64, length: u64| {
            start >= fs.first_block && start.checked_add(length).is_some_and(|end| end <= fs.blocks)
        };
        if inside(group.bitmap, 1) && inside(group.inode_bitmap, 1) && inside(group.inode_table, fs.inode_table) {
            Ok(group)
        } else {
            Err(Doubt::Inconsistent("a group's tables lie outside of it"))
        }
    }

    fn tables(&self, fs: &Super) -> [Range<u64>; 3] {
        let table = self.inode_table..self.inode_table + fs.inode_table;
        [self.bitmap..self.bitmap + 1, self.inode_bitmap..self.inode_bitmap + 1, table]
    }

    /// The bitmap, as it is or as it would be.
    fn bits(&self, fs: &Super, window: &Window<'_>) -> Result<Vec<u8>, Doubt> {
        let size = usize::try_from(fs.block_size).unwrap_or_default();
        if !self.uninitialised {
            let bits = window.read(self.bitmap * fs.block_size, size)?;
            let covered = usize::try_from(fs.per_group / 8).unwrap_or_default();
            if let Some(seed) = fs.seed {
                let mask = if fs.descriptor_size >= 64 { u32::MAX } else { 0xffff };
                if crc32c(seed, bits.get(..covered).unwrap_or_default()) & mask != self.bitmap_checksum {
                    return Err(Doubt::Inconsistent("the checksum of a group's bitmap is wrong"));
                }
            }
            return Ok(bits);
        }
        let mut bits = vec![0; size];
        let range = fs.group(self.number);
        let front = range.start..range.start.saturating_add(fs.front(self.number));
        for used in self.tables(fs).into_iter().chain([front]) {
            for block in used.start.max(range.start)..used.end.min(range.end) {
                let bit = usize::try_from(block - range.start).unwrap_or_default();
                if let Some(byte) = bits.get_mut(bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
        Ok(bits)
    }
}

pub(super) fn free(window: &Window<'_>) -> Result<FreeMap, Doubt> {
    let fs = Super::parse(&window.read(SUPERBLOCK as u64, 1024)?)?;
    if fs.blocks.checked_mul(fs.block_size).is_none_or(|size| size > window.size()) {
        return Err(Doubt::Inconsistent("it is larger than its partition"));
    }
    let size = usize::try_from(fs.block_size).unwrap_or_default();
    let mut free = FreeMap::default();
    let mut tables = Vec::new();
    for block in 0..fs.descriptor_blocks() {
        let place = fs.descriptor_block(block);
        tables.push(place..place + 1);
        let descriptors = window.read(place * fs.block_size, size)?;
        let first = block * fs.per_descriptor_block();
        for (number, descriptor) in (first..fs.groups).zip(descriptors.chunks_exact(fs.descriptor_size)) {
            let group = Group::parse(number, descriptor, &fs)?;
            let range = fs.group(number);
            let (mut counted, mut in_order) = (0, true);
            zero_runs(&group.bits(&fs, window)?, range.end - range.start, |from, to| {
                counted += to - from;
                let from = (range.start + from) * fs.block_size;
                in_order &= free.push(from..(range.start + to) * fs.block_size);
            });
            if counted != group.free || !in_order {
                return Err(Doubt::Inconsistent("a group has not as many free blocks as its descriptor says"));
            }
            tables.extend(group.tables(&fs));
            let front = range.start..range.end.min(range.start + fs.front(number).max(u64::from(number == 0)));
            tables.push(front);
        }
    }
    let in_bytes = |range: &Range<u64>| range.start * fs.block_size..range.end * fs.block_size;
    if tables.iter().any(|table| !table.is_empty() && free.touches(&in_bytes(table))) {
        return Err(Doubt::Inconsistent("one of its own tables is marked as free"));
    }
    Ok(free)
}
