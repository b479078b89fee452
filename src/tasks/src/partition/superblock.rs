//! What begins in a partition or a volume: for saying what would be lost, and for seeing what was made. Every field is
//! checked before it is used: the bytes may be anybody's.

use std::fmt;

use uuid::Uuid;

/// As much as holds every superblock looked for.
pub(super) const PROBE: usize = 128 << 10;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// As `blkid` calls it.
    pub(super) kind: &'static str,
    /// `None` where it stands elsewhere (NTFS, LVM).
    pub(super) label: Option<String>,
    /// As `blkid` writes it.
    pub(super) uuid: String,
}

impl fmt::Display for Found {
    /// `ext4 "root" 0f3c...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        if let Some(label) = self.label.as_ref().filter(|label| !label.is_empty()) {
            write!(f, " {label:?}")?;
        }
        write!(f, " {}", self.uuid)
    }
}

/// What begins here; `start` may be short.
pub(super) fn recognise(start: &[u8]) -> Option<Found> {
    let bytes = |at: usize, n: usize| start.get(at..at + n).unwrap_or_default();
    let found = |kind, label: Option<&[u8]>, uuid| Some(Found { kind, label: label.map(text), uuid });
    // In the order of how sure the sign is; an old one further back is cleared when a new one is made.
    if bytes(0, 6) == b"LUKS\xba\xbe" {
        return found("crypto_LUKS", Some(bytes(24, 48)), text(bytes(168, 40)));
    }
    if bytes(0, 4) == b"XFSB" {
        return found("xfs", Some(bytes(108, 12)), uuid(bytes(32, 16)));
    }
    if bytes(3, 8) == b"NTFS    " {
        let serial = bytes(0x48, 8).iter().rev().map(|b| format!("{b:02X}")).collect();
        return found("ntfs", None, serial);
    }
    // Microsoft's FAT specification, section 3: FAT32 has its label and serial number further back.
    for (kind_at, serial_at) in [(82, 67), (54, 39)] {
        if bytes(kind_at, 3) == b"FAT" && bytes(510, 2) == [0x55, 0xaa] {
            let number = bytes(serial_at, 4).iter().rev().fold(0u32, |sum, b| sum << 8 | u32::from(*b));
            let label = Some(bytes(serial_at + 4, 11)).filter(|label| *label != b"NO NAME    ").unwrap_or_default();
            return found("vfat", Some(label), format!("{:04X}-{:04X}", number >> 16, number & 0xffff));
        }
    }
    for sector in (0..4).map(|n| n * 512) {
        if bytes(sector, 8) == b"LABELONE" && bytes(sector + 24, 8) == b"LVM2 001" {
            return found("LVM2_member", None, text(bytes(sector + 32, 32)));
        }
    }
    if bytes(1024 + 0x38, 2) == [0x53, 0xef] {
        return found(ext(bytes(1024, 1024)), Some(bytes(1024 + 0x78, 16)), uuid(bytes(1024 + 0x68, 16)));
    }
    for page in [4096, 8192, 16384, 65536] {
        if bytes(page - 10, 10) == b"SWAPSPACE2" {
            return found("swap", Some(bytes(1024 + 28, 16)), uuid(bytes(1024 + 12, 16)));
        }
    }
    // Superblocks 1.1 and 1.2; 0.90 and 1.0 stand at the end.
    for at in [0, 4096] {
        if bytes(at, 4) == 0xa92b_4efcu32.to_le_bytes() {
            return found("linux_raid_member", Some(bytes(at + 32, 32)), uuid(bytes(at + 16, 16)));
        }
    }
    if bytes(0x1_0040, 8) == b"_BHRfS_M" {
        return found("btrfs", Some(bytes(0x1_012b, 256)), uuid(bytes(0x1_0020, 16)));
    }
    None
}

/// By what it has: a journal (compatible 4), extents or larger things (incompatible 0x40 and others).
fn ext(superblock: &[u8]) -> &'static str {
    let word = |at: usize| superblock.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    if word(0x60) & !0x1f != 0 {
        "ext4"
    } else if word(0x5c) & 4 != 0 {
        "ext3"
    } else {
        "ext2"
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect::<String>().trim_end().to_owned()
}

fn uuid(bytes: &[u8]) -> String {
    Uuid::from_slice(bytes).map(|uuid| uuid.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_there_is_looked_at_without_harm(noise in prop::collection::vec(any::<u8>(), 0..2048), at in 0usize..4, magic in 0usize..5, cut in 0usize..PROBE) {
            let mut start = vec![0; PROBE];
            let to = [0, 1024, 4096, 0x1_0000][at];
            start[to..to + noise.len()].copy_from_slice(&noise);
            let (place, word): (usize, &[u8]) =
                [(0, &b"XFSB"[..]), (1024 + 0x38, b"\x53\xef"), (0x1_0040, b"_BHRfS_M"), (4086, b"SWAPSPACE2"), (0, b"LUKS\xba\xbe")][magic];
            start[place..place + word.len()].copy_from_slice(word);
            prop_assert!(recognise(&start).is_some_and(|found| !found.to_string().contains('\0')));
            let _ = recognise(&start[..cut]);
        }
    }
}
