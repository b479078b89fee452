//! Where the live root comes to be. A mount that is there when the agent comes back is the one that it made before.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::mounting::{is_mounted, mount_at, squashfs};

/// Below `/run`, which goes along to the new root.
const HELD: &str = "/run/speediso-live/held";
const LOWER: &str = "/run/speediso-live/lower";
const CHANGES: &str = "/run/speediso-live/changes";
/// Beside `/run`: what goes along cannot be moved into itself. `/etc/switch` knows it too.
pub(super) const NEW_ROOT: &str = "/newroot";

/// The places under one root, so that tests have theirs.
#[derive(Debug)]
pub(super) struct Mounts {
    held: PathBuf,
    lower: PathBuf,
    changes: PathBuf,
    pub(super) new_root: PathBuf,
}

impl Mounts {
    pub(super) fn of_system() -> Self {
        Self::under(Path::new("/"))
    }

    fn under(root: &Path) -> Self {
        let at = |path: &str| root.join(path.trim_start_matches('/'));
        Self { held: at(HELD), lower: at(LOWER), changes: at(CHANGES), new_root: at(NEW_ROOT) }
    }

    /// The file in memory that holds an image of this size. It may hold some of it from before.
    pub(super) fn hold(&self, size: u64) -> io::Result<File> {
        // A page for each of the file system's own needs.
        let room = size.next_multiple_of(4096) + (1 << 20);
        // One from before may be of another size, and too full to shrink.
        if !is_mounted(&self.held)? || tmpfs_again(&self.held, room).is_err() {
            self.clear();
            tmpfs(&self.held, &format!("size={room},mode=0700"))?;
        }
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(self.image())
    }

    fn image(&self) -> PathBuf {
        self.held.join("image")
    }

    /// Bytes of memory that an image takes already.
    pub(super) fn held(&self) -> u64 {
        fs::metadata(self.image()).map_or(0, |image| image.blocks() * 512)
    }

    /// Lends a file with these bytes for a moment.
    pub(super) fn with_file(
        &self,
        name: &str,
        bytes: &[u8],
        lend: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.held.with_file_name(name);
        fs::write(&path, bytes)?;
        let done = lend(&path);
        fs::remove_file(&path)?;
        done
    }

    /// The squashfs in that file, and over it memory for what changes, as the new root.
    pub(super) fn overlay(&self, length: u64) -> io::Result<()> {
        // For reading only: an image that was verified stays what it was.
        let read_only = File::open(self.image())?;
        squashfs(&read_only, length, &self.lower)?;
        tmpfs(&self.changes, "mode=0755")?;
        let (upper, work) = (self.changes.join("upper"), self.changes.join("work"));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        fs::create_dir_all(&self.new_root)?;
        let options =
            format!("lowerdir={},upperdir={},workdir={}", self.lower.display(), upper.display(), work.display());
        mount_at(Path::new("speediso-live"), &self.new_root, "overlay", MsFlags::empty(), &options)
    }

    /// Memory for a root that is unpacked.
    pub(super) fn plain(&self) -> io::Result<()> {
        tmpfs(&self.new_root, "mode=0755,size=90%")
    }

    /// Takes all of it away, which gives its memory back. What is not there is no mistake.
    pub(super) fn clear(&self) {
        for place in [&self.new_root, &self.changes, &self.lower, &self.held] {
            // Lazily: a child that was given up may still stand in it.
            while umount2(place, MntFlags::MNT_DETACH).is_ok() {}
        }
    }
}

fn tmpfs(at: &Path, options: &str) -> io::Result<()> {
    fs::create_dir_all(at)?;
    mount_at(Path::new("speediso-live"), at, "tmpfs", MsFlags::MS_NODEV, options)
}

fn tmpfs_again(at: &Path, size: u64) -> io::Result<()> {
    let options = format!("size={size}");
    Ok(mount(None::<&Path>, at, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_NODEV, Some(options.as_str()))?)
}
