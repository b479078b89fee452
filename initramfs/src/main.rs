//! `speediso-initramfs`: builds the ramdisk, lists builds, rolls back.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use speediso_initramfs::assemble::{self, Base};
use speediso_initramfs::builds::Builds;
use speediso_initramfs::cache::Cache;
use speediso_initramfs::manifest::{self, Manifest};
use speediso_initramfs::ramdisk::{self, BootPrograms, BuildFacts};
use speediso_initramfs::report;
use speediso_initramfs::tools::{self, ToolsArchive};
use speediso_initramfs::uki::{self, Parts};

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
    },
    /// Make one EFI program of a build, with a command line in it, signed for Secure Boot if a key is given
    Uki(UkiArgs),
    /// Show what costs size, by group of the manifest
    Report {
        /// Count this agent too
        #[arg(long)]
        agent: Option<PathBuf>,
        #[command(flatten)]
        source: Source,
    },
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
struct Source {
    /// What to pack, instead of the built-in manifest
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// What to pack into the tools archive, instead of the built-in manifest
    #[arg(long)]
    tools_manifest: Option<PathBuf>,
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
        Action::Build { agent, out, source, number } => build(&agent, &out.out, &source, number),
        Action::Uki(args) => make_uki(&args),
        Action::Report { agent, source } => show_report(agent.as_deref(), &source),
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

impl Source {
    fn manifest(&self) -> Result<Manifest> {
        read_manifest(self.manifest.as_deref(), manifest::BUILT_IN)
    }

    fn base(&self, cache: &Cache) -> Result<Base> {
        let beside = self.manifest.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
        assemble::base(&self.manifest()?, beside, cache)
    }

    fn tools(&self, cache: &Cache) -> Result<ToolsArchive> {
        let manifest = read_manifest(self.tools_manifest.as_deref(), tools::BUILT_IN)?;
        tools::archive(&manifest, &self.manifest()?.kernel, cache)
    }
}

fn read_manifest(path: Option<&Path>, built_in: &str) -> Result<Manifest> {
    let Some(path) = path else { return Ok(Manifest::parse(built_in)?) };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Manifest::parse(&text).with_context(|| path.display().to_string())
}

fn build(agent: &Path, out: &Path, source: &Source, number: Option<u64>) -> Result<()> {
    let start = Instant::now();
    let cache = Cache::of_user()?;
    let agent = assemble::agent(agent)?;
    let base = source.base(&cache)?;
    let tools = source.tools(&cache)?;
    let vmlinuz = std::fs::read(&base.kernel.vmlinuz).context("reading the kernel")?;

    let builds = Builds::in_directory(out);
    let newest = builds.numbers()?.last().copied();
    let source_date = source_date()?;
    let (stub, stub_package) = uki::stub(&cache)?;
    let boot = BootPrograms { kernel: &vmlinuz, efi_stub: &stub };
    let facts = |number| BuildFacts::new(number, &base, &tools.facts, &agent, &boot, source_date);
    let current = number.or(newest);
    if let Some(number) = current
        && builds.path(number).is_dir()
        && builds.facts(number).is_ok_and(|known| known == facts(number))
    {
        builds.point_latest_to(number)?;
        println!("ramdisk: build {number} is up to date ({:.1} s)", start.elapsed().as_secs_f32());
        return Ok(());
    }

    let facts = facts(number.unwrap_or(newest.unwrap_or(0) + 1));
    let top = facts.top(agent, &tools.facts)?;
    let image = ramdisk::image(&base, &top, facts.built, &cache)?;
    let listing = format!("# base\n{}# top\n{}# tools archive\n{}", base.tree.listing(), top.listing(), tools.listing);
    let mut record = serde_json::to_value(&facts)?;
    record["packages"] = json!(base.packages);
    record["tools_packages"] = json!(tools.packages);
    record["boot_packages"] = json!([stub_package]);
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
    let (kernel_size, image_size, tools_size) = (vmlinuz.len(), image.len(), tools.bytes.len());
    let files = BTreeMap::from([
        ("vmlinuz", vmlinuz),
        ("initramfs.img", image),
        ("build.json", (serde_json::to_string_pretty(&record)? + "\n").into_bytes()),
        ("manifest.txt", listing.into_bytes()),
        (tools::FILE_NAME, tools.bytes),
        (uki::FILE_NAME, efi),
    ]);
    let path = builds.publish(facts.number, &files)?;
    println!(
        "ramdisk: build {} in {} ({:.1} s): vmlinuz {} + initramfs.img {} = {} MiB, {} MiB unpacked; tools {} MiB beside it",
        facts.number,
        path.display(),
        start.elapsed().as_secs_f32(),
        mib(kernel_size),
        mib(image_size),
        mib(kernel_size + image_size),
        mib(base.tree.size() + top.size()),
        mib(tools_size),
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
    let (stub, _) = uki::stub(&Cache::of_user()?)?;
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

fn show_report(agent: Option<&Path>, source: &Source) -> Result<()> {
    let agent = agent.map(assemble::agent).transpose()?;
    let base = source.base(&Cache::of_user()?)?;
    print!("{}", report::by_group(&base, agent.as_deref())?);
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
