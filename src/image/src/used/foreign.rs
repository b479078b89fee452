//! Signatures of what is not understood here, but whose presence says that a filesystem found beside it may be a
//! leftover. ZFS, for instance, never writes the first 8 KiB of its partition, where an old ext4 superblock lives on.

use std::io;

use super::bytes::{le32, le64};
use super::{ReadAt, Window};

/// How much of a partition's start is looked at.
pub(super) const START: usize = 260 << 10;

const MAGIC: [(usize, &[u8], &str); 27] = [
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"hsqs", "squashfs"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"-FVE-FS-", "BitLocker"),
    (3, b"ReFS\0\0\0\0", "ReFS"),
    (32, b"NXSB", "APFS"),
    (0, b"LABELONE", "LVM"),
    (512, b"LABELONE", "LVM"),
    (1024, b"LABELONE", "LVM"),
    (1536, b"LABELONE", "LVM"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of an md array"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a member of an md array"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "F2FS"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "EROFS"),
    (1024, b"H+\0\x04", "HFS+"),
    (1024, b"HX\0\x05", "HFS+"),
    (1024, &[2, 0, 0, 0, 0, 0, 0x34, 0x34], "NILFS"),
    (4086, b"SWAPSPACE2", "swap space"),
    (65526, b"SWAPSPACE2", "swap space"),
    (4120, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca], "bcache"),
    (4120, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9], "bcachefs"),
    (9564, &[0x19, 0x01, 0x54, 0x19], "UFS"),
    (66908, &[0x19, 0x01, 0x54, 0x19], "UFS"),
    (32769, b"CD001", "ISO 9660"),
    (32768, b"JFS1", "JFS"),
    (65588, b"ReIsEr", "ReiserFS"),
    (65600, b"_BHRfS_M", "Btrfs"),
];

/// What is recognised besides the filesystems that are understood.
pub(super) fn signature(start: &[u8], window: &Window<'_>) -> io::Result<Option<&'static str>> {
    let at_start = MAGIC.iter().find(|(at, magic, _)| start.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((_, _, name)) = at_start {
        return Ok(Some(name));
    }
    if has_uberblock(start) {
        return Ok(Some("ZFS"));
    }
    at_end(window)
}

/// The ring of ZFS's first label: 128 blocks of 1 KiB, of which later versions use every second or eighth. Either end
/// may have made it.
fn has_uberblock(start: &[u8]) -> bool {
    const MAGIC: u64 = 0x00ba_b10c;
    let ring = start.get(128 << 10..256 << 10).unwrap_or_default();
    ring.chunks(1024).any(|block| [MAGIC, MAGIC.swap_bytes()].contains(&le64(block, 0)))
}

/// md keeps its older superblocks there: 0.90 in the last whole 64 KiB but one, 1.0 from 8 KiB before the end on, on a
/// multiple of 4 KiB. Such a partition is a part of something larger even if a filesystem begins at its start.
fn at_end(window: &Window<'_>) -> io::Result<Option<&'static str>> {
    const MD: u32 = 0xa92b_4efc;
    let size = window.size();
    let places = [(size & !0xffff).checked_sub(0x1_0000), (size & !0xfff).checked_sub(0x2000)];
    for place in places.into_iter().flatten() {
        let mut word = [0; 512];
        if place + 512 <= size {
            window.read_at(place, &mut word)?;
            if [MD, MD.swap_bytes()].contains(&le32(&word, 0)) {
                return Ok(Some("a member of an md array"));
            }
        }
    }
    Ok(None)
}
