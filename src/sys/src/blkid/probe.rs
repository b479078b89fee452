//! The call into libblkid.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use blkid::consts::{BlkidProbeRet, BlkidSublks, BlkidSublksFlags};
use blkid::{BlkidErr, BlkidProbe};

use super::Signature;

pub(super) const TABLE: &str = "partition table";

/// libblkid counts in these, whatever the disk's sectors are.
const SECTOR: i64 = 512;
/// As many as a GPT usually holds. What lies beyond is not listed.
const PARTITION_LIMIT: i32 = 128;
/// No disk has that many superblocks on top of each other; a probe that finds more goes in circles.
const ROUND_LIMIT: usize = 32;
/// Labels are at most a few hundred bytes in any format.
const TEXT_LIMIT: usize = 256;

/// Everything libblkid recognises on a disk and in its partitions, in this process.
///
/// The partitions are found through the table on the disk, so the kernel need not know them.
///
/// # Errors
/// When libblkid cannot read the disk.
pub fn probe_here(disk: &File) -> io::Result<Vec<Signature>> {
    let mut found = probe_range(disk, 0, 0, None)?;
    for (number, start, size) in partitions(disk)? {
        // One partition that cannot be read (past the end, damaged) does not hide the others.
        found.extend(probe_range(disk, start, size, Some(number)).unwrap_or_default());
    }
    Ok(found)
}

/// `size` 0 is the rest of the disk.
fn probe_range(disk: &File, start: i64, size: i64, partition: Option<u32>) -> io::Result<Vec<Signature>> {
    let mut probe = BlkidProbe::new().map_err(failed)?;
    probe.set_device(disk.as_raw_fd(), start, size).map_err(failed)?;
    probe.enable_superblocks(true).map_err(failed)?;
    let wanted = vec![BlkidSublks::Type, BlkidSublks::Usage, BlkidSublks::Label, BlkidSublks::Uuid];
    probe.set_superblock_flags(BlkidSublksFlags::new(wanted)).map_err(failed)?;
    probe.enable_partitions(true).map_err(failed)?;
    let mut found: Vec<Signature> = Vec::new();
    for _ in 0..ROUND_LIMIT {
        match probe.do_probe().map_err(failed)? {
            BlkidProbeRet::Done => break,
            BlkidProbeRet::Success => {
                let signature = signature(&probe, partition);
                if !signature.kind.is_empty() && !found.contains(&signature) {
                    found.push(signature);
                }
            }
        }
    }
    Ok(found)
}

fn signature(probe: &BlkidProbe, partition: Option<u32>) -> Signature {
    // A label may be any bytes; one that is not text is left out rather than the whole signature.
    let value = |name| probe.lookup_value(name).map(|text| printable(&text)).unwrap_or_default();
    let superblock = value("TYPE");
    if superblock.is_empty() {
        return Signature {
            partition,
            kind: value("PTTYPE"),
            usage: TABLE.to_owned(),
            uuid: value("PTUUID"),
            label: String::new(),
        };
    }
    Signature { partition, kind: superblock, usage: value("USAGE"), label: value("LABEL"), uuid: value("UUID") }
}

/// Number, start and size in bytes of each partition in the table, if there is one.
fn partitions(disk: &File) -> io::Result<Vec<(u32, i64, i64)>> {
    let mut probe = BlkidProbe::new().map_err(failed)?;
    probe.set_device(disk.as_raw_fd(), 0, 0).map_err(failed)?;
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
        if let (Some(start), Some(size)) = (in_bytes(&partition.get_start()), in_bytes(&partition.get_size())) {
            found.push((number, start, size));
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
