//! The partition table of a hybrid image: GPT beside the boot code that a BIOS runs, in the 32 KiB that ISO 9660 leaves
//! free at its start (UEFI specification 2.10, chapter 5).

use anyhow::{Context, Result, bail, ensure};
use crc::{CRC_32_ISO_HDLC, Crc};
use uuid::{Uuid, uuid};

pub(super) const SECTOR: usize = 512;
const ENTRIES: usize = 128;
const ENTRY: usize = 128;
const TABLE: usize = ENTRIES * ENTRY;
/// What the copy at the end takes: entries, then a header.
pub(super) const END: usize = TABLE + SECTOR;
const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER: usize = 92;
const MBR_TABLE: usize = 446;

pub(super) const EFI_SYSTEM: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// What every computer shows as a drive.
pub(super) const BASIC_DATA: Uuid = uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7");

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) kind: Uuid,
    pub(super) id: Uuid,
    pub(super) name: &'static str,
    /// In bytes.
    pub(super) start: usize,
    pub(super) length: usize,
}

/// Writes both copies of the table, and the table of an MBR that protects them. The first 440 bytes stay.
pub(super) fn write(image: &mut [u8], disk: Uuid, partitions: &[Partition]) -> Result<()> {
    let sectors = image.len() / SECTOR;
    ensure!(image.len().is_multiple_of(SECTOR) && sectors > 2 * (END / SECTOR) + 2, "too small for a partition table");
    let mut table = vec![0; TABLE];
    for (slot, partition) in table.chunks_exact_mut(ENTRY).zip(partitions) {
        let (first, count) = (partition.start / SECTOR, partition.length / SECTOR);
        ensure!(partition.start.is_multiple_of(SECTOR) && count > 0, "{} is no whole sectors", partition.name);
        ensure!(first > END / SECTOR && first + count <= sectors - END / SECTOR, "{} is outside", partition.name);
        slot[..16].copy_from_slice(&partition.kind.to_bytes_le());
        slot[16..32].copy_from_slice(&partition.id.to_bytes_le());
        slot[32..40].copy_from_slice(&(first as u64).to_le_bytes());
        slot[40..48].copy_from_slice(&((first + count - 1) as u64).to_le_bytes());
        for (place, letter) in slot[56..].chunks_exact_mut(2).zip(partition.name.encode_utf16()) {
            place.copy_from_slice(&letter.to_le_bytes());
        }
    }
    ensure!(partitions.len() <= ENTRIES, "too many partitions");
    let last = sectors - 1;
    let copies = [(1, last, 2), (last, 1, last - TABLE / SECTOR)];
    for (here, other, table_at) in copies {
        let header = header(disk, &table, here, other, table_at, sectors);
        image[here * SECTOR..][..SECTOR].copy_from_slice(&header);
        image[table_at * SECTOR..][..TABLE].copy_from_slice(&table);
    }
    protect(image, sectors);
    Ok(())
}

fn header(disk: Uuid, table: &[u8], here: usize, other: usize, table_at: usize, sectors: usize) -> [u8; SECTOR] {
    let mut header = [0; SECTOR];
    header[..8].copy_from_slice(SIGNATURE);
    header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
    header[12] = 92;
    let first_usable = END / SECTOR + 1;
    let last_usable = sectors - END / SECTOR - 1;
    for (at, value) in [(24, here), (32, other), (40, first_usable), (48, last_usable), (72, table_at)] {
        header[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
    }
    header[56..72].copy_from_slice(&disk.to_bytes_le());
    header[80] = 128;
    header[84] = 128;
    header[88..92].copy_from_slice(&checksum(table).to_le_bytes());
    let sum = checksum(&header[..HEADER]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    header
}

/// One entry that covers all, and one that is active and nothing: some BIOSes start no disk without an active entry, some
/// UEFI firmware takes no protective entry that is active.
fn protect(image: &mut [u8], sectors: usize) {
    let count = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    let mut table = [0; 64];
    table[1..5].copy_from_slice(&[0x00, 0x02, 0x00, 0xee]);
    table[5..8].copy_from_slice(&[0xff, 0xff, 0xff]);
    table[8..12].copy_from_slice(&1u32.to_le_bytes());
    table[12..16].copy_from_slice(&count.to_le_bytes());
    table[16] = 0x80;
    table[28] = 1;
    image[MBR_TABLE..MBR_TABLE + 64].copy_from_slice(&table);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
}

fn checksum(bytes: &[u8]) -> u32 {
    Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(bytes)
}

/// Where in an image of ours its partition of this name is, and its id.
pub(super) fn find(image: &[u8], name: &str) -> Result<(usize, usize, Uuid)> {
    let header = image.get(SECTOR..SECTOR + HEADER).context("the image ends within its partition table")?;
    ensure!(&header[..8] == SIGNATURE, "the image has no partition table of ours");
    let table = image.get(2 * SECTOR..2 * SECTOR + TABLE).context("the image ends within its partition table")?;
    ensure!(header[88..92] == checksum(table).to_le_bytes(), "the partition table is damaged");
    let wanted: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for slot in table.chunks_exact(ENTRY) {
        if slot[56..].starts_with(&wanted) && slot[56 + wanted.len()] == 0 {
            let number =
                |at: usize| -> Result<usize> { Ok(usize::try_from(u64::from_le_bytes(slot[at..at + 8].try_into()?))?) };
            let (first, last) = (number(32)?, number(40)?);
            let start = first.checked_mul(SECTOR).context("the partition table is damaged")?;
            let length = last.checked_sub(first).map(|n| (n + 1) * SECTOR).context("the partition table is damaged")?;
            ensure!(start.checked_add(length).is_some_and(|end| end <= image.len()), "the image is cut off");
            return Ok((start, length, Uuid::from_bytes_le(slot[16..32].try_into()?)));
        }
    }
    bail!("the image has no partition {name:?}: it is not one of ours")
}

/// Start and length of the entry of this type in the MBR's own table, in bytes.
pub(super) fn in_mbr(image: &[u8], kind: u8) -> Result<(usize, usize)> {
    let table = image.get(MBR_TABLE..MBR_TABLE + 64).context("the image has no first sector")?;
    let slot = table.chunks_exact(16).find(|slot| slot[4] == kind).context("the partition is not in the MBR")?;
    let number = |at: usize| -> Result<usize> { Ok(u32::from_le_bytes(slot[at..at + 4].try_into()?) as usize) };
    Ok((number(8)? * SECTOR, number(12)? * SECTOR))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;
    use crate::tool;

    #[test]
    fn others_read_it_and_so_do_we() {
        let id = Uuid::from_u128(0x0102_0304_0506_4708_8910_1112_1314_1516);
        let mut image = vec![0; 4 << 20];
        image[..440].fill(7);
        let partition = |kind, name, start| Partition { kind, id, name, start, length: 1 << 20 };
        let wanted = [partition(EFI_SYSTEM, "esp", 1 << 20), partition(BASIC_DATA, "parameters", 2 << 20)];
        write(&mut image, Uuid::nil(), &wanted).unwrap();
        assert!(image[..440].iter().all(|b| *b == 7));
        assert_eq!(find(&image, "parameters").unwrap(), (2 << 20, 1 << 20, id));
        assert!(find(&image, "param").is_err());

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, &image).unwrap();
        let verified = tool::run(Command::new("sgdisk").arg("-v").arg(&path), "gdisk").unwrap();
        assert!(verified.contains("No problems found"), "{verified}");
        let shown = tool::run(Command::new("sgdisk").args(["-i", "2"]).arg(&path), "gdisk").unwrap();
        assert!(shown.contains("01020304-0506-4708-8910-111213141516") && shown.contains("'parameters'"), "{shown}");

        image[2 * SECTOR + 5] ^= 1;
        assert!(find(&image, "parameters").is_err());
        assert!(write(&mut image, id, &[partition(EFI_SYSTEM, "esp", 3 << 20)]).is_err(), "over the copy at the end");
    }
}
