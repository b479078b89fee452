//! Looking at a build, and vouching for it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use speediso_image::manifest::PublicKey;
use speediso_initramfs::addon;
use speediso_initramfs::builds::Builds;
use speediso_initramfs::hardware;
use speediso_initramfs::manifest::{self, Manifest};
use speediso_initramfs::report;
use speediso_initramfs::supply::Supply;
use speediso_initramfs::verify;

#[derive(Args)]
pub(crate) struct Which {
    /// Directory of the builds
    #[arg(long, default_value = "builds")]
    out: PathBuf,
    /// The build, instead of the latest
    #[arg(long)]
    number: Option<u64>,
}

impl Which {
    fn path(&self) -> Result<PathBuf> {
        let builds = Builds::in_directory(&self.out);
        let number = self.number.or(builds.latest()).context("there is no build yet: make one first")?;
        Ok(builds.path(number))
    }
}

#[derive(Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    build: Which,
    /// An agent of the same sources with its symbols: its code is shown by crate
    #[arg(long, value_name = "AGENT")]
    symbols: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    build: Which,
    /// Who must have signed it: an ed25519 public key of 64 hex digits
    #[arg(long)]
    key: Option<PublicKey>,
}

#[derive(Args)]
pub(crate) struct SignArgs {
    #[command(flatten)]
    build: Which,
    /// The ed25519 key (PKCS #8, or a seed in hex)
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(Args)]
pub(crate) struct HardwareArgs {
    /// Where to write it
    #[arg(long, default_value = "docs/hardware.md")]
    to: PathBuf,
    /// Write nothing; fail if the page is not what would be written
    #[arg(long)]
    check: bool,
}

pub(crate) fn report(args: &ReportArgs) -> Result<()> {
    print!("{}", report::of_build(&args.build.path()?, args.symbols.as_deref())?);
    Ok(())
}

pub(crate) fn verify(args: &VerifyArgs) -> Result<()> {
    let path = args.build.path()?;
    let files = verify::check(&path, args.key.as_ref())?;
    let who = match &args.key {
        Some(key) => format!("signed by {key}"),
        None => "signature not looked at (no --key)".to_owned(),
    };
    println!("ramdisk: {}: {files} files are as published; {who}", path.display());
    Ok(())
}

pub(crate) fn sign(args: &SignArgs) -> Result<()> {
    let (path, key) = (args.build.path()?, verify::signing_key(&args.key)?);
    // What is signed was looked at: a signature over wrong sums would vouch for them.
    verify::check(&path, None)?;
    verify::sign(&path, &key)?;
    println!("ramdisk: {} is signed by {}", path.display(), key.public());
    Ok(())
}

pub(crate) fn hardware(args: &HardwareArgs) -> Result<()> {
    let (ramdisk, addon) = (Manifest::parse(manifest::BUILT_IN)?, Manifest::parse(addon::BUILT_IN)?);
    let page = hardware::page(&ramdisk, &addon, &Supply::of_user()?)?;
    if !args.check {
        return std::fs::write(&args.to, page).with_context(|| format!("writing {}", args.to.display()));
    }
    let present = std::fs::read_to_string(&args.to).with_context(|| format!("reading {}", args.to.display()))?;
    match page.lines().zip(present.lines()).find(|(new, old)| new != old) {
        None if page.len() == present.len() => Ok(()),
        None => bail!("{} is out of date: one of the two ends early; run `make hardware-doc`", args.to.display()),
        Some((new, old)) => bail!(
            "{} is out of date; run `make hardware-doc`. The first line that differs:\n  is:     {}\n  should: {}",
            args.to.display(),
            shortened(old),
            shortened(new)
        ),
    }
}

fn shortened(line: &str) -> String {
    line.chars().take(160).collect()
}
