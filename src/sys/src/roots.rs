//! Where the kernel shows itself.

use std::path::{Path, PathBuf};

use crate::sysfs;

/// What is read as a line is never near this, the kernel's command line included.
const LINE_LIMIT: u64 = 64 * 1024;

/// The directories that readers start from: the live ones, or a captured machine's.
#[derive(Clone, Debug)]
pub struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
    pub dev: PathBuf,
    pub efivars: PathBuf,
    /// What is remembered until the next boot.
    pub run: PathBuf,
    /// Tables of names, `pci.ids` for instance; the ramdisk has none.
    pub share: PathBuf,
}

impl Roots {
    #[must_use]
    pub fn live() -> Self {
        Self::under(Path::new("/"))
    }

    /// Whether these are the running machine's, of which the kernel can be asked more than files tell.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.sys == Path::new("/sys")
    }

    /// `dir/sys`, `dir/proc`, ...
    #[must_use]
    pub fn under(dir: &Path) -> Self {
        Self {
            sys: dir.join("sys"),
            proc: dir.join("proc"),
            dev: dir.join("dev"),
            efivars: dir.join("sys/firmware/efi/efivars"),
            run: dir.join("run/speediso"),
            share: dir.join("usr/share"),
        }
    }
}

/// The trimmed content of a small file of sysfs or procfs; `None` if it is absent, unreadable or not text.
#[must_use]
pub fn read_line(path: &Path) -> Option<String> {
    let text = String::from_utf8(sysfs::bytes(path, LINE_LIMIT).ok()?).ok()?;
    // SCSI inquiry fields are padded with blanks, some firmware pads with NULs.
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    // What is left ends on consoles.
    Some(text.replace(|c: char| c.is_control(), " "))
}

/// A number in such a file.
#[must_use]
pub fn read_number(path: &Path) -> Option<u64> {
    read_line(path)?.parse().ok()
}
