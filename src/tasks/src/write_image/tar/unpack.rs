//! From an archive to files, with everything that the archive says of them. What cannot be done as it says is refused: an
//! attribute left out in silence would be another system.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::FileSystemKind;
use speediso_sys::volume::{Directory, Node, Volume, set_modified};
use tar::{Archive, Entry, EntryType};

use super::facts::{Content, Facts, Meta, PIECE, Sampling, Sum};
use crate::ctx::{Meter, TaskCtx};

/// Why unpacking stopped.
pub(super) enum UnpackError {
    /// Fetching or decoding.
    Source(io::Error),
    /// This file could not be made.
    Made { path: PathBuf, error: io::Error },
    /// The archive itself, or the order.
    Refused(Fault),
}

/// Made by `mke2fs` for `e2fsck`: neither the archive's nor ours.
pub(super) fn is_for_fsck(path: &Path, kind: FileSystemKind) -> bool {
    kind == FileSystemKind::Ext4 && path == Path::new("lost+found")
}

pub(super) struct Unpacked {
    pub(super) sum: Sum,
    pub(super) bytes: u64,
}

type Source<'a> = dyn Read + Send + 'a;

pub(super) fn unpack(
    source: &mut Source<'_>,
    volume: &Volume,
    kind: FileSystemKind,
    sampling: Sampling,
    meter: &mut Meter<'_>,
    ctx: &TaskCtx,
) -> Result<Unpacked, UnpackError> {
    let mut archive = Archive::new(source);
    let mut tree =
        Tree { volume, kind, sampling, sum: Sum::default(), bytes: 0, directories: BTreeMap::new(), parent: None };
    for entry in archive.entries().map_err(UnpackError::Source)? {
        ctx.cancel.check().map_err(UnpackError::Refused)?;
        tree.entry(entry.map_err(broken_or_source)?, meter)?;
    }
    // Behind its end an archive is filled up with zeroes.
    let rest = archive.into_inner();
    let mut buffer = vec![0; PIECE];
    loop {
        match rest.read(&mut buffer).map_err(UnpackError::Source)? {
            0 => break,
            n if buffer[..n].iter().all(|b| *b == 0) => {}
            _ => {
                let what = "there is something behind the end of the archive";
                return Err(UnpackError::Refused(Fault::new(FaultCode::ImageTrailingData, what)));
            }
        }
    }
    tree.finish()
}

/// The archive's own errors have no source; those of a reader below do.
fn broken_or_source(error: io::Error) -> UnpackError {
    UnpackError::Source(error)
}

fn refused(path: &Path, what: impl std::fmt::Display) -> UnpackError {
    UnpackError::Refused(Fault::new(FaultCode::ImageFormat, format!("{:?} in the archive: {what}", path.display())))
}

struct Tree<'a> {
    volume: &'a Volume,
    kind: FileSystemKind,
    sampling: Sampling,
    sum: Sum,
    bytes: u64,
    /// Their times change whenever something is made in them, so they are set at the end.
    directories: BTreeMap<PathBuf, Meta>,
    /// The directory that the last entry was in: most have the same.
    parent: Option<Parent>,
}

struct Parent {
    asked: PathBuf,
    /// As the file system has it, without links.
    real: PathBuf,
    directory: Directory,
}

impl Tree<'_> {
    fn entry(&mut self, mut entry: Entry<'_, &mut Source<'_>>, meter: &mut Meter<'_>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let path = inside(&PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned())))?;
        let meta = meta(&mut entry, &path)?;
        let made = |error| UnpackError::Made { path: path.clone(), error };
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself.
            self.directories.insert(PathBuf::new(), meta);
            return Ok(());
        };
        let (real, at) = self.place(&path, &name, &meta)?;
        if is_for_fsck(&real, self.kind) {
            return Ok(());
        }
        if is_for_fsck(&self.real_parent(), self.kind) {
            return Err(refused(&path, "what is in there belongs to e2fsck"));
        }
        let is_directory = fs::symlink_metadata(&at).map(|found| found.is_dir());
        match (kind, &is_directory) {
            (EntryType::Directory, Ok(true)) => {
                self.directories.insert(real, meta);
                return Ok(());
            }
            (_, Ok(true)) => return Err(refused(&path, "it replaces a directory")),
            (_, Ok(false)) => {
                let old = Facts::read(&real, &at, self.sampling).map_err(made)?;
                self.sum.take(old.hash(&real));
                fs::remove_file(&at).map_err(made)?;
            }
            (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
            (_, Err(e)) => return Err(made(io::Error::new(e.kind(), e.to_string()))),
        }
        let content = match kind {
            EntryType::Directory => {
                fs::create_dir(&at).map_err(made)?;
                self.directories.insert(real, meta);
                return Ok(());
            }
            EntryType::Link => {
                let target = link_target(&entry, &path)?;
                let target = inside(Path::new(&target))?;
                let target_name = target.file_name().ok_or_else(|| refused(&path, "a hard link to the root"))?;
                let from_directory = self.volume.directory(target.parent().unwrap_or(Path::new(""))).map_err(made)?;
                let from = from_directory.at(target_name);
                fs::hard_link(&from, &at).map_err(made)?;
                let same = Facts::read(&real, &from, self.sampling).map_err(made)?;
                self.sum.add(same.hash(&real));
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&mut entry, &real, &at, meter).map_err(|e| e.unwrap_or_made(&path))?
            }
            EntryType::Symlink => {
                let target = link_target(&entry, &path)?;
                symlink(&target, &at).map_err(made)?;
                Content::Link { target }
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => self.node(kind, &entry, &path, &name, &meta)?,
            other => return Err(refused(&path, format!("it is of a kind that is not known ({})", other.as_byte()))),
        };
        apply(&at, &meta, matches!(content, Content::Link { .. })).map_err(made)?;
        self.sum.add(Facts { content, meta }.hash(&real));
        Ok(())
    }

    fn file(
        &mut self,
        entry: &mut Entry<'_, &mut Source<'_>>,
        real: &Path,
        at: &Path,
        meter: &mut Meter<'_>,
    ) -> Result<Content, FileError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(at).map_err(FileError::Made)?;
        let wanted = self.sampling.chooses(real);
        let (mut hasher, mut buffer, mut length) = (blake3::Hasher::new(), vec![0; PIECE], 0);
        loop {
            let n = entry.read(&mut buffer).map_err(FileError::Source)?;
            if n == 0 {
                break;
            }
            file.write_all(&buffer[..n]).map_err(FileError::Made)?;
            if wanted {
                hasher.update(&buffer[..n]);
            }
            length += n as u64;
            meter.at(self.bytes + length);
        }
        if length != entry.size() {
            return Err(FileError::Source(io::ErrorKind::UnexpectedEof.into()));
        }
        self.bytes += length;
        Ok(Content::File { length, hash: wanted.then(|| hasher.finalize()) })
    }

    fn node(
        &mut self,
        kind: EntryType,
        entry: &Entry<'_, &mut Source<'_>>,
        path: &Path,
        name: &OsStr,
        meta: &Meta,
    ) -> Result<Content, UnpackError> {
        let header = entry.header();
        let number = |number: io::Result<Option<u32>>| number.ok().flatten();
        let numbers = number(header.device_major()).zip(number(header.device_minor()));
        let device = numbers.map(|(major, minor)| libc::makedev(major, minor));
        let node = match (kind, device) {
            (EntryType::Fifo, _) => Node::Fifo,
            (EntryType::Char, Some(device)) => Node::Character { device },
            (EntryType::Block, Some(device)) => Node::Block { device },
            _ => return Err(refused(path, "a device without numbers")),
        };
        let made = |error| UnpackError::Made { path: path.to_owned(), error };
        let parent = self.parent.as_ref().ok_or_else(|| refused(path, "it has no directory"))?;
        parent.directory.make_node(name, node, meta.mode).map_err(made)?;
        Ok(match node {
            Node::Fifo => Content::Fifo,
            Node::Character { device } => Content::Character { device },
            Node::Block { device } => Content::Block { device },
        })
    }

    /// Its name without links on the way, and a path for calls. Directories that the archive does not have are made.
    fn place(&mut self, path: &Path, name: &OsStr, meta: &Meta) -> Result<(PathBuf, PathBuf), UnpackError> {
        let asked = path.parent().unwrap_or(Path::new(""));
        if self.parent.as_ref().is_none_or(|parent| parent.asked != asked) {
            let made = |error| UnpackError::Made { path: asked.to_owned(), error };
            let directory = match self.volume.directory(asked) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.make_way(asked, meta)?;
                    self.volume.directory(asked)
                }
                found => found,
            };
            let directory = directory.map_err(made)?;
            let real = directory.path().map_err(made)?;
            self.parent = Some(Parent { asked: asked.to_owned(), real, directory });
        }
        match &self.parent {
            Some(parent) => Ok((parent.real.join(name), parent.directory.at(name))),
            None => Err(refused(path, "it has no directory")),
        }
    }

    fn real_parent(&self) -> PathBuf {
        self.parent.as_ref().map(|parent| parent.real.clone()).unwrap_or_default()
    }

    fn make_way(&mut self, path: &Path, meta: &Meta) -> Result<(), UnpackError> {
        let made = |error| UnpackError::Made { path: path.to_owned(), error };
        let mut way = PathBuf::new();
        for part in path.components() {
            let parent = self.volume.directory(&way).map_err(made)?;
            way.push(part);
            if let Err(e) = self.volume.directory(&way) {
                if e.kind() != io::ErrorKind::NotFound {
                    return Err(made(e));
                }
                fs::create_dir(parent.at(part.as_os_str())).map_err(made)?;
                let usual = Meta { mode: 0o755, uid: 0, gid: 0, attributes: Vec::new(), ..meta.clone() };
                self.directories.insert(parent.path().map_err(made)?.join(part), usual);
            }
        }
        Ok(())
    }

    /// The directories, the deepest first, and then the whole.
    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
        // Not every archive says something of the root.
        self.directories.entry(PathBuf::new()).or_insert(Meta { mode: 0o755, seconds, ..Meta::default() });
        for (path, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            let made = |error| UnpackError::Made { path: path.clone(), error };
            let directory = self.volume.directory(&path).map_err(made)?;
            apply(&directory.at(OsStr::new(".")), &meta, false).map_err(made)?;
            self.sum.add(Facts { content: Content::Directory, meta }.hash(&path));
        }
        Ok(Unpacked { sum: self.sum, bytes: self.bytes })
    }
}

enum FileError {
    Source(io::Error),
    Made(io::Error),
}

impl FileError {
    fn unwrap_or_made(self, path: &Path) -> UnpackError {
        match self {
            Self::Source(error) => UnpackError::Source(error),
            Self::Made(error) => UnpackError::Made { path: path.to_owned(), error },
        }
    }
}

/// A name as a way from the root; never above it.
fn inside(path: &Path) -> Result<PathBuf, UnpackError> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(refused(path, "it leads out of the archive")),
        }
    }
    Ok(clean)
}

fn link_target(entry: &Entry<'_, &mut Source<'_>>, path: &Path) -> Result<OsString, UnpackError> {
    match entry.link_name_bytes() {
        Some(target) if !target.is_empty() => Ok(OsString::from_vec(target.into_owned())),
        _ => Err(refused(path, "a link to nothing")),
    }
}

/// From the header and what extends it (POSIX.1-2017, pax).
fn meta(entry: &mut Entry<'_, &mut Source<'_>>, path: &Path) -> Result<Meta, UnpackError> {
    let header = entry.header();
    let number = |n: io::Result<u64>| n.ok().and_then(|n| u32::try_from(n).ok());
    let bad = |what: &str| refused(path, format!("its {what} is no number"));
    let mut meta = Meta {
        mode: header.mode().map_err(|_| bad("mode"))? & 0o7777,
        uid: number(header.uid()).ok_or_else(|| bad("owner"))?,
        gid: number(header.gid()).ok_or_else(|| bad("group"))?,
        seconds: header.mtime().ok().and_then(|t| i64::try_from(t).ok()).ok_or_else(|| bad("time"))?,
        ..Meta::default()
    };
    let Some(extensions) = entry.pax_extensions().map_err(UnpackError::Source)? else { return Ok(meta) };
    for extension in extensions {
        // The reader looks for line breaks rather than for the length that each record begins with.
        let extension =
            extension.map_err(|_| refused(path, "its name or an attribute has a line break, which cannot be read"))?;
        let value = extension.value_bytes();
        let text = || std::str::from_utf8(value).ok();
        let key = extension.key().map_err(|_| refused(path, "a pax record without a name"))?;
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            meta.attributes.push((name.into(), value.to_vec()));
            continue;
        }
        match key {
            "uid" => meta.uid = text().and_then(|t| t.parse().ok()).ok_or_else(|| bad("owner"))?,
            "gid" => meta.gid = text().and_then(|t| t.parse().ok()).ok_or_else(|| bad("group"))?,
            "mtime" => (meta.seconds, meta.nanoseconds) = text().and_then(seconds).ok_or_else(|| bad("time"))?,
            // Known to the reader, or of no use here.
            "path"
            | "linkpath"
            | "size"
            | "uname"
            | "gname"
            | "atime"
            | "ctime"
            | "comment"
            | "charset"
            | "hdrcharset"
            | "LIBARCHIVE.creationtime"
            | "SCHILY.dev"
            | "SCHILY.ino"
            | "SCHILY.nlink" => {}
            other => return Err(refused(path, format!("{other:?} is said of it, which cannot be kept"))),
        }
    }
    meta.attributes.sort();
    Ok(meta)
}

/// `1700000000.25`, as pax writes times.
fn seconds(text: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds - 1, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

/// In the order that keeps what was set before: a new owner takes away set-uid bits and capabilities.
fn apply(at: &Path, meta: &Meta, is_link: bool) -> io::Result<()> {
    std::os::unix::fs::lchown(at, Some(meta.uid), Some(meta.gid))?;
    if !is_link {
        fs::set_permissions(at, fs::Permissions::from_mode(meta.mode))?;
    }
    for (name, value) in &meta.attributes {
        xattr::set(at, name, value)?;
    }
    set_modified(at, meta.seconds, meta.nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_pax() {
        assert_eq!(seconds("1700000000"), Some((1_700_000_000, 0)));
        assert_eq!(seconds("12.5"), Some((12, 500_000_000)));
        assert_eq!(seconds("12.0000000019"), Some((12, 1)));
        assert_eq!(seconds("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn names_stay_inside() {
        let clean = |name: &str| inside(Path::new(name)).ok();
        assert_eq!(clean("./etc/passwd"), Some("etc/passwd".into()));
        assert_eq!(clean("/etc//passwd/"), Some("etc/passwd".into()));
        assert_eq!(clean("./"), Some(PathBuf::new()));
        assert_eq!(clean("a/../../etc/shadow"), None);
    }
}
