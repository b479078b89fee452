//! The child's side: the partition table of a medium, and one file of one partition.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

use fatfs::{FileSystem, FsOptions};
use uuid::Uuid;

use super::{FILE, Found};
use crate::blkid::confine;

/// The table of a hybrid image counts in these, whatever the sectors of the medium that it is on.
const SECTOR: u64 = 512;
/// UEFI specification 2.10, 5.3: a header of this length at the second sector, and entries of this one.
const HEADER: usize = 92;
const ENTRY: usize = 128;
const ENTRIES: usize = 128;
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Text that people write by hand.
const LARGEST: u64 = 64 * 1024;
/// Reading one file of a small file system takes far less; chains that run in circles end here.
const READ_LIMIT: u64 = 8 << 20;

/// The child's whole life: gives up every right it does not need, looks at the disk on its standard input, and writes
/// what it is as JSON to its standard output.
///
/// # Errors
/// When it cannot be confined (then nothing is read), or the disk cannot be read.
pub fn child_main(id: Uuid) -> io::Result<()> {
    use std::os::fd::AsFd as _;

    let disk = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    confine::confine()?;
    let found = examine(&disk, id)?;
    let mut answer = serde_json::to_vec(&found)?;
    answer.push(b'\n');
    io::stdout().write_all(&answer)?;
    io::stdout().flush()
}

fn examine(disk: &File, id: Uuid) -> io::Result<Found> {
    match partition(disk, id)? {
        Some((start, length)) => Ok(Found::Own { parameters: file(Part::new(disk, start, length))? }),
        None => Ok(Found::Other),
    }
}

/// Start and length of the partition with this id, in bytes. A table that is damaged is not ours.
fn partition(disk: &File, id: Uuid) -> io::Result<Option<(u64, u64)>> {
    let mut header = [0; HEADER];
    match disk.read_exact_at(&mut header, SECTOR) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let is_sound = header[..8] == *SIGNATURE && number(&header, 12, 4) == HEADER as u64 && {
        let mut blank = header;
        blank[16..20].fill(0);
        u64::from(crc32(&blank)) == number(&header, 16, 4)
    };
    let usual = number(&header, 80, 4) == ENTRIES as u64 && number(&header, 84, 4) == ENTRY as u64;
    let Some(table_at) = number(&header, 72, 8).checked_mul(SECTOR).filter(|_| is_sound && usual) else {
        return Ok(None);
    };
    let mut table = vec![0; ENTRIES * ENTRY];
    match disk.read_exact_at(&mut table, table_at) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if u64::from(crc32(&table)) != number(&header, 88, 4) {
        return Ok(None);
    }
    // Unused entries have no type, and all of them the same id.
    let used = |entry: &&[u8]| entry[..16] != [0; 16];
    let ours = table.chunks_exact(ENTRY).filter(used).find(|entry| entry[16..32] == id.to_bytes_le());
    Ok(ours.and_then(|entry| {
        let (first, last) = (number(entry, 32, 8), number(entry, 40, 8));
        let sectors = last.checked_sub(first)?.checked_add(1)?;
        Some((first.checked_mul(SECTOR)?, sectors.checked_mul(SECTOR)?))
    }))
}

fn file(part: Part<'_>) -> io::Result<Option<String>> {
    let volume = FileSystem::new(part, FsOptions::new().update_accessed_date(false))?;
    let file = match volume.root_dir().open_file(FILE) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(invalid(format!("{FILE} is larger than {LARGEST} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| invalid(format!("{FILE} is not text in UTF-8")))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Little-endian, of up to eight bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// That of IEEE 802.3. Bit by bit: it is 16 KiB, once.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// A part of a disk, which can only be read.
struct Part<'a> {
    disk: &'a File,
    start: u64,
    length: u64,
    at: u64,
    /// Bytes that may still be read.
    budget: u64,
}

impl<'a> Part<'a> {
    fn new(disk: &'a File, start: u64, length: u64) -> Self {
        Self { disk, start, length, at: 0, budget: READ_LIMIT }
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.length.saturating_sub(self.at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let place = self.start.checked_add(self.at).ok_or_else(|| invalid("the partition has no end".to_owned()))?;
        let read = self.disk.read_at(&mut buffer[..wanted], place)?;
        self.at += read as u64;
        self.budget = self
            .budget
            .checked_sub(read as u64)
            .ok_or_else(|| invalid("the file system has no end: it is damaged".to_owned()))?;
        Ok(read)
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| invalid("a place before the start".to_owned()))?;
        Ok(self.at)
    }
}

/// fatfs asks for it. Nothing is ever written.
impl Write for Part<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::PermissionDenied))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: Uuid = Uuid::from_u128(0x0102_0304_0506_4708_8910_1112_1314_1516);
    const START: usize = 64 * 1024;
    const LENGTH: usize = 1 << 20;

    /// A medium with one partition, and the file in it.
    fn medium(text: Option<&[u8]>) -> Vec<u8> {
        let mut disk = vec![0; START + LENGTH];
        if let Some(text) = text {
            let part = &mut disk[START..];
            fatfs::format_volume(io::Cursor::new(&mut *part), fatfs::FormatVolumeOptions::new()).expect("formatted");
            let volume = FileSystem::new(io::Cursor::new(part), FsOptions::new()).expect("opened");
            volume.root_dir().create_file(FILE).expect("created").write_all(text).expect("written");
            volume.unmount().expect("closed");
        }
        let mut table = vec![0; ENTRIES * ENTRY];
        table[ENTRY..ENTRY + 16].fill(1);
        table[ENTRY + 16..ENTRY + 32].copy_from_slice(&ID.to_bytes_le());
        table[ENTRY + 32..ENTRY + 40].copy_from_slice(&(START as u64 / SECTOR).to_le_bytes());
        table[ENTRY + 40..ENTRY + 48].copy_from_slice(&((START + LENGTH) as u64 / SECTOR - 1).to_le_bytes());
        disk[1024..1024 + table.len()].copy_from_slice(&table);
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(SIGNATURE);
        for (at, value) in [(12, 92u32), (72, 2), (80, 128), (84, 128), (88, crc32(&table))] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let sum = crc32(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        disk[512..512 + HEADER].copy_from_slice(&header);
        disk
    }

    fn examined(bytes: &[u8], id: Uuid) -> io::Result<Found> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        examine(&file, id)
    }

    #[test]
    fn the_one_with_the_id_and_no_other() {
        let disk = medium(Some(b"ip=dhcp\r\n"));
        let own = Found::Own { parameters: Some("ip=dhcp\r\n".to_owned()) };
        assert_eq!(examined(&disk, ID).expect("read"), own);
        assert_eq!(examined(&disk, Uuid::nil()).expect("read"), Found::Other);
        assert_eq!(examined(b"", ID).expect("read"), Found::Other);
        assert_eq!(examined(&disk[..2000], ID).expect("read"), Found::Other);
        let mut damaged = disk;
        damaged[1024 + 300] ^= 1;
        assert_eq!(examined(&damaged, ID).expect("read"), Found::Other);
    }

    #[test]
    fn what_is_no_parameter_file_is_said() {
        assert!(examined(&medium(None), ID).is_err(), "no file system");
        assert!(examined(&medium(Some(b"\xff\xfe")), ID).is_err(), "no text");
        assert!(examined(&medium(Some(&[b' '; 65 * 1024])), ID).is_err(), "too large");
        let mut renamed = medium(Some(b"x"));
        let at = renamed.windows(4).position(|w| w == b"SPEE").expect("its short name");
        renamed[at..at + 8].copy_from_slice(b"OTHER~1 ");
        // Its long name no longer belongs to its short one.
        assert_eq!(examined(&renamed, ID).expect("read"), Found::Own { parameters: None });
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        /// Whatever the file system is, reading it ends. A panic would end the child, and is a finding all the same.
        #[test]
        fn any_file_system_is_read_or_refused(flips in prop::collection::vec((0..6000usize, any::<u8>()), 1..12)) {
            let mut disk = medium(Some(b"ip=dhcp"));
            for (at, byte) in flips {
                disk[START + at] ^= byte;
            }
            // fatfs asserts in places; in the child that is an answer too.
            let _ = std::panic::catch_unwind(|| examined(&disk, ID));
        }
    }
}
