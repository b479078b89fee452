//! What a Debian package says of itself: which source it was built from, and under which licences it is.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::packages::Package;
use crate::tool;

/// More than any of Debian's.
const LONGEST: u64 = 4 << 20;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// Source packages with versions: its own first, then those of what is linked into it.
    pub sources: Vec<(String, String)>,
    /// Short names; none if the package does not state them in a form that programs read.
    pub licences: Vec<String>,
}

impl About {
    /// Read once per package; the cache keeps it.
    pub fn of(package: &Package, cache: &Cache) -> Result<Self> {
        let dir = cache.entry("about", &package.sha256, |dir| {
            let file = package.fetch(cache)?;
            let control = tool::run(Command::new("dpkg-deb").arg("--field").arg(&file), "dpkg")
                .with_context(|| format!("reading {}", file.display()))?;
            fs::write(dir.join("control"), control)?;
            fs::write(dir.join("copyright"), copyright(&file, &package.name)?)?;
            Ok(())
        })?;
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Self { sources: sources(&read("control")?, package), licences: licences(&read("copyright")?) })
    }
}

/// The package's own statement, without unpacking the rest; empty if it is a link to another package's.
fn copyright(file: &Path, name: &str) -> Result<String> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting dpkg-deb, which is in the Debian package dpkg")?;
    let stdout = child.stdout.take().context("dpkg-deb has an output")?;
    let wanted = format!("./usr/share/doc/{name}/copyright");
    let mut text = String::new();
    let mut archive = tar::Archive::new(stdout);
    for entry in archive.entries()? {
        let entry = entry.with_context(|| format!("reading {}", file.display()))?;
        if entry.path()?.as_os_str() == wanted.as_str() && entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.take(LONGEST).read_to_end(&mut bytes)?;
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    // Padding behind the archive's end is read too: a program whose output nobody takes fails.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    let status = child.wait()?;
    ensure!(status.success(), "dpkg-deb could not unpack {}: {status}", file.display());
    Ok(text)
}

fn sources(control: &str, package: &Package) -> Vec<(String, String)> {
    let field = |name: &str| control.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let own = match field("Source") {
        // `linux-signed-amd64 (6.1.192+2)`
        Some(said) => {
            let (name, version) = said.split_once(' ').unwrap_or((said, ""));
            let version = version.trim_matches(['(', ')', ' ']);
            (name.to_owned(), if version.is_empty() { package.version.clone() } else { version.to_owned() })
        }
        None => (package.name.clone(), package.version.clone()),
    };
    let mut sources = vec![own];
    // `glibc (= 2.36-9+deb12u14), gcc-12 (= 12.2.0-14)`
    for used in field("Built-Using").into_iter().chain(field("Static-Built-Using")).flat_map(|list| list.split(',')) {
        if let Some((name, version)) = used.trim().split_once(" (= ") {
            sources.push((name.to_owned(), version.trim_end_matches(')').to_owned()));
        }
    }
    sources.dedup();
    sources
}

/// <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>
fn licences(copyright: &str) -> Vec<String> {
    let known_form =
        copyright.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("Format"));
    if !known_form {
        return Vec::new();
    }
    let names = copyright.lines().filter_map(|line| line.strip_prefix("License:")).map(str::trim);
    let names: BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apt::Origin;

    fn package() -> Package {
        Package {
            name: "busybox-static".to_owned(),
            version: "1:1.35.0-4+b1".to_owned(),
            architecture: "amd64".to_owned(),
            sha256: String::new(),
            origin: Origin::System,
        }
    }

    #[test]
    fn sources_are_the_packages_and_what_is_linked_in() {
        let pairs = |control: &str| {
            let said: Vec<String> =
                sources(control, &package()).into_iter().map(|(name, version)| format!("{name}={version}")).collect();
            said.join(" ")
        };
        let control = "Package: busybox-static\nSource: busybox (1:1.35.0-4)\nBuilt-Using: glibc (= 2.36-9), gcc-12 (= 12.2.0-14)\n";
        assert_eq!(pairs(control), "busybox=1:1.35.0-4 glibc=2.36-9 gcc-12=12.2.0-14");
        assert_eq!(pairs("Source: busybox\n"), "busybox=1:1.35.0-4+b1");
        assert_eq!(pairs("Package: x\n"), "busybox-static=1:1.35.0-4+b1");
    }

    #[test]
    fn licences_are_read_where_they_are_stated() {
        let stated = "Format: https://x\n\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: y\nLicense: BSD-3-clause\n\nLicense: GPL-2+\n";
        assert_eq!(licences(stated), ["BSD-3-clause", "GPL-2+"]);
        assert!(licences("This package was made by somebody.\nLicense: see below\n").is_empty());
    }
}
