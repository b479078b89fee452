//! What is on a disk, according to libblkid.
//!
//! An unknown disk's superblocks are the input of whoever used the machine before, and libblkid is C. So it runs in a
//! child that can do nothing but read the disk and write its answer, within limits of time and memory: a hostile
//! superblock may end the child, which reads as "could not be probed".

mod child;
mod confine;
mod probe;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use child::{ProbeError, probe_file_in_child};
pub use probe::probe_here;

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
    /// `gpt`, `ext4`, `linux_raid_member`, ... as `blkid` names them.
    pub kind: String,
    /// `filesystem`, `raid`, `crypto`, `other`; or `partition table`.
    pub usage: String,
    pub label: String,
    pub uuid: String,
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
/// the signatures as JSON to its standard output.
///
/// # Errors
/// When it cannot be confined (then nothing is probed) or libblkid gives up.
pub fn child_main() -> io::Result<()> {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    let disk = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    confine::confine()?;
    let found = probe_here(&disk)?;
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
    let disk = OpenOptions::new()
        .read(true)
        // A drive without a medium answers at once.
        .custom_flags(libc::O_NONBLOCK)
        .open(device)
        .map_err(|source| ProbeError::Open { device: PathBuf::from(device), source })?;
    Ok(probe_file_in_child(exe, disk, DEADLINE)?.iter().map(ToString::to_string).collect())
}
