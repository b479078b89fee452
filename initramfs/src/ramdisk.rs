//! From tree to bytes: the two archives, compressed, with the build's own facts in the second.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::addon::AddonFacts;
use crate::assemble::Base;
use crate::cache::Cache;
use crate::cpio;
use crate::packages::hex;
use crate::tools::ToolsFacts;
use crate::tree::Tree;

/// The highest level the kernel's decoder takes without a larger window; decoding costs the same at every level.
const LEVEL: i32 = 19;

/// What `/etc/speediso-build` says; the agent reports it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BuildFacts {
    pub number: u64,
    pub version: String,
    pub kernel: String,
    /// Seconds since 1970; the live system never sets its clock before this.
    pub built: u64,
    /// Digest of everything that went in.
    pub inputs: String,
}

/// What runs before the ramdisk does.
#[derive(Clone, Copy, Debug)]
pub struct BootPrograms<'a> {
    pub kernel: &'a [u8],
    pub efi_stub: &'a [u8],
}

impl BuildFacts {
    /// `built` is `SOURCE_DATE_EPOCH` if that is set, else the date of the newest packed file: never the clock.
    pub fn new(
        number: u64,
        base: &Base,
        tools: &ToolsFacts,
        addon: Option<&AddonFacts>,
        agent: &[u8],
        boot: &BootPrograms<'_>,
        source_date: Option<u64>,
    ) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let built = source_date.unwrap_or(base.newest);
        let mut inputs = Sha256::new();
        inputs.update(base.tree.digest());
        inputs.update(Sha256::digest(agent));
        inputs.update(Sha256::digest(boot.kernel));
        inputs.update(Sha256::digest(boot.efi_stub));
        inputs.update(&tools.sha256);
        inputs.update(addon.map_or("no add-on", |addon| &addon.sha256));
        inputs.update(format!("{version} {built} {LEVEL}"));
        let inputs = format!("sha256:{}", hex(&inputs.finalize()));
        Self { number, version, kernel: base.kernel.release.clone(), built, inputs }
    }

    /// os-release(5).
    #[must_use]
    pub fn os_release(&self) -> String {
        let Self { number, version, .. } = self;
        format!(
            "ID=speediso\nNAME=Speediso\nVERSION_ID={version}\nBUILD_ID={number}\n\
             PRETTY_NAME=\"Speediso {version} build {number}\"\n"
        )
    }

    /// The agent, the files that name the build, and by what the tools archive is recognised.
    pub fn top(&self, agent: Vec<u8>, tools: &ToolsFacts, addon: Option<&AddonFacts>) -> Result<Tree> {
        let mut tree = Tree::default();
        tree.add_file("/sbin/speediso-agent", 0o755, agent)?;
        // root's login shell, which records sessions: the same program by another name.
        tree.add_link("/sbin/speediso-shell", "/sbin/speediso-agent")?;
        let mut json = serde_json::to_string(self)?;
        json.push('\n');
        tree.add_file("/etc/speediso-build", 0o644, json.into_bytes())?;
        let mut json = serde_json::to_string(tools)?;
        json.push('\n');
        tree.add_file("/etc/speediso-tools", 0o644, json.into_bytes())?;
        if let Some(addon) = addon {
            let mut json = serde_json::to_string(addon)?;
            json.push('\n');
            tree.add_file("/etc/speediso-addon", 0o644, json.into_bytes())?;
        }
        let name = format!("Speediso {} build {}, kernel {}", self.version, self.number, self.kernel);
        tree.add_file("/etc/issue", 0o644, format!("{name}\n").into_bytes())?;
        let motd = format!(
            "{name}\n\
             This system runs from memory. Nothing on the disks is mounted, assembled or started.\n\
             What the agent does: tail -f /run/speediso/agent.log; what this machine is: speediso-agent inventory\n"
        );
        tree.add_file("/etc/motd", 0o644, motd.into_bytes())?;
        Ok(tree)
    }
}

/// The whole `initramfs.img`: base and top, each compressed by itself. The base comes from the cache if it can.
pub fn image(base: &Base, top: &Tree, built: u64, cache: &Cache) -> Result<Vec<u8>> {
    let mut image = compressed(&base.tree, built, "bases", cache)?;
    // The kernel looks for the next archive at a multiple of four; zeros between are skipped.
    image.resize(image.len().next_multiple_of(4), 0);
    image.extend(compress(&archive(top, built)?, LEVEL)?);
    Ok(image)
}

/// An archive of `tree`, kept in the cache as one of `kind`.
pub(crate) fn compressed(tree: &Tree, built: u64, kind: &str, cache: &Cache) -> Result<Vec<u8>> {
    let key = {
        let mut hash = Sha256::new();
        hash.update(tree.digest());
        hash.update(format!("{built} {LEVEL}"));
        hex(&hash.finalize())
    };
    let dir = cache.entry(kind, &key, |dir| {
        eprintln!(
            "ramdisk: compressing {} MiB of kernel modules and tools (about a second for each)",
            tree.size() >> 20
        );
        std::fs::write(dir.join("base.zst"), compress(&archive(tree, built)?, LEVEL)?).context("keeping the archive")
    })?;
    read(&dir.join("base.zst"))
}

fn archive(tree: &Tree, built: u64) -> Result<Vec<u8>> {
    let mtime = u32::try_from(built).context("the date of the build does not fit into a cpio archive")?;
    let mut bytes = Vec::with_capacity(tree.size() + (1 << 20));
    cpio::write(tree, mtime, &mut bytes)?;
    Ok(bytes)
}

/// One frame with checksum, by one thread: more threads would give other bytes.
pub fn compress(bytes: &[u8], level: i32) -> Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    std::io::Write::write_all(&mut encoder, bytes)?;
    encoder.finish().context("compressing")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}
