//! Editing partition tables in memory.
//!
//! Only the first and the last MiB of a disk hold a table; they are read, edited by the `gpt` crate as if they were
//! the whole disk, and written back in the order that is safe: the end first, the start last.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use gpt::disk::LogicalBlockSize;
use gpt::partition::Partition;
use gpt::{GptConfig, GptDisk};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::units::{Bytes, MIB};
use speediso_sys::buffer::AlignedBuffer;

use crate::place::Place;
use crate::single::OnDisk as _;

/// How much of start and end is held back, read and edited.
pub(crate) const EDGE: u64 = MIB;
const EDGE_LENGTH: usize = 1 << 20;

/// Start and end of a disk. What lies between reads as zeroes and cannot be written.
#[derive(Debug)]
pub(crate) struct Edges {
    pub(crate) head: AlignedBuffer,
    pub(crate) tail: AlignedBuffer,
    size: u64,
    at: u64,
}

impl Edges {
    /// Empty ones for a disk of `size` bytes, at least 2 MiB.
    pub(crate) fn zeroed(size: u64) -> Self {
        Self { head: AlignedBuffer::zeroed(EDGE_LENGTH), tail: AlignedBuffer::zeroed(EDGE_LENGTH), size, at: 0 }
    }

    pub(crate) fn read<'a>(place: impl Into<Place<'a>>) -> Result<Self, Fault> {
        let place = place.into();
        Self::read_by(place.size(), |offset, bytes| place.read_at(offset, bytes).on(place.disk()))
    }

    pub(crate) fn read_by(
        size: u64,
        mut read_at: impl FnMut(u64, &mut [u8]) -> Result<(), Fault>,
    ) -> Result<Self, Fault> {
        if size < 2 * EDGE {
            return Err(Fault::new(FaultCode::DiskTooSmall, format!("{} is less than 2 MiB", Bytes(size))));
        }
        let mut edges = Self::zeroed(size);
        read_at(0, &mut edges.head)?;
        read_at(edges.tail_at(), &mut edges.tail)?;
        Ok(edges)
    }

    pub(crate) fn tail_at(&self) -> u64 {
        self.size - EDGE
    }

    /// Writes the end, then the start, so that at no moment a table points to something that is not there; then reads
    /// both from the medium and compares.
    pub(crate) fn write<'a>(&self, place: impl Into<Place<'a>>) -> Result<(), Fault> {
        let place = place.into();
        place.write_at(self.tail_at(), &self.tail).on(place.disk())?;
        place.flush()?;
        place.write_at(0, &self.head).on(place.disk())?;
        place.flush()?;
        let back = Self::read(place)?;
        for (name, offset, written, read) in
            [("start", 0, &self.head, &back.head), ("end", self.tail_at(), &self.tail, &back.tail)]
        {
            if let Some(i) = written.iter().zip(read.iter()).position(|(w, r)| w != r) {
                return Err(Fault::new(
                    FaultCode::ReadBackMismatch,
                    format!(
                        "the {name} of {} reads back differently at byte {}",
                        place.name(),
                        place.start() + offset + i as u64
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The place in one of the two buffers, and how far it goes.
    fn place(&mut self) -> Option<&mut [u8]> {
        let tail_at = self.tail_at();
        let index = |n: u64| usize::try_from(n).ok();
        if self.at < EDGE {
            self.head.get_mut(index(self.at)?..)
        } else if self.at >= tail_at && self.at < self.size {
            self.tail.get_mut(index(self.at - tail_at)?..)
        } else {
            None
        }
    }
}

impl Read for Edges {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let n = match self.place() {
            Some(place) => {
                let n = place.len().min(buffer.len());
                buffer[..n].copy_from_slice(&place[..n]);
                n
            }
            None => {
                let to_tail = usize::try_from(self.tail_at().saturating_sub(self.at)).unwrap_or(usize::MAX);
                let n = buffer.len().min(left).min(to_tail.max(1));
                buffer[..n].fill(0);
                n
            }
        };
        self.at += n as u64;
        Ok(n)
    }
}

impl Write for Edges {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let place = self.place().ok_or_else(|| io::Error::other("a partition table outside of start and end"))?;
        let n = place.len().min(buffer.len());
        place[..n].copy_from_slice(&buffer[..n]);
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Edges {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
            SeekFrom::End(n) => self.size.checked_add_signed(n),
        };
        self.at = target.ok_or_else(|| io::Error::other("seeking before the start"))?;
        Ok(self.at)
    }
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultCode::PartitionTable, "the partition table cannot be used").because(error.to_string())
}

fn block_size(sector: u64) -> Result<LogicalBlockSize, Fault> {
    match sector {
        512 => Ok(LogicalBlockSize::Lb512),
        4096 => Ok(LogicalBlockSize::Lb4096),
        other => Err(Fault::new(FaultCode::Unsupported, format!("partition tables on sectors of {other} bytes"))),
    }
}

/// Opens the GPT in `edges`, whoever made it. The checksums of the headers and of the entries in use are right then.
pub(crate) fn open(edges: Edges, sector: u64) -> Result<GptDisk<Edges>, Fault> {
    let lb_size = block_size(sector)?;
    let tail_end = edges.tail.len() - usize::try_from(sector).unwrap_or_default();
    let sectors = edges.size / sector;
    for (lba, header) in
        [(1, edges.head.get(usize::try_from(sector).unwrap_or_default()..)), (sectors - 1, edges.tail.get(tail_end..))]
    {
        check_shape(header.unwrap_or_default(), lba, sectors)?;
    }
    // The crate asserts where it could refuse.
    catch_unwind(AssertUnwindSafe(|| {
        GptConfig::new().writable(true).logical_block_size(lb_size).open_from_device(edges).map_err(broken)
    }))
    .unwrap_or_else(|_| Err(broken("it is made in a way that is not understood")))
}

/// What is taken on trust elsewhere: UEFI 2.10, table 5-5, the header's own sector at 24, the other one's at 32, the first
/// and the last usable one at 40 and 48, the number of entries at 80, the size of each at 84.
fn check_shape(header: &[u8], lba: u64, sectors: u64) -> Result<(), Fault> {
    const MOST: u32 = 1024;
    if !header.starts_with(b"EFI PART") {
        return Ok(());
    }
    let word = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let (entries, size) = (word(80), word(84));
    if size != 128 || entries > MOST {
        return Err(broken(format!("it has {entries} entries of {size} bytes")));
    }
    let long = |at: usize| u64::from(word(at + 4)) << 32 | u64::from(word(at));
    let (own, other, first, last) = (long(24), long(32), long(40), long(48));
    if first > last || last >= sectors {
        return Err(broken(format!("its usable sectors are {first} to {last}, the disk has {sectors}")));
    }
    if own != lba || (lba == 1 && other <= last) || (lba > 1 && other != 1) {
        return Err(broken(format!("its header stands in sector {lba}, says {own}, and that the other is in {other}")));
    }
    Ok(())
}

/// Whether both copies of the table are good: headers and entries.
pub(crate) fn is_whole(disk: &GptDisk<Edges>, edges: &mut Edges) -> bool {
    let (Ok(primary), Ok(backup)) = (disk.primary_header(), disk.backup_header()) else { return false };
    let size = *disk.logical_block_size();
    let mut entries = |header| gpt::partition::file_read_partitions(edges, header, size).ok();
    let (first, second) = (entries(primary), entries(backup));
    first.is_some() && first == second
}

/// A new, empty GPT with its protective MBR.
pub(crate) fn create(size: u64, sector: u64, guid: Option<uuid::Uuid>) -> Result<GptDisk<Edges>, Fault> {
    let lb_size = block_size(sector)?;
    let mut edges = Edges::zeroed(size);
    let sectors = u32::try_from(size / sector - 1).unwrap_or(u32::MAX);
    gpt::mbr::ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut edges).map_err(broken)?;
    GptConfig::new().writable(true).logical_block_size(lb_size).create_from_device(edges, guid).map_err(broken)
}

/// Puts the table with these partitions into its edges: both headers and both arrays where they belong on a disk of
/// this size, and the protective MBR's size right, its boot code untouched.
pub(crate) fn finish(
    mut disk: GptDisk<Edges>,
    sector: u64,
    partitions: BTreeMap<u32, Partition>,
) -> Result<Edges, Fault> {
    disk.update_partitions(partitions).map_err(broken)?;
    let (first, last) = (disk.header().first_usable, disk.header().last_usable);
    let mut used: Vec<(u64, u64, &str)> = disk
        .partitions()
        .values()
        .filter(|p| p.is_used())
        .map(|p| (p.first_lba, p.last_lba, p.name.as_str()))
        .collect();
    used.sort_unstable();
    for (start, end, name) in &used {
        if start > end || *start < first || *end > last {
            return Err(broken(format!("partition {name:?} ({start} to {end}) lies outside of {first} to {last}")));
        }
    }
    if let Some(pair) = used.windows(2).find(|pair| pair[0].1 >= pair[1].0) {
        return Err(broken(format!("partitions {:?} and {:?} overlap", pair[0].2, pair[1].2)));
    }
    let numbered: Vec<(u32, Partition)> =
        disk.partitions().iter().filter(|(_, p)| p.is_used()).map(|(number, p)| (*number, p.clone())).collect();
    let mut edges = disk.write().map_err(broken)?;
    let tail_end = edges.size - sector;
    for header_at in [sector, tail_end] {
        put_where_numbered(&mut edges, header_at, sector, &numbered)?;
    }
    let sectors = u32::try_from(edges.size / sector - 1).unwrap_or(u32::MAX);
    // UEFI 2.10, 5.2.3: the record of type EE covers the disk, or as much as 32 bits can say. Beside others (a hybrid MBR)
    // it covers what they leave, and stays as it is.
    let records = [446, 462, 478, 494];
    if let [at] = records.into_iter().filter(|at| edges.head[at + 4] != 0).collect::<Vec<usize>>()[..]
        && edges.head[at + 4] == 0xee
    {
        edges.head[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    Ok(edges)
}

/// The `gpt` crate writes the entries one after the other; what the system calls its partitions depends on their
/// numbers, and distributions leave gaps (1, 14, 15). So the array of the header at this byte is written again.
fn put_where_numbered(
    edges: &mut Edges,
    header_at: u64,
    sector: u64,
    partitions: &[(u32, Partition)],
) -> Result<(), Fault> {
    // UEFI 2.10, table 5-5: the size of the header at 12, its checksum at 16, the array at 72, its entries at 80, the size
    // of each at 84, their checksum at 88.
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let word =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let beyond = || broken("the table reaches beyond start and end of the disk");

    edges.at = header_at;
    let mut header = edges.place().and_then(|b| b.get(..512)).ok_or_else(beyond)?.to_vec();
    let (low, high) = (word(&header, 72), word(&header, 76));
    let array_at = (u64::from(high) << 32 | u64::from(low)).checked_mul(sector).ok_or_else(beyond)?;
    let (count, size) = (word(&header, 80), word(&header, 84));
    let length = usize::try_from(u64::from(count) * u64::from(size)).unwrap_or(usize::MAX);
    if let Some((number, p)) = partitions.iter().find(|(number, _)| *number == 0 || *number > count) {
        return Err(broken(format!("partition {number} {:?} in a table of {count}", p.name)));
    }

    edges.at = array_at;
    edges.place().and_then(|b| b.get_mut(..length)).ok_or_else(beyond)?.fill(0);
    let (lb_size, first) = (block_size(sector)?, array_at / sector);
    for (number, partition) in partitions {
        partition.write_to_device(edges, u64::from(number - 1), first, lb_size, size).map_err(broken)?;
    }
    edges.at = array_at;
    let array = crc.checksum(edges.place().and_then(|b| b.get(..length)).ok_or_else(beyond)?);

    header[88..92].copy_from_slice(&array.to_le_bytes());
    header[16..20].fill(0);
    let covered = usize::try_from(word(&header, 12)).unwrap_or(usize::MAX);
    let checksum = crc.checksum(header.get(..covered).ok_or_else(beyond)?);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    edges.at = header_at;
    edges.place().and_then(|b| b.get_mut(..512)).ok_or_else(beyond)?.copy_from_slice(&header);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    /// A whole disk image of `size` with one partition over everything usable.
    fn image(size: u64, sector: u64) -> Vec<u8> {
        let disk = create(size, sector, None).expect("created");
        let header = disk.header().clone();
        let first = MIB / sector;
        let partition = Partition {
            part_type_guid: gpt::partition_types::LINUX_FS,
            part_guid: uuid::Uuid::from_u128(7),
            first_lba: first,
            last_lba: header.last_usable,
            flags: 0,
            name: "root".into(),
        };
        // As distributions number them.
        let edges = finish(disk, sector, BTreeMap::from([(15, partition)])).expect("finished");
        let mut bytes = vec![0; usize::try_from(size).expect("small")];
        bytes[..EDGE_LENGTH].copy_from_slice(&edges.head);
        let tail_at = bytes.len() - EDGE_LENGTH;
        bytes[tail_at..].copy_from_slice(&edges.tail);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever the sizes: after moving, sgdisk finds nothing wrong and the boot code is what it was.
        #[test]
        fn a_moved_table_is_a_good_table(image_mib in 4u64..20, more in 0u64..40_000, four_k in any::<bool>()) {
            let sector = if four_k { 4096 } else { 512 };
            let image_size = image_mib * MIB;
            let disk_size = image_size + more * sector;
            let mut start = image(image_size, sector);
            start[..440].fill(0x90);
            let mut edges = Edges::zeroed(disk_size);
            edges.head.copy_from_slice(&start[..EDGE_LENGTH]);
            let table = open(edges, sector).expect("opens");
            let partitions = table.partitions().clone();
            let moved = finish(table, sector, partitions).expect("moved");
            prop_assert!(moved.head[..440].iter().all(|b| *b == 0x90));

            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            file.as_file().set_len(disk_size).expect("sparse");
            std::os::unix::fs::FileExt::write_all_at(file.as_file(), &moved.head, 0).expect("written");
            std::os::unix::fs::FileExt::write_all_at(file.as_file(), &moved.tail, moved.tail_at()).expect("written");
            // sgdisk takes regular files for 512-byte disks; the 4096 case is covered on loop devices.
            if !four_k {
                let out = std::process::Command::new("sgdisk").arg("-v").arg(file.path()).output().expect("sgdisk (gdisk) runs");
                let text = String::from_utf8_lossy(&out.stdout);
                prop_assert!(out.status.success() && text.contains("No problems found"), "{}", text);
            }
            let again = open(moved, sector).expect("opens");
            prop_assert_eq!(again.partitions().keys().copied().collect::<Vec<_>>(), [15]);
            prop_assert!(again.primary_header().is_ok() && again.backup_header().is_ok());
        }
    }

    #[test]
    fn a_table_made_by_nobody_sane_is_refused() {
        for (at, word) in [(80, u32::MAX), (80, 1025), (84, 0), (84, 256), (84, 127)] {
            let start = image(16 * MIB, 512);
            let mut edges = Edges::zeroed(16 * MIB);
            edges.head.copy_from_slice(&start[..EDGE_LENGTH]);
            edges.head[512 + at..512 + at + 4].copy_from_slice(&word.to_le_bytes());
            assert_eq!(open(edges, 512).expect_err("refused").code, FaultCode::PartitionTable);
        }
        // The places of a disk's own backup are computed from the last one: it must not be the last that there can be.
        for (first, last) in [(34, u64::MAX), (34, 32_768), (40_000, 34), (u64::MAX, 0)] {
            let start = image(16 * MIB, 512);
            let mut edges = Edges::zeroed(16 * MIB);
            edges.head.copy_from_slice(&start[..EDGE_LENGTH]);
            edges.head[512 + 40..512 + 48].copy_from_slice(&u64::to_le_bytes(first));
            edges.head[512 + 48..512 + 56].copy_from_slice(&u64::to_le_bytes(last));
            let fault = open(edges, 512).expect_err("refused");
            assert!(fault.to_string().contains("usable sectors"), "{fault}");
        }
    }

    #[test]
    fn a_table_that_contradicts_itself_is_refused() {
        let disk = create(16 * MIB, 512, None).expect("created");
        let part = |first_lba, last_lba| Partition {
            part_type_guid: gpt::partition_types::LINUX_FS,
            part_guid: uuid::Uuid::new_v4(),
            first_lba,
            last_lba,
            flags: 0,
            name: "x".into(),
        };
        let overlapping = BTreeMap::from([(1, part(2048, 4096)), (2, part(4096, 8191))]);
        assert_eq!(finish(disk, 512, overlapping).expect_err("overlap").code, FaultCode::PartitionTable);
        let disk = create(16 * MIB, 512, None).expect("created");
        let outside = BTreeMap::from([(1, part(2048, 40_000))]);
        assert_eq!(finish(disk, 512, outside).expect_err("outside").code, FaultCode::PartitionTable);
    }
}

#[cfg(test)]
mod hostile;
