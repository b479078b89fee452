//! What is on a disk, according to libblkid.
//!
//! An unknown disk's superblocks are the input of whoever used the machine before, and libblkid is C. So it runs in a
//! child that can do nothing but read the disk and write its answer, within limits of time and memory: a hostile
//! superblock may end the child, which reads as "could not be probed".

mod child;
pub(crate) mod confine;
mod lvm;
mod probe;
mod survey;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::claim::ClaimedDisk;

pub(crate) use child::answer_of_child;
pub use child::{ProbeError, probe_file_in_child, survey_in_child};
pub use survey::{Range, Survey};

/// Argument by which our own program becomes the child.
pub const CHILD_ARGUMENT: &str = "probe-superblock";

/// A disk that has not answered by then is slow beyond use or stuck.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Something found on a disk.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Signature {
    /// Number of the partition it is in; `None` for the disk as a whole.
    pub partition: Option<u32>,
    /// In how many others the [`Range`] lies in which it was found.
    pub depth: u32,
    /// `gpt`, `ext4`, `linux_raid_member`, ... as `blkid` names them.
    pub kind: String,
    /// `filesystem`, `raid`, `crypto`, `other`; or `partition table`.
    pub usage: String,
    pub label: String,
    pub uuid: String,
    /// By which bytes it is known. Without them it is not found again.
    pub magics: Vec<Magic>,
}

/// A few bytes of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Magic {
    /// From the start of the disk.
    pub offset: u64,
    pub length: u64,
}

impl Signature {
    /// Bytes of no format in particular, which are nothing to tell people of.
    #[must_use]
    pub fn is_trace(&self) -> bool {
        [survey::BOOT_SECTOR, survey::BOOT_RECORD].contains(&self.kind.as_str())
    }
}

impl fmt::Display for Signature {
    /// `partition 2: ext4 "root" 0f3c...`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.partition {
            write!(f, "partition {number}: ")?;
        }
        f.write_str(&self.kind)?;
        if self.usage == probe::TABLE {
            write!(f, " {}", self.usage)?;
        }
        if !self.label.is_empty() {
            write!(f, " {:?}", self.label)?;
        }
        if !self.uuid.is_empty() {
            write!(f, " {}", self.uuid)?;
        }
        Ok(())
    }
}

/// The child's whole life: gives up every right it does not need, probes the disk on its standard input, and writes
/// the survey as JSON to its standard output.
///
/// # Errors
/// When it cannot be confined (then nothing is probed) or libblkid gives up.
pub fn child_main() -> io::Result<()> {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    let disk = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let prepared = survey::Prepared::new(&disk)?;
    confine::confine()?;
    let found = prepared.survey()?;
    let mut answer = serde_json::to_vec(&found)?;
    answer.push(b'\n');
    io::stdout().write_all(&answer)?;
    io::stdout().flush()
}

/// Probes a device by path in a child of the program `exe`, and puts what was found in words.
///
/// # Errors
/// When the device cannot be opened, or the child fails, lies or takes too long.
pub fn probe_in_child(exe: &Path, device: &Path) -> Result<Vec<String>, ProbeError> {
    let signatures = survey_device(exe, device)?.signatures;
    Ok(signatures.iter().filter(|s| !s.is_trace()).map(ToString::to_string).collect())
}

/// Surveys a device by path: for disks that nobody has claimed, so nothing may follow from it but a refusal.
///
/// # Errors
/// When the device cannot be opened, or the child fails, lies or takes too long.
pub fn survey_device(exe: &Path, device: &Path) -> Result<Survey, ProbeError> {
    let disk = OpenOptions::new()
        .read(true)
        // A drive without a medium answers at once.
        .custom_flags(libc::O_NONBLOCK)
        .open(device)
        .map_err(|source| ProbeError::Open { device: PathBuf::from(device), source })?;
    survey_in_child(exe, disk, DEADLINE)
}

/// Surveys a claimed disk, through a descriptor that can only read.
///
/// # Errors
/// When it cannot be opened again, or the child fails, lies or takes too long.
pub fn survey_claimed(exe: &Path, disk: &ClaimedDisk) -> Result<Survey, ProbeError> {
    use std::os::fd::AsRawFd as _;
    // Through the open descriptor: a name in /dev may lead elsewhere by now.
    let path = PathBuf::from(format!("/proc/self/fd/{}", disk.descriptor().as_raw_fd()));
    let again = File::open(&path).map_err(|source| ProbeError::Open { device: disk.name().into(), source })?;
    survey_in_child(exe, again, DEADLINE)
}
