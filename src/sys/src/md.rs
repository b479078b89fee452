//! The kernel's arrays (md), and which of them are ours.
//!
//! What the live system finds on the disks of whoever had the machine before is not ours, whoever assembled it. An array
//! counts as a disk only once a task of this boot made it or assembled it by its UUID: that is remembered beside the
//! device's sequence number, so that neither another array under its name nor the same one assembled by others passes.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use speediso_model::inventory::{Disk, Transport};
use speediso_model::plan::DiskIdentity;

use crate::roots::{Roots, read_line, read_number};

const SYSFS_SECTOR: u64 = 512;
const KIB: u64 = 1024;

/// What the kernel says of an array (Documentation/admin-guide/md.rst). Its attributes wait for the array's lock: whoever
/// reads them of one that may hang does so with [`crate::process::within`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MdArray {
    /// `raid1`
    pub level: String,
    pub raid_disks: usize,
    /// In bytes; 0 where there is none.
    pub chunk: u64,
    /// `1.2`
    pub metadata: String,
    /// Of each member, in bytes; 0 where the kernel does not use it (level 0).
    pub component: u64,
    /// In bytes.
    pub size: u64,
    pub has_bitmap: bool,
    pub state: String,
    pub degraded: usize,
    /// `idle`, `resync`, `recover`, ...; level 0 has none.
    pub sync_action: Option<String>,
    /// How much of the sync that is going on is done, and of how much. In bytes.
    pub synced: Option<(u64, u64)>,
    /// Whether the members were brought to agree at some time.
    pub is_consistent: bool,
    /// In how many bytes the members differed when they were compared last ([`crate::md_compare`]).
    pub mismatched: u64,
    pub members: Vec<MdMember>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MdMember {
    /// `vda1`
    pub device: String,
    /// `major:minor`
    pub number: String,
    /// `in_sync`, `spare`, `faulty`, ..., as the kernel joins them.
    pub state: String,
    /// Its place among the active ones.
    pub slot: Option<usize>,
    /// What it could not take or give: the kernel notes these places rather than giving the member up, and what is there is
    /// held by the others alone. Byte and length on the member.
    pub bad_blocks: Vec<(u64, u64)>,
}

impl MdMember {
    #[must_use]
    pub fn is(&self, state: &str) -> bool {
        self.state.split(',').any(|s| s == state)
    }
}

impl MdArray {
    /// # Errors
    /// When there is no such array, or it says nothing.
    pub fn read(roots: &Roots, device: &str) -> io::Result<Self> {
        let block = roots.sys.join("block").join(device);
        let md = block.join("md");
        let text = |name: &str| read_line(&md.join(name));
        let needed = |name: &str| {
            text(name).ok_or_else(|| io::Error::other(format!("{} cannot be read", md.join(name).display())))
        };
        let first = |text: String| text.split_whitespace().next().map(str::to_owned).unwrap_or_default();
        let number = |name: &str| text(name).and_then(|t| first(t).parse::<u64>().ok()).unwrap_or(0);
        let mut members = Vec::new();
        for entry in std::fs::read_dir(&md)? {
            let path = entry?.path();
            if let Some(device) = path.file_name().and_then(|n| n.to_str()?.strip_prefix("dev-")) {
                members.push(MdMember {
                    device: device.to_owned(),
                    // The link goes with a disk that was pulled.
                    number: read_line(&path.join("block/dev")).unwrap_or_default(),
                    state: read_line(&path.join("state")).unwrap_or_default(),
                    slot: read_line(&path.join("slot")).and_then(|slot| slot.parse().ok()),
                    bad_blocks: bad_blocks(&path),
                });
            }
        }
        members
            .sort_by(|a, b| (a.slot.unwrap_or(usize::MAX), &a.device).cmp(&(b.slot.unwrap_or(usize::MAX), &b.device)));
        Ok(Self {
            level: needed("level")?,
            raid_disks: first(needed("raid_disks")?).parse().map_err(io::Error::other)?,
            chunk: number("chunk_size"),
            metadata: needed("metadata_version")?,
            component: number("component_size").saturating_mul(KIB),
            size: read_number(&block.join("size")).unwrap_or(0).saturating_mul(SYSFS_SECTOR),
            has_bitmap: text("bitmap/location").is_some_and(|at| at != "none"),
            state: needed("array_state")?,
            degraded: usize::try_from(number("degraded")).unwrap_or(usize::MAX),
            sync_action: text("sync_action"),
            synced: text("sync_completed").and_then(|t| completed(&t)),
            is_consistent: text("resync_start").is_none_or(|at| at == "none"),
            mismatched: number("mismatch_cnt").saturating_mul(SYSFS_SECTOR),
            members,
        })
    }

    /// Lets an array that was started read-only be written, and its sync begin.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn activate(roots: &Roots, device: &str) -> io::Result<()> {
        let md = roots.sys.join("block").join(device).join("md");
        // The kernel's own limit of 200 MB/s is meant for a system that works meanwhile. Not to get more is no failure.
        let _ = std::fs::write(md.join("sync_speed_max"), "100000000");
        std::fs::write(md.join("array_state"), "active")
    }
}

/// A line for each stretch, in sectors; those that are not yet in the superblock are listed apart.
fn bad_blocks(member: &Path) -> Vec<(u64, u64)> {
    let line = |line: &str| {
        let (start, length) = line.split_once(' ')?;
        let bytes = |n: &str| n.trim().parse::<u64>().ok()?.checked_mul(SYSFS_SECTOR);
        Some((bytes(start)?, bytes(length)?))
    };
    let read = |name: &str| std::fs::read_to_string(member.join(name)).unwrap_or_default();
    let mut found: Vec<(u64, u64)> = ["bad_blocks", "unacknowledged_bad_blocks"]
        .iter()
        .flat_map(|name| read(name).lines().filter_map(line).collect::<Vec<_>>())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// `123 / 456`, in sectors; `none` or `delayed` otherwise.
fn completed(text: &str) -> Option<(u64, u64)> {
    let (done, total) = text.split_once('/')?;
    let bytes = |n: &str| n.trim().parse::<u64>().ok()?.checked_mul(SYSFS_SECTOR);
    Some((bytes(done)?, bytes(total)?))
}

/// From now on the kernel starts arrays so that nothing on their members changes before something writes to them.
///
/// # Errors
/// When there is no md in this kernel, or it declines.
pub fn start_read_only(roots: &Roots) -> io::Result<()> {
    std::fs::write(roots.sys.join("module/md_mod/parameters/start_ro"), "1")
}

/// Whether the kernel can run arrays of this level, by what it calls them (`raid1`).
#[must_use]
pub fn has_personality(roots: &Roots, level: &str) -> bool {
    let mdstat = std::fs::read_to_string(roots.proc.join("mdstat")).unwrap_or_default();
    mdstat.lines().next().is_some_and(|line| line.split_whitespace().any(|word| word.trim_matches(['[', ']']) == level))
}

/// A name for a new array: `md127` and downwards, as `mdadm` numbers them.
#[must_use]
pub fn free_device(roots: &Roots) -> Option<String> {
    (0..128u32).rev().map(|n| format!("md{n}")).find(|name| !roots.sys.join("block").join(name).exists())
}

/// The member disk or partition under this number: the disk it belongs to, by the kernel's name.
#[must_use]
pub fn disk_of(roots: &Roots, number: &str) -> Option<String> {
    let dir = std::fs::canonicalize(roots.sys.join("dev/block").join(number)).ok()?;
    let disk: &Path = if dir.join("partition").exists() { dir.parent()? } else { &dir };
    Some(disk.file_name()?.to_str()?.to_owned())
}

/// An array that a task of this boot made, or assembled by its UUID.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KnownArray {
    pub name: String,
    /// In the usual form, with hyphens.
    pub uuid: String,
    /// `RAID-1`
    pub level: String,
    /// `md127`
    pub device: String,
    /// Of that device.
    pub diskseq: u64,
    /// The disks that hold it.
    pub members: Vec<DiskIdentity>,
}

impl KnownArray {
    fn directory(roots: &Roots) -> PathBuf {
        roots.run.join("arrays")
    }

    /// Those that still run.
    #[must_use]
    pub fn all(roots: &Roots) -> Vec<Self> {
        let read = |path: PathBuf| serde_json::from_slice::<Self>(&std::fs::read(path).ok()?).ok();
        let runs = |array: &Self| {
            !array.device.contains('/')
                && read_number(&roots.sys.join("block").join(&array.device).join("diskseq")) == Some(array.diskseq)
        };
        let mut arrays: Vec<Self> = std::fs::read_dir(Self::directory(roots))
            .into_iter()
            .flatten()
            .filter_map(|entry| read(entry.ok()?.path()))
            .filter(runs)
            .collect();
        arrays.sort_by(|a, b| a.name.cmp(&b.name));
        arrays
    }

    /// From now on it counts as a disk.
    ///
    /// # Errors
    /// When it cannot be written down.
    pub fn remember(&self, roots: &Roots) -> io::Result<()> {
        let directory = Self::directory(roots);
        std::fs::create_dir_all(&directory)?;
        let (new, path) = (directory.join(format!(".{}", self.uuid)), directory.join(&self.uuid));
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }

    /// # Errors
    /// When the kernel does not count its disks (before Linux 5.15).
    pub fn diskseq_of(roots: &Roots, device: &str) -> io::Result<u64> {
        read_number(&roots.sys.join("block").join(device).join("diskseq"))
            .ok_or_else(|| io::Error::other(format!("{device} has no sequence number (Linux 5.15)")))
    }

    pub(crate) fn as_disk(&self, disk: Disk) -> Disk {
        let members: Vec<String> = self.members.iter().map(|m| m.serial.clone()).filter(|s| !s.is_empty()).collect();
        Disk {
            model: format!("{} {:?} of {}", self.level, self.name, members.join(", ")),
            serial: self.uuid.clone(),
            tran: Transport::Md,
            array: Some(self.name.clone()),
            ..disk
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::{self, DiskScope};

    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Self {
            let fixture = Self(tempfile::tempdir().expect("a temporary directory"));
            fixture.write("proc/self/mountinfo", "");
            fixture
        }

        fn roots(&self) -> Roots {
            Roots::under(self.0.path())
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().expect("below the fixture")).expect("made");
            std::fs::write(path, content).expect("written");
        }

        fn md(&self, attributes: &[(&str, &str)]) {
            for (name, content) in attributes {
                self.write(&format!("sys/block/md127/{name}"), content);
            }
        }
    }

    /// As the kernel of the live system (6.1) writes them.
    const MIRROR: [(&str, &str); 20] = [
        ("size", "202752\n"),
        ("diskseq", "21\n"),
        ("md/level", "raid1\n"),
        ("md/raid_disks", "2\n"),
        ("md/chunk_size", "0\n"),
        ("md/metadata_version", "1.2\n"),
        ("md/component_size", "101376\n"),
        ("md/array_state", "active\n"),
        ("md/degraded", "1\n"),
        ("md/sync_action", "recover\n"),
        ("md/sync_completed", "2048 / 202752\n"),
        ("md/resync_start", "none\n"),
        ("md/mismatch_cnt", "128\n"),
        ("md/bitmap/location", "+8\n"),
        ("md/dev-vdb1/block/dev", "254:17\n"),
        ("md/dev-vdb1/state", "spare\n"),
        ("md/dev-vdb1/slot", "1\n"),
        ("md/dev-vdb1/bad_blocks", "2048 8\n4096 16\n"),
        ("md/dev-vda1/state", "in_sync,write_mostly\n"),
        ("md/dev-vda1/slot", "0\n"),
    ];

    #[test]
    fn an_array_is_read_with_its_members() {
        let fixture = Fixture::new();
        fixture.md(&MIRROR);
        let array = MdArray::read(&fixture.roots(), "md127").expect("read");
        assert_eq!((array.level.as_str(), array.raid_disks, array.degraded), ("raid1", 2, 1));
        assert_eq!((array.component, array.size), (99 << 20, 99 << 20));
        assert_eq!(array.synced, Some((1 << 20, 99 << 20)));
        assert!(array.has_bitmap && array.is_consistent && array.mismatched == 65536);
        let [first, second] = array.members.as_slice() else { panic!("two members: {array:?}") };
        assert!(first.device == "vda1" && first.is("in_sync") && !first.is("sync"));
        assert!(second.number == "254:17" && second.is("spare"));
        assert_eq!(second.bad_blocks, [(1 << 20, 4096), (2 << 20, 8192)]);
        assert_eq!(first.bad_blocks, []);
        fixture.md(&[("md/sync_completed", "none\n"), ("md/bitmap/location", "none\n"), ("md/resync_start", "0\n")]);
        let array = MdArray::read(&fixture.roots(), "md127").expect("read");
        assert!(array.synced.is_none() && !array.has_bitmap && !array.is_consistent);
        assert!(MdArray::read(&fixture.roots(), "md126").is_err());
    }

    #[test]
    fn only_an_array_of_this_boot_counts_as_a_disk() {
        let fixture = Fixture::new();
        fixture.md(&MIRROR);
        let list = || disks::read(&fixture.roots(), DiskScope::default()).expect("listed");
        assert!(list().is_empty(), "somebody else's array");
        let member = |serial: &str| DiskIdentity::of(&Disk { serial: serial.into(), ..Disk::default() });
        let known = KnownArray {
            name: "root".into(),
            uuid: "0f3cb2a1-1111-4222-8333-444455556666".into(),
            level: "RAID-1".into(),
            device: "md127".into(),
            diskseq: 21,
            members: vec![member("A1"), member("B2")],
        };
        known.remember(&fixture.roots()).expect("written");
        let [disk] = list().try_into().expect("one");
        assert_eq!((disk.tran, disk.array.as_deref(), &disk.serial), (Transport::Md, Some("root"), &known.uuid));
        assert_eq!(disk.model, r#"RAID-1 "root" of A1, B2"#);
        // Stopped, and another one assembled under its name.
        fixture.md(&[("diskseq", "22\n")]);
        assert!(list().is_empty());
    }

    #[test]
    fn free_names_and_personalities() {
        let fixture = Fixture::new();
        assert_eq!(free_device(&fixture.roots()).as_deref(), Some("md127"));
        fixture.md(&MIRROR);
        assert_eq!(free_device(&fixture.roots()).as_deref(), Some("md126"));
        assert!(!has_personality(&fixture.roots(), "raid1"));
        fixture.write("proc/mdstat", "Personalities : [raid0] [raid10] \nunused devices: <none>\n");
        assert!(has_personality(&fixture.roots(), "raid10") && !has_personality(&fixture.roots(), "raid1"));
    }
}
