//! The call into libblkid.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use blkid::consts::{BlkidProbeRet, BlkidSublks, BlkidSublksFlags};
use blkid::{BlkidErr, BlkidProbe};

use super::{Magic, Signature};

pub(super) const TABLE: &str = "partition table";
const TABLE_LENGTH: u64 = 16 * 1024;

/// libblkid counts in these, whatever the disk's sectors are.
const SECTOR: i64 = 512;
/// Twice as many as a GPT usually holds. What lies beyond is not listed.
const PARTITION_LIMIT: i32 = 256;
/// No disk has that many superblocks on top of each other; a probe that finds more goes in circles.
const ROUND_LIMIT: usize = 32;
/// Labels are at most a few hundred bytes in any format.
const TEXT_LIMIT: usize = 256;

/// Longer than any magic that libblkid knows: those that are not text come without their length.
const MAGIC_LIMIT: u64 = 32;

/// A whole disk, set up for probing before the rights to open anything are given up: libblkid asks sysfs whether it is a
/// whole one, and looks for the metadata of RAID firmware (Intel, Adaptec, Promise, ...) on no other. It reads nothing from
/// the disk for that.
pub(super) fn whole_disk(disk: &File) -> io::Result<BlkidProbe> {
    let probe = part(disk, 0, 0)?;
    // Kept in the probe.
    let _ = probe.is_wholedisk();
    Ok(probe)
}

/// What libblkid recognises in a part of the disk.
pub(super) fn probe_range(disk: &File, start: i64, size: i64, partition: Option<u32>) -> io::Result<Vec<Signature>> {
    probe_all(&mut part(disk, start, size)?, start, partition)
}

/// `size` 0 is the rest of the disk.
fn part(disk: &File, start: i64, size: i64) -> io::Result<BlkidProbe> {
    let mut probe = BlkidProbe::new().map_err(failed)?;
    probe.set_device(disk.as_raw_fd(), start, size).map_err(failed)?;
    probe.enable_superblocks(true).map_err(failed)?;
    let wanted = vec![BlkidSublks::Type, BlkidSublks::Usage, BlkidSublks::Label, BlkidSublks::Uuid, BlkidSublks::Magic];
    probe.set_superblock_flags(BlkidSublksFlags::new(wanted)).map_err(failed)?;
    probe.enable_partitions(true).map_err(failed)?;
    Ok(probe)
}

pub(super) fn probe_all(probe: &mut BlkidProbe, start: i64, partition: Option<u32>) -> io::Result<Vec<Signature>> {
    let mut found: Vec<Signature> = Vec::new();
    for _ in 0..ROUND_LIMIT {
        match probe.do_probe().map_err(failed)? {
            BlkidProbeRet::Done => break,
            BlkidProbeRet::Success => {
                let signature = signature(probe, partition, u64::try_from(start).unwrap_or_default());
                if !signature.kind.is_empty() && !found.contains(&signature) {
                    found.push(signature);
                }
            }
        }
    }
    Ok(found)
}

fn signature(probe: &BlkidProbe, partition: Option<u32>, start: u64) -> Signature {
    // A label may be any bytes; one that is not text is left out rather than the whole signature.
    let value = |name| probe.lookup_value(name).map(|text| printable(&text)).unwrap_or_default();
    let superblock = value("TYPE");
    if superblock.is_empty() {
        // Every table is known by something in the first 16 KiB; where exactly is not told.
        let (kind, usage, uuid) = (value("PTTYPE"), TABLE.to_owned(), value("PTUUID"));
        let magics = vec![Magic { offset: start, length: TABLE_LENGTH }];
        return Signature { partition, kind, usage, uuid, magics, ..Signature::default() };
    }
    let magics = value("SBMAGIC_OFFSET").parse::<u64>().ok().and_then(|offset| start.checked_add(offset));
    let length = probe.lookup_value("SBMAGIC").map_or(MAGIC_LIMIT, |magic| (magic.len() as u64).max(1));
    Signature {
        partition,
        kind: superblock,
        usage: value("USAGE"),
        label: value("LABEL"),
        uuid: value("UUID"),
        magics: magics.map(|offset| Magic { offset, length }).into_iter().collect(),
        ..Signature::default()
    }
}

/// Number, start and size in bytes of each partition in the table that a part of the disk begins with, if there is one.
pub(super) fn partitions(disk: &File, start: i64, size: i64) -> io::Result<Vec<(u32, u64, u64)>> {
    let mut probe = BlkidProbe::new().map_err(failed)?;
    probe.set_device(disk.as_raw_fd(), start, if start == 0 { 0 } else { size }).map_err(failed)?;
    probe.enable_superblocks(false).map_err(failed)?;
    probe.enable_partitions(true).map_err(failed)?;
    let Ok(mut list) = probe.get_partitions() else { return Ok(Vec::new()) };
    let count = list.number_of_partitions().unwrap_or(0).min(PARTITION_LIMIT);
    let mut found = Vec::new();
    for index in 0..count {
        let Ok(partition) = list.get_partition(index) else { continue };
        // An extended partition is only the container of the logical ones.
        if partition.is_extended() {
            continue;
        }
        let Ok(number) = partition.get_partno() else { continue };
        let in_bytes = |sectors: &blkid::BlkidSectors| sectors.as_ref().checked_mul(SECTOR).filter(|b| *b > 0);
        // A partition without extent or past any possible end has nothing to be probed.
        let Some((at, size)) = in_bytes(&partition.get_start()).zip(in_bytes(&partition.get_size())) else { continue };
        if let (Some(at), Ok(size)) = (start.checked_add(at).and_then(|at| u64::try_from(at).ok()), u64::try_from(size))
        {
            found.push((number, at, size));
        }
    }
    Ok(found)
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_LIMIT).collect()
}

fn failed(error: BlkidErr) -> io::Error {
    match error {
        BlkidErr::IO(error) => error,
        other => io::Error::other(format!("libblkid: {other}")),
    }
}
