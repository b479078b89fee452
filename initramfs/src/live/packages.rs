//! All packages of a root: those asked for with everything they need, in the versions that apt would install now.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{Apt, Origin};
use crate::cache::Cache;
use crate::packages::{self, Package};
use crate::tool;

/// What every Debian system has.
const ESSENTIAL: &str = "?essential";

/// Asked of an apt that believes that nothing is installed yet; recommendations would double the root.
pub(super) fn closure(names: &[&str], apt: &Apt) -> Result<Vec<Package>> {
    let mut command = apt.command("apt-get");
    for option in ["Dir::State::Status=/dev/null", "APT::Install-Recommends=false", "Debug::NoLocking=true"] {
        command.args(["-o", option]);
    }
    command.args(["--print-uris", "-qq", "install", ESSENTIAL]).args(names);
    let text = tool::run(&mut command, "apt").context("asking apt what the live root needs")?;
    let found: BTreeSet<&str> = text.lines().filter_map(name_in_uri_line).collect();
    ensure!(!found.is_empty(), "apt named no packages for the live root; if its lists are empty, run `apt-get update`");
    packages::resolve(&found.into_iter().collect::<Vec<_>>(), &Origin::System, apt)
}

/// `'URL' name_version_arch.deb 1234 MD5Sum:...`: this command of apt gives no strong digest, so only the name counts.
fn name_in_uri_line(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    rest.split_once('_').map(|(name, _)| name)
}

/// A repository of exactly these packages in a new directory: what is installed from it can be nothing else.
pub(super) fn repository(packages: &[Package], apt: &Apt, cache: &Cache, dir: &Path) -> Result<()> {
    packages::fetch_all(packages, apt, cache)?;
    fs::create_dir(dir).with_context(|| format!("making {}", dir.display()))?;
    // apt reads it as whoever it is inside of a namespace.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for package in packages {
        let from = package.fetch(cache)?;
        let to = dir.join(file_name(package));
        // The cache may be on another file system.
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .with_context(|| format!("putting {} beside the others", from.display()))?;
    }
    let wanted = packages.iter().map(|package| format!("{}={}", package.name, package.version));
    let text =
        tool::run(apt.command("apt-cache").arg("show").args(wanted), "apt").context("asking apt about the packages")?;
    let index = index(&text, packages)?;
    fs::write(dir.join("Packages"), index).context("writing the list of packages")
}

/// Versions have characters in them that a URL has otherwise.
fn file_name(package: &Package) -> String {
    format!("{}.deb", package.name)
}

/// apt's own records, with the files where they lie here. Each must have the digest by which the package was fetched.
fn index(records: &str, packages: &[Package]) -> Result<String> {
    let mut index = String::new();
    let mut found = BTreeSet::new();
    for record in records.split("\n\n").filter(|record| !record.trim().is_empty()) {
        let field = |name: &str| record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (Some(name), Some(sha256)) = (field("Package"), field("SHA256")) else {
            bail!("apt shows a package without a name or a digest:\n{record}")
        };
        // The same version may be known from several places.
        let Some(package) = packages.iter().find(|p| p.name == name && p.sha256 == sha256) else { continue };
        if !found.insert(name.to_owned()) {
            continue;
        }
        let kept = record.lines().filter(|line| !line.starts_with("Filename: "));
        kept.for_each(|line| index.extend([line, "\n"]));
        index.push_str(&format!("Filename: ./{}\n\n", file_name(package)));
    }
    match packages.iter().find(|package| !found.contains(&package.name)) {
        Some(absent) => bail!("apt has no record of {} {}", absent.name, absent.version),
        None => Ok(index),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_from_what_apt_prints() {
        let line = "'http://m/g/libc6_2.36-9%2bdeb12u14_amd64.deb' libc6_2.36-9+deb12u14_amd64.deb 2759320 MD5Sum:8d98";
        assert_eq!(name_in_uri_line(line), Some("libc6"));
        assert_eq!(name_in_uri_line("Reading package lists..."), None);
    }

    #[test]
    fn the_index_names_what_was_fetched_and_nothing_else() {
        let package = Package {
            name: "kmod".into(),
            version: "30".into(),
            architecture: "amd64".into(),
            sha256: "aa".into(),
            origin: Origin::System,
        };
        let record = |digest: &str| {
            format!("Package: kmod\nVersion: 30\nFilename: pool/k/kmod_30_amd64.deb\nSHA256: {digest}\n\n")
        };
        let both = record("bb") + &record("aa") + &record("aa");
        let index = index(&both, std::slice::from_ref(&package)).unwrap();
        assert_eq!(index, "Package: kmod\nVersion: 30\nSHA256: aa\nFilename: ./kmod.deb\n\n");
        let error = super::index(&record("bb"), &[package]).unwrap_err().to_string();
        assert_eq!(error, "apt has no record of kmod 30");
    }
}
