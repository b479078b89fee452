//! What is known of one file, and the sum over all of them that two trees are compared by.
//!
//! The archive says what is to be there and the file system says what is: both are summed up, whatever the order, so
//! that a tree of any size is compared in a few bytes of memory.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use speediso_model::task::ReadBack;

/// Of a buffer for content.
pub(super) const PIECE: usize = 256 << 10;

/// All files of a tree, added up: each one's hash as four numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sum {
    lanes: [u64; 4],
    pub(super) files: u64,
}

impl Sum {
    pub(super) fn add(&mut self, hash: blake3::Hash) {
        for (lane, part) in self.lanes.iter_mut().zip(parts(hash)) {
            *lane = lane.wrapping_add(part);
        }
        self.files = self.files.wrapping_add(1);
    }

    /// Of what was replaced.
    pub(super) fn take(&mut self, hash: blake3::Hash) {
        for (lane, part) in self.lanes.iter_mut().zip(parts(hash)) {
            *lane = lane.wrapping_sub(part);
        }
        self.files = self.files.wrapping_sub(1);
    }
}

fn parts(hash: blake3::Hash) -> [u64; 4] {
    let bytes = hash.as_bytes();
    [0, 8, 16, 24].map(|at| bytes[at..at + 8].iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Content {
    Directory,
    File { length: u64, hash: Option<blake3::Hash> },
    Link { target: OsString },
    Fifo,
    Character { device: u64 },
    Block { device: u64 },
}

/// Owner, rights and the like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Meta {
    /// The lower twelve bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) seconds: i64,
    pub(super) nanoseconds: i64,
    /// In the order of their names.
    pub(super) attributes: Vec<(OsString, Vec<u8>)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    pub(super) content: Content,
    pub(super) meta: Meta,
}

/// Of which files the content is compared; of all others, everything else is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampling {
    pub(super) mode: ReadBack,
    pub(super) seed: u64,
}

impl Sampling {
    /// Depends on nothing but the name, so that both sides choose the same.
    pub(super) fn chooses(self, path: &Path) -> bool {
        match self.mode {
            ReadBack::Full => true,
            ReadBack::None => false,
            ReadBack::Sample => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&self.seed.to_le_bytes()).update(path.as_os_str().as_bytes());
                hasher.finalize().as_bytes()[0] < 16
            }
        }
    }
}

impl Facts {
    /// As the file system has it. `at` is a path whose last part is not followed.
    pub(super) fn read(path: &Path, at: &Path, sampling: Sampling) -> io::Result<Self> {
        let found = fs::symlink_metadata(at)?;
        let kind = found.file_type();
        let content = match () {
            () if kind.is_dir() => Content::Directory,
            () if kind.is_file() => {
                let hash = if sampling.chooses(path) { Some(hash_of(at)?) } else { None };
                Content::File { length: found.len(), hash }
            }
            () if kind.is_symlink() => Content::Link { target: fs::read_link(at)?.into_os_string() },
            () if kind.is_fifo() => Content::Fifo,
            () if kind.is_char_device() => Content::Character { device: found.rdev() },
            () if kind.is_block_device() => Content::Block { device: found.rdev() },
            () => return Err(io::Error::other("neither file, directory, link nor device")),
        };
        let mut attributes = xattr::list(at)?
            .map(|name| Ok((name.clone(), xattr::get(at, &name)?.unwrap_or_default())))
            .collect::<io::Result<Vec<_>>>()?;
        attributes.sort();
        let meta = Meta {
            mode: found.mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            seconds: found.mtime(),
            nanoseconds: found.mtime_nsec(),
            attributes,
        };
        Ok(Self { content, meta })
    }

    /// Of everything, with the name.
    pub(super) fn hash(&self, path: &Path) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        put(path.as_os_str().as_bytes());
        let mode = match &self.content {
            Content::Directory => {
                put(b"directory");
                self.meta.mode
            }
            Content::File { length, hash } => {
                put(b"file");
                put(&length.to_le_bytes());
                put(hash.as_ref().map_or(&[], |hash| hash.as_bytes()));
                self.meta.mode
            }
            Content::Link { target } => {
                put(b"link");
                put(target.as_bytes());
                // Every link has the same.
                0
            }
            Content::Fifo => {
                put(b"fifo");
                self.meta.mode
            }
            Content::Character { device } => {
                put(b"character device");
                put(&device.to_le_bytes());
                self.meta.mode
            }
            Content::Block { device } => {
                put(b"block device");
                put(&device.to_le_bytes());
                self.meta.mode
            }
        };
        for number in [mode, self.meta.uid, self.meta.gid] {
            put(&number.to_le_bytes());
        }
        put(&self.meta.seconds.to_le_bytes());
        put(&self.meta.nanoseconds.to_le_bytes());
        for (name, value) in &self.meta.attributes {
            put(name.as_bytes());
            put(value);
        }
        hasher.finalize()
    }
}

fn hash_of(at: &Path) -> io::Result<blake3::Hash> {
    let mut file: File = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(at)?;
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&buffer[..n]),
        };
    }
}
