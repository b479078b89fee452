//! Where a squashfs ends, and what lies behind it: the modules that the kernel needs to have it as its root.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

/// `Documentation/filesystems/squashfs.rst`; the numbers of the superblock are little-endian.
const MAGIC: &[u8; 4] = b"hsqs";
const SUPERBLOCK: usize = 96;
/// `bytes_used` in the superblock.
const LENGTH_AT: usize = 40;
/// To which the maker pads.
const PAGE: u64 = 4096;
/// All that is taken of modules: the kernel's own are below half a MiB each.
const MOST_MODULES: usize = 8;
const LARGEST_MODULE: u64 = 4 << 20;

/// The file system in the file, up to its padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Squashfs {
    pub length: u64,
}

impl Squashfs {
    pub(super) fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// # Errors
    /// When it is none, or longer than the file.
    pub fn of(mut file: &File) -> io::Result<Self> {
        let bad = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        let mut superblock = [0; SUPERBLOCK];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut superblock)?;
        if !Self::is_one(&superblock) {
            return bad("it is no squashfs");
        }
        let mut used = [0; 8];
        used.copy_from_slice(&superblock[LENGTH_AT..LENGTH_AT + 8]);
        match u64::from_le_bytes(used).checked_next_multiple_of(PAGE) {
            Some(length) if length <= file.metadata()?.len() => Ok(Self { length }),
            _ => bad("the squashfs ends beyond the file"),
        }
    }
}

/// Kernel modules from the archive behind the squashfs, in its order; none if there is nothing.
///
/// # Errors
/// When what is there is no archive of a few modules.
pub fn modules_behind(mut file: &File, squashfs: Squashfs) -> io::Result<Vec<(String, Vec<u8>)>> {
    file.seek(SeekFrom::Start(squashfs.length))?;
    let mut modules = Vec::new();
    for entry in tar::Archive::new(file).entries()? {
        let entry = entry?;
        let name = entry.path()?.display().to_string();
        let plain = name.ends_with(".ko") && !name.contains('/');
        if modules.len() >= MOST_MODULES || entry.size() > LARGEST_MODULE || !plain {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} behind the squashfs is no module")));
        }
        let mut bytes = Vec::new();
        entry.take(LARGEST_MODULE).read_to_end(&mut bytes)?;
        modules.push((name, bytes));
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn file(used: u64, whole: usize, behind: &[u8]) -> File {
        let mut superblock = vec![0; whole];
        superblock[..4].copy_from_slice(MAGIC);
        superblock[LENGTH_AT..LENGTH_AT + 8].copy_from_slice(&used.to_le_bytes());
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&superblock).expect("written");
        file.write_all(behind).expect("written");
        file
    }

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            archive.append_data(&mut header, name, &b"elf"[..]).expect("added");
        }
        archive.into_inner().expect("an archive")
    }

    #[test]
    fn modules_lie_behind_the_padding() {
        let file = file(4097, 8192, &archive(&["squashfs.ko", "overlay.ko"]));
        let squashfs = Squashfs::of(&file).expect("one");
        assert_eq!(squashfs.length, 8192);
        let modules = modules_behind(&file, squashfs).expect("modules");
        assert_eq!(modules.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["squashfs.ko", "overlay.ko"]);
        assert_eq!(modules[0].1, b"elf");
    }

    #[test]
    fn nothing_behind_is_no_modules_and_anything_else_is_refused() {
        let bare = file(96, 4096, &[]);
        assert!(modules_behind(&bare, Squashfs::of(&bare).expect("one")).expect("none").is_empty());
        for name in ["etc/passwd", "etc/x.ko"] {
            let odd = file(96, 4096, &archive(&[name]));
            assert!(modules_behind(&odd, Squashfs::of(&odd).expect("one")).is_err(), "{name}");
        }
        for (used, whole) in [(4097, 4096), (u64::MAX, 4096)] {
            assert!(Squashfs::of(&file(used, whole, &[])).is_err());
        }
        let mut other = tempfile::tempfile().expect("a temporary file");
        other.write_all(&[7; 4096]).expect("written");
        assert!(Squashfs::of(&other).is_err());
    }
}
