//! Debian packages: resolved and fetched by the system's own apt, unpacked as plain files, never installed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::tool;

/// One package in one version, as apt's lists have it; the lists are signed, so `sha256` is to be trusted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub sha256: String,
    #[serde(skip)]
    file: String,
}

/// The package that `meta` stands for: `linux-image-amd64` -> `linux-image-6.1.0-56-amd64`.
pub fn kernel_of(meta: &str) -> Result<String> {
    let text =
        tool::run(Command::new("apt-cache").args(["depends", "--important", meta]), "apt").with_context(|| {
            format!("asking apt for the kernel behind {meta}; if its lists are empty, run `apt-get update`")
        })?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
        .with_context(|| {
            format!("{meta} depends on no linux-image package; name one that does as `kernel` in the manifest")
        })
}

/// The versions that apt would install now, in the order asked for.
pub fn resolve(names: &[&str]) -> Result<Vec<Package>> {
    let text = tool::run(apt_get().args(["--print-uris", "download"]).args(names), "apt")
        .context("asking apt for the packages of the ramdisk; if its lists are empty or old, run `apt-get update`")?;
    let found: Vec<Package> = text.lines().filter_map(parse_uri_line).collect();
    names
        .iter()
        .map(|name| {
            let package = found.iter().find(|package| package.name == *name).cloned();
            package.with_context(|| format!("apt knows no way to download the package {name}"))
        })
        .collect()
}

/// `'http://…/zlib1g_1%3a1.2.13_amd64.deb' zlib1g_1%3a1.2.13_amd64.deb 86700 SHA256:52b8…`
fn parse_uri_line(line: &str) -> Option<Package> {
    let mut words = line.split_whitespace();
    words.next()?.strip_prefix('\'')?;
    let file = words.next()?;
    let sha256 = words.nth(1)?.strip_prefix("SHA256:")?;
    let mut parts = file.split('_');
    let name = parts.next()?;
    let version = parts.next()?.replace("%3a", ":");
    Some(Package { name: name.to_owned(), version, sha256: sha256.to_owned(), file: file.to_owned() })
}

impl Package {
    /// The package file, fetched if it is not in the cache.
    pub fn fetch(&self, cache: &Cache) -> Result<PathBuf> {
        let entry = cache.entry("debs", &self.sha256, |dir| {
            eprintln!("ramdisk: fetching {} {}", self.name, self.version);
            let wanted = format!("{}={}", self.name, self.version);
            tool::run(apt_get().args(["-qq", "download", &wanted]).current_dir(dir), "apt").with_context(|| {
                format!("fetching the package {wanted}; if the mirror no longer has this version, run `apt-get update`")
            })?;
            let got = sha256_of(&dir.join(&self.file))?;
            ensure!(got == self.sha256, "the package {wanted} came with the digest {got} instead of {}", self.sha256);
            Ok(())
        })?;
        Ok(entry.join(&self.file))
    }

    /// The package's files.
    pub fn unpacked(&self, cache: &Cache) -> Result<PathBuf> {
        cache.entry("unpacked", &self.sha256, |dir| unpack(&self.fetch(cache)?, dir))
    }
}

/// Unpacks the package `file` into `dir`.
pub fn unpack(file: &Path, dir: &Path) -> Result<()> {
    tool::run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(dir), "dpkg")
        .with_context(|| format!("unpacking {}", file.display()))?;
    Ok(())
}

/// Follows symbolic links inside an unpacked package, absolute ones too, without leaving it.
pub fn find_in(root: &Path, path: &str) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..8 {
        let full = root.join(path.trim_start_matches('/'));
        let Ok(target) = fs::read_link(&full) else {
            fs::metadata(&full).with_context(|| format!("looking for {path} in an unpacked package"))?;
            return Ok(full);
        };
        let target = target.to_str().context("a link in a package is not text")?;
        path = match target.strip_prefix('/') {
            Some(absolute) => absolute.to_owned(),
            None => {
                let parent = Path::new(&path).parent().and_then(Path::to_str).unwrap_or_default();
                format!("{parent}/{target}")
            }
        };
        ensure!(!path.split('/').any(|part| part == ".."), "the link {} leaves its directory", full.display());
    }
    bail!("{path} is a loop of links")
}

/// apt-get as the present user; its own sandbox user could not write to our directories.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
    command
}

pub(crate) fn sha256_of(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut buffer).with_context(|| format!("reading {}", path.display()))? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_what_apt_prints() {
        let line =
            "'http://mirror.example/z/zlib1g_1%3a1.2.13_amd64.deb' zlib1g_1%3a1.2.13_amd64.deb 86700 SHA256:52b8";
        let package = parse_uri_line(line).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("zlib1g", "1:1.2.13"));
        assert_eq!((package.file.as_str(), package.sha256.as_str()), ("zlib1g_1%3a1.2.13_amd64.deb", "52b8"));
        assert_eq!(parse_uri_line("Reading package lists..."), None);
        assert_eq!(parse_uri_line(&line.replace("SHA256", "MD5Sum")), None, "only a strong digest will do");
    }

    #[test]
    fn links_are_followed_only_inside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/libz.so.1.2"), "z").unwrap();
        let link = |name: &str, target: &str| std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        link("lib/libz.so.1", "libz.so.1.2");
        link("lib/absolute", "/lib/libz.so.1");
        link("lib/outside", "../../etc/passwd");
        link("lib/loop", "loop");
        assert_eq!(fs::read(find_in(dir.path(), "/lib/absolute").unwrap()).unwrap(), b"z");
        assert!(find_in(dir.path(), "/lib/outside").is_err());
        assert!(find_in(dir.path(), "/lib/loop").is_err());
        assert!(find_in(dir.path(), "/lib/none").is_err());
    }
}
