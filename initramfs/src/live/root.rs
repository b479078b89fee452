//! The root as the distribution's own packages make it: installed by mmdebstrap into a directory, kept as an archive.
//!
//! mmdebstrap needs no root: for others it fakes owners and `chroot` (fakechroot), which asks for no set-up of the
//! machine. What comes from how or when it ran is taken out when the archive is read again ([`super::archive`]).

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::packages as closure;
use crate::apt::Apt;
use crate::cache::Cache;
use crate::packages::{Package, hex};
use crate::tool;

/// Changes when a root of the same packages would be made otherwise.
const FORMAT: &str = "1";
pub(super) const FILE_NAME: &str = "root.tar.zst";
/// Read by us again, never by a machine: quick counts.
const LEVEL: i32 = 3;

/// Nobody reads manuals in memory; licences stay with what they are of.
const LEFT_OUT: &[&str] = &[
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];

/// The archive of `packages` installed, from the cache if it can. `wanted` are those of them that were asked for.
pub(super) fn base(packages: &[Package], wanted: &[&str], date: u64, apt: &Apt, cache: &Cache) -> Result<PathBuf> {
    let mut key = Sha256::new();
    key.update(format!("{FORMAT} {date} {}\n", LEFT_OUT.join(" ")));
    for package in packages {
        key.update(format!("{} {}\n", package.name, package.sha256));
    }
    let entry = cache.entry("live-roots", &hex(&key.finalize()), |dir| {
        eprintln!("live: installing {} packages into a directory (a minute or more)", packages.len());
        let work = cache.work_dir()?;
        let repository = work.path().join("repository");
        closure::repository(packages, apt, cache, &repository)?;
        let tar = work.path().join("root.tar");
        install(&repository, wanted, date, &tar)?;
        let mut packed = zstd::Encoder::new(File::create(dir.join(FILE_NAME))?, LEVEL)?;
        std::io::copy(&mut File::open(&tar).context("reading the root")?, &mut packed).context("keeping the root")?;
        packed.finish()?.flush().context("keeping the root")
    })?;
    Ok(entry.join(FILE_NAME))
}

fn install(repository: &Path, wanted: &[&str], date: u64, tar: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=essential", "--format=tar", "--quiet"]);
    // Before the first package: the packages for it would bring a converter of roots that are there.
    command.arg("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr");
    // The default for others would be a user namespace, for which somebody must have written /etc/subuid.
    command.arg(if is_root() { "--mode=root" } else { "--mode=fakechroot" });
    command.arg(format!("--include={}", wanted.join(",")));
    command.args([
        "--aptopt=APT::Install-Recommends \"false\"",
        "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=APT::Sandbox::User \"root\"",
    ]);
    command.args(LEFT_OUT.iter().map(|option| format!("--dpkgopt={option}")));
    // Each package's own digest was compared with apt's signed lists: the repository needs no signature of its own.
    command.arg("").arg(tar).arg(format!("deb [trusted=yes] copy:{} ./", repository.display()));
    command.env("SOURCE_DATE_EPOCH", date.to_string()).stdin(Stdio::null());
    tool::run(&mut command, "mmdebstrap").context("installing the packages of the live root")?;
    Ok(())
}

pub(super) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|of_us| of_us.uid() == 0)
}
