//! Attributes of sysfs and files of procfs, read so that none of them can stop or fill us.
//!
//! They are opened without waiting and read up to a bound. An attribute that is not there, or that the device does not
//! have, is no fact; one that is there and cannot be read is a gap that is told.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// sysfs gives one page at most.
const ATTRIBUTE_LIMIT: u64 = 4096;
/// Files of procfs, and lists of processors; `/proc/cpuinfo` of 512 processors has 1 MiB.
const FILE_LIMIT: u64 = 8 << 20;
/// A machine whose every second attribute fails needs no more lines to be understood.
const GAP_LIMIT: usize = 100;

/// Up to `limit` bytes of a file.
pub(crate) fn bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// A file of procfs that means something only if nothing of it is missing: a list of mounts. Names in it may be in any
/// encoding.
pub(crate) fn whole(path: &Path) -> io::Result<String> {
    let content = bytes(path, FILE_LIMIT + 1)?;
    if content.len() as u64 > FILE_LIMIT {
        return Err(io::Error::other(format!("it has more than {} MiB", FILE_LIMIT >> 20)));
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// A FIFO would otherwise wait for a writer, in open already.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// An attribute's text: trimmed, what is no text replaced, and without control characters. `None` if it is absent,
/// empty or unreadable.
pub(crate) fn read(path: &Path) -> Option<String> {
    text(path).ok().flatten()
}

/// The same, with the reason for which an attribute that is there could not be read.
pub(crate) fn text(path: &Path) -> io::Result<Option<String>> {
    match bytes(path, ATTRIBUTE_LIMIT) {
        Ok(raw) => Ok(Some(plain(&raw)).filter(|text| !text.is_empty())),
        Err(error) if says_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file of several lines, without control characters but those that make lines and columns.
pub(crate) fn lines(path: &Path) -> io::Result<String> {
    let text = String::from_utf8_lossy(&bytes(path, FILE_LIMIT)?).into_owned();
    let strange = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    Ok(if text.contains(strange) { text.replace(strange, " ") } else { text })
}

/// A number, in decimal.
pub(crate) fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    read(path)?.parse().ok()
}

/// The last part of where a link points: a driver's name.
pub(crate) fn link_name(path: &Path) -> Option<String> {
    Some(std::fs::read_link(path).ok()?.file_name()?.to_str()?.to_owned())
}

/// The entries of a directory, by name; none if there is no such directory. A single entry that cannot be read is left
/// out: it went away meanwhile.
pub(crate) fn entries(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let listed = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut all: Vec<(String, PathBuf)> = listed
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().into_string().ok()?, entry.path()))
        })
        .collect();
    // Numbers in names count as numbers: cpu2 stands before cpu10.
    all.sort_by(|a, b| natural(&a.0).cmp(&natural(&b.0)));
    Ok(all)
}

/// `nvme10n1` -> `nvme`, 10, `n`, 1.
fn natural(name: &str) -> Vec<(&str, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (figure, tail) = tail.split_at(end);
        parts.push((word, if figure.is_empty() { 0 } else { figure.parse().unwrap_or(u64::MAX) }));
        rest = tail;
    }
    parts
}

/// What the kernel answers for an attribute that a device does not have, or only has in another state.
fn says_absent(error: &io::Error) -> bool {
    let codes = [libc::ENOENT, libc::ENODEV, libc::ENXIO, libc::EINVAL, libc::EOPNOTSUPP, libc::ENODATA, libc::ENOTDIR];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn plain(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    // Firmware pads with NULs, SCSI with blanks.
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Notes what could not be read.
pub(crate) fn gap(unread: &mut Vec<String>, what: &str, error: &io::Error) {
    match unread.len() {
        n if n < GAP_LIMIT => unread.push(format!("{what} could not be read: {error}")),
        n if n == GAP_LIMIT => unread.push("and more: the rest of what could not be read is not listed".into()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_waits_and_nothing_fills_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
        assert_eq!(text(&fifo).expect("no writer, no text"), None);
        // With one that never writes.
        let _writer = OpenOptions::new().read(true).write(true).open(&fifo).expect("opened");
        assert!(text(&fifo).is_err(), "it is there and says nothing");
        assert_eq!(bytes(Path::new("/dev/zero"), 10).expect("bounded").len(), 10);
        assert!(whole(Path::new("/dev/zero")).is_err(), "half of it would be taken for all of it");
        assert!(text(dir.path()).is_err(), "a directory cannot be read, and is not absent");
        // As a device that fails: the kernel answers EIO at the start of this file.
        let failed = text(Path::new("/proc/self/mem")).expect_err("nothing is mapped at 0");
        assert_eq!(failed.raw_os_error(), Some(libc::EIO));
        assert_eq!(text(&dir.path().join("none")).expect("absent"), None);
    }

    #[test]
    fn text_is_plain() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("f");
        for (raw, read_as) in
            [(&b" A \xff\x1b[2J\tB\0\0\n"[..], Some("A \u{fffd} [2J B")), (b"\n", None), (b"x\0", Some("x"))]
        {
            std::fs::write(&file, raw).expect("written");
            assert_eq!(read(&file).as_deref(), read_as);
        }
    }

    #[test]
    fn names_are_ordered_as_people_count() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["cpu10", "cpu2", "cpu", "cpufreq", "99999999999999999999999"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let names: Vec<String> = entries(dir.path()).expect("listed").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["99999999999999999999999", "cpu", "cpu2", "cpu10", "cpufreq"]);
        assert!(entries(&dir.path().join("none")).expect("none").is_empty());
    }

    #[test]
    fn gaps_are_bounded() {
        let mut unread = Vec::new();
        for _ in 0..500 {
            gap(&mut unread, "x", &io::Error::from_raw_os_error(libc::EIO));
        }
        assert_eq!(unread.len(), GAP_LIMIT + 1);
    }
}
