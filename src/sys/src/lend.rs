//! Giving a claimed disk into the hands of a tool that claims it itself.
//!
//! Two cannot open a disk exclusively, so the claim has to end before the tool begins. What must not end is the certainty
//! of which disk it is: a descriptor stays open, and as long as it does the kernel gives the device's number to no other
//! disk. The tool gets a device node made for that number in a directory of its own, not a name in `/dev` that may
//! lead elsewhere by then. Should somebody else take the disk in between, the tool's own exclusive opening fails.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use speediso_model::inventory::Disk;
use speediso_model::plan::DiskIdentity;

use crate::claim::ClaimedDisk;
use crate::ioctl;
use crate::roots::{Roots, read_line, read_number};

const SYSFS_SECTOR: u64 = 512;

/// A disk that was claimed and is lent to a tool now.
#[derive(Debug)]
pub struct LentDisk {
    held: File,
    disk: Disk,
    identity: DiskIdentity,
}

/// What of a lent disk the tool gets. In bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Whole,
    Partition { number: u32, start: u64, length: u64 },
}

/// A directory in which nobody but root finds device nodes. Gone with its end, and the nodes with it.
#[derive(Debug)]
pub struct NodeDirectory(PathBuf);

/// A device node for a tool, of a device that is held open.
#[derive(Debug)]
pub struct Node {
    path: PathBuf,
    number: String,
    _held: File,
}

impl ClaimedDisk {
    /// Ends the claim, but not the hold on the device's number.
    ///
    /// # Errors
    /// When the disk has gone.
    pub fn lend(self) -> io::Result<LentDisk> {
        let (claimed, disk, identity) = self.into_parts();
        let held = open_to_hold(Path::new(&format!("/proc/self/fd/{}", claimed.as_raw_fd())), &identity)?;
        Ok(LentDisk { held, disk, identity })
    }
}

/// A descriptor that keeps the number but not others away.
fn open_to_hold(path: &Path, identity: &DiskIdentity) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(path)?;
    if ioctl::disk_sequence(&file) != identity.diskseq {
        return Err(io::Error::other("another disk answers under its number"));
    }
    Ok(file)
}

impl LentDisk {
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    #[must_use]
    pub fn identity(&self) -> &DiskIdentity {
        &self.identity
    }

    /// # Errors
    /// When the kernel does not see the partition where it was written, or the disk has gone.
    pub fn node(&self, roots: &Roots, directory: &NodeDirectory, part: Part) -> io::Result<Node> {
        let rdev = self.held.metadata()?.rdev();
        let dir = std::fs::canonicalize(roots.sys.join(format!("dev/block/{}:{}", major(rdev), minor(rdev))))?;
        let InSysfs { device, number } = InSysfs::find(&dir, part)?;
        let length = match part {
            Part::Whole => self.disk.size.0,
            Part::Partition { length, .. } => length,
        };
        let parse = |text: &str| text.parse::<u64>().map_err(io::Error::other);
        let (high, low) = number.split_once(':').ok_or_else(|| io::Error::other(format!("{number:?} is no number")))?;
        let rdev = makedev(parse(high)?, parse(low)?);
        let path = directory.0.join(device);
        mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, rdev)?;
        let held = open_to_hold(&path, &self.identity)?;
        if held.metadata()?.rdev() != rdev || ioctl::size_in_bytes(&held)? != length {
            return Err(io::Error::other(format!("{} is not what it was made for", path.display())));
        }
        Ok(Node { path, number, _held: held })
    }
}

/// What the kernel calls a disk or a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InSysfs {
    /// `vda1`
    pub device: String,
    /// `major:minor`
    pub number: String,
}

impl InSysfs {
    /// Of a disk that somebody else may hold.
    ///
    /// # Errors
    /// When the kernel sees no such disk, or the partition elsewhere.
    pub fn of(roots: &Roots, disk: &Disk, part: Part) -> io::Result<Self> {
        let name = Path::new(&disk.name).strip_prefix(&roots.dev).map_err(io::Error::other)?;
        let name = name.display().to_string().replace('/', "!");
        Self::find(&std::fs::canonicalize(roots.sys.join("block").join(name))?, part)
    }

    fn find(disk: &Path, part: Part) -> io::Result<Self> {
        let dir = match part {
            Part::Whole => disk.to_owned(),
            Part::Partition { number, start, length } => partition(disk, number, start, length)?,
        };
        let device = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = read_line(&dir.join("dev")).ok_or_else(|| io::Error::other(format!("{device} has no number")))?;
        Ok(Self { device, number })
    }
}

/// The partition's directory in sysfs, if the kernel sees it there.
fn partition(disk: &Path, number: u32, start: u64, length: u64) -> io::Result<PathBuf> {
    for entry in std::fs::read_dir(disk)? {
        let dir = entry?.path();
        if read_number(&dir.join("partition")) == Some(u64::from(number)) {
            let (from, sectors) = (read_number(&dir.join("start")), read_number(&dir.join("size")));
            if (from, sectors) == (Some(start / SYSFS_SECTOR), Some(length / SYSFS_SECTOR)) {
                return Ok(dir);
            }
            return Err(io::Error::other(format!("partition {number} is elsewhere, or of another size")));
        }
    }
    Err(io::Error::other(format!("there is no partition {number}")))
}

impl NodeDirectory {
    /// In `/dev`, since other file systems may be mounted so that device nodes on them do not work.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(roots: &Roots) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(".speediso-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = roots.dev.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for NodeDirectory {
    fn drop(&mut self) {
        // A node that stays leads to a device that root can reach anyway.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Node {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `major:minor`, as sysfs writes it.
    #[must_use]
    pub fn number(&self) -> &str {
        &self.number
    }
}
