//! What a build is made from, as the command line says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use speediso_initramfs::addon::{self, Addon};
use speediso_initramfs::arch::Arch;
use speediso_initramfs::assemble::{self, Base};
use speediso_initramfs::cache::Cache;
use speediso_initramfs::crates::{self, Crate};
use speediso_initramfs::extra::Extra;
use speediso_initramfs::lock::Lock;
use speediso_initramfs::manifest::{self, Manifest};
use speediso_initramfs::supply::Supply;
use speediso_initramfs::tools::{self, ToolsArchive};

#[derive(Args)]
pub(crate) struct Source {
    /// A site's manifest: what to pack beside the built-in one, or leave out of it
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// What to pack into the tools archive, instead of the built-in manifest
    #[arg(long)]
    tools_manifest: Option<PathBuf>,
    /// Another kernel: a package (linux-image-cloud-amd64), one of another suite
    /// (linux-image-amd64/bookworm-backports), or a package file (./linux-image-6.12.9_amd64.deb)
    #[arg(long)]
    kernel: Option<String>,
    /// For this machine: x86_64, or aarch64, whose agent `cross.sh` compiles
    #[arg(long, default_value_t = Arch::HOST)]
    arch: Arch,
    /// Take exactly the packages of an earlier build's packages.lock.json, or fail
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Make the add-on of rare drivers and firmware too
    #[arg(long)]
    addon: bool,
    /// What to pack into the add-on beside the built-in list
    #[arg(long, requires = "addon", value_name = "FILE")]
    addon_manifest: Option<PathBuf>,
}

impl Source {
    pub(crate) fn supply(&self) -> Result<Supply> {
        let lock = self.lock.as_deref().map(|path| Lock::read(path, self.arch)).transpose()?;
        Ok(Supply::new(Cache::of_user()?, self.arch, lock))
    }

    fn manifest(&self) -> Result<Manifest> {
        self.merged(self.manifest.as_deref(), manifest::BUILT_IN)
    }

    /// Modules that the site names must be there; those of the built-in list only if it is for this kernel.
    fn merged(&self, site: Option<&Path>, built_in: &str) -> Result<Manifest> {
        let extra = site.map(Extra::read).transpose()?.unwrap_or_default();
        let kernel = self.kernel.as_deref().or(extra.kernel.as_deref());
        let built_in = Manifest::parse(built_in)?.for_kernel(kernel, self.arch);
        let merged = Extra { kernel: kernel.map(str::to_owned), ..extra.clone() }.over(built_in);
        merged.with_context(|| site.map_or("the built-in manifest".to_owned(), |path| format!("in {}", path.display())))
    }

    pub(crate) fn base(&self, supply: &Supply) -> Result<Base> {
        let beside = self.manifest.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
        assemble::base(&self.manifest()?, beside, supply)
    }

    pub(crate) fn tools(&self, supply: &Supply) -> Result<ToolsArchive> {
        let text = match &self.tools_manifest {
            Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
            None => tools::BUILT_IN.to_owned(),
        };
        let manifest = Manifest::parse(&text).context("the manifest of the tools archive")?;
        tools::archive(&manifest.for_kernel(Some(&self.manifest()?.kernel), self.arch), supply)
    }

    pub(crate) fn addon(&self, base: &Base, supply: &Supply) -> Result<Option<Addon>> {
        if !self.addon {
            return Ok(None);
        }
        let manifest = self.merged(self.addon_manifest.as_deref(), addon::BUILT_IN)?;
        let manifest = manifest.for_kernel(Some(&self.manifest()?.kernel), self.arch);
        addon::archive(&manifest, base, supply).map(Some)
    }

    /// Another kernel may lack modules; what it lacks is said and recorded, not passed over.
    pub(crate) fn say_what_is_missing(&self, base: &Base, addon: Option<&Addon>) {
        if !base.kernel.absent.is_empty() {
            eprintln!("ramdisk: the kernel {} has no {}", base.kernel.release, base.kernel.absent.join(", "));
        }
        let missing = base.missing_firmware.len() + addon.map_or(0, |addon| addon.missing_firmware.len());
        if missing > 0 {
            eprintln!("ramdisk: {missing} firmware files that modules name are in no package; build.json lists them");
        }
    }
}

/// Name and version of a source.
type SourceName = (String, String);

/// The agent's crates, and the sources of what is linked into it besides.
pub(crate) fn crates_in(workspace: &Path, arch: Arch) -> Result<(Vec<Crate>, Vec<SourceName>)> {
    let crates = crates::of_agent(workspace, arch)?;
    let mut linked = Vec::new();
    let sources = workspace.join("target/libblkid/source");
    for entry in std::fs::read_dir(&sources)
        .with_context(|| format!("looking for the sources of libblkid in {}", sources.display()))?
    {
        // `util-linux_2.38.1-5+deb12u3.dsc`
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some((source, version)) = name.strip_suffix(".dsc").and_then(|name| name.split_once('_')) {
            linked.push((source.to_owned(), version.to_owned()));
        }
    }
    linked.sort();
    Ok((crates, linked))
}
