//! Debian packages: resolved and fetched by apt, unpacked as plain files, never installed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::apt::{Apt, Origin};
use crate::arch::Arch;
use crate::cache::Cache;
use crate::tool;

/// Package files in the cache, by their digest.
const DEBS: &str = "debs";

/// One package in one version, as apt's lists have it; the lists are signed, so `sha256` is to be trusted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// As Debian calls it; `all` for what is the same everywhere.
    pub architecture: String,
    pub sha256: String,
    #[serde(default, skip_serializing_if = "is_system")]
    pub origin: Origin,
}

fn is_system(origin: &Origin) -> bool {
    *origin == Origin::System
}

/// The package that `meta` stands for: `linux-image-amd64` -> `linux-image-6.1.0-56-amd64`. One that is a kernel itself
/// stands for itself.
pub fn kernel_of(meta: &str, apt: &Apt) -> Result<String> {
    let is_kernel = |name: &str| {
        name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if is_kernel(meta) {
        return Ok(meta.to_owned());
    }
    let text =
        tool::run(apt.command("apt-cache").args(["depends", "--important", meta]), "apt").with_context(|| {
            format!("asking apt for the kernel behind {meta}; if its lists are empty, run `apt-get update`")
        })?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        // Another machine's packages carry its name.
        .map(|name| name.split(':').next().unwrap_or(name))
        .find(|name| is_kernel(name))
        .map(str::to_owned)
        .with_context(|| {
            format!("{meta} depends on no linux-image package; name one that does as `kernel` in the manifest")
        })
}

/// The versions that apt would install now, in the order asked for.
pub fn resolve(names: &[&str], origin: &Origin, apt: &Apt) -> Result<Vec<Package>> {
    let text = tool::run(apt.command("apt-get").args(["--print-uris", "download"]).args(names), "apt")
        .context("asking apt for the packages of the ramdisk; if its lists are empty or old, run `apt-get update`")?;
    let found: Vec<Package> = text.lines().filter_map(|line| parse_uri_line(line, origin)).collect();
    names
        .iter()
        .map(|name| {
            let package = found.iter().find(|package| package.name == *name).cloned();
            package.with_context(|| format!("apt knows no way to download the package {name}"))
        })
        .collect()
}

/// `'http://…/zlib1g_1%3a1.2.13_amd64.deb' zlib1g_1%3a1.2.13_amd64.deb 86700 SHA256:52b8…`
fn parse_uri_line(line: &str, origin: &Origin) -> Option<Package> {
    let mut words = line.split_whitespace();
    words.next()?.strip_prefix('\'')?;
    let file = words.next()?;
    let sha256 = words.nth(1)?.strip_prefix("SHA256:")?;
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let name = parts.next()?.to_owned();
    let version = parts.next()?.replace("%3a", ":");
    let architecture = parts.next()?.to_owned();
    Some(Package { name, version, architecture, sha256: sha256.to_owned(), origin: origin.clone() })
}

/// Those of the system's packages that are not in the cache yet, in one go.
pub(crate) fn fetch_all(packages: &[Package], apt: &Apt, cache: &Cache) -> Result<()> {
    let missing: Vec<&Package> =
        packages.iter().filter(|package| !cache.path(DEBS, &package.sha256).is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("ramdisk: fetching {} packages", missing.len());
    let work = cache.work_dir()?;
    let wanted = missing.iter().map(|package| format!("{}={}", package.name, package.version));
    tool::run(apt.command("apt-get").args(["-qq", "download"]).args(wanted).current_dir(work.path()), "apt")
        .context("fetching packages; if the mirror no longer has these versions, run `apt-get update`")?;
    for package in missing {
        cache.entry(DEBS, &package.sha256, |dir| {
            let from = work.path().join(package.file_name());
            package.check(&from)?;
            fs::rename(&from, dir.join(package.file_name())).with_context(|| format!("keeping {}", package.file_name()))
        })?;
    }
    Ok(())
}

impl Package {
    /// A package file of the site.
    pub fn of_file(path: &Path) -> Result<Self> {
        let field = |name: &str| -> Result<String> {
            let said = tool::run(Command::new("dpkg-deb").arg("--field").arg(path).arg(name), "dpkg")
                .with_context(|| format!("reading the package {}", path.display()))?;
            Ok(said.trim().to_owned())
        };
        let sha256 = sha256_of(path)?;
        let path = fs::canonicalize(path).with_context(|| format!("looking for {}", path.display()))?;
        Ok(Self {
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture")?,
            sha256,
            origin: Origin::File(path),
        })
    }

    /// As apt calls what it fetches.
    fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.architecture)
    }

    fn check(&self, file: &Path) -> Result<()> {
        let got = sha256_of(file)?;
        let Self { name, version, sha256, .. } = self;
        ensure!(got == *sha256, "the package {name}={version} came with the digest {got} instead of {sha256}");
        Ok(())
    }

    /// The package file, fetched if it is not in the cache.
    pub fn fetch(&self, cache: &Cache) -> Result<PathBuf> {
        let entry = cache.entry(DEBS, &self.sha256, |dir| {
            eprintln!("ramdisk: fetching {} {}", self.name, self.version);
            let to = dir.join(self.file_name());
            if let Origin::File(path) = &self.origin {
                fs::copy(path, &to).with_context(|| format!("copying {}", path.display()))?;
            } else {
                self.download(dir, cache)?;
            }
            self.check(&to)
        })?;
        Ok(entry.join(self.file_name()))
    }

    fn download(&self, dir: &Path, cache: &Cache) -> Result<()> {
        let arch = self.architecture.parse().unwrap_or(Arch::HOST);
        let wanted = format!("{}={}", self.name, self.version);
        let apt = Apt::of(&self.origin, arch, cache)?;
        tool::run(apt.command("apt-get").args(["-qq", "download", &wanted]).current_dir(dir), "apt").with_context(
            || {
                format!(
                    "fetching the package {wanted}: if the mirror no longer has this version, run `apt-get update`; \
                     a version that a lock asks for is kept by snapshot.debian.org, and is taken from {} once it lies there",
                    cache.path(DEBS, &self.sha256).join(self.file_name()).display()
                )
            },
        )?;
        Ok(())
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
        let read = |line: &str| parse_uri_line(line, &Origin::System);
        let package = read(line).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("zlib1g", "1:1.2.13"));
        assert_eq!((package.architecture.as_str(), package.sha256.as_str()), ("amd64", "52b8"));
        assert_eq!(package.file_name(), "zlib1g_1%3a1.2.13_amd64.deb");
        assert_eq!(read("Reading package lists..."), None);
        assert_eq!(read(&line.replace("SHA256", "MD5Sum")), None, "only a strong digest will do");
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
