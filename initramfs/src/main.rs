//! `speediso-initramfs`: builds the ramdisk, lists builds, rolls back.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use speediso_initramfs::addon::{self, Addon};
use speediso_initramfs::assemble;
use speediso_initramfs::builds::Builds;
use speediso_initramfs::iso::{self, Isolinux, command as iso_command};
use speediso_initramfs::live;
use speediso_initramfs::lock;
use speediso_initramfs::ramdisk::{self, BootPrograms, BuildFacts};
use speediso_initramfs::sbom;
use speediso_initramfs::supply::Supply;
use speediso_initramfs::tools;
use speediso_initramfs::uki::{self, Parts};
use speediso_initramfs::verify;

mod inspect;
mod source;

use inspect::{HardwareArgs, ReportArgs, SignArgs, VerifyArgs};
use source::Source;

/// Builds the ramdisk from Debian packages; needs neither root nor the kernel it packs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build kernel and initramfs; does nothing if the newest build has the same inputs
    Build {
        /// The agent to pack: a static program
        #[arg(long)]
        agent: PathBuf,
        #[command(flatten)]
        out: Out,
        #[command(flatten)]
        source: Source,
        /// Number of the build instead of the next one
        #[arg(long)]
        number: Option<u64>,
        /// Sign the checksums with this ed25519 key (PKCS #8, or a seed in hex)
        #[arg(long, value_name = "KEY")]
        sign: Option<PathBuf>,
        /// Where the agent's sources are: its crates are listed in the bill of materials
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
        /// Make the image for sticks and CDs too
        #[arg(long)]
        iso: bool,
    },
    /// Make one image for sticks, CDs and virtual media of a build, with parameters of its own
    Iso(iso_command::IsoArgs),
    /// Show or replace the parameters in such an image
    IsoParameters(iso_command::ParametersArgs),
    /// Make one EFI program of a build, with a command line in it, signed for Secure Boot if a key is given
    Uki(UkiArgs),
    /// Show what costs size in a build
    Report(ReportArgs),
    /// Check that a build is what was published: checksums, and with a key their signature
    Verify(VerifyArgs),
    /// Sign a build's checksums, where the key is not on the machine that builds
    Sign(SignArgs),
    /// Write the page of which hardware works with which module
    Hardware(HardwareArgs),
    Live(live::LiveArgs),
    /// List the builds
    List {
        #[command(flatten)]
        out: Out,
    },
    /// Point `latest` to the build before
    Rollback {
        #[command(flatten)]
        out: Out,
    },
}

#[derive(Args)]
struct Out {
    /// Directory of the builds
    #[arg(long, default_value = "builds")]
    out: PathBuf,
}

#[derive(Args)]
struct UkiArgs {
    #[command(flatten)]
    builds: Out,
    /// The build, instead of the latest
    #[arg(long)]
    number: Option<u64>,
    /// The kernel's command line. Without it the program takes the one it is started with
    #[arg(long, required_unless_present = "any_cmdline")]
    cmdline: Option<String>,
    /// Take whatever command line the program is started with
    #[arg(long, conflicts_with_all = ["cmdline", "key"])]
    any_cmdline: bool,
    /// Private key of a certificate that the machines' firmware trusts (PEM)
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
    /// Its certificate (PEM)
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Where to put it
    #[arg(long, default_value = uki::FILE_NAME)]
    to: PathBuf,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Action::Build { agent, out, source, number, sign, workspace, iso } => {
            build(&agent, &out.out, &source, number, sign.as_deref(), workspace.as_deref(), iso)
        }
        Action::Iso(args) => iso_command::iso(&args),
        Action::IsoParameters(args) => iso_command::parameters(&args),
        Action::Uki(args) => make_uki(&args),
        Action::Report(args) => inspect::report(&args),
        Action::Verify(args) => inspect::verify(&args),
        Action::Sign(args) => inspect::sign(&args),
        Action::Hardware(args) => inspect::hardware(&args),
        Action::Live(args) => live::build(&args),
        Action::List { out } => list(&out.out),
        Action::Rollback { out } => roll_back(&out.out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("speediso-initramfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build(
    agent: &Path,
    out: &Path,
    source: &Source,
    number: Option<u64>,
    key: Option<&Path>,
    workspace: Option<&Path>,
    with_iso: bool,
) -> Result<()> {
    let start = Instant::now();
    // What may be wrong is wrong before the work.
    let key = key.map(verify::signing_key).transpose()?;
    let supply = source.supply()?;
    let agent = assemble::agent(agent, supply.arch())?;
    let base = source.base(&supply)?;
    let tools = source.tools(&supply)?;
    let addon = source.addon(&base, &supply)?;
    let vmlinuz = std::fs::read(&base.kernel.vmlinuz).context("reading the kernel")?;
    source.say_what_is_missing(&base, addon.as_ref());

    let builds = Builds::in_directory(out);
    let newest = builds.numbers()?.last().copied();
    let source_date = source_date()?;
    let (stub, stub_package) = uki::stub(&supply)?;
    let boot = BootPrograms { kernel: &vmlinuz, efi_stub: &stub };
    let addon_facts = addon.as_ref().map(|addon| &addon.facts);
    let facts = |number| BuildFacts::new(number, &base, &tools.facts, addon_facts, &agent, &boot, source_date);
    let current = number.or(newest);
    if let Some(number) = current
        && builds.path(number).is_dir()
        && (!with_iso || builds.path(number).join(iso::FILE_NAME).is_file())
        && builds.facts(number).is_ok_and(|known| known == facts(number))
    {
        if let Some(key) = &key {
            verify::sign(&builds.path(number), key)?;
        }
        builds.point_latest_to(number)?;
        println!("ramdisk: build {number} is up to date ({:.1} s)", start.elapsed().as_secs_f32());
        return Ok(());
    }

    let facts = facts(number.unwrap_or(newest.unwrap_or(0) + 1));
    let crates = workspace.map(|dir| source::crates_in(dir, supply.arch())).transpose()?;
    let (crates, linked) = crates.unzip();
    let mut packed: Vec<_> = base.packages.iter().map(|package| ("ramdisk", package)).collect();
    packed.extend(tools.packages.iter().map(|package| ("tools", package)));
    packed.extend(addon.iter().flat_map(|addon| &addon.packages).map(|package| ("addon", package)));
    let isolinux = with_iso.then(|| Isolinux::fetch(&supply)).transpose()?;
    packed.push(("boot", &stub_package));
    packed.extend(isolinux.iter().flat_map(|isolinux| &isolinux.packages).map(|package| ("boot", package)));
    let materials = sbom::Materials {
        facts: &facts,
        packages: &packed,
        agent: &agent,
        crates: crates.as_deref(),
        linked: linked.as_deref().unwrap_or_default(),
    };
    let (bill, sources) = (materials.bill(supply.cache())?, materials.sources(supply.cache())?);
    let top = facts.top(agent.clone(), &tools.facts, addon_facts)?;
    let image = ramdisk::image(&base, &top, facts.built, supply.cache())?;
    let mut listing =
        format!("# base\n{}# top\n{}# tools archive\n{}", base.tree.listing(), top.listing(), tools.listing);
    let mut record = serde_json::to_value(&facts)?;
    record["arch"] = json!(base.arch.to_string());
    record["packages"] = json!(base.packages);
    record["tools_packages"] = json!(tools.packages);
    record["boot_packages"] = json!([stub_package]);
    record["contents"] = json!(base.contents);
    record["absent_modules"] = json!(base.kernel.absent);
    record["missing_firmware"] = json!(base.missing_firmware);
    if let Some(addon) = &addon {
        listing.push_str(&format!("# add-on\n{}", addon.listing));
        record["addon_packages"] = json!(addon.packages);
        record["addon_missing_firmware"] = json!(addon.missing_firmware);
    }
    let efi = uki::compose(
        &stub,
        &Parts {
            os_release: &facts.os_release(),
            cmdline: None,
            kernel_release: &facts.kernel,
            kernel: &vmlinuz,
            ramdisk: &image,
        },
    )?;
    let iso = isolinux.map(|isolinux| iso::of_build(&facts, &stub, &vmlinuz, &image, &isolinux)).transpose()?;
    let (kernel_size, image_size, tools_size) = (vmlinuz.len(), image.len(), tools.bytes.len());
    let mut beside = format!("tools {} MiB", mib(tools_size));
    let mut files = BTreeMap::from([
        ("vmlinuz", vmlinuz),
        ("initramfs.img", image),
        ("build.json", (serde_json::to_string_pretty(&record)? + "\n").into_bytes()),
        ("manifest.txt", listing.into_bytes()),
        (tools::FILE_NAME, tools.bytes),
        (uki::FILE_NAME, efi),
        (lock::FILE_NAME, supply.lock().to_json()?.into_bytes()),
        (sbom::FILE_NAME, bill.into_bytes()),
        (sbom::SOURCES, sources.into_bytes()),
    ]);
    if let Some(Addon { bytes, licences, .. }) = addon {
        beside.push_str(&format!(" and add-on {} MiB", mib(bytes.len())));
        files.insert(addon::FILE_NAME, bytes);
        files.insert(addon::LICENCES, licences.into_bytes());
    }
    files.extend(iso.map(|bytes| (iso::FILE_NAME, bytes)));
    let path = builds.publish_signed(facts.number, &files, key.as_ref())?;
    println!(
        "ramdisk: build {} in {} ({:.1} s): vmlinuz {} + initramfs.img {} = {} MiB, {} MiB unpacked; {beside} beside it",
        facts.number,
        path.display(),
        start.elapsed().as_secs_f32(),
        mib(kernel_size),
        mib(image_size),
        mib(kernel_size + image_size),
        mib(base.tree.size() + top.size()),
    );
    Ok(())
}

/// <https://reproducible-builds.org/specs/source-date-epoch/>
fn source_date() -> Result<Option<u64>> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => Ok(Some(text.parse().context("SOURCE_DATE_EPOCH is not a number of seconds")?)),
        Err(_) => Ok(None),
    }
}

fn mib(bytes: usize) -> String {
    let tenths = (bytes * 10).div_ceil(1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn make_uki(args: &UkiArgs) -> Result<()> {
    let builds = Builds::in_directory(&args.builds.out);
    let number = args.number.or(builds.latest()).context("there is no build yet: make one first")?;
    let read = |name| {
        let path = builds.path(number).join(name);
        std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let facts = builds.facts(number)?;
    let (stub, _) = uki::stub(&Supply::of_user()?)?;
    let efi = uki::compose(
        &stub,
        &Parts {
            os_release: &facts.os_release(),
            cmdline: args.cmdline.as_deref(),
            kernel_release: &facts.kernel,
            kernel: &read("vmlinuz")?,
            ramdisk: &read("initramfs.img")?,
        },
    )?;
    std::fs::write(&args.to, efi).with_context(|| format!("writing {}", args.to.display()))?;
    let mut signed = "not signed";
    if let (Some(key), Some(cert)) = (&args.key, &args.cert) {
        uki::sign(&args.to, key, cert)?;
        signed = "signed";
    }
    println!("ramdisk: {} of build {number}, {signed}", args.to.display());
    Ok(())
}

fn list(out: &Path) -> Result<()> {
    let builds = Builds::in_directory(out);
    let latest = builds.latest();
    for number in builds.numbers()? {
        let facts = builds.facts(number)?;
        let mark = if latest == Some(number) { "  <- latest" } else { "" };
        println!("{number}  agent {}, kernel {}, inputs {}{mark}", facts.version, facts.kernel, facts.inputs);
    }
    Ok(())
}

fn roll_back(out: &Path) -> Result<()> {
    let (from, to) = Builds::in_directory(out).roll_back()?;
    println!("ramdisk: latest was build {from} and is now build {to}");
    Ok(())
}
