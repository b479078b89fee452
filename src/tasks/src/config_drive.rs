//! The partition from which cloud-init learns who the machine is.
//!
//! It is the last one on the disk, so that the system's own partition can grow up to it. The content is a small FAT
//! made in memory; its meta data is JSON, which cloud-init reads as the YAML it expects, and which cannot be escaped
//! from by any host name or key.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use gpt::partition::Partition;
use gpt::partition_types;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use speediso_image::decode::decoder;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::ImageSource;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Action, Plan, PlanDigest, hex};
use speediso_model::task::{ConfigDriveContent, ConfigDriveFormat, ConfigDriveTask};
use speediso_model::units::{Bytes, MIB};
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;

use crate::ctx::TaskCtx;
use crate::fetch;
use crate::gptedit::{self, Edges};
use crate::single::{self, Ended, OnDisk as _};

const KIND: &str = "config_drive";
/// Room for 1 MiB of user data in a FAT with sectors of 4096.
const CONTENT_SIZE: u64 = 8 * MIB;
/// Ironic's limit too.
const MAX_IMAGE: u64 = 64 * MIB;

pub(crate) fn plan(task: &ConfigDriveTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    let what = match (&task.content, &task.image) {
        (Some(content), _) => {
            let files = serde_json::to_vec(content).unwrap_or_default();
            format!("add a config drive as the last partition, content {}", hex(&Sha256::digest(files)))
        }
        (None, Some(image)) => format!("add a config drive as the last partition, image {}", image.trust_shown()),
        (None, None) => "add a config drive as the last partition".to_owned(),
    };
    single::plan_for(KIND, &task.device, ctx, |disk| {
        let length = Bytes(if task.image.is_some() { MAX_IMAGE } else { CONTENT_SIZE });
        if disk.size.0 < length.0 + 4 * MIB {
            return Err(Fault::new(FaultCode::DiskTooSmall, format!("{} has no room for a config drive", disk.name)));
        }
        // The exact place depends on the table; this is where it can be at most.
        let start = (disk.size.0 - length.0 - 2 * MIB) / MIB * MIB;
        Ok(vec![
            Action { what: "add the partition to the table".into(), offset: Bytes(0), length: Bytes(MIB) },
            Action { what: what.clone(), offset: Bytes(start), length: Bytes(disk.size.0 - start) },
        ])
    })
}

pub(crate) fn execute(task: &ConfigDriveTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    single::execute_on(KIND, &task.device, expected, ctx, || plan(task, ctx), |disk| run(task, disk, ctx))
}

fn run(task: &ConfigDriveTask, disk: &ClaimedDisk, ctx: &TaskCtx) -> Ended {
    let prepared = prepare(task, disk, ctx).and_then(|volume| {
        let placed = place(&volume, disk)?;
        Ok((volume, placed))
    });
    let (volume, placed) = match prepared {
        Ok(prepared) => prepared,
        Err(fault) => return Ended::unchanged(fault),
    };
    ctx.reporter.step_began("config drive");
    match write(&volume, &placed, disk) {
        Ok(()) => {
            let files = &volume.files;
            ctx.reporter.step_ended("config drive", &format!("{} bytes, label {}", volume.bytes.len(), volume.label));
            let facts = json!({
                "label": volume.label, "offset": placed.offset, "bytes": volume.bytes.len(), "files": files,
            });
            let used = format!("partition {} at the end of the disk, read back", placed.number);
            Ended::verified(Changed::Changed, used, facts)
        }
        Err(fault) => Ended::failed(Outcome::FailedChanged, "partition at the end of the disk", fault),
    }
}

/// A file system, ready to be copied.
struct Volume {
    label: &'static str,
    bytes: AlignedBuffer,
    /// Names of its files, if we made it.
    files: Vec<String>,
}

fn prepare(task: &ConfigDriveTask, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<Volume, Fault> {
    match (&task.content, &task.image) {
        (Some(content), None) => {
            let label = label_of(content.format);
            let bytes = make_fat(content, disk.sector_size())
                .map_err(|e| Fault::new(FaultCode::Internal, "making the config drive").because(e.to_string()))?;
            Ok(Volume { label, files: list(&bytes)?, bytes })
        }
        (None, Some(image)) => fetch_image(image, ctx),
        _ => Err(Fault::new(FaultCode::TaskInvalid, "exactly one of content and image is needed")),
    }
}

fn label_of(format: ConfigDriveFormat) -> &'static str {
    match format {
        ConfigDriveFormat::NoCloud => "CIDATA",
        ConfigDriveFormat::Config2 => "config-2",
    }
}

/// Path and content of every file.
fn files(content: &ConfigDriveContent) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    match content.format {
        ConfigDriveFormat::NoCloud => {
            let meta = json!({
                "instance-id": content.instance_id,
                "local-hostname": content.hostname,
                "public-keys": content.ssh_keys,
            });
            files.push(("meta-data".into(), (meta.to_string() + "\n").into_bytes()));
            // NoCloud wants the file to be there.
            let user_data = content.user_data.clone().unwrap_or_else(|| "#cloud-config\n{}\n".into());
            files.push(("user-data".into(), user_data.into_bytes()));
            files.extend(content.network.as_ref().map(|n| ("network-config".into(), n.clone().into_bytes())));
        }
        ConfigDriveFormat::Config2 => {
            let keys: BTreeMap<String, &String> =
                content.ssh_keys.iter().enumerate().map(|(i, key)| (format!("key{i}"), key)).collect();
            let meta = json!({
                "uuid": content.instance_id,
                "hostname": content.hostname,
                "name": content.hostname,
                "public_keys": keys,
            });
            files.push(("openstack/latest/meta_data.json".into(), meta.to_string().into_bytes()));
            files.extend(
                content.user_data.as_ref().map(|u| ("openstack/latest/user_data".into(), u.clone().into_bytes())),
            );
            files.extend(
                content.network.as_ref().map(|n| ("openstack/latest/network_data.json".into(), n.clone().into_bytes())),
            );
        }
    }
    files
}

fn make_fat(content: &ConfigDriveContent, sector: u64) -> std::io::Result<AlignedBuffer> {
    let mut bytes = AlignedBuffer::zeroed(usize::try_from(CONTENT_SIZE).unwrap_or(8 << 20));
    let mut label = [b' '; 11];
    for (place, byte) in label.iter_mut().zip(label_of(content.format).bytes()) {
        *place = byte;
    }
    let sector = u16::try_from(sector).map_err(std::io::Error::other)?;
    let options = FormatVolumeOptions::new().volume_label(label).bytes_per_sector(sector);
    fatfs::format_volume(Cursor::new(&mut bytes[..]), options)?;
    let volume = FileSystem::new(Cursor::new(&mut bytes[..]), FsOptions::new())?;
    {
        let root = volume.root_dir();
        for (path, content) in files(content) {
            let mut dir = root.clone();
            let mut parts = path.split('/').peekable();
            while let Some(part) = parts.next() {
                if parts.peek().is_some() {
                    dir = dir.create_dir(part)?;
                } else {
                    dir.create_file(part)?.write_all(&content)?;
                }
            }
        }
    }
    volume.unmount()?;
    drop_long_names_of_dots(&mut bytes, usize::from(sector));
    Ok(bytes)
}

/// fatfs 0.3 gives `.` and `..` long names, which fsck.vfat rightly calls broken: a new directory begins with four
/// entries where it should begin with two. The two that are too many are taken out of each.
fn drop_long_names_of_dots(volume: &mut [u8], sector: usize) {
    const ENTRY: usize = 32;
    // Microsoft's FAT specification, "Directory Structure": attribute 0F marks a part of a long name.
    let is_long = |entry: &[u8]| entry[11] == 0x0f;
    let is_dot = |entry: &[u8]| entry[..11] == *b".          " || entry[..11] == *b"..         ";
    for directory in volume.chunks_exact_mut(sector) {
        let entries = |i: usize| ENTRY * i..ENTRY * (i + 1);
        let broken = is_long(&directory[entries(0)])
            && is_dot(&directory[entries(1)])
            && is_long(&directory[entries(2)])
            && is_dot(&directory[entries(3)]);
        if broken {
            directory.copy_within(entries(1), 0);
            directory.copy_within(entries(3), ENTRY);
            directory.copy_within(4 * ENTRY.., 2 * ENTRY);
            let end = directory.len() - 2 * ENTRY;
            directory[end..].fill(0);
        }
    }
}

fn fetch_image(image: &ImageSource, ctx: &TaskCtx) -> Result<Volume, Fault> {
    let (fetched, hashed) = fetch::open(image, ctx)?;
    let read = decoder(image.compression, image.max_window, fetched).and_then(|source| {
        let mut bytes = Vec::new();
        source.take(MAX_IMAGE + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = read.map_err(|e| Fault::new(FaultCode::ImageTruncated, format!("fetching {}: {e}", image.shown())))?;
    if bytes.len() as u64 > MAX_IMAGE {
        return Err(Fault::new(
            FaultCode::ImageTooLarge,
            format!("{} is larger than {}", image.shown(), Bytes(MAX_IMAGE)),
        ));
    }
    hashed.sum(image)?;
    let label = label_in(&bytes).ok_or_else(|| {
        Fault::new(
            FaultCode::ImageFormat,
            format!("{} is no FAT or ISO 9660 file system labelled CIDATA or config-2", image.shown()),
        )
    })?;
    let length = bytes.len().next_multiple_of(1 << 20);
    let mut aligned = AlignedBuffer::zeroed(length);
    aligned[..bytes.len()].copy_from_slice(&bytes);
    Ok(Volume { label, bytes: aligned, files: Vec::new() })
}

/// Which of the two labels the file system carries.
fn label_in(bytes: &[u8]) -> Option<&'static str> {
    let known = |label: &[u8]| {
        let text = String::from_utf8_lossy(label).trim().to_ascii_lowercase();
        match text.as_str() {
            "cidata" => Some("CIDATA"),
            "config-2" => Some("config-2"),
            _ => None,
        }
    };
    // ECMA-119, 8.4: the primary volume descriptor is sector 16 of 2048 bytes; the volume's name is at 40.
    if bytes.get(0x8001..0x8006) == Some(b"CD001") {
        return known(bytes.get(0x8028..0x8048)?);
    }
    if bytes.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    // Microsoft's FAT specification, "Boot Sector and BPB": FAT32 has 0 at 22; 29 (hex) says that a label follows.
    let extended = if bytes.get(22..24)? == [0, 0] { 66 } else { 38 };
    if bytes.get(extended) != Some(&0x29) {
        return None;
    }
    known(bytes.get(extended + 5..extended + 16)?)
}

/// Where the volume goes, and the table that says so.
struct Placed {
    edges: Edges,
    number: u32,
    offset: u64,
}

fn place(volume: &Volume, disk: &ClaimedDisk) -> Result<Placed, Fault> {
    let sector = disk.sector_size();
    let table = gptedit::open(Edges::read(disk)?, sector)?;
    let header = table.header().clone();
    let mut partitions = table.partitions().clone();
    let name = volume.label.to_ascii_lowercase();
    // An earlier config drive makes room for this one.
    partitions.retain(|_, p| !(p.is_used() && p.name == name));
    let length = (volume.bytes.len() as u64).next_multiple_of(MIB);
    // Computed from the disk's end, not from the header: the image's table may have been made for a smaller disk.
    let array = u64::from(header.num_parts) * u64::from(header.part_size);
    let usable_end = disk.size() - sector - array.next_multiple_of(sector);
    let no_room = |what: String| Fault::new(FaultCode::DiskTooSmall, what);
    let Some(offset) = usable_end.checked_sub(length).map(|at| at / MIB * MIB).filter(|at| *at >= MIB) else {
        return Err(no_room(format!("{} has no room for a config drive", disk.name())));
    };
    if let Some(p) = partitions.values().find(|p| p.is_used() && p.last_lba >= offset / sector) {
        return Err(no_room(format!(
            "partition {:?} of {} reaches to the end: no room for a config drive",
            p.name,
            disk.name()
        )));
    }
    let Some(number) = (1..=header.num_parts).find(|n| partitions.get(n).is_none_or(|p| !p.is_used())) else {
        return Err(Fault::new(FaultCode::PartitionTable, "the partition table is full"));
    };
    partitions.insert(
        number,
        Partition {
            part_type_guid: partition_types::BASIC,
            part_guid: uuid::Uuid::new_v4(),
            first_lba: offset / sector,
            last_lba: (offset + length) / sector - 1,
            flags: 0,
            name,
        },
    );
    Ok(Placed { edges: gptedit::finish(table, sector, partitions)?, number, offset })
}

/// Content first, table after it.
fn write(volume: &Volume, placed: &Placed, disk: &ClaimedDisk) -> Result<(), Fault> {
    disk.write_at(placed.offset, &volume.bytes).on(disk)?;
    disk.flush().on(disk)?;
    let mut back = AlignedBuffer::zeroed(volume.bytes.len());
    disk.read_at(placed.offset, &mut back).on(disk)?;
    if back[..] != volume.bytes[..] {
        return Err(Fault::new(
            FaultCode::ReadBackMismatch,
            format!("the config drive on {} reads back differently", disk.name()),
        ));
    }
    placed.edges.write(disk)?;
    disk.reread_table().on(disk)?;
    Ok(())
}

fn list(bytes: &[u8]) -> Result<Vec<String>, Fault> {
    let unreadable = |e: std::io::Error| Fault::from_error(FaultCode::VerifyFailed, &e);
    let volume = FileSystem::new(Cursor::new(bytes.to_vec()), FsOptions::new()).map_err(unreadable)?;
    let mut names = Vec::new();
    let mut dirs = vec![(String::new(), volume.root_dir())];
    while let Some((path, dir)) = dirs.pop() {
        for entry in dir.iter() {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let full = format!("{path}{name}");
            if entry.is_dir() {
                dirs.push((format!("{full}/"), entry.to_dir()));
            } else {
                names.push(full);
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;

    fn content(format: ConfigDriveFormat) -> ConfigDriveContent {
        ConfigDriveContent {
            format,
            instance_id: "i-1".into(),
            hostname: "web1".into(),
            ssh_keys: vec!["ssh-ed25519 AAAA me".into()],
            user_data: Some("#cloud-config\nruncmd: [true]\n".into()),
            network: None,
        }
    }

    #[test]
    fn volumes_are_recognised_by_other_tools() {
        for (format, sector) in [(ConfigDriveFormat::NoCloud, 512), (ConfigDriveFormat::Config2, 4096)] {
            let bytes = make_fat(&content(format), sector).expect("made");
            assert_eq!(label_in(&bytes), Some(label_of(format)));
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            std::fs::write(file.path(), &bytes[..]).expect("written");
            let fsck = std::process::Command::new("fsck.vfat")
                .arg("-n")
                .arg(file.path())
                .output()
                .expect("fsck.vfat (dosfstools) runs");
            assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
            let wanted = match format {
                ConfigDriveFormat::NoCloud => vec!["meta-data", "user-data"],
                ConfigDriveFormat::Config2 => vec!["openstack/latest/meta_data.json", "openstack/latest/user_data"],
            };
            assert_eq!(list(&bytes).expect("listed"), wanted);
        }
    }

    #[test]
    fn a_hostile_name_stays_a_string() {
        let mut evil = content(ConfigDriveFormat::NoCloud);
        evil.ssh_keys = vec!["x\"\n- injected: true".into()];
        let (_, meta) = &files(&evil)[0];
        let text = String::from_utf8(meta.clone()).expect("text");
        assert_eq!(text.lines().count(), 1);
        let back: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back["public-keys"][0], "x\"\n- injected: true");
    }

    #[test]
    fn other_file_systems_are_no_config_drive() {
        assert_eq!(label_in(&[0; 0x9000]), None);
        assert_eq!(label_in(b"short"), None);
    }
}
