//! Where the kernel shows itself.

use std::path::{Path, PathBuf};

/// The directories that readers start from: the live ones, or a captured machine's.
#[derive(Clone, Debug)]
pub struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
    pub dev: PathBuf,
    pub efivars: PathBuf,
    /// What is remembered until the next boot.
    pub run: PathBuf,
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
        }
    }
}

/// The trimmed content of a small file of sysfs or procfs; `None` if it is absent, unreadable or not text.
#[must_use]
pub fn read_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    // SCSI inquiry fields are padded with blanks, some firmware pads with NULs.
    Some(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned())
}

/// A number in such a file.
#[must_use]
pub fn read_number(path: &Path) -> Option<u64> {
    read_line(path)?.parse().ok()
}
