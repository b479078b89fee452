//! A small FAT file system with files in it, as bytes: no tool, no mount, no clock.
//!
//! By Microsoft's "FAT: General Overview of On-Disk Format"; FAT12 or FAT16 by the number of clusters, as everybody must
//! tell them apart. Every file lies in one piece.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

const SECTOR: usize = 512;
const ENTRY: usize = 32;
const ROOT_ENTRIES: usize = 512;
const FATS: usize = 2;
/// Fewer clusters are FAT12, by definition; this many and more are FAT16.
const FIRST_FAT16: usize = 4085;
const FIRST_FAT32: usize = 65525;
/// The first day of this calendar: the date is not the build's concern.
const DAY: u16 = 0x0021;
const DIRECTORY: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const VOLUME_LABEL: u8 = 0x08;
const LONG_NAME: u8 = 0x0f;
const LETTERS_PER_ENTRY: usize = 13;

/// What the file system is to be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Volume<'a> {
    /// At most 11 capital letters; what computers show it as.
    pub(super) label: &'a str,
    pub(super) serial: u32,
    /// Of the whole, in bytes.
    pub(super) size: usize,
}

enum Node<'a> {
    File(&'a [u8]),
    Directory(Directory<'a>),
}

type Directory<'a> = BTreeMap<&'a str, Node<'a>>;

/// The file system with these files, each at its path (`EFI/BOOT/BOOTX64.EFI`).
pub(super) fn with_files(volume: &Volume<'_>, files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut root = Directory::new();
    for (path, bytes) in files {
        add(&mut root, path, bytes).with_context(|| format!("placing {path}"))?;
    }
    let geometry = Geometry::of(volume.size)?;
    let mut disk = Disk { bytes: vec![0; volume.size], chain: vec![0xfff8, 0xffff], geometry };
    let mut entries = vec![entry(&padded_label(volume.label)?, VOLUME_LABEL, 0, 0)];
    entries.extend(disk.place(&root, 0)?);
    ensure!(entries.len() <= ROOT_ENTRIES, "too many files at the top");
    disk.write(geometry.root_at(), &entries.concat());
    disk.finish(volume)?;
    Ok(disk.bytes)
}

fn add<'a>(directory: &mut Directory<'a>, path: &'a str, bytes: &'a [u8]) -> Result<()> {
    match path.split_once('/') {
        None => ensure!(directory.insert(path, Node::File(bytes)).is_none(), "two files of one name"),
        Some((first, rest)) => match directory.entry(first).or_insert_with(|| Node::Directory(Directory::new())) {
            Node::Directory(inside) => add(inside, rest, bytes)?,
            Node::File(_) => bail!("{first} is a file"),
        },
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Geometry {
    sectors: usize,
    per_cluster: usize,
    clusters: usize,
    fat_sectors: usize,
    is_fat16: bool,
}

impl Geometry {
    fn of(size: usize) -> Result<Self> {
        ensure!(size.is_multiple_of(SECTOR), "{size} bytes are no whole sectors");
        let sectors = size / SECTOR;
        // Larger clusters in larger volumes: firmware reads cluster by cluster.
        let per_cluster = if sectors >= 32 * 1024 { 4 } else { 1 };
        let root_sectors = ROOT_ENTRIES * ENTRY / SECTOR;
        let mut fat_sectors = 1;
        loop {
            let rest =
                sectors.checked_sub(1 + FATS * fat_sectors + root_sectors).context("too small for a file system")?;
            let clusters = rest / per_cluster;
            let is_fat16 = clusters >= FIRST_FAT16;
            let entries = clusters + 2;
            let bytes = if is_fat16 { entries * 2 } else { (entries * 3).div_ceil(2) };
            if bytes <= fat_sectors * SECTOR {
                ensure!((1..FIRST_FAT32).contains(&clusters), "{size} bytes are too many or too few for FAT16");
                return Ok(Self { sectors, per_cluster, clusters, fat_sectors, is_fat16 });
            }
            fat_sectors += 1;
        }
    }

    fn root_at(&self) -> usize {
        (1 + FATS * self.fat_sectors) * SECTOR
    }

    fn cluster_at(&self, cluster: u16) -> usize {
        self.root_at() + ROOT_ENTRIES * ENTRY + (usize::from(cluster) - 2) * self.cluster_bytes()
    }

    fn cluster_bytes(&self) -> usize {
        self.per_cluster * SECTOR
    }
}

struct Disk {
    bytes: Vec<u8>,
    /// The table: for each cluster the next one.
    chain: Vec<u16>,
    geometry: Geometry,
}

impl Disk {
    /// Puts what is in a directory on the disk; gives the entries of it. `parent` is the directory's own cluster.
    fn place(&mut self, directory: &Directory<'_>, parent: u16) -> Result<Vec<[u8; ENTRY]>> {
        let mut entries = Vec::new();
        for (number, (name, node)) in directory.iter().enumerate() {
            let short = short_name(name, number + 1)?;
            entries.extend(long_name(name, &short)?);
            match node {
                Node::File(bytes) => {
                    let first = self.allocate(bytes.len())?;
                    if first != 0 {
                        self.write(self.geometry.cluster_at(first), bytes);
                    }
                    let size = u32::try_from(bytes.len()).context("a file of 4 GiB")?;
                    entries.push(entry(&short, ARCHIVE, first, size));
                }
                Node::Directory(inside) => {
                    // Its own place first, as its entries name it; no directory here has a hundred files.
                    let first = self.allocate(self.geometry.cluster_bytes())?;
                    let mut listing =
                        vec![entry(b".          ", DIRECTORY, first, 0), entry(b"..         ", DIRECTORY, parent, 0)];
                    listing.extend(self.place(inside, first)?);
                    ensure!(listing.len() * ENTRY <= self.geometry.cluster_bytes(), "too many files in {name}");
                    self.write(self.geometry.cluster_at(first), &listing.concat());
                    entries.push(entry(&short, DIRECTORY, first, 0));
                }
            }
        }
        Ok(entries)
    }

    /// The first of as many clusters as this takes, in a row; 0 for nothing.
    fn allocate(&mut self, length: usize) -> Result<u16> {
        let count = length.div_ceil(self.geometry.cluster_bytes());
        if count == 0 {
            return Ok(0);
        }
        let first = self.chain.len();
        let end = first + count;
        ensure!(end <= self.geometry.clusters + 2, "the files do not fit");
        for cluster in first + 1..end {
            self.chain.push(u16::try_from(cluster)?);
        }
        self.chain.push(0xffff);
        Ok(u16::try_from(first)?)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Boot sector and tables.
    fn finish(&mut self, volume: &Volume<'_>) -> Result<()> {
        let g = self.geometry;
        let mut table = Vec::new();
        if g.is_fat16 {
            table.extend(self.chain.iter().flat_map(|next| next.to_le_bytes()));
        } else {
            for pair in self.chain.chunks(2) {
                // Two numbers of 12 bits in three bytes.
                let (a, b) = (pair[0] & 0xfff, pair.get(1).copied().unwrap_or(0) & 0xfff);
                let bits = u32::from(a) | u32::from(b) << 12;
                table.extend(&bits.to_le_bytes()[..3]);
            }
        }
        for n in 0..FATS {
            self.write((1 + n * g.fat_sectors) * SECTOR, &table);
        }
        let (small, large) = match u16::try_from(g.sectors) {
            Ok(small) => (small, 0),
            Err(_) => (0, u32::try_from(g.sectors).context("a volume of 2 TiB")?),
        };
        let mut boot = Vec::with_capacity(SECTOR);
        boot.extend(b"\xeb\x3c\x90SPEEDISO");
        boot.extend(512u16.to_le_bytes());
        boot.push(u8::try_from(g.per_cluster)?);
        boot.extend(1u16.to_le_bytes());
        boot.push(u8::try_from(FATS)?);
        boot.extend(u16::try_from(ROOT_ENTRIES)?.to_le_bytes());
        boot.extend(small.to_le_bytes());
        boot.push(0xf8);
        boot.extend(u16::try_from(g.fat_sectors)?.to_le_bytes());
        // Sectors of a track and heads: what disks without any say.
        boot.extend([32, 0, 64, 0]);
        boot.extend(0u32.to_le_bytes());
        boot.extend(large.to_le_bytes());
        boot.extend([0x80, 0, 0x29]);
        boot.extend(volume.serial.to_le_bytes());
        boot.extend(padded_label(volume.label)?);
        boot.extend(if g.is_fat16 { b"FAT16   " } else { b"FAT12   " });
        // Who boots this partition is sent on: int 18h.
        boot.extend([0xcd, 0x18, 0xeb, 0xfe]);
        boot.resize(510, 0);
        boot.extend([0x55, 0xaa]);
        self.write(0, &boot);
        Ok(())
    }
}

fn padded_label(label: &str) -> Result<[u8; 11]> {
    let fits = label.len() <= 11 && label.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    ensure!(fits, "{label:?} is no label");
    let mut padded = [b' '; 11];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    Ok(padded)
}

fn entry(name: &[u8; 11], attributes: u8, first: u16, size: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..11].copy_from_slice(name);
    entry[11] = attributes;
    // Made, read last, written last.
    for at in [16, 18, 24] {
        entry[at..at + 2].copy_from_slice(&DAY.to_le_bytes());
    }
    entry[26..28].copy_from_slice(&first.to_le_bytes());
    entry[28..].copy_from_slice(&size.to_le_bytes());
    entry
}

/// Eight letters and three, as they are or with a number for the rest.
fn short_name(name: &str, number: usize) -> Result<[u8; 11]> {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    ensure!(!base.is_empty() && plain(base) && plain(extension), "{name:?} is no name for a file here");
    let mut short = [b' '; 11];
    let mut put = |at: usize, text: &str| {
        for (n, byte) in text.bytes().enumerate() {
            short[at + n] = byte.to_ascii_uppercase();
        }
    };
    if base.len() <= 8 && extension.len() <= 3 {
        put(0, base);
        put(8, extension);
    } else {
        ensure!(number < 10, "too many long names in one directory");
        put(0, &format!("{}~{number}", &base[..base.len().min(6)]));
        put(8, &extension[..extension.len().min(3)]);
    }
    Ok(short)
}

fn is_short(name: &str) -> bool {
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    base.len() <= 8 && extension.len() <= 3 && !name.bytes().any(|b| b.is_ascii_lowercase())
}

/// The entries before that of a file whose name is not a short one.
fn long_name(name: &str, short: &[u8; 11]) -> Result<Vec<[u8; ENTRY]>> {
    if is_short(name) {
        return Ok(Vec::new());
    }
    let sum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut letters: Vec<u16> = name.encode_utf16().collect();
    // The end is marked unless it fills the last entry.
    if !letters.len().is_multiple_of(LETTERS_PER_ENTRY) {
        letters.push(0);
        letters.resize(letters.len().next_multiple_of(LETTERS_PER_ENTRY), 0xffff);
    }
    let parts: Vec<&[u16]> = letters.chunks(LETTERS_PER_ENTRY).collect();
    let mut entries = Vec::new();
    for (n, part) in parts.iter().enumerate().rev() {
        let mut entry = [0; ENTRY];
        let last = if n + 1 == parts.len() { 0x40 } else { 0 };
        entry[0] = u8::try_from(n + 1)? | last;
        entry[11] = LONG_NAME;
        entry[13] = sum;
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
        for (at, letter) in places.zip(*part) {
            entry[at..at + 2].copy_from_slice(&letter.to_le_bytes());
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;
    use crate::tool;

    /// Others find every file, and nothing to complain of, in both kinds and in the sizes that are used.
    #[test]
    fn others_read_it() {
        let program = vec![0x5a; 3 << 20];
        let files: [(&str, &[u8]); 4] = [
            ("EFI/BOOT/BOOTX64.EFI", &program),
            ("speediso.conf", b"# hello\r\nip=dhcp\r\n"),
            ("README.TXT", b"x"),
            ("EMPTY", b""),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fat.img");
        for (size, kind) in [(4 << 20, "FAT16"), (64 << 20, "FAT16"), (1 << 20, "FAT12")] {
            let files = if size > 1 << 20 { &files[..] } else { &files[1..] };
            let bytes = with_files(&Volume { label: "SPEEDISO", serial: 0x1234_5678, size }, files).unwrap();
            assert_eq!(&bytes[54..59], kind.as_bytes());
            std::fs::write(&path, &bytes).unwrap();
            tool::run(Command::new("fsck.fat").arg("-n").arg(&path), "dosfstools").unwrap();
            for (name, content) in files {
                let out = dir.path().join("out");
                let mut mcopy = Command::new("mcopy");
                mcopy.args(["-n", "-o", "-i"]).arg(&path).arg(format!("::/{name}")).arg(&out);
                tool::run(&mut mcopy, "mtools").unwrap();
                assert_eq!(&std::fs::read(&out).unwrap(), content, "{name} of {size}");
            }
            let label = tool::run(Command::new("mlabel").args(["-s", "-i"]).arg(&path).arg("::"), "mtools").unwrap();
            assert!(label.contains("SPEEDISO"), "{label}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let volume = Volume { label: "X", serial: 1, size: 1 << 20 };
        assert!(with_files(&volume, &[("A", &[0; 1 << 20])]).is_err());
        assert!(with_files(&volume, &[("a b", b"")]).is_err());
        assert!(with_files(&volume, &[("A", b""), ("A/B", b"")]).is_err());
        assert!(with_files(&Volume { size: 4096, ..volume }, &[]).is_err());
        assert!(with_files(&Volume { label: "lower", ..volume }, &[]).is_err());
    }
}
