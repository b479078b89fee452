//! Modules that lie compressed in the ramdisk, as a squashfs, until one of them is asked for.
//!
//! Most of the modules are for hardware that a machine does not have, and unpacked they would take more of its memory
//! than everything else in the ramdisk. The agent mounts them at its start; a link where each module belongs leads there,
//! so that modprobe, which the kernel itself calls too, needs to know of nothing.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::modules::Module;
use crate::packages::hex;
use crate::tool;

/// Below `/lib/modules/<release>`, as the agent knows it.
pub const FILE: &str = "packed.squashfs";
/// Where the agent mounts it.
pub const PLACE: &str = "packed";
/// Without these a kernel cannot mount it.
pub const OPENED_BY: [&str; 2] = ["squashfs", "loop"];
const PACKAGE: &str = "squashfs-tools";
/// xz takes a sixth less than zstd, and the modules that one machine loads of it are a few MiB. A block is decompressed
/// whole: larger ones save little, and cost each small module more.
const OPTIONS: &str = "-comp xz -b 256K -no-xattrs -no-exports -all-root -root-mode 0755 -mkfs-time 0 -all-time 0 \
                       -processors 1 -exit-on-error -noappend -quiet -no-progress";

/// The squashfs of these modules, from the cache if it can. The same modules are the same bytes.
pub(crate) fn of(modules: &[&Module], cache: &Cache) -> Result<Vec<u8>> {
    let files = modules.iter().map(|module| {
        let data = fs::read(&module.file).with_context(|| format!("reading {}", module.file.display()))?;
        Ok((module.path.as_str(), data))
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut key = Sha256::new();
    key.update(OPTIONS);
    for (path, data) in &files {
        key.update(format!(" {path} {}", hex(&Sha256::digest(data))));
    }
    let dir = cache.entry("packs", &hex(&key.finalize()), |dir| {
        eprintln!("ramdisk: packing {} modules (about 20 seconds)", files.len());
        let work = cache.work_dir()?;
        let root = work.path().join("root");
        for (path, data) in &files {
            place(&root, path, data)?;
        }
        let mut command = Command::new("mksquashfs");
        command.arg(&root).arg(dir.join(FILE)).args(OPTIONS.split_whitespace());
        // It takes no options that say the time beside one from outside.
        command.env_remove("SOURCE_DATE_EPOCH");
        tool::run(&mut command, PACKAGE).context("packing modules")?;
        Ok(())
    })?;
    fs::read(dir.join(FILE)).context("reading the packed modules")
}

/// With modes that do not depend on who builds.
fn place(root: &Path, path: &str, data: &[u8]) -> Result<()> {
    let file = root.join(path);
    let directory = file.parent().unwrap_or(root);
    fs::create_dir_all(directory)?;
    for directory in directory.ancestors().take_while(|above| above.starts_with(root)) {
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    fs::write(&file, data).with_context(|| format!("writing {}", file.display()))?;
    Ok(fs::set_permissions(&file, Permissions::from_mode(0o644))?)
}

/// The modules of a pack by their paths in it.
pub(crate) fn files(pack: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let work = tempfile::tempdir().context("making a temporary directory")?;
    let (file, root) = (work.path().join(FILE), work.path().join("root"));
    fs::write(&file, pack)?;
    let mut command = Command::new("unsquashfs");
    command.args(["-no-progress", "-no-xattrs", "-quiet", "-d"]).arg(&root).arg(&file);
    tool::run(&mut command, PACKAGE).context("unpacking modules")?;
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.strip_prefix(&root)?.to_str().context("a name that is not text")?.to_owned();
            found.push((name, fs::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_same_modules_are_the_same_bytes_and_come_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let module = |path: &str, data: &str, mode: u32| {
            let file = dir.path().join(path.replace('/', "-"));
            fs::write(&file, data).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            Module { path: path.to_owned(), file, group: "g".to_owned(), packed: true }
        };
        let made = |cache: &str, mode| {
            let modules = [module("kernel/net/b.ko", "b", mode), module("kernel/a.ko", "a", mode)];
            of(&modules.iter().collect::<Vec<_>>(), &Cache::at(dir.path().join(cache))).unwrap()
        };
        let first = made("first", 0o600);
        // The finest time that a squashfs knows.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(made("second", 0o666) == first);
        let names = |path: &str, data: &[u8]| (path.to_owned(), data.to_vec());
        assert_eq!(files(&first).unwrap(), [names("kernel/a.ko", b"a"), names("kernel/net/b.ko", b"b")]);
    }
}
