//! The archive of the whole root: what the packages installed, without what depends on who installed it and when, and
//! over it what is ours. The same inputs give the same bytes, whoever builds.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tar::{Builder, EntryType, Header};

use crate::tree::{Entry, Tree};

/// Made by every machine for itself, or by the kernel, or of no use there. A directory stays, without what is in it.
const DROPPED: &[&str] = &[
    "dev/",
    "proc/",
    "sys/",
    "run/",
    "tmp/",
    "boot/",
    "var/cache/",
    "var/log/",
    "var/tmp/",
    "var/lib/apt/lists/",
    "etc/ssh/ssh_host_",
    "var/lib/systemd/random-seed",
    "var/lib/dbus/machine-id",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/machine-id",
    "etc/passwd-",
    "etc/group-",
    "etc/shadow-",
    "etc/gshadow-",
    "etc/subuid-",
    "etc/subgid-",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/available",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/apt/extended_states",
    "var/lib/ucf/",
    "etc/apt/sources.list",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "usr/lib/systemd/catalog/",
    "var/lib/systemd/catalog/",
    "var/lib/systemd/deb-systemd-helper-",
];

/// Where no password may be.
const SHADOW: &str = "etc/shadow";
const USERS: &str = "etc/passwd";
/// Root's, so that sessions are recorded there as in the ramdisk.
const SHELL: &str = "/sbin/speediso-shell";

/// Writes the archive: `base` with `ours` over it and `modules`, the directory `/usr/lib/modules/RELEASE` of the kernel.
pub(super) fn write(base: &Path, ours: &Tree, modules: &Modules<'_>, date: u64, out: &mut dyn Write) -> Result<()> {
    let mut archive = Builder::new(out);
    let packed = File::open(base).with_context(|| format!("opening {}", base.display()))?;
    let kept =
        keep(zstd::Decoder::new(packed)?, ours, date, &mut archive).context("reading the installed packages again")?;
    add_ours(ours, &kept, date, &mut archive)?;
    modules.add(&kept, date, &mut archive)?;
    archive.finish().context("writing the root")
}

/// What the packages installed. Gives the directories among it.
fn keep(base: impl Read, ours: &Tree, date: u64, archive: &mut Builder<&mut dyn Write>) -> Result<BTreeSet<String>> {
    let mut directories = BTreeSet::new();
    let mut saw_shadow = false;
    for entry in tar::Archive::new(base).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_str().context("a name in the root is not text")?.to_owned();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_owned();
        // The root itself is the machine's to make.
        if path.is_empty() || path == "." || is_dropped(&path) {
            continue;
        }
        if entry.header().entry_type() == EntryType::Directory {
            directories.insert(path.clone());
        } else if ours.contains(&path) {
            continue;
        }
        let mut header = clean(entry.header(), date)?;
        let name = path.as_str();
        match header.entry_type() {
            EntryType::Symlink | EntryType::Link => {
                let target = entry.link_name()?.context("a link without a target")?.into_owned();
                let target = target.strip_prefix("./").map(Path::to_owned).unwrap_or(target);
                archive.append_link(&mut header, name, target)?;
            }
            EntryType::Regular if path == SHADOW => {
                let mut text = String::new();
                entry.read_to_string(&mut text)?;
                check_no_password(&text)?;
                saw_shadow = true;
                header.set_size(u64::try_from(text.len())?);
                archive.append_data(&mut header, name, text.as_bytes())?;
            }
            EntryType::Regular if path == USERS => {
                let mut text = String::new();
                entry.read_to_string(&mut text)?;
                let text = with_shell_of_root(&text)?;
                header.set_size(u64::try_from(text.len())?);
                archive.append_data(&mut header, name, text.as_bytes())?;
            }
            EntryType::Regular | EntryType::Directory => archive.append_data(&mut header, name, &mut entry)?,
            other => bail!("/{path} is a {other:?}, which a live root does not need"),
        }
    }
    ensure!(saw_shadow, "the packages made no /{SHADOW}: a root without it may let anybody in");
    Ok(directories)
}

fn is_dropped(path: &str) -> bool {
    DROPPED.iter().any(|dropped| path.starts_with(dropped))
}

/// Owner, mode and a date that is never later than the build's; extended attributes stay behind: what they could grant
/// to others, root has anyway, and not every builder can read them.
fn clean(from: &Header, date: u64) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(match from.entry_type() {
        EntryType::Continuous => EntryType::Regular,
        kind => kind,
    });
    header.set_mode(from.mode()? & 0o7777);
    header.set_uid(from.uid()?);
    header.set_gid(from.gid()?);
    header.set_mtime(from.mtime()?.min(date));
    header.set_size(from.entry_size()?);
    Ok(header)
}

/// Nobody logs in with a password, and nobody without one.
fn check_no_password(shadow: &str) -> Result<()> {
    for line in shadow.lines() {
        let mut fields = line.split(':');
        let (user, password) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        ensure!(password.starts_with(['*', '!']), "/{SHADOW} would let {user} in by a password, or without one");
    }
    Ok(())
}

fn with_shell_of_root(users: &str) -> Result<String> {
    let (root, others) = users.split_once('\n').context("there are no users")?;
    let (name_to_home, _) = root.rsplit_once(':').filter(|_| root.starts_with("root:")).context("root is not first")?;
    Ok(format!("{name_to_home}:{SHELL}\n{others}"))
}

fn plain_header(kind: EntryType, mode: u32, date: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(date);
    header.set_size(0);
    header
}

fn add_ours(
    ours: &Tree,
    directories: &BTreeSet<String>,
    date: u64,
    archive: &mut Builder<&mut dyn Write>,
) -> Result<()> {
    for (path, entry) in ours.iter() {
        match entry {
            // With the packages' own rights.
            Entry::Directory { .. } if directories.contains(path) => {}
            Entry::Directory { mode } => {
                archive.append_data(&mut plain_header(EntryType::Directory, *mode, date), path, io::empty())?;
            }
            Entry::File { mode, data } => {
                let mut header = plain_header(EntryType::Regular, *mode, date);
                header.set_size(u64::try_from(data.len())?);
                archive.append_data(&mut header, path, data.as_slice())?;
            }
            Entry::Link { target } => {
                archive.append_link(&mut plain_header(EntryType::Symlink, 0o777, date), path, target)?;
            }
            Entry::CharDevice { .. } => bail!("/{path}: a live root gets its devices from the kernel"),
        }
    }
    Ok(())
}

/// Kernel modules with the tables that depmod made for them.
#[derive(Debug)]
pub(super) struct Modules<'a> {
    /// `.../lib/modules/RELEASE`.
    pub directory: &'a Path,
    pub release: &'a str,
}

impl Modules<'_> {
    fn add(&self, directories: &BTreeSet<String>, date: u64, archive: &mut Builder<&mut dyn Write>) -> Result<()> {
        let below = format!("usr/lib/modules/{}", self.release);
        for directory in ["usr/lib/modules", below.as_str()].into_iter().filter(|path| !directories.contains(*path)) {
            archive.append_data(&mut plain_header(EntryType::Directory, 0o755, date), directory, io::empty())?;
        }
        let mut files = Vec::new();
        walk(self.directory, Path::new(""), &mut files)?;
        files.sort();
        for (path, is_directory) in files {
            let to = Path::new(&below).join(&path);
            if is_directory {
                archive.append_data(&mut plain_header(EntryType::Directory, 0o755, date), to, io::empty())?;
                continue;
            }
            let from = self.directory.join(&path);
            let file = File::open(&from).with_context(|| format!("opening {}", from.display()))?;
            let mut header = plain_header(EntryType::Regular, 0o644, date);
            header.set_size(file.metadata()?.len());
            archive.append_data(&mut header, to, BufReader::with_capacity(1 << 20, file))?;
        }
        Ok(())
    }
}

/// Files and directories; links (to the sources of the kernel) lead nowhere in a live root.
fn walk(root: &Path, below: &Path, found: &mut Vec<(PathBuf, bool)>) -> Result<()> {
    let dir = root.join(below);
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let (path, kind) = (below.join(entry.file_name()), entry.file_type()?);
        if kind.is_dir() {
            found.push((path.clone(), true));
            walk(root, &path, found)?;
        } else if kind.is_file() {
            found.push((path, false));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn installed(shadow: &str, uid: u64, date: u64) -> Vec<u8> {
        let mut archive = Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        let mut add = |path: &str, kind, mode, data: &str| {
            let mut header = plain_header(kind, mode, date);
            header.set_uid(uid);
            header.set_size(data.len() as u64);
            archive.append_data(&mut header, path, data.as_bytes()).unwrap();
        };
        add("./", EntryType::Directory, 0o755, "");
        add("./etc/", EntryType::Directory, 0o751, "");
        add("./etc/shadow", EntryType::Regular, 0o640, shadow);
        add("./etc/passwd", EntryType::Regular, 0o644, "root:x:0:0:root:/root:/bin/bash\nman:x:6:12::/:/bin/false\n");
        add("./etc/machine-id", EntryType::Regular, 0o444, "0123");
        add("./etc/motd", EntryType::Regular, 0o644, "theirs");
        add("./etc/ssh/ssh_host_ed25519_key", EntryType::Regular, 0o600, "secret");
        add("./run/", EntryType::Directory, 0o755, "");
        add("./run/lock/", EntryType::Directory, 0o1777, "");
        archive.into_inner().unwrap().finish().unwrap()
    }

    fn write_with(base: &[u8]) -> Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("base"), base).unwrap();
        fs::create_dir_all(dir.path().join("m/kernel")).unwrap();
        fs::write(dir.path().join("m/kernel/a.ko"), "module").unwrap();
        let mut ours = Tree::default();
        ours.add_file("/etc/motd", 0o644, b"ours".to_vec()).unwrap();
        ours.add_link("/usr/lib/x", "/dev/null").unwrap();
        let (mut out, modules) = (Vec::new(), dir.path().join("m"));
        write(&dir.path().join("base"), &ours, &Modules { directory: &modules, release: "6.1" }, 1000, &mut out)?;
        Ok(out)
    }

    #[test]
    fn ours_lie_over_theirs_and_secrets_stay_behind() {
        let written = write_with(&installed("root:*:1:0:::::\n", 0, 5000)).unwrap();
        let mut archive = tar::Archive::new(written.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            assert!(entry.header().mtime().unwrap() <= 1000, "{path}");
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            seen.push(format!("{path} {:o} {text}", entry.header().mode().unwrap()));
        }
        let expected = [
            "etc 751 ",
            "etc/shadow 640 root:*:1:0:::::\n",
            "etc/passwd 644 root:x:0:0:root:/root:/sbin/speediso-shell\nman:x:6:12::/:/bin/false\n",
            "run 755 ",
            "etc/motd 644 ours",
            "usr 755 ",
            "usr/lib 755 ",
            "usr/lib/x 777 ",
            "usr/lib/modules 755 ",
            "usr/lib/modules/6.1 755 ",
            "usr/lib/modules/6.1/kernel 755 ",
            "usr/lib/modules/6.1/kernel/a.ko 644 module",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_root_with_a_password_is_not_built() {
        for shadow in ["root::1:0:::::\n", "daemon:*:1::::::\nroot:$y$j9T$x:1:0:::::\n"] {
            let error = write_with(&installed(shadow, 0, 1)).unwrap_err();
            assert!(format!("{error:#}").contains("would let root in"), "{error:#}");
        }
    }
}
