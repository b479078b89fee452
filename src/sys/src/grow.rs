//! Growing file systems by the kernel that has them: no tool, and the same code that will use them.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use crate::ioctl;
use crate::mount::mount_apart;

/// What the kernel can grow while it is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Growable {
    /// ext2, ext3 and ext4, by one driver.
    Ext4 {
        block_size: u64,
    },
    /// How much of it inodes may take stays as it is.
    Xfs {
        block_size: u64,
        inode_percent: u32,
    },
    Btrfs,
}

impl Growable {
    #[must_use]
    pub fn name(self) -> &'static str {
        self.driver().to_str().unwrap_or_default()
    }

    fn driver(self) -> &'static CStr {
        match self {
            Self::Ext4 { .. } => c"ext4",
            Self::Xfs { .. } => c"xfs",
            Self::Btrfs => c"btrfs",
        }
    }

    /// Makes the file system on `device` as large as the device, `size` bytes. Only for what a verified image brought:
    /// mounting lets the kernel parse it.
    ///
    /// # Errors
    /// `Unsupported` when the kernel has no driver for it; else what the kernel says, of a file system with errors for
    /// instance.
    pub fn grow(self, device: &Path, size: u64) -> io::Result<()> {
        let root = mount_apart(self.driver(), device, true).map_err(|e| match e.raw_os_error() {
            Some(libc::ENODEV) => io::ErrorKind::Unsupported.into(),
            _ => e,
        })?;
        match self {
            Self::Ext4 { block_size } => ioctl::ext4_resize(&root, size / block_size)?,
            Self::Xfs { block_size, inode_percent } => ioctl::xfs_grow_data(&root, size / block_size, inode_percent)?,
            Self::Btrfs => ioctl::btrfs_resize_to_max(&root)?,
        }
        // Now, when an error can still be told: what is written at the unmount fails in silence.
        nix::unistd::syncfs(&root)?;
        Ok(())
    }
}
