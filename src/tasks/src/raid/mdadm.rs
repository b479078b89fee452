//! `mdadm` makes, assembles and examines arrays. What it says is read, what it is told leaves nothing to its choice.

use std::path::Path;
use std::time::Duration;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::raid::RaidMetadata;
use speediso_sys::md;
use speediso_sys::roots::Roots;
use speediso_sys::tool::{Tool, ToolError};
use uuid::Uuid;

use super::wish::Wish;

/// Writing superblocks and bitmaps takes seconds on slow disks.
const CHANGE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(30);
/// Loading the parity levels measures which way to compute is the quickest.
const LOAD: Duration = Duration::from_secs(60);

pub(super) struct Mdadm {
    tool: Tool,
}

/// What stands in a member's superblock.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Superblock {
    /// `1.2`
    pub(super) metadata: String,
    pub(super) uuid: String,
    /// Without the host's.
    pub(super) name: String,
    /// `raid1`
    pub(super) level: String,
    pub(super) raid_disks: usize,
    /// In bytes, as all sizes.
    pub(super) chunk: Option<u64>,
    pub(super) data_offset: u64,
    pub(super) component: u64,
    pub(super) has_bitmap: bool,
    pub(super) is_spare: bool,
    pub(super) checksum_is_good: bool,
}

impl Mdadm {
    pub(super) fn find() -> Result<Self, Fault> {
        // There may be no udev to wait for, and no systemd to start a monitor.
        let tool = Tool::find("mdadm")?.with("MDADM_NO_UDEV", "1").with("MDADM_NO_SYSTEMCTL", "1");
        Ok(Self { tool })
    }

    pub(super) fn create(&self, wish: &Wish<'_>, uuid: Uuid, device: &str, nodes: &[&Path]) -> Result<(), ToolError> {
        let array = wish.array;
        let mut args = vec![
            "--create".to_owned(),
            format!("/dev/{device}"),
            // Asks nothing: what stands on the members was looked at before, and cleared.
            "--run".into(),
            "--config=none".into(),
            // Every host takes it for its own.
            "--homehost=any".into(),
            format!("--name={}", array.name),
            format!("--uuid={}", uuid.simple()),
            format!("--level={}", array.level.number()),
            format!("--metadata={}", array.metadata.version()),
            format!("--raid-devices={}", wish.active()),
        ];
        if array.spares > 0 {
            args.push(format!("--spare-devices={}", array.spares));
        }
        // Of stripes it refuses to hear of either.
        if array.level.is_redundant() {
            args.push(format!("--size={}", wish.slot.component / 1024));
            args.push(format!("--bitmap={}", if array.has_bitmap() { "internal" } else { "none" }));
        }
        if let Some(chunk) = array.chunk_size() {
            args.push(format!("--chunk={}", chunk / 1024));
        }
        if array.metadata != RaidMetadata::AtEnd {
            args.push(format!("--data-offset={}", wish.slot.data_offset / 1024));
        }
        args.extend(nodes.iter().map(|node| node.display().to_string()));
        self.tool.run(args, CHANGE).map(|_| ())
    }

    pub(super) fn assemble(&self, uuid: Uuid, device: &str, nodes: &[&Path]) -> Result<(), ToolError> {
        let mut args = vec![
            "--assemble".to_owned(),
            format!("/dev/{device}"),
            "--config=none".into(),
            format!("--uuid={}", uuid.simple()),
        ];
        args.extend(nodes.iter().map(|node| node.display().to_string()));
        self.tool.run(args, CHANGE).map(|_| ())
    }

    pub(super) fn stop(&self, device: &str) -> Result<(), ToolError> {
        self.tool.run(["--stop", &format!("/dev/{device}")], LOOK).map(|_| ())
    }

    /// What the device holds of an array; nothing if it is no member.
    pub(super) fn examine(&self, device: &Path) -> Result<Option<Superblock>, Fault> {
        let device = device.display().to_string();
        match self.tool.run(["--examine", "--config=none", &device], LOOK) {
            Ok(said) => Ok(parse(&said.stdout)),
            Err(ToolError::Failed { stderr, .. }) if stderr.contains("No md superblock") => Ok(None),
            Err(error) => Err(error.fault()),
        }
    }
}

/// Makes sure that the kernel can run such arrays, before anything depends on it.
pub(super) fn load(wishes: &[&Wish<'_>], roots: &Roots) -> Result<(), Fault> {
    let mut missing = Vec::new();
    for wish in wishes {
        let (level, module) = (wish.kernel_level(), wish.module());
        if md::has_personality(roots, &level) {
            continue;
        }
        // A kernel that has it built in needs none.
        let loaded = Tool::find("modprobe").and_then(|modprobe| {
            modprobe.run([module], LOAD).map_err(|e| e.fault().because(format!("loading the kernel's {level}")))
        });
        if !md::has_personality(roots, &level) {
            missing.push(loaded.err().map_or(format!("{module} brought no {level}"), |fault| fault.to_string()));
        }
    }
    if !missing.is_empty() {
        let mut fault = Fault::new(
            FaultCode::Unsupported,
            "the live system's kernel cannot run such an array; no disk was touched",
        );
        fault.causes = missing;
        return Err(fault);
    }
    md::start_read_only(roots)
        .map_err(|e| Fault::from_error(FaultCode::Io, &e).because("telling the kernel to start arrays read-only"))
}

fn parse(text: &str) -> Option<Superblock> {
    let mut found = Superblock::default();
    let mut used = None;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(" : ") else { continue };
        let (key, value) = (key.trim(), value.trim());
        let sectors = || value.strip_suffix(" sectors").or_else(|| value.split_once(" sectors").map(|(n, _)| n));
        let bytes = || sectors().and_then(|n| n.trim().parse::<u64>().ok()).map(|n| n.saturating_mul(512));
        match key {
            "Version" => value.clone_into(&mut found.metadata),
            "Array UUID" => found.uuid = value.replace(':', ""),
            // `any:root  (local to host any)`
            "Name" => {
                let name = value.split_whitespace().next().unwrap_or_default();
                name.rsplit(':').next().unwrap_or(name).clone_into(&mut found.name);
            }
            "Raid Level" => value.clone_into(&mut found.level),
            "Raid Devices" => found.raid_disks = value.parse().unwrap_or(0),
            "Chunk Size" => found.chunk = kibibytes(value),
            "Data Offset" => found.data_offset = bytes().unwrap_or(0),
            "Avail Dev Size" => found.component = bytes().unwrap_or(0),
            // Only there where it is less.
            "Used Dev Size" => used = bytes(),
            "Internal Bitmap" => found.has_bitmap = true,
            "Device Role" => found.is_spare = value == "spare",
            "Checksum" => found.checksum_is_good = value.ends_with("correct"),
            _ => {}
        }
    }
    found.component = used.unwrap_or(found.component);
    (!found.uuid.is_empty()).then_some(found)
}

/// `512K`, `1M`
fn kibibytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let factor: u64 = match unit {
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Said by mdadm 4.2 of three members of arrays that it had made.
    #[test]
    fn superblocks_are_read() {
        let uuid = "11111111222243338444555555555555".to_owned();
        let spare = parse(include_str!("fixtures/spare-of-raid5.txt")).expect("a member");
        let expected = Superblock {
            metadata: "1.2".into(),
            uuid: uuid.clone(),
            name: "root".into(),
            level: "raid5".into(),
            raid_disks: 3,
            chunk: Some(64 << 10),
            data_offset: 1 << 20,
            component: 100 << 20,
            has_bitmap: true,
            is_spare: true,
            checksum_is_good: true,
        };
        assert_eq!(spare, expected);
        // Being filled: its feature map and recovery offset say so, but it has its place.
        let filled = parse(include_str!("fixtures/rebuilding-of-raid5.txt")).expect("a member");
        assert_eq!(filled, Superblock { is_spare: false, ..expected });
        let mirror = parse(include_str!("fixtures/member-of-raid1.txt")).expect("a member");
        assert_eq!((mirror.metadata.as_str(), mirror.data_offset, mirror.chunk), ("1.0", 0, None));
        assert_eq!((mirror.component, mirror.uuid), (127 << 20, uuid));
        let damaged = include_str!("fixtures/member-of-raid1.txt").replace("- correct", "- expected 9c5469cc");
        assert!(!parse(&damaged).expect("a member").checksum_is_good);
    }

    #[test]
    fn a_disk_with_a_table_is_no_member() {
        assert_eq!(parse("/dev/vda:\n   MBR Magic : aa55\nPartition[0] :  8191 sectors at 1 (type ee)\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn chunks_are_read() {
        assert_eq!(
            (kibibytes("64K"), kibibytes("1M"), kibibytes("-"), kibibytes("")),
            (Some(65536), Some(1 << 20), None, None)
        );
    }
}
