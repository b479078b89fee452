//! The add-on: drivers that few machines need, and firmware that is not free, with the modules that ask for it.
//!
//! One file, two ways to use it. A boot loader that is told to appends it to the ramdisk (the kernel unpacks every
//! archive that it is given), and the start-up script makes one table of both. Or the agent fetches it, once the machine
//! has another way to the controller: the ramdisk carries its digest, and which device would find a driver in it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::assemble::{self, Base};
use crate::contents::Contents;
use crate::manifest::Manifest;
use crate::modules::{Kernel, Module};
use crate::packages::{self, Package, hex};
use crate::ramdisk::compressed;
use crate::supply::Supply;
use crate::tree::{Entry, Tree};

/// What is packed when no other manifest is named.
pub const BUILT_IN: &str = include_str!("../addon.json");
pub const FILE_NAME: &str = "addon.img";
/// The licences of what is not free in it, as Debian wrote them down.
pub const LICENCES: &str = "addon.licences.txt";
/// The end of an alias that names a device and nothing more.
const ANY_VARIANT: &str = "sv*sd*bc*sc*i*";

/// What `/etc/speediso-addon` says; the agent fetches by it, and knows by it what would help.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddonFacts {
    pub file: String,
    /// Of the archive, in hex.
    pub sha256: String,
    pub size: u64,
    /// Bytes of all files in it.
    pub unpacked: u64,
    /// Kernel that its modules are of.
    pub kernel: String,
    /// By module that the ramdisk has not: the PCI devices it drives, as patterns of their modalias.
    pub drivers: BTreeMap<String, Vec<String>>,
}

#[derive(Debug)]
pub struct Addon {
    pub bytes: Vec<u8>,
    pub facts: AddonFacts,
    pub packages: Vec<Package>,
    pub contents: Contents,
    pub listing: String,
    pub licences: String,
    pub missing_firmware: BTreeSet<String>,
}

/// Beside the ramdisk `base`, whose own modules need no mention.
pub fn archive(manifest: &Manifest, base: &Base, supply: &Supply) -> Result<Addon> {
    let mut gathered = assemble::packages_of(manifest, supply).context("gathering the add-on")?;
    anyhow::ensure!(
        gathered.kernel.release == base.kernel.release,
        "the add-on is for the kernel {} and the ramdisk for {}",
        gathered.kernel.release,
        base.kernel.release
    );
    let tree = without_what_is_in(&base.kernel, &gathered)?;
    let bytes = compressed(&tree, gathered.newest, "addons", supply.cache())?;
    let facts = AddonFacts {
        file: FILE_NAME.to_owned(),
        sha256: hex(&Sha256::digest(&bytes)),
        size: u64::try_from(bytes.len())?,
        unpacked: u64::try_from(tree.size())?,
        kernel: gathered.kernel.release.clone(),
        drivers: drivers(&gathered.kernel, &base.kernel),
    };
    gathered.contents.0.retain(|part| part.name != "module tables");
    Ok(Addon {
        bytes,
        facts,
        licences: licences(&gathered.packages, supply)?,
        packages: gathered.packages,
        contents: gathered.contents,
        listing: tree.listing(),
        missing_firmware: gathered.missing_firmware,
    })
}

/// A module that the ramdisk has is not packed twice. Its tables must not be overwritten either: those of the add-on lie
/// beside them, and `/etc/rcS` appends them.
fn without_what_is_in(base: &Kernel, gathered: &Base) -> Result<Tree> {
    let below = format!("lib/modules/{}", gathered.kernel.release);
    let modules = format!("{below}/kernel/");
    let present: BTreeSet<&str> = base.modules.iter().map(|module| module.path.as_str()).collect();
    let is_present =
        |path: &str| path.strip_prefix(&below).is_some_and(|path| present.contains(path.trim_start_matches('/')));
    let mut tree = Tree::default();
    for (path, entry) in gathered.tree.iter() {
        let wanted = path.starts_with("lib/firmware/") || path.starts_with(&modules);
        if wanted && !matches!(entry, Entry::Directory { .. }) && !is_present(path) {
            tree.add_entry(path, entry.clone())?;
        }
    }
    let names: BTreeSet<String> = base.modules.iter().map(Module::name).collect();
    let tables = &gathered.kernel.tables;
    let more = |table: &str, is_there: &dyn Fn(&str) -> bool| -> String {
        let lines = tables[table].lines().filter(|line| !is_there(line));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let dep = more("modules.dep", &|line| line.split(':').next().is_some_and(|path| present.contains(path)));
    let alias = more("modules.alias", &|line| line.rsplit(' ').next().is_some_and(|name| names.contains(name)));
    for (table, text) in [("modules.dep", dep), ("modules.alias", alias)] {
        tree.add_file(&format!("/{below}/addon/{table}"), 0o644, text.into_bytes())?;
    }
    Ok(tree)
}

/// Which device finds a driver in `addon` and none in `base`.
fn drivers(addon: &Kernel, base: &Kernel) -> BTreeMap<String, Vec<String>> {
    let present: BTreeSet<String> = base.modules.iter().map(Module::name).collect();
    let mut drivers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (pattern, module) in addon.aliases() {
        if pattern.starts_with("pci:") && !present.contains(module) {
            let pattern = pattern.strip_suffix(ANY_VARIANT).map_or(pattern.to_owned(), |device| format!("{device}*"));
            drivers.entry(module.to_owned()).or_default().push(pattern);
        }
    }
    drivers
}

fn licences(packages: &[Package], supply: &Supply) -> Result<String> {
    let mut text = String::from(
        "What is in addon.img besides the kernel's own modules, and under which terms. The firmware runs on the devices,\n\
         not on the machine's processors; it is given on unchanged, as its makers permit.\n",
    );
    for package in packages.iter().skip(1) {
        let root = package.unpacked(supply.cache())?;
        let file = packages::find_in(&root, &format!("/usr/share/doc/{}/copyright", package.name))?;
        let said = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        text.push_str(&format!("\n==== {} {}\n\n{said}", package.name, package.version));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;

    fn kernel(modules: &[&str], alias: &str) -> Kernel {
        let module = |name: &&str| Module {
            path: format!("kernel/{name}.ko"),
            file: PathBuf::from("/nowhere"),
            group: "g".to_owned(),
            packed: false,
        };
        Kernel {
            release: "6.1".to_owned(),
            vmlinuz: PathBuf::from("/nowhere"),
            modules: modules.iter().map(module).collect(),
            tables: BTreeMap::from([("modules.alias", alias.to_owned())]),
            absent: vec![],
        }
    }

    #[test]
    fn the_manifest_is_whole() {
        let manifest = Manifest::parse(BUILT_IN).unwrap();
        let base = Manifest::parse(crate::manifest::BUILT_IN).unwrap();
        for wanted in ["bnx2", "bnx2x", "qede", "nfp", "sfc", "qla2xxx", "e100"] {
            assert!(manifest.modules.iter().any(|group| group.modules.iter().any(|m| m == wanted)), "{wanted}");
        }
        let both = |group: &crate::manifest::ModuleGroup| {
            group.modules.iter().all(|m| base.modules.iter().any(|g| g.modules.contains(m)))
        };
        let twice: Vec<&str> = manifest.modules.iter().filter(|g| both(g)).map(|g| g.group.as_str()).collect();
        assert_eq!(twice, ["firmware-for-more"], "what the ramdisk has is here for its firmware only");
    }

    #[test]
    fn what_the_ramdisk_drives_is_not_mentioned() {
        let alias = "alias pci:v00008086d00001229sv*sd*bc*sc*i* e100\n\
                     alias pci:v00001077d00002031sv*sd*bc*sc*i* qla2xxx\n\
                     alias pci:v000010ECd00008168sv00001849sd*bc*sc*i* r8169\n\
                     alias virtio:d00000001v* virtio_net\n\
                     alias pci:v000010B5d00009050sv*sd*bc02sc00i* e100\n";
        let found = drivers(&kernel(&["e100", "qla2xxx", "r8169"], alias), &kernel(&["r8169"], ""));
        let expected = BTreeMap::from([
            (
                "e100".to_owned(),
                vec!["pci:v00008086d00001229*".to_owned(), "pci:v000010B5d00009050sv*sd*bc02sc00i*".to_owned()],
            ),
            ("qla2xxx".to_owned(), vec!["pci:v00001077d00002031*".to_owned()]),
        ]);
        assert_eq!(found, expected);
    }
}
