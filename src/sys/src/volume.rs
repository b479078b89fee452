//! The inside of a file system that is mounted nowhere.
//!
//! Names inside come from archives, which lie: every way to a directory is resolved by the kernel with this file system
//! as its root (`openat2`, Linux 5.6), so neither `..` nor a symbolic link leads out of it. The last part of a name is
//! never followed.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknodat, utimensat};
use nix::sys::time::TimeSpec;

use crate::mount::mount_apart;

/// Mounted as long as it lives.
#[derive(Debug)]
pub struct Volume {
    root: File,
}

/// A directory of a [`Volume`].
#[derive(Debug)]
pub struct Directory {
    directory: OwnedFd,
}

/// What has a number (`makedev`) instead of content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    Fifo,
    Character { device: u64 },
    Block { device: u64 },
}

impl Volume {
    /// # Errors
    /// `Unsupported` when the kernel has no driver of that name; else what it says.
    pub fn mount(device: &Path, driver: &str, writable: bool) -> io::Result<Self> {
        let driver = CString::new(driver).map_err(io::Error::other)?;
        let root = mount_apart(driver.as_c_str() as &CStr, device, writable).map_err(|e| match e.raw_os_error() {
            Some(libc::ENODEV) => io::ErrorKind::Unsupported.into(),
            _ => e,
        })?;
        Ok(Self { root })
    }

    /// A directory by its path from the root. Symbolic links on the way are those of the installed system: absolute ones
    /// begin at its root.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, or what the kernel says.
    pub fn directory(&self, path: &Path) -> io::Result<Directory> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV);
        Ok(Directory { directory: openat2(&self.root, path, how)? })
    }

    /// Writes out everything. What only the unmount would write could fail in silence.
    ///
    /// # Errors
    /// What the device says.
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::syncfs(&self.root)?)
    }
}

impl Directory {
    /// A path to what is called so in here, for calls that take one. `name` is one part, not a way.
    #[must_use]
    pub fn at(&self, name: &OsStr) -> PathBuf {
        debug_assert!(!name.as_encoded_bytes().contains(&b'/'), "{} is a way, not a name", name.display());
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(name)
    }

    /// Where it is, from the root of the file system, without links.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn path(&self) -> io::Result<PathBuf> {
        let path = std::fs::read_link(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))?;
        Ok(path.strip_prefix("/").unwrap_or(&path).to_owned())
    }

    /// Makes something that is neither file, directory nor link.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make_node(&self, name: &OsStr, node: Node, mode: u32) -> io::Result<()> {
        let (kind, device) = match node {
            Node::Fifo => (SFlag::S_IFIFO, 0),
            Node::Character { device } => (SFlag::S_IFCHR, device),
            Node::Block { device } => (SFlag::S_IFBLK, device),
        };
        Ok(mknodat(&self.directory, name, kind, Mode::from_bits_truncate(mode), device)?)
    }
}

/// Sets when it was last changed, of a link its own.
///
/// # Errors
/// What the kernel says.
pub fn set_modified(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = TimeSpec::new(seconds, nanoseconds);
    Ok(utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}
