//! The live flavour: a root with systemd, ssh and tools, which the ramdisk fetches, verifies and goes on in.
//!
//! Built as a normal user from the distribution's packages ([`packages`], [`root`]), with the agent and its units over
//! them ([`overlay`]), as one file ([`archive`], [`image`]) that lies beside its build as a signed manifest image.
//! docs/live-flavour.md says what a machine does with it.

mod archive;
mod image;
mod manifest;
mod overlay;
mod packages;
mod root;

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use speediso_image::manifest::{PackOptions, SigningKey, pack};

use self::archive::Modules;
pub use self::image::Form;
use self::image::Parts;
use self::manifest::LiveManifest;
use crate::apt::{Apt, Origin};
use crate::arch::Arch;
use crate::assemble;
use crate::builds::Builds;
use crate::cache::Cache;
use crate::lock::{self, Lock};
use crate::manifest::{self as ramdisk_manifest, Manifest};
use crate::modules::{self as kernel_modules, Kernel};
use crate::packages::{Package, hex};
use crate::ramdisk::BuildFacts;

/// Below the build's directory.
pub const DIRECTORY: &str = "live";
/// What went into it.
const FACTS: &str = "live.json";
const ROOT: &str = "root.img";

/// Build the live flavour's root for a build, as a signed manifest image beside it
#[derive(Args, Debug)]
pub struct LiveArgs {
    /// The agent to put in: a static program
    #[arg(long)]
    agent: PathBuf,
    /// Directory of the builds
    #[arg(long, default_value = "builds")]
    out: PathBuf,
    /// The build whose kernel it is for, instead of the latest
    #[arg(long)]
    number: Option<u64>,
    /// Where to put it, instead of `live` beside the build
    #[arg(long)]
    to: Option<PathBuf>,
    /// What to put in, instead of the built-in manifest
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// How the machine holds it in memory
    #[arg(long, value_enum, default_value = "squashfs")]
    form: Form,
    /// Private ed25519 key that signs it: PKCS #8 or a seed of 64 hex digits; made if it is not there
    #[arg(long)]
    key: Option<PathBuf>,
}

pub fn build(args: &LiveArgs) -> Result<()> {
    let start = Instant::now();
    let cache = Cache::of_user()?;
    let apt = Apt::of(&Origin::System, Arch::HOST, &cache)?;
    let key = signing_key(args.key.as_deref())?;
    let builds = Builds::in_directory(&args.out);
    let number = args.number.or(builds.latest()).context("there is no build yet: make the ramdisk first")?;
    let facts = builds.facts(number)?;
    let (manifest, beside) = read_manifest(args.manifest.as_deref())?;
    let kernel = kernel_package(&builds.path(number), &facts.kernel)?;
    let wanted = manifest.package_names();
    let packages = packages::closure(&wanted, &apt)?;
    let ours = overlay::tree(&manifest, &beside, &facts, assemble::agent(&args.agent, Arch::HOST)?, packages.len())?;

    let mut inputs = Sha256::new();
    inputs.update(format!("{} {:?} {} {}\n", args.form.name(), manifest.modules, facts.built, kernel.sha256));
    for package in &packages {
        inputs.update(format!("{} {}\n", package.name, package.sha256));
    }
    inputs.update(ours.digest());
    let inputs = hex(&inputs.finalize());
    let record = record(&facts, args.form, &inputs, &packages, &kernel);
    let directory = args.to.clone().unwrap_or_else(|| builds.path(number).join(DIRECTORY));
    let public = key.public();
    if is_up_to_date(&directory, &record, &public.to_string()) {
        println!(
            "live: {} is up to date ({:.1} s)\nspeediso.live_key={public}",
            directory.display(),
            start.elapsed().as_secs_f32()
        );
        return Ok(());
    }

    let base = root::base(&packages, &wanted, facts.built, &apt, &cache)?;
    eprintln!("live: putting the root together (half a minute or more)");
    // Not kept: it changes with every agent, and what was dear to make is the base.
    let work = cache.work_dir()?;
    let modules = modules(manifest.modules, &kernel, &facts.kernel, &cache, work.path())?;
    let modules = Modules { directory: &modules, release: &facts.kernel };
    let image = work.path().join(ROOT);
    image::make(args.form, &Parts { base: &base, ours: &ours, modules, date: facts.built }, &image)?;
    // An image store has all images in one place.
    let name = format!("live-{number}-{}", &inputs[..12]);
    let size = publish(&image, args.form, &name, &key, &record, &directory)?;
    println!(
        "live: {} packages as {} of {} MiB in {} ({:.1} s)\nspeediso.live_key={public}",
        packages.len(),
        args.form.name(),
        size.div_ceil(1 << 20),
        directory.display(),
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

fn read_manifest(path: Option<&Path>) -> Result<(LiveManifest, PathBuf)> {
    let Some(path) = path else { return Ok((LiveManifest::parse(manifest::BUILT_IN)?, PathBuf::from("."))) };
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let manifest = LiveManifest::parse(&text).with_context(|| path.display().to_string())?;
    Ok((manifest, path.parent().unwrap_or(Path::new(".")).to_owned()))
}

/// The very package whose kernel the ramdisk has started, by the build's lock: another's modules would fit nothing.
fn kernel_package(build: &Path, release: &str) -> Result<Package> {
    let lock = Lock::read(&build.join(lock::FILE_NAME), Arch::HOST)?;
    let is_it = |package: &&Package| {
        let of = package.name.strip_prefix("linux-image-").map(|name| name.strip_suffix("-unsigned").unwrap_or(name));
        of == Some(release)
    };
    let found = lock.packages().iter().find(is_it).cloned();
    found
        .with_context(|| format!("the lock of the build in {} has no package of its kernel {release}", build.display()))
}

/// The directory of the modules with depmod's tables.
fn modules(which: manifest::Modules, kernel: &Package, release: &str, cache: &Cache, work: &Path) -> Result<PathBuf> {
    let below = |root: &Path| root.join("lib/modules").join(release);
    let unpacked = work.join("kernel");
    fs::create_dir(&unpacked)?;
    kernel_modules::unpack(kernel, &unpacked, cache)?;
    image::prepare_own_modules(&below(&unpacked))?;
    match which {
        manifest::Modules::All => {
            kernel_modules::depmod(&unpacked, release)?;
            Ok(below(&unpacked))
        }
        manifest::Modules::Ramdisk => {
            let manifest = Manifest::parse(ramdisk_manifest::BUILT_IN)?;
            let chosen = Kernel::from_package(kernel, &manifest, cache)?;
            let root = work.join("chosen");
            copy_chosen(&chosen, &below(&unpacked), &below(&root))?;
            kernel_modules::depmod(&root, release)?;
            Ok(below(&root))
        }
    }
}

/// The ramdisk's modules, and those that the root itself needs.
fn copy_chosen(chosen: &Kernel, unpacked: &Path, to: &Path) -> Result<()> {
    let others = ["modules.builtin", "modules.builtin.modinfo", "modules.order"].into_iter().chain(image::OWN_MODULES);
    let files = chosen.modules.iter().map(|module| (module.file.clone(), module.path.as_str()));
    for (from, path) in files.chain(others.map(|path| (unpacked.join(path), path))) {
        let to = to.join(path);
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

fn record(facts: &BuildFacts, form: Form, inputs: &str, packages: &[Package], kernel: &Package) -> Value {
    json!({
        "number": facts.number,
        "version": facts.version,
        "kernel": facts.kernel,
        "form": form.name(),
        "inputs": format!("sha256:{inputs}"),
        "packages": packages.iter().chain([kernel]).collect::<Vec<_>>(),
    })
}

fn is_up_to_date(directory: &Path, record: &Value, public: &str) -> bool {
    let read = |name: &str| -> Option<Value> { serde_json::from_slice(&fs::read(directory.join(name)).ok()?).ok() };
    let signed_by = read("manifest.json").and_then(|manifest| manifest["signed_by"].as_str().map(str::to_owned));
    read(FACTS).as_ref() == Some(record) && signed_by.as_deref() == Some(public)
}

/// The whole directory appears at once. Gives the size of the packed data.
fn publish(root: &Path, form: Form, name: &str, key: &SigningKey, record: &Value, directory: &Path) -> Result<u64> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let work = tempfile::Builder::new().prefix(".live-").tempdir_in(parent)?;
    let made = work.path().join(DIRECTORY);
    // A squashfs is compressed already.
    let level = (form == Form::Tar).then_some(15);
    let options = PackOptions { level, key: Some(key), name: Some(name), ..PackOptions::default() };
    let mut file = File::open(root).with_context(|| format!("opening {}", root.display()))?;
    let size = file.metadata()?.len();
    let packed = pack(&mut file, Some(size), &options, &made, &mut |_| {}).context("packing the root")?;
    fs::write(made.join(FACTS), serde_json::to_string_pretty(record)? + "\n").context("writing what went in")?;
    let old = work.path().join("old");
    match fs::rename(directory, &old) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("moving the old {} away", directory.display()));
        }
        _ => {}
    }
    fs::rename(&made, directory).with_context(|| format!("making {}", directory.display()))?;
    Ok(packed.data_size)
}

/// From the file, or a new one in it. It stays outside of the builds: those are served to everybody.
fn signing_key(file: Option<&Path>) -> Result<SigningKey> {
    let file = match file {
        Some(file) => file.to_owned(),
        None => default_key_file()?,
    };
    match fs::read(&file) {
        Ok(content) => SigningKey::from_file(&content).with_context(|| format!("the key in {}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = SigningKey::generate()?;
            fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
            let mut options = fs::OpenOptions::new();
            let mut made = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&file)
                .with_context(|| format!("making the key {}", file.display()))?;
            std::io::Write::write_all(&mut made, &key.to_pkcs8()?)?;
            made.sync_all()?;
            eprintln!("live: a new key is in {}; keep it, and keep it secret", file.display());
            Ok(key)
        }
        Err(error) => Err(error).with_context(|| format!("reading the key {}", file.display())),
    }
}

fn default_key_file() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let directory = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    Ok(directory.context("no place for the key: give --key FILE, or set HOME")?.join("speediso/live.key"))
}
