//! The tools archive: a tar under zstd, with programs, the libraries and the loader they want, and kernel modules.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use speediso_image::decode;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{Compression, shown_url};
use speediso_model::plan::hex;
use speediso_model::units::Bytes;
use tar::EntryType;

use super::run;
use crate::ctx::TaskCtx;
use crate::drivers::{name_of, plain};

/// More than any such archive has; memory is what it costs.
const LARGEST: u64 = 64 << 20;
const LARGEST_UNPACKED: u64 = 192 << 20;
const MOST_FILES: usize = 4096;
/// Where Debian's programs look for what they need; here it is told to the loader.
const LIBRARIES: &str = if cfg!(target_arch = "aarch64") { "lib/aarch64-linux-gnu" } else { "lib/x86_64-linux-gnu" };
const LOADER: &str =
    if cfg!(target_arch = "aarch64") { "lib/ld-linux-aarch64.so.1" } else { "lib64/ld-linux-x86-64.so.2" };
/// Beside what was unpacked: which archive it was.
const MARK: &str = "archive.sha256";

/// What the ramdisk carries about the archive that was made with it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct ArchiveFacts {
    /// In hex.
    pub sha256: String,
    pub size: u64,
    /// Bytes of all files.
    pub unpacked: u64,
    /// Paths in it.
    pub programs: Vec<String>,
}

impl ArchiveFacts {
    pub(super) fn program(&self, name: &str) -> Option<&str> {
        self.programs.iter().map(String::as_str).find(|path| path.rsplit('/').next() == Some(name))
    }
}

/// One that is unpacked.
#[derive(Clone, Debug)]
pub(super) struct Archive {
    directory: PathBuf,
    facts: ArchiveFacts,
}

impl Archive {
    /// From `from`, or what an agent of this boot has unpacked before.
    pub(super) fn get(facts: &ArchiveFacts, from: &str, directory: &Path, ctx: &TaskCtx) -> Result<Self, Fault> {
        if let Some(archive) = Self::here(facts, directory) {
            return Ok(archive);
        }
        let archive = Self { directory: directory.to_owned(), facts: facts.clone() };
        if facts.size > LARGEST || facts.unpacked > LARGEST_UNPACKED {
            return Err(bad(from, format!("it has {}, {} unpacked", Bytes(facts.size), Bytes(facts.unpacked))));
        }
        ctx.reporter.step_began("fetch tools");
        let bytes = fetch(facts, from, ctx)?;
        // Before a byte of it is looked at.
        let digest = hex(&Sha256::digest(&bytes));
        if digest != facts.sha256 {
            return Err(bad(
                from,
                format!(
                    "its SHA-256 is {digest}, the ramdisk says {}: ramdisk and archive are of two builds",
                    facts.sha256
                ),
            ));
        }
        unpack(&bytes, facts, directory)
            .map_err(|e| bad(from, format!("unpacking it to {}: {e}", directory.display())))?;
        ctx.reporter.step_ended("fetch tools", &format!("{} from {}", Bytes(facts.size), shown_url(from)));
        Ok(archive)
    }

    /// What an agent of this boot has unpacked before.
    pub(super) fn here(facts: &ArchiveFacts, directory: &Path) -> Option<Self> {
        let is_it = fs::read_to_string(directory.join(MARK)).is_ok_and(|mark| mark == facts.sha256);
        is_it.then(|| Self { directory: directory.to_owned(), facts: facts.clone() })
    }

    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.directory.join(path.trim_start_matches('/'))
    }

    /// The program by the archive's own loader, which is where no program would look for it.
    pub(super) fn command(&self, program: &str) -> Option<Command> {
        let path = self.facts.program(program)?;
        let mut command = run::bare(self.directory.join(LOADER));
        command.arg("--library-path").arg(self.directory.join(LIBRARIES));
        // mke2fs and others do as they are called.
        command.args(["--argv0", program]).arg(self.file(path));
        Some(command)
    }

    /// The files of a module and of those it needs, the first to load first; none if the archive does not have it, being
    /// in the kernel or in the ramdisk.
    pub(super) fn modules(&self, name: &str, running: &str) -> Result<Vec<PathBuf>, Fault> {
        let root = self.directory.join("lib/modules");
        let below = root.join(running);
        if !below.is_dir() {
            return Err(Fault::new(
                FaultCode::ToolMissing,
                format!("the tools archive has no modules for the running kernel {running}"),
            )
            .because("boot kernel, ramdisk and tools archive of one build"));
        }
        let table = fs::read_to_string(below.join("modules.dep")).unwrap_or_default();
        Ok(in_order(&table, name).into_iter().map(|path| below.join(path)).collect())
    }
}

/// modules.dep(5): `path: what it needs, nearest first`.
pub(crate) fn in_order<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let name = plain(name);
    table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(path, _)| name_of(path) == name)
        .map(|(path, needs)| needs.split_whitespace().rev().chain([path]).collect())
        .unwrap_or_default()
}

fn bad(from: &str, why: impl Into<String>) -> Fault {
    Fault::new(FaultCode::ToolMissing, format!("the tools archive {} cannot be used", shown_url(from)))
        .because(why)
        .because("nothing was changed")
}

fn fetch(facts: &ArchiveFacts, from: &str, ctx: &TaskCtx) -> Result<Vec<u8>, Fault> {
    if !from.starts_with("http://") && !from.starts_with("https://") {
        let read = || {
            let mut bytes = Vec::new();
            fs::File::open(from)?.take(facts.size + 1).read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        };
        return read().map_err(|e| bad(from, e.to_string()));
    }
    let mut tries = 0;
    loop {
        ctx.cancel.check()?;
        match ctx.runtime.block_on(download(facts, from, ctx)) {
            Ok(bytes) => return Ok(bytes),
            Err((fault, false)) => return Err(fault),
            Err((fault, true)) => {
                tries += 1;
                if tries >= ctx.patience.tries {
                    return Err(fault);
                }
                std::thread::sleep(ctx.patience.pause(tries - 1));
            }
        }
    }
}

/// The flag says whether trying again may help.
async fn download(facts: &ArchiveFacts, from: &str, ctx: &TaskCtx) -> Result<Vec<u8>, (Fault, bool)> {
    let lost = |e: reqwest::Error| (bad(from, e.without_url().to_string()), true);
    let late = |_| (bad(from, "the server says nothing"), true);
    let asked = tokio::time::timeout(ctx.patience.connect, ctx.http.get(from).send());
    let mut response = asked.await.map_err(late)?.map_err(lost)?;
    if !response.status().is_success() {
        return Err((bad(from, format!("the server says {}", response.status())), response.status().is_server_error()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(facts.size).unwrap_or_default());
    loop {
        let chunk = tokio::time::timeout(ctx.patience.stall, response.chunk()).await.map_err(late)?.map_err(lost)?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if (bytes.len() + chunk.len()) as u64 > facts.size {
            return Err((bad(from, format!("it is larger than {}", Bytes(facts.size))), false));
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// Into a new directory that gets its name when it is whole.
fn unpack(bytes: &[u8], facts: &ArchiveFacts, directory: &Path) -> io::Result<()> {
    let parent = directory.parent().unwrap_or(directory);
    let fresh = directory.with_extension("new");
    for old in [&fresh, &directory.to_owned()] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    let make = |path: &Path, mode| fs::DirBuilder::new().recursive(true).mode(mode).create(path);
    make(parent, 0o700)?;
    make(&fresh, 0o700)?;
    let mut left = facts.unpacked;
    let mut archive = tar::Archive::new(decode::decoder(Compression::Zstd, None, bytes)?);
    for (n, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        if n >= MOST_FILES || !plain(&name) {
            return Err(io::Error::other(format!("too many files, or an odd one: {}", name.display())));
        }
        let path = fresh.join(&name);
        if let Some(parent) = path.parent() {
            make(parent, 0o755)?;
        }
        match entry.header().entry_type() {
            EntryType::Directory => make(&path, 0o755)?,
            EntryType::Regular => {
                left = left.checked_sub(entry.size()).ok_or_else(|| io::Error::other("larger than it should be"))?;
                let mode = entry.header().mode()? & 0o755;
                let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
                io::copy(&mut entry, &mut file)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.unwrap_or_default().into_owned();
                if !plain(&target) {
                    return Err(io::Error::other(format!("{} leads out", name.display())));
                }
                symlink(target, &path)?;
            }
            other => return Err(io::Error::other(format!("{} is a {other:?}", name.display()))),
        }
    }
    fs::File::create_new(fresh.join(MARK))?.write_all(facts.sha256.as_bytes())?;
    fs::rename(&fresh, directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_comes_first() {
        let table = "kernel/drivers/md/dm-crypt.ko: kernel/drivers/md/dm-mod.ko kernel/lib/crc.ko\nkernel/drivers/md/dm-mod.ko:\n";
        assert_eq!(
            in_order(table, "dm_crypt"),
            ["kernel/lib/crc.ko", "kernel/drivers/md/dm-mod.ko", "kernel/drivers/md/dm-crypt.ko"]
        );
        assert_eq!(in_order(table, "dm-mod"), ["kernel/drivers/md/dm-mod.ko"]);
        assert!(in_order(table, "dm").is_empty());
    }
}
