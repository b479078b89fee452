//! The project's own programs, as they were built beside the one that runs now.

use std::path::{Path, PathBuf};

use crate::error::{Doing, LabError, Result};

/// Where the built programs and the ramdisk are.
#[derive(Clone, Debug)]
pub struct Programs {
    pub controller: PathBuf,
    pub cli: PathBuf,
    /// `builds/latest`: kernel and ramdisk.
    pub boot_files: PathBuf,
}

impl Programs {
    /// Programs from the directory of the running one (or its parent, for a test in `deps/`), the ramdisk from
    /// `builds/latest` of the repository at `root`.
    pub fn beside_this(root: &Path) -> Result<Self> {
        let exe = std::env::current_exe().doing(|| "asking where this program is".to_owned())?;
        let dir = exe
            .ancestors()
            .skip(1)
            .find(|dir| dir.file_name().is_none_or(|name| name != "deps"))
            .unwrap_or_else(|| Path::new("."));
        let programs = Self {
            controller: dir.join("speediso-controller"),
            cli: dir.join("speediso"),
            boot_files: root.join("builds/latest"),
        };
        for needed in [
            programs.controller.clone(),
            programs.cli.clone(),
            programs.boot_files.join("vmlinuz"),
            programs.boot_files.join("initramfs.img"),
        ] {
            if !needed.is_file() {
                return Err(LabError::NotBuilt { path: needed });
            }
        }
        Ok(programs)
    }
}

/// The repository that a crate's manifest lies in: the nearest directory above with a `Cargo.lock`.
pub fn repository(start: &Path) -> Option<PathBuf> {
    start.ancestors().find(|dir| dir.join("Cargo.lock").is_file()).map(Path::to_owned)
}
