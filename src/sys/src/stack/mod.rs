//! What stands on the disks, from sysfs, procfs and device mapper; and the calls that take it down.
//!
//! Nothing here is started, mounted or opened for writing. What cannot be read for certain (the mounts) is an error
//! rather than "nothing".

mod read;
mod stop;
mod users;

pub use read::read;
pub use stop::{StopError, carry_out};

use std::path::Path;

/// `a\040b` of proc_pid_mountinfo(5) and `/proc/swaps`: blank, tab, line feed and backslash as octal numbers.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        if let Some([a, b, c]) = octal {
            let value = u32::from(a - b'0') * 64 + u32::from(b - b'0') * 8 + u32::from(c - b'0');
            bytes.push(u8::try_from(value).unwrap_or(b'?'));
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The device number of what a path leads to: of a block device its own, of a file that of its file system.
fn number_at(path: &Path) -> Option<String> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let metadata = std::fs::metadata(path).ok()?;
    let device = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
    Some(format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device)))
}

/// The other way.
fn number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{number, unescaped};

    #[test]
    fn paths_come_back_as_they_were() {
        assert_eq!(unescaped(r"/a\040b\134c\011"), "/a b\\c\t");
        assert_eq!(unescaped(r"/a\9\04"), r"/a\9\04");
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(number("253:1"), Some(253 << 8 | 1));
        assert_eq!(number("259:300"), Some(0x0011_032c), "minors beyond 255 are split");
        assert_eq!(number("btrfs"), None);
    }
}
