//! The medium that this system was started from, and the parameters on it.
//!
//! The boot entry of a stick or CD names the id of its own parameter partition, and nothing else makes a partition one to
//! read from. So of every stick and CD the partition table is read, until one has that id; then one file of that partition.
//! Disks inside of the machine are never looked at. It is other people's bytes all the same: they are read in a confined
//! child, as superblocks are, and nothing is mounted.

mod reader;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::blkid::{self, ProbeError};
use crate::roots::{Roots, read_number};

pub use reader::child_main;

/// Argument by which our own program becomes the child; the id follows.
pub const CHILD_ARGUMENT: &str = "read-parameters";
/// The file, at the top of the partition.
pub const FILE: &str = "speediso.conf";
/// A drive that spins up first takes some seconds; a virtual one across a slow line, too.
const DEADLINE: Duration = Duration::from_secs(20);
/// What `live` takes the medium by, until the next boot.
const NOTE: &str = "medium";

/// What a medium turned out to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// Not the one that was started from.
    Other,
    /// The one; what stands in the file, if there is one.
    Own { parameters: Option<String> },
}

/// Names of the whole disks that can be taken out of the machine, or are attached over USB: all that can be a medium.
///
/// # Errors
/// When `/sys/block` cannot be listed.
pub fn candidates(roots: &Roots) -> io::Result<Vec<String>> {
    // Of no medium, and slow to say so.
    const NEVER: [&str; 8] = ["loop", "ram", "md", "dm-", "zram", "nbd", "fd", "mtd"];
    let mut names = Vec::new();
    for entry in fs::read_dir(roots.sys.join("block"))? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if NEVER.iter().any(|kind| name.starts_with(kind)) {
            continue;
        }
        let removable = read_number(&entry.path().join("removable")) == Some(1);
        // The directory is a link to the device's own, below that of its bus.
        let over_usb = fs::canonicalize(entry.path())
            .is_ok_and(|path| path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb")));
        if removable || over_usb {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Looks at one of them, in a child of the program `exe`.
///
/// # Errors
/// When it cannot be opened or read (a drive without a medium), or the child fails or takes too long.
pub fn look(exe: &Path, roots: &Roots, name: &str, id: Uuid) -> Result<Found, ProbeError> {
    let device = roots.dev.join(name);
    let disk = OpenOptions::new()
        .read(true)
        // A drive without a medium answers at once.
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(&device)
        .map_err(|source| ProbeError::Open { device: PathBuf::from(&device), source })?;
    blkid::answer_of_child(exe, &[CHILD_ARGUMENT, &id.to_string()], disk, DEADLINE)
}

/// Notes which one it is, so that no task takes it for one of the machine's disks.
///
/// # Errors
/// When the note cannot be written.
pub fn note(roots: &Roots, name: &str) -> io::Result<()> {
    // The kernel counts every disk it sees: another one in the same place has another number.
    let seq = read_number(&roots.sys.join("block").join(name).join("diskseq")).unwrap_or_default();
    fs::write(roots.run.join(NOTE), format!("{name} {seq}\n"))
}

/// Whether this disk (`sdb`) is the one that was noted, and still the same.
pub(crate) fn is_noted(roots: &Roots, name: &str) -> bool {
    let noted = fs::read_to_string(roots.run.join(NOTE)).unwrap_or_default();
    let seq = read_number(&roots.sys.join("block").join(name).join("diskseq")).unwrap_or_default();
    noted.trim_end() == format!("{name} {seq}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_taken_out_is_looked_at() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        let block = roots.sys.join("block");
        fs::create_dir_all(&block).expect("made");
        let device = |place: &str, name: &str, removable: &str| {
            let path = roots.sys.join("devices").join(place).join(name);
            fs::create_dir_all(&path).expect("made");
            fs::write(path.join("removable"), removable).expect("written");
            std::os::unix::fs::symlink(&path, block.join(name)).expect("linked");
            path
        };
        device("pci0000:00/ata1", "sda", "0\n");
        let stick = device("pci0000:00/usb1/1-1", "sdb", "0\n");
        device("pci0000:00/ata2", "sr0", "1\n");
        device("virtual", "loop0", "1\n");
        assert_eq!(candidates(&roots).expect("listed"), ["sdb", "sr0"]);

        fs::create_dir_all(&roots.run).expect("made");
        assert!(!is_noted(&roots, "sdb"));
        fs::write(stick.join("diskseq"), "9\n").expect("written");
        note(&roots, "sdb").expect("noted");
        assert!(is_noted(&roots, "sdb") && !is_noted(&roots, "sda"));
        // Pulled out, and another one put in.
        fs::write(stick.join("diskseq"), "10\n").expect("written");
        assert!(!is_noted(&roots, "sdb"));
    }
}
