//! Variables as files.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::ioctl;
use crate::roots::Roots;
use crate::sysfs;

/// No variable we read or write is near this; the firmware's whole store is rarely larger.
const VALUE_LIMIT: u64 = 64 * 1024;

/// A namespace, in the form that efivarfs writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guid(pub &'static str);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variable {
    pub attributes: u32,
    pub data: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum EfiError {
    #[error("listing the firmware's variables in {}", dir.display())]
    List { dir: PathBuf, source: io::Error },
    #[error("reading the firmware variable {name}")]
    Read { name: String, source: io::Error },
    #[error("writing the firmware variable {name} ({len} bytes)")]
    Write { name: String, len: usize, source: io::Error },
    #[error("deleting the firmware variable {name}")]
    Delete { name: String, source: io::Error },
    #[error("the firmware variable name {0:?} is not plain letters and digits")]
    Name(String),
}

/// Whether the machine was started by UEFI firmware and the kernel shows its variables.
#[must_use]
pub fn is_uefi(roots: &Roots) -> bool {
    roots.efivars.parent().is_some_and(Path::is_dir)
}

fn path(roots: &Roots, name: &str, guid: Guid) -> Result<PathBuf, EfiError> {
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(EfiError::Name(name.to_owned()));
    }
    Ok(roots.efivars.join(format!("{name}-{guid}")))
}

/// Names of the variables in a namespace, sorted. Names that are not plain text are left out.
///
/// # Errors
/// When the directory cannot be read: efivarfs is not mounted, or the machine was started by a BIOS.
pub fn list(roots: &Roots, guid: Guid) -> Result<Vec<String>, EfiError> {
    let list = || -> io::Result<Vec<String>> {
        let suffix = format!("-{guid}");
        let mut names = Vec::new();
        for entry in fs::read_dir(&roots.efivars)? {
            let name = entry?.file_name();
            names.extend(name.to_str().and_then(|n| n.strip_suffix(&suffix)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    };
    list().map_err(|source| EfiError::List { dir: roots.efivars.clone(), source })
}

/// The variable, or `None` if there is none of this name.
///
/// # Errors
/// When it is there and cannot be read, or is not in efivarfs's form.
pub fn read(roots: &Roots, name: &str, guid: Guid) -> Result<Option<Variable>, EfiError> {
    let path = path(roots, name, guid)?;
    let failed = |source| EfiError::Read { name: name.to_owned(), source };
    let raw = match sysfs::bytes(&path, VALUE_LIMIT) {
        Ok(raw) => raw,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let Some((attributes, data)) = raw.split_first_chunk::<4>() else {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "shorter than its attributes")));
    };
    Ok(Some(Variable { attributes: u32::from_le_bytes(*attributes), data: data.to_vec() }))
}

/// Creates or replaces a variable.
///
/// # Errors
/// When the firmware refuses (no space, read-only variable), or without root.
pub fn write(roots: &Roots, name: &str, guid: Guid, attributes: u32, data: &[u8]) -> Result<(), EfiError> {
    let path = path(roots, name, guid)?;
    let write = || -> io::Result<()> {
        let lock = unlock(&path)?;
        // One write call is one SetVariable: attributes and value must go together. Truncating would be a
        // SetVariable of its own, so the file is not; efivarfs replaces the whole value anyhow, and so do we on
        // file systems that stand in for it.
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        let value = [&attributes.to_le_bytes(), data].concat();
        let written = file.write(&value)?;
        if written != value.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, format!("the firmware took {written} bytes only")));
        }
        if file.metadata()?.len() > value.len() as u64 {
            file.set_len(value.len() as u64)?;
        }
        drop(file);
        lock.restore()
    };
    write().map_err(|source| EfiError::Write { name: name.to_owned(), len: data.len(), source })
}

/// Removes a variable; one that is not there is no error.
///
/// # Errors
/// When the firmware refuses, or without root.
pub fn delete(roots: &Roots, name: &str, guid: Guid) -> Result<(), EfiError> {
    let path = path(roots, name, guid)?;
    let remove = || -> io::Result<()> {
        unlock(&path)?;
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    };
    remove().map_err(|source| EfiError::Delete { name: name.to_owned(), source })
}

/// `FS_IMMUTABLE_FL` of `<linux/fs.h>`.
const IMMUTABLE: libc::c_long = 0x10;

/// A variable whose immutable mark was taken off.
struct Unlocked<'a> {
    path: &'a Path,
    was_locked: bool,
}

/// Takes the mark off, if there is one. A file system without marks (a test's temporary directory may be on one)
/// answers ENOTTY, and only that is tolerated.
fn unlock(path: &Path) -> io::Result<Unlocked<'_>> {
    let was_locked = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(e),
        Ok(file) => match flags(&file)? {
            Some(flags) if flags & IMMUTABLE != 0 => {
                ioctl::set_inode_flags(&file, flags & !IMMUTABLE)?;
                true
            }
            _ => false,
        },
    };
    Ok(Unlocked { path, was_locked })
}

impl Unlocked<'_> {
    /// Puts the mark back where it was: it protects the variable from `rm -rf`.
    fn restore(self) -> io::Result<()> {
        if !self.was_locked {
            return Ok(());
        }
        let file = File::open(self.path)?;
        match flags(&file)? {
            Some(flags) => ioctl::set_inode_flags(&file, flags | IMMUTABLE),
            None => Ok(()),
        }
    }
}

/// `None` on a file system that has no such marks.
fn flags(file: &File) -> io::Result<Option<libc::c_long>> {
    match ioctl::inode_flags(file) {
        Err(e) if e.raw_os_error() == Some(libc::ENOTTY) => Ok(None),
        flags => flags.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efi::{DURABLE, GLOBAL};

    #[test]
    fn a_shorter_value_replaces_a_longer_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert!(!is_uefi(&roots));
        assert!(matches!(list(&roots, GLOBAL), Err(EfiError::List { .. })));
        fs::create_dir_all(&roots.efivars).expect("made");
        assert!(is_uefi(&roots));
        assert_eq!(read(&roots, "Timeout", GLOBAL).expect("none"), None);
        write(&roots, "Timeout", GLOBAL, DURABLE, &[1, 2, 3, 4]).expect("written");
        write(&roots, "Timeout", GLOBAL, 6, &[9]).expect("written");
        assert_eq!(read(&roots, "Timeout", GLOBAL).expect("read"), Some(Variable { attributes: 6, data: vec![9] }));
        assert_eq!(list(&roots, GLOBAL).expect("listed"), ["Timeout"]);
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        fs::create_dir_all(&roots.efivars).expect("made");
        assert!(matches!(write(&roots, "../x", GLOBAL, 7, &[]), Err(EfiError::Name(_))));
        fs::write(roots.efivars.join(format!("Short-{GLOBAL}")), [1, 2]).expect("written");
        assert!(matches!(read(&roots, "Short", GLOBAL), Err(EfiError::Read { .. })));
    }

    /// Needs root and a file system with immutable marks (ext4, xfs, btrfs, tmpfs since 6.6).
    #[test]
    fn the_immutable_mark_is_lifted_and_put_back() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a temporary directory");
        let roots = Roots::under(dir.path());
        fs::create_dir_all(&roots.efivars).expect("made");
        let file = roots.efivars.join(format!("Locked-{GLOBAL}"));
        write(&roots, "Locked", GLOBAL, DURABLE, &[1]).expect("written");
        let handle = File::open(&file).expect("open");
        let before = flags(&handle).expect("asked").expect("the checkout lies on a file system with marks");
        ioctl::set_inode_flags(&handle, before | IMMUTABLE).expect("marking needs root: run the tests as root");
        assert!(OpenOptions::new().write(true).open(&file).is_err(), "the mark protects");
        write(&roots, "Locked", GLOBAL, DURABLE, &[2]).expect("written all the same");
        assert!(flags(&handle).expect("asked").expect("marks") & IMMUTABLE != 0, "and the mark is back");
        assert_eq!(read(&roots, "Locked", GLOBAL).expect("read").expect("there").data, [2]);
        delete(&roots, "Locked", GLOBAL).expect("deleted");
        assert_eq!(read(&roots, "Locked", GLOBAL).expect("none"), None);
    }
}
