//! File systems: whether they fit, how they are made, and how it is seen that they were.

use std::path::Path;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::{Content, Format, FormatKind, PartitionKind};
use speediso_model::units::{Bytes, GIB, MIB};

use super::superblock::Found;
use crate::tools::Toolbox;

/// What cryptsetup leaves for its header, twice, with its keys.
pub(super) const LUKS_HEADER: u64 = 16 * MIB;
/// Clusters of a FAT32: with fewer it is a FAT16, whatever its header says (Microsoft's FAT specification, section 3.5).
const FAT32_CLUSTERS: u64 = 65_525;
const FAT16_CLUSTERS: u64 = 4_085;

/// The program that makes it.
pub(crate) fn program(kind: FormatKind) -> &'static str {
    match kind {
        FormatKind::Ext4 => "mkfs.ext4",
        FormatKind::Xfs => "mkfs.xfs",
        FormatKind::Btrfs => "mkfs.btrfs",
        FormatKind::Vfat => "mkfs.fat",
        FormatKind::Swap => "mkswap",
        FormatKind::Ntfs => "mkntfs",
    }
}

/// The smallest that its program makes, and that is of use to anybody.
fn least(kind: FormatKind, sector: u64, is_esp: bool) -> u64 {
    match kind {
        FormatKind::Ext4 | FormatKind::Swap => MIB,
        FormatKind::Xfs => 300 * MIB,
        FormatKind::Btrfs => 110 * MIB,
        // One sector for each cluster at least, four bytes for it in each of two tables, and what stands before them.
        FormatKind::Vfat if is_esp => fat_size(FAT32_CLUSTERS, 4, sector),
        FormatKind::Vfat => fat_size(FAT16_CLUSTERS, 2, sector),
        FormatKind::Ntfs => 8 * MIB,
    }
}

fn fat_size(clusters: u64, entry: u64, sector: u64) -> u64 {
    ((clusters + 16) * sector + 2 * clusters * entry + 64 * sector).next_multiple_of(MIB)
}

/// Whether it can be made in so many bytes; so that this is known before anything is lost.
pub(super) fn check(content: &Content, length: u64, sector: u64, kind: &PartitionKind) -> Result<(), Fault> {
    let too_small = |what: &str, least: u64| {
        Fault::new(
            FaultCode::DiskTooSmall,
            format!("{what} on sectors of {sector} bytes needs at least {}, here are {}", Bytes(least), Bytes(length)),
        )
    };
    match content {
        Content::FileSystem(format) => {
            let least = least(format.kind, sector, *kind == PartitionKind::Esp);
            if length >= least { Ok(()) } else { Err(too_small(format.kind.name(), least)) }
        }
        // A MiB in front, and one extent at least.
        Content::Lvm(_) if length < 8 * MIB => Err(too_small("a physical volume", 8 * MIB)),
        Content::Lvm(_) => Ok(()),
        Content::Luks(_) if length < LUKS_HEADER + MIB => Err(too_small("LUKS2", LUKS_HEADER + MIB)),
        Content::Luks(luks) => match luks.content.as_deref() {
            Some(inner) => check(inner, length - LUKS_HEADER, sector, &PartitionKind::Linux),
            None => Ok(()),
        },
    }
}

/// Makes it over all of `device`, whatever was there.
pub(crate) fn make(format: &Format, device: &Path, place: Place, toolbox: &Toolbox<'_>) -> Result<(), Fault> {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    let (label, uuid) = (format.label.as_deref(), format.uuid.as_deref());
    match format.kind {
        FormatKind::Ext4 => {
            add(&["-q", "-F"]);
            label.iter().for_each(|label| add(&["-L", label]));
            uuid.iter().for_each(|uuid| add(&["-U", uuid]));
        }
        FormatKind::Xfs => {
            add(&["-q", "-f"]);
            label.iter().for_each(|label| add(&["-L", label]));
            uuid.iter().for_each(|uuid| add(&["-m", &format!("uuid={uuid}")]));
        }
        FormatKind::Btrfs => {
            add(&["-q", "-f"]);
            label.iter().for_each(|label| add(&["-L", label]));
            uuid.iter().for_each(|uuid| add(&["-U", uuid]));
        }
        FormatKind::Vfat => {
            // FAT32 where there are enough clusters for it.
            let is_32 = place.length >= fat_size(FAT32_CLUSTERS, 4, place.sector);
            add(&["-I", "-F", if is_32 { "32" } else { "16" }]);
            // How many sectors stand before it is what a BIOS adds to every number.
            let hidden = u32::try_from(place.start / place.sector).unwrap_or(0);
            add(&["-h", &hidden.to_string()]);
            // Its own choice counts sectors as if they had 512 bytes, and leaves too few clusters.
            if is_32 && place.sector > 512 && place.length < 8 * GIB {
                add(&["-s", "1"]);
            }
            label.iter().for_each(|label| add(&["-n", label]));
            uuid.iter().for_each(|uuid| add(&["-i", &uuid.replace('-', "")]));
        }
        FormatKind::Swap => {
            add(&["-f"]);
            label.iter().for_each(|label| add(&["-L", label]));
            uuid.iter().for_each(|uuid| add(&["-U", uuid]));
        }
        FormatKind::Ntfs => {
            let before = u32::try_from(place.start / place.sector).unwrap_or(0);
            add(&["-q", "-Q", "-F", "-p", &before.to_string(), "-H", "255", "-S", "63"]);
            label.iter().for_each(|label| add(&["-L", label]));
        }
    }
    arguments.push(device.display().to_string());
    toolbox.run(program(format.kind), &arguments).map(drop)
}

/// What a program that makes a file system has to know of where it goes, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// On the disk; 0 inside of something else.
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) sector: u64,
}

impl Place {
    pub(crate) fn of(place: crate::place::Place<'_>) -> Self {
        Self { start: place.start(), length: place.size(), sector: place.sector_size() }
    }
}

/// Whether what was found is what was ordered, in everything that the order names and that stands in its superblock.
pub(super) fn is_so(wanted: &Format, found: &Found) -> Result<(), String> {
    if found.kind != wanted.kind.name() {
        return Err(format!("there is {found} instead of {}", wanted.describe()));
    }
    if let Some(uuid) = &wanted.uuid
        && !uuid.eq_ignore_ascii_case(&found.uuid)
    {
        return Err(format!("its UUID is {} instead of {uuid}", found.uuid));
    }
    let label = wanted.label.as_deref().unwrap_or_default();
    match &found.label {
        Some(found) if found != label => Err(format!("its label is {found:?} instead of {label:?}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_cannot_be_made_is_known_before() {
        let fs = |kind| Content::FileSystem(Format { kind, label: None, uuid: None });
        let esp = |length, sector| check(&fs(FormatKind::Vfat), length, sector, &PartitionKind::Esp);
        assert!(esp(34 * MIB, 512).is_ok() && esp(33 * MIB - 1, 512).is_err());
        assert!(esp(260 * MIB, 4096).is_ok(), "what is recommended for such disks");
        assert_eq!(esp(100 * MIB, 4096).expect_err("too small").code, FaultCode::DiskTooSmall);
        for (kind, length) in [(FormatKind::Xfs, 299), (FormatKind::Btrfs, 100), (FormatKind::Ntfs, 4)] {
            assert!(check(&fs(kind), length * MIB, 512, &PartitionKind::Linux).is_err(), "{kind:?}");
        }
    }
}
