//! The archive format of the kernel's initramfs: "newc" cpio, written in sorted order with nothing of the build host.
//!
//! <https://www.kernel.org/doc/html/latest/driver-api/early-userspace/buffer-format.html>

use std::io::{self, Write};

use crate::tree::{Entry, Tree};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// Writes `tree` as one archive in which everything belongs to root and carries the time `mtime`.
pub fn write(tree: &Tree, mtime: u32, out: &mut impl Write) -> io::Result<()> {
    // The kernel takes equal inode numbers for hard links, so each entry gets its own.
    for (inode, (path, entry)) in (1u32..).zip(tree.iter()) {
        let (mode, data, device): (u32, &[u8], (u32, u32)) = match entry {
            Entry::Directory { mode } => (S_IFDIR | mode, &[], (0, 0)),
            Entry::File { mode, data } => (S_IFREG | mode, data, (0, 0)),
            Entry::Link { target } => (S_IFLNK | 0o777, target.as_bytes(), (0, 0)),
            Entry::CharDevice { mode, major, minor } => (S_IFCHR | mode, &[], (*major, *minor)),
        };
        let links = if matches!(entry, Entry::Directory { .. }) { 2 } else { 1 };
        record(out, path, inode, mode, links, mtime, data, device)?;
    }
    record(out, TRAILER, 0, 0, 1, 0, &[], (0, 0))
}

#[expect(clippy::too_many_arguments, reason = "one argument per field of the header")]
fn record(
    out: &mut impl Write,
    name: &str,
    inode: u32,
    mode: u32,
    links: u32,
    mtime: u32,
    data: &[u8],
    (major, minor): (u32, u32),
) -> io::Result<()> {
    let too_long = |_| io::Error::new(io::ErrorKind::FileTooLarge, format!("{name} is too large for a cpio archive"));
    let data_len = u32::try_from(data.len()).map_err(too_long)?;
    let name_len = u32::try_from(name.len() + 1).map_err(too_long)?;
    // inode, mode, uid, gid, links, mtime, size, device of the file system (two), device of the node (two), name, checksum
    let fields = [inode, mode, 0, 0, links, mtime, data_len, 0, 0, major, minor, name_len, 0];
    let mut header = String::from(MAGIC);
    for field in fields {
        header.push_str(&format!("{field:08x}"));
    }
    out.write_all(header.as_bytes())?;
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, header.len() + name.len() + 1)?;
    out.write_all(data)?;
    pad(out, data.len())
}

/// Header with name, and data, each end on a multiple of four.
fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..written.next_multiple_of(4) - written])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn archive(tree: &Tree) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(tree, 1_700_000_000, &mut bytes).unwrap();
        bytes
    }

    fn sample() -> Tree {
        let mut tree = Tree::default();
        tree.add_file("/etc/motd", 0o644, b"hello\n".to_vec()).unwrap();
        tree.add_file("/bin/busybox", 0o755, vec![7; 4097]).unwrap();
        tree.add_link("/bin/sh", "busybox").unwrap();
        tree.add_char_device("/dev/console", 0o600, 5, 1).unwrap();
        tree
    }

    #[test]
    fn another_cpio_lists_what_was_written() {
        let mut child = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is in the Debian package cpio");
        child.stdin.take().unwrap().write_all(&archive(&sample())).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let listed: Vec<Vec<String>> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        let expected = [
            "drwxr-xr-x 2 0 0 0 Nov 14 2023 bin",
            "-rwxr-xr-x 1 0 0 4097 Nov 14 2023 bin/busybox",
            "lrwxrwxrwx 1 0 0 7 Nov 14 2023 bin/sh -> busybox",
            "drwxr-xr-x 2 0 0 0 Nov 14 2023 dev",
            "crw------- 1 0 0 5, 1 Nov 14 2023 dev/console",
            "drwxr-xr-x 2 0 0 0 Nov 14 2023 etc",
            "-rw-r--r-- 1 0 0 6 Nov 14 2023 etc/motd",
        ];
        let expected: Vec<Vec<String>> =
            expected.iter().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn the_order_of_adding_leaves_no_trace() {
        let mut other = Tree::default();
        other.add_char_device("/dev/console", 0o600, 5, 1).unwrap();
        other.add_link("/bin/sh", "busybox").unwrap();
        other.add_file("/bin/busybox", 0o755, vec![7; 4097]).unwrap();
        other.add_file("/etc/motd", 0o644, b"hello\n".to_vec()).unwrap();
        assert_eq!(archive(&sample()), archive(&other));
    }

    /// Reads names and data back by the specification, independently of the writer's arithmetic.
    fn read_back(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let whole = bytes.len();
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name_len) = (field(6), field(11));
            let name = std::str::from_utf8(&bytes[110..110 + name_len - 1]).unwrap().to_owned();
            let mut at = whole - bytes.len() + 110 + name_len;
            at += (4 - at % 4) % 4;
            let data_at = at - (whole - bytes.len());
            if name == TRAILER {
                return entries;
            }
            entries.push((name, bytes[data_at..data_at + size].to_vec()));
            let mut end = at + size;
            end += (4 - end % 4) % 4;
            bytes = &bytes[end - (whole - bytes.len())..];
        }
    }

    proptest! {
        #[test]
        fn names_and_data_of_any_length_come_back(
            files in proptest::collection::btree_map("[a-z]{1,9}", proptest::collection::vec(any::<u8>(), 0..50), 1..9)
        ) {
            let mut tree = Tree::default();
            for (name, data) in &files {
                tree.add_file(&format!("/{name}"), 0o644, data.clone()).unwrap();
            }
            let expected: Vec<(String, Vec<u8>)> = files.into_iter().collect();
            prop_assert_eq!(read_back(&archive(&tree)), expected);
        }
    }
}
