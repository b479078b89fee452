//! Everything on a disk by which anybody would know it again: what libblkid finds, and what it does not look for or stops
//! looking for once it has found something else.
//!
//! Runs in the confined child. Numbers from the disk only ever choose where to read next: how often, how much and how deep
//! is bounded here, and nothing outside of the disk is told.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;

use blkid::BlkidProbe;
use serde::{Deserialize, Serialize};

use super::lvm;
use super::probe::{self, partitions, probe_range};
use super::{Magic, Signature};

/// A sector that a BIOS takes for its own.
pub(super) const BOOT_SECTOR: &str = "boot sector";
/// A link in the chain of logical partitions.
pub(super) const BOOT_RECORD: &str = "extended boot record";

/// A part of the disk that somebody would look at as a whole: the disk, a partition, the inside of an array's member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Range {
    /// Number of the partition it is in.
    pub partition: Option<u32>,
    /// In how many others it lies: 0 is the disk.
    pub depth: u32,
    /// In bytes, from the start of the disk.
    pub start: u64,
    pub length: u64,
}

/// What a disk holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Survey {
    pub signatures: Vec<Signature>,
    /// The disk itself first.
    pub ranges: Vec<Range>,
    /// By what its members know each other: an array's UUID, the volumes of a group. Two disks with one of these in
    /// common belong together.
    pub ties: Vec<String>,
}

/// Partitions on an array in a partition: nothing real goes deeper.
const DEEPEST: u32 = 3;
const MOST_RANGES: usize = 512;
const MOST_SIGNATURES: usize = 1024;
const MOST_TIES: usize = 1024;
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A disk that is about to be surveyed in this process. Made before every right but reading it is given up.
pub(super) struct Prepared<'a> {
    disk: &'a File,
    probe: BlkidProbe,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(disk: &'a File) -> io::Result<Self> {
        Ok(Self { disk, probe: probe::whole_disk(disk)? })
    }

    /// # Errors
    /// When the disk cannot be read.
    pub(super) fn survey(mut self) -> io::Result<Survey> {
        let mut disk = self.disk;
        let size = disk.seek(SeekFrom::End(0))?;
        let sector = u64::from(self.probe.get_sector_size()).max(512);
        let found = probe::probe_all(&mut self.probe, 0, None)?;
        let mut walk = Walk { disk, size, sector, survey: Survey::default() };
        walk.look(Range { length: size, ..Range::default() }, found)?;
        Ok(walk.survey)
    }
}

struct Walk<'a> {
    disk: &'a File,
    size: u64,
    sector: u64,
    survey: Survey,
}

impl Walk<'_> {
    /// A range in which libblkid has found this.
    fn look(&mut self, range: Range, found: Vec<Signature>) -> io::Result<()> {
        self.survey.ranges.push(range);
        let mut inside = Vec::new();
        for mut signature in found {
            signature.depth = range.depth;
            self.read_more(range, &mut signature, &mut inside);
            self.add(signature);
        }
        self.traces(range);
        if range.depth == DEEPEST {
            return Ok(());
        }
        let (start, length) = (signed(range.start)?, signed(range.length)?);
        for (number, start, size) in partitions(self.disk, start, length).unwrap_or_default() {
            inside.push(Range { partition: range.partition.or(Some(number)), start, length: size, ..range });
        }
        for part in inside.into_iter().filter_map(|part| within(range, part)) {
            let known = |r: &Range| (r.start, r.length) == (part.start, part.length);
            if self.survey.ranges.len() >= MOST_RANGES || self.survey.ranges.iter().any(known) {
                continue;
            }
            let (start, length) = (signed(part.start)?, signed(part.length)?);
            // One partition that cannot be read (damaged, too small for anything) does not hide the others.
            let found = probe_range(self.disk, start, length, part.partition).unwrap_or_default();
            self.look(Range { depth: range.depth + 1, ..part }, found)?;
        }
        Ok(())
    }

    /// Whom this one belongs to, and what lies inside of it.
    fn read_more(&mut self, range: Range, signature: &mut Signature, inside: &mut Vec<Range>) {
        match signature.kind.as_str() {
            "linux_raid_member" => {
                self.tie("md", &signature.uuid);
                inside.extend(self.array_data(range));
            }
            "btrfs" | "zfs_member" | "ddf_raid_member" => self.tie(&signature.kind, &signature.uuid),
            "isw_raid_member" => {
                // struct imsm_super: the family's number after signature, checksum and size.
                let at = signature.magics.first().and_then(|magic| magic.offset.checked_sub(range.start));
                if let Some(family) = at.and_then(|at| self.read(range, at + 40, 4)) {
                    self.tie("imsm", &hex(&family));
                }
            }
            "bcache" => {
                // struct cache_sb: the set's UUID after checksum, offset, version, magic and its own UUID.
                if let Some(set) = self.read(range, 4096 + 56, 16).filter(|set| set.iter().any(|byte| *byte != 0)) {
                    self.tie("bcache", &hex(&set));
                }
                // Where the data of a cached disk begins, unless it was made otherwise.
                inside.push(Range { start: range.start + 8 * KIB, length: range.length - 8 * KIB, ..range });
            }
            "LVM2_member" => {
                let volume = lvm::read(|offset, length| self.read(range, offset, length));
                for area in &volume.areas {
                    let area = Range { start: range.start + area.offset, length: area.length, ..range };
                    if let Some(area) = within(range, area) {
                        signature.magics.push(Magic { offset: area.start, length: area.length });
                    }
                }
                for id in volume.ids {
                    self.tie("lvm", &id);
                }
            }
            _ => {}
        }
    }

    /// What is not told by libblkid, or not while something else is there.
    fn traces(&mut self, range: Range) {
        let is = |offset: u64, magic: &[u8]| self.read(range, offset, magic.len()).is_some_and(|found| found == magic);
        let end = |back: u64| range.length.checked_sub(back);
        let mut found: Vec<(&str, u64, u64)> = Vec::new();

        // What a BIOS boots, and mdadm takes for a table.
        if is(510, &[0x55, 0xaa]) {
            found.push((BOOT_SECTOR, 510, 2));
        }
        // Both tables for both sizes of sectors: the disk may have been formatted to another.
        let headers = [Some(512), Some(4096), end(512), end(4096)];
        found.extend(headers.into_iter().flatten().filter(|at| is(*at, b"EFI PART")).map(|at| ("gpt", at, 8)));
        // md's four places (linux/raid/md_p.h); 0.90 is in the byte order of the machine that made it.
        let md =
            [Some(0), Some(4 * KIB), end(8 * KIB).map(|at| at & !4095), end(64 * KIB).map(|at| at & !(64 * KIB - 1))];
        let magics = [0xa92b_4efc_u32.to_le_bytes(), 0xa92b_4efc_u32.to_be_bytes()];
        let is_md = |at: &u64| magics.iter().any(|magic| is(*at, magic));
        found.extend(md.into_iter().flatten().filter(is_md).map(|at| ("linux_raid_member", at, 4)));
        // btrfs' mirrors (fs/btrfs: BTRFS_SUPER_MIRROR_SHIFT), the third beyond what most disks have.
        let mirrors = [64 * KIB, 64 * MIB, 256 * KIB * MIB];
        found.extend(mirrors.iter().map(|at| at + 64).filter(|at| is(*at, b"_BHRfS_M")).map(|at| ("btrfs", at, 8)));
        // Intel's metadata, for which libblkid looks on whole disks only: two sectors before the end.
        let intel = [end(1024), end(2 * self.sector)].into_iter().flatten();
        found.extend(intel.filter(|at| is(*at, b"Intel Raid ISM Cfg Sig. ")).map(|at| ("isw_raid_member", at, 32)));
        // The second header of LUKS2 is at one of these, by the size of the first.
        let second = (0..9).map(|n| (16 * KIB) << n).filter(|at| is(*at, b"SKUL\xba\xbe"));
        found.extend(second.map(|at| ("crypto_LUKS", at, 6)));
        // ZFS: four labels of 256 KiB, whose second half is a ring of uberblocks.
        let last = range.length & !(256 * KIB - 1);
        let labels = [Some(0), Some(256 * KIB), last.checked_sub(512 * KIB), last.checked_sub(256 * KIB)];
        let is_label = |at: &u64| self.read(range, at + 128 * KIB, 128 << 10).is_some_and(|ring| has_uberblock(&ring));
        found.extend(labels.into_iter().flatten().filter(is_label).map(|at| ("zfs_member", at, 256 * KIB)));
        for at in self.chained(range) {
            found.push((BOOT_RECORD, at + 510, 2));
        }
        for (kind, at, length) in found {
            let magics = vec![Magic { offset: range.start + at, length }];
            let usage = if kind == "gpt" { probe::TABLE } else { "other" };
            let (kind, usage) = (kind.to_owned(), usage.to_owned());
            let Range { partition, depth, .. } = range;
            self.add(Signature { partition, depth, kind, usage, magics, ..Signature::default() });
        }
    }

    /// Where the records of logical partitions lie: each names the next one, however often that was already.
    fn chained(&self, range: Range) -> Vec<u64> {
        const MOST: usize = 128;
        let mut found = Vec::new();
        for extended in self.table(range, 0).into_iter().filter(|(kind, _)| is_extended(*kind)).map(|(_, at)| at) {
            let mut at = extended;
            while found.len() < MOST && at > 0 && !found.contains(&at) && at < range.length {
                let entries = self.table(range, at);
                if entries.is_empty() && self.read(range, at + 510, 2).is_none_or(|magic| magic != [0x55, 0xaa]) {
                    break;
                }
                found.push(at);
                // Counted from the first of them.
                let next = entries.into_iter().find(|(kind, _)| is_extended(*kind));
                let Some(next) = next.and_then(|(_, offset)| extended.checked_add(offset)) else { break };
                at = next;
            }
        }
        found
    }

    /// Kind and start in bytes of the entries in the record at `at`, if there is one.
    fn table(&self, range: Range, at: u64) -> Vec<(u8, u64)> {
        let Some(record) = self.read(range, at, 512).filter(|record| record.ends_with(&[0x55, 0xaa])) else {
            return Vec::new();
        };
        let entry = |entry: &[u8]| {
            let start = u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]);
            (entry[4], u64::from(start) * self.sector)
        };
        record[446..510].chunks_exact(16).map(entry).filter(|(kind, start)| *kind != 0 && *start != 0).collect()
    }

    /// Where an array keeps its data in this member: its own table and file systems come back with the next array
    /// that is made alike. Version 1 says where (`struct mdp_superblock_1`); with 0.90 and 1.0 it is the start.
    fn array_data(&self, range: Range) -> Option<Range> {
        [0, 4 * KIB].into_iter().find_map(|at| {
            let superblock = self.read(range, at, 144)?;
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| superblock[at + n]));
            let long = |at: usize| u64::from(word(at + 4)) << 32 | u64::from(word(at));
            if (word(0), word(4)) != (0xa92b_4efc, 1) {
                return None;
            }
            let offset = long(128).checked_mul(512)?;
            let length = long(136).checked_mul(512)?.min(range.length.checked_sub(offset)?);
            Some(Range { start: range.start.checked_add(offset)?, length, ..range })
        })
    }

    fn add(&mut self, signature: Signature) {
        let all = &mut self.survey.signatures;
        // The same again, found another way or in another place.
        let is_known = |known: &&mut Signature| {
            (known.partition, known.depth, &known.kind) == (signature.partition, signature.depth, &signature.kind)
                && (signature.uuid.is_empty() || known.uuid == signature.uuid)
        };
        if let Some(known) = all.iter_mut().find(is_known) {
            for magic in signature.magics {
                if !known.magics.iter().any(|m| m.offset == magic.offset && m.length >= magic.length) {
                    known.magics.push(magic);
                }
            }
        } else if all.len() < MOST_SIGNATURES {
            all.push(signature);
        }
    }

    fn tie(&mut self, kind: &str, id: &str) {
        let tie = format!("{kind} {id}");
        if !id.is_empty() && self.survey.ties.len() < MOST_TIES && !self.survey.ties.contains(&tie) {
            self.survey.ties.push(tie);
        }
    }

    /// Exactly so many bytes, all inside of the range and of the disk.
    fn read(&self, range: Range, offset: u64, length: usize) -> Option<Vec<u8>> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= range.length)?;
        range.start.checked_add(end).filter(|end| *end <= self.size)?;
        let mut bytes = vec![0; length];
        self.disk.read_exact_at(&mut bytes, range.start + offset).ok()?;
        Some(bytes)
    }
}

/// The part of `inner` that is in `outer`, if it is more than nothing.
fn within(outer: Range, inner: Range) -> Option<Range> {
    let end = inner.start.saturating_add(inner.length).min(outer.start.saturating_add(outer.length));
    let start = inner.start.max(outer.start);
    (start < end).then_some(Range { start, length: end.saturating_sub(start), ..inner })
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0f | 0x85)
}

/// An uberblock is at least 1 KiB long and begins with `0x00bab10c` in the byte order of whoever wrote it.
fn has_uberblock(ring: &[u8]) -> bool {
    const MAGIC: u64 = 0x00ba_b10c;
    ring.chunks(1024).any(|slot| slot.starts_with(&MAGIC.to_le_bytes()) || slot.starts_with(&MAGIC.to_be_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    speediso_model::plan::hex(bytes)
}

fn signed(number: u64) -> io::Result<i64> {
    i64::try_from(number).map_err(io::Error::other)
}
