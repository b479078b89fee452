//! The files that modules ask of user space before their hardware works: which ones the modules name, and where in
//! Debian's firmware packages those are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::Origin;
use crate::cache::Cache;
use crate::elf;
use crate::packages::Package;
use crate::supply::Supply;
use crate::tree::Tree;

/// What a module's file says of itself (`modinfo`), by key.
pub fn module_info(file: &[u8]) -> Result<Vec<(String, String)>> {
    let section = elf::section(file, ".modinfo")?.unwrap_or_default();
    let entry = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    Ok(section.split(|byte| *byte == 0).filter_map(entry).collect())
}

/// What a group's firmware came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    pub packages: Vec<Package>,
    /// Path in the ramdisk, and the package that it is of.
    pub files: BTreeMap<String, String>,
    /// Named by a module and in none of the packages: other revisions of the hardware, mostly.
    pub missing: BTreeSet<String>,
}

/// `non-free-firmware/firmware-bnx2`, or a package of `main` by its name.
fn origin_of(spec: &str) -> Result<(Origin, &str)> {
    match spec.split_once('/') {
        Some((component, name)) => Ok((format!("component:{component}").parse().map_err(anyhow::Error::msg)?, name)),
        None => Ok((Origin::System, spec)),
    }
}

/// Puts what `modules` name, as far as `packages` have it, into `tree`.
pub fn add(tree: &mut Tree, modules: &[PathBuf], packages: &[String], supply: &Supply) -> Result<Found> {
    let mut found = Found::default();
    if packages.is_empty() {
        return Ok(found);
    }
    let mut roots = Vec::new();
    for spec in packages {
        let (origin, name) = origin_of(spec)?;
        let package = supply
            .resolve_from(&origin, &[name])
            .with_context(|| format!("the firmware package {spec}"))?
            .pop()
            .with_context(|| format!("apt gave no package {spec}"))?;
        roots.push((root_of(&package, supply.cache())?, package.name.clone()));
        found.packages.push(package);
    }
    for module in modules {
        let data = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
        let info = module_info(&data).with_context(|| format!("reading {}", module.display()))?;
        for (_, name) in info.iter().filter(|(key, _)| key == "firmware") {
            let at = roots.iter().find(|(root, _)| fs::symlink_metadata(root.join(name)).is_ok());
            match at {
                Some((root, package)) => add_file(tree, root, name, package, &mut found)?,
                None => {
                    found.missing.insert(name.clone());
                }
            }
        }
    }
    Ok(found)
}

/// Newer distributions have the same below `/usr`.
fn root_of(package: &Package, cache: &Cache) -> Result<PathBuf> {
    let unpacked = package.unpacked(cache)?;
    let root = ["lib/firmware", "usr/lib/firmware"].map(|dir| unpacked.join(dir)).into_iter().find(|dir| dir.is_dir());
    root.with_context(|| format!("the package {} has no firmware", package.name))
}

/// A link is kept as one, with what it leads to: several cards share a file.
fn add_file(tree: &mut Tree, root: &Path, name: &str, package: &str, found: &mut Found) -> Result<()> {
    let mut name = name.to_owned();
    for _ in 0..8 {
        let to = format!("/lib/firmware/{name}");
        found.files.insert(to.clone(), package.to_owned());
        let from = root.join(&name);
        let Ok(target) = fs::read_link(&from) else {
            let data = fs::read(&from).with_context(|| format!("reading the firmware {}", from.display()))?;
            return Ok(tree.add_file(&to, 0o644, data)?);
        };
        let target = target.to_str().context("a link in a firmware package is not text")?;
        tree.add_link(&to, target)?;
        name = joined(&name, target).with_context(|| format!("the link {} leaves its directory", from.display()))?;
    }
    anyhow::bail!("{name} of the package {package} is a loop of links")
}

/// `a/b` and `../c/d` -> `c/d`; none if that leads out.
fn joined(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tree::Entry;

    #[test]
    fn links_are_followed_inside() {
        assert_eq!(joined("netronome/a.nffw", "nic/a.nffw").as_deref(), Some("netronome/nic/a.nffw"));
        assert_eq!(joined("a/b/c", "../d").as_deref(), Some("a/d"));
        assert_eq!(joined("a", "../../etc/passwd"), None);
        assert_eq!(joined("a", "/etc/passwd"), None);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("x/nic")).unwrap();
        fs::write(dir.path().join("x/nic/real"), "fw").unwrap();
        std::os::unix::fs::symlink("nic/real", dir.path().join("x/card")).unwrap();
        let (mut tree, mut found) = (Tree::default(), Found::default());
        add_file(&mut tree, dir.path(), "x/card", "firmware-x", &mut found).unwrap();
        let entries: Vec<_> = tree.iter().filter(|(_, e)| !matches!(e, Entry::Directory { .. })).collect();
        assert_eq!(
            entries,
            [
                ("lib/firmware/x/card", &Entry::Link { target: "nic/real".into() }),
                ("lib/firmware/x/nic/real", &Entry::File { mode: 0o644, data: b"fw".to_vec() }),
            ]
        );
        assert_eq!(found.files.len(), 2);
    }

    #[test]
    fn a_component_is_named_with_the_package() {
        let component = Origin::Component("non-free-firmware".into());
        assert_eq!(origin_of("non-free-firmware/firmware-bnx2").unwrap(), (component, "firmware-bnx2"));
        assert_eq!(origin_of("firmware-linux-free").unwrap(), (Origin::System, "firmware-linux-free"));
        assert!(origin_of("a b/c").is_err());
    }
}
