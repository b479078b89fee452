//! The tools archive: programs for which the ramdisk has no room, with their libraries, their loader and kernel modules.
//! It lies beside the ramdisk, which carries its digest: whoever trusts the ramdisk trusts it, however it came.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::assemble;
use crate::contents::Contents;
use crate::manifest::Manifest;
use crate::packages::{Package, hex};
use crate::ramdisk::compress;
use crate::supply::Supply;
use crate::tree::{Entry, Tree};

/// What is packed when no other manifest is named.
pub const BUILT_IN: &str = include_str!("../tools.json");
pub const FILE_NAME: &str = "tools.tar.zst";
/// The agent takes windows up to 32 MiB.
const LEVEL: i32 = 19;

/// What `/etc/speediso-tools` says; the agent fetches by it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToolsFacts {
    /// Of the archive, in hex.
    pub sha256: String,
    pub size: u64,
    /// Bytes of all files in it.
    pub unpacked: u64,
    pub programs: Vec<String>,
}

#[derive(Debug)]
pub struct ToolsArchive {
    pub bytes: Vec<u8>,
    pub facts: ToolsFacts,
    pub packages: Vec<Package>,
    pub contents: Contents,
    /// Mode, size and name of all that is in it.
    pub listing: String,
}

pub fn archive(manifest: &Manifest, supply: &Supply) -> Result<ToolsArchive> {
    let base = assemble::packages_of(manifest, supply).context("gathering the tools archive")?;
    let key = hex(&{
        let mut hash = Sha256::new();
        hash.update(base.tree.digest());
        hash.update(format!("{} {LEVEL}", base.newest));
        hash.finalize()
    });
    let entry = supply.cache().entry("tools", &key, |dir| {
        eprintln!("ramdisk: compressing {} MiB of tools (about 20 seconds)", base.tree.size() >> 20);
        let packed = compress(&tar(&base.tree, base.newest)?, LEVEL)?;
        std::fs::write(dir.join(FILE_NAME), packed).context("keeping the tools archive")
    })?;
    let bytes = std::fs::read(entry.join(FILE_NAME)).context("reading the tools archive")?;
    let programs = manifest.programs.iter().flat_map(|program| program.files.values());
    let facts = ToolsFacts {
        sha256: hex(&Sha256::digest(&bytes)),
        size: u64::try_from(bytes.len())?,
        unpacked: u64::try_from(base.tree.size())?,
        programs: programs.filter(|path| !path.starts_with("/etc/")).map(|path| supply.arch().path(path)).collect(),
    };
    let listing = base.tree.listing();
    Ok(ToolsArchive { bytes, facts, packages: base.packages, contents: base.contents, listing })
}

/// In the order of the names, owned by root, of one date: the same files give the same bytes.
fn tar(tree: &Tree, date: u64) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(tree.size() + (1 << 20)));
    for (path, entry) in tree.iter() {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(date);
        match entry {
            // They are made for what lies in them.
            Entry::Directory { .. } => continue,
            Entry::File { mode, data } => {
                header.set_mode(*mode);
                header.set_size(u64::try_from(data.len())?);
                archive.append_data(&mut header, path, data.as_slice())?;
            }
            Entry::Link { .. } | Entry::CharDevice { .. } => bail!("{path}: the tools archive has files only"),
        }
    }
    archive.into_inner().context("packing the tools")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_manifest_is_whole() {
        let manifest = Manifest::parse(BUILT_IN).unwrap();
        let programs: Vec<&String> = manifest.programs.iter().flat_map(|p| p.files.values()).collect();
        assert!(programs.iter().any(|path| *path == "/sbin/cryptsetup"));
    }

    #[test]
    fn an_archive_depends_on_its_files_only() {
        let mut tree = Tree::default();
        tree.add_file("/sbin/b", 0o755, b"two".to_vec()).unwrap();
        tree.add_file("/etc/a", 0o644, b"one".to_vec()).unwrap();
        let packed = tar(&tree, 1_700_000_000).unwrap();
        assert_eq!(packed, tar(&tree, 1_700_000_000).unwrap());
        let mut archive = tar::Archive::new(packed.as_slice());
        let names: Vec<_> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["etc/a", "sbin/b"]);
        tree.add_link("/sbin/c", "/sbin/b").unwrap();
        assert!(tar(&tree, 1).is_err());
    }
}
