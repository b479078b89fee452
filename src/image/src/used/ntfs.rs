//! NTFS: one bit for each cluster in `$Bitmap`, the seventh record of the master file table.
//!
//! What Windows leaves when it hibernates or starts "fast" is a volume that is still mounted: its log says so.

use std::ops::Range;

use super::bytes::{byte, le16, le32, le64, zero_runs};
use super::{Doubt, FreeMap, ReadAt as _, Window};

const PIECE: u64 = 1 << 20;
const MFT: u64 = 0;
const LOG: u64 = 2;
const VOLUME: u64 = 3;
const BITMAP: u64 = 6;

const ATTRIBUTE_LIST: u32 = 0x20;
const VOLUME_INFORMATION: u32 = 0x70;
const DATA: u32 = 0x80;

pub(super) fn is_one(start: &[u8]) -> bool {
    start.get(3..11) == Some(b"NTFS    ")
}

struct Volume<'a> {
    window: &'a Window<'a>,
    sector: u64,
    cluster: u64,
    clusters: u64,
    record: u64,
    /// Of the master file table, in bytes.
    mft: Vec<Range<u64>>,
}

/// The unnamed data of a file, as runs of bytes of the partition.
struct Data {
    runs: Vec<Range<u64>>,
    /// What lies behind reads as zeroes, whatever the disk has there.
    valid: u64,
}

impl<'a> Volume<'a> {
    fn open(window: &'a Window<'a>) -> Result<Self, Doubt> {
        let boot = window.read(0, 512)?;
        let sector = u64::from(le16(&boot, 11));
        // Above 128 it is the power of two, negated.
        let per_cluster = match byte(&boot, 13) {
            n if n > 0x80 => 1u64.checked_shl(256 - u32::from(n)).unwrap_or(0),
            n => u64::from(n),
        };
        let cluster = sector * per_cluster;
        let record = match byte(&boot, 64) {
            n if n > 0x80 => 1u64.checked_shl(256 - u32::from(n)).unwrap_or(0),
            n => u64::from(n) * cluster,
        };
        let total = le64(&boot, 40).checked_mul(sector);
        let good = (512..=4096).contains(&sector)
            && sector.is_power_of_two()
            && (512..=2 << 20).contains(&cluster)
            && cluster.is_power_of_two()
            && (512..=65536).contains(&record)
            && record.is_power_of_two();
        let (true, Some(total)) = (good, total.filter(|total| *total <= window.size())) else {
            return Err(Doubt::Inconsistent("the sizes in its boot sector are impossible"));
        };
        let clusters = total / cluster;
        let at = le64(&boot, 48).checked_mul(cluster).filter(|at| *at < total);
        let Some(at) = at else {
            return Err(Doubt::Inconsistent("its file table lies outside of it"));
        };
        // Until its first record has said where all of it is, it is where that record is.
        let first = at..at + record;
        let mut volume = Self { window, sector, cluster, clusters, record, mft: vec![first] };
        volume.mft = volume.data(MFT)?.runs;
        Ok(volume)
    }

    /// A record of the file table with its sectors' ends put right.
    fn record(&self, number: u64) -> Result<Vec<u8>, Doubt> {
        let bad = |why| Err(Doubt::Inconsistent(why));
        let mut left = number * self.record;
        let mut place = None;
        for run in &self.mft {
            let length = run.end - run.start;
            if left < length {
                place = (left + self.record <= length).then_some(run.start + left);
                break;
            }
            left -= length;
        }
        let Some(place) = place else { return bad("its file table is too short") };
        let mut record = self.window.read(place, usize::try_from(self.record).unwrap_or_default())?;
        if !record.starts_with(b"FILE") {
            return bad("a record of its file table is none");
        }
        // The last two bytes of each 512 are kept aside, and a number that must be the same is in their place.
        let (at, count) = (usize::from(le16(&record, 4)), usize::from(le16(&record, 6)));
        if count != record.len() / 512 + 1 || at + 2 * count > record.len() {
            return bad("a record of its file table is damaged");
        }
        let kept = record[at..at + 2 * count].to_vec();
        for n in 1..count {
            let end = n * 512 - 2;
            if record[end..end + 2] != kept[..2] {
                return bad("a record of its file table was not written whole");
            }
            record[end..end + 2].copy_from_slice(&kept[2 * n..2 * n + 2]);
        }
        if le16(&record, 0x16) & 1 == 0 {
            return bad("a record of its file table is not in use");
        }
        Ok(record)
    }

    /// The one attribute of this kind without a name.
    fn attribute<'r>(&self, record: &'r [u8], kind: u32) -> Result<&'r [u8], Doubt> {
        let mut at = usize::from(le16(record, 0x14));
        let mut found = None;
        while let Some(attribute) = record.get(at..).filter(|rest| rest.len() >= 24) {
            let (this, length) = (le32(attribute, 0), le32(attribute, 4) as usize);
            if this == u32::MAX {
                break;
            }
            let Some(attribute) = attribute.get(..length).filter(|_| length >= 24) else {
                return Err(Doubt::Inconsistent("an attribute has an impossible length"));
            };
            if this == ATTRIBUTE_LIST {
                return Err(Doubt::Feature("a system file in several records".into()));
            }
            if this == kind && byte(attribute, 9) == 0 && found.replace(attribute).is_some() {
                return Err(Doubt::Inconsistent("an attribute is there twice"));
            }
            at += length;
        }
        found.ok_or(Doubt::Inconsistent("a system file lacks an attribute"))
    }

    fn data(&self, number: u64) -> Result<Data, Doubt> {
        let record = self.record(number)?;
        let attribute = self.attribute(&record, DATA)?;
        if byte(attribute, 8) != 1 || attribute.len() < 64 || le16(attribute, 12) != 0 || le64(attribute, 16) != 0 {
            return Err(Doubt::Feature("a system file that is resident, compressed, encrypted or sparse".into()));
        }
        let runs = self.runs(attribute.get(usize::from(le16(attribute, 32))..).unwrap_or_default())?;
        let (size, valid) = (le64(attribute, 48), le64(attribute, 56));
        let there: u64 = runs.iter().map(|run| run.end - run.start).sum();
        if size > there || valid > size {
            return Err(Doubt::Inconsistent("a system file is shorter than it says"));
        }
        Ok(Data { runs, valid })
    }

    /// Lengths and distances in as few bytes as each takes; a zero ends them.
    fn runs(&self, mut pairs: &[u8]) -> Result<Vec<Range<u64>>, Doubt> {
        let bad = Doubt::Inconsistent("the runs of a system file are impossible");
        let (mut runs, mut cluster, mut total) = (Vec::new(), 0i64, 0u64);
        while let Some((head, rest)) = pairs.split_first().filter(|(head, _)| **head != 0) {
            let (lengths, distances) = (usize::from(head & 0xf), usize::from(head >> 4));
            // A run without a distance is a hole, which no system file has.
            if lengths == 0 || lengths > 8 || distances == 0 || distances > 8 || rest.len() < lengths + distances {
                return Err(bad);
            }
            let length = signed(&rest[..lengths]);
            let moved = cluster.checked_add(signed(&rest[lengths..lengths + distances]));
            let (Some(moved), Ok(length)) = (moved, u64::try_from(length)) else { return Err(bad) };
            let Ok(start) = u64::try_from(moved) else { return Err(bad) };
            let end = start.checked_add(length).filter(|end| *end <= self.clusters && length > 0);
            let Some(end) = end else { return Err(bad) };
            total = total.saturating_add(length);
            if total > self.clusters {
                return Err(bad);
            }
            runs.push(start * self.cluster..end * self.cluster);
            cluster = moved;
            pairs = &rest[lengths + distances..];
        }
        Ok(runs)
    }

    fn check_clean(&self) -> Result<(), Doubt> {
        let record = self.record(VOLUME)?;
        let information = self.attribute(&record, VOLUME_INFORMATION)?;
        let value = information.get(usize::from(le16(information, 20))..).unwrap_or_default();
        if byte(information, 8) != 0 || value.len() < 12 {
            return Err(Doubt::Inconsistent("its volume's information is damaged"));
        }
        // Changed by chkdsk, or mounted by an NT 4 once: neither matters.
        if le16(value, 10) & !(0x8000 | 0x8) != 0 {
            return Err(Doubt::Unclean("it is marked as dirty, or to be repaired, resized or upgraded"));
        }
        self.check_log()
    }

    /// Two restart pages at the start of `$LogFile`. A log that is all ones was never used, or was reset.
    fn check_log(&self) -> Result<(), Doubt> {
        const NOBODY: u16 = 0xffff;
        const CLEAN: u16 = 2;
        let log = self.data(LOG)?;
        let Some(run) = log.runs.first().filter(|run| run.end - run.start >= 4096) else {
            return Err(Doubt::Inconsistent("its log is too short"));
        };
        let mut page_size = 4096;
        for page in 0..2 {
            let at = run.start + page * page_size;
            if at + 4096 > run.end {
                return Err(Doubt::Unclean("its log lies in pieces"));
            }
            let restart = self.window.read(at, 4096)?;
            if restart.iter().all(|byte| *byte == 0xff) {
                continue;
            }
            if !restart.starts_with(b"RSTR") {
                return Err(Doubt::Unclean("its log does not say how it ended"));
            }
            page_size = u64::from(le32(&restart, 16)).clamp(512, 65536);
            let area = usize::from(le16(&restart, 24));
            // Where nothing was kept aside for the ends of the sectors.
            if area + 16 > 510 || (le16(&restart, area + 12) != NOBODY && le16(&restart, area + 14) & CLEAN == 0) {
                return Err(Doubt::Unclean("Windows has it mounted, or is hibernating, or did not shut down"));
            }
        }
        Ok(())
    }
}

/// Little-endian, of 1 to 8 bytes.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut word = [if negative { 0xff } else { 0 }; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(word)
}

pub(super) fn free(window: &Window<'_>) -> Result<FreeMap, Doubt> {
    let volume = Volume::open(window)?;
    volume.check_clean()?;
    let bitmap = volume.data(BITMAP)?;
    if bitmap.valid < volume.clusters.div_ceil(8) {
        return Err(Doubt::Inconsistent("its bitmap is too short"));
    }
    let mut free = FreeMap::default();
    let (mut first, mut in_order) = (0, true);
    for run in &bitmap.runs {
        let mut at = run.start;
        while at < run.end && first < volume.clusters {
            let length = PIECE.min(run.end - at);
            let bits = window.read(at, usize::try_from(length).unwrap_or_default())?;
            let here = (length * 8).min(volume.clusters - first);
            zero_runs(&bits, here, |from, to| {
                in_order &= free.push((first + from) * volume.cluster..(first + to) * volume.cluster);
            });
            (at, first) = (at + length, first + here);
        }
    }
    let boot = 0..volume.sector;
    let log = volume.data(LOG)?;
    let own = volume.mft.iter().chain(&bitmap.runs).chain(&log.runs).chain([&boot]);
    if !in_order || own.into_iter().any(|run| free.touches(run)) {
        return Err(Doubt::Inconsistent("its own files are marked as free"));
    }
    Ok(free)
}
