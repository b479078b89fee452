//! `boot-into`: the machine that this runs on leaves its system and becomes one of ours, without firmware, boot loader or a
//! hand at its console. It co-operates: for one that does not, there is the BMC.
//!
//! Nothing on its disks is written. What is booted is known by digests that the operator brings, or is said not to be.

mod entry;
mod network;

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use speediso_sys::{dmi, kexec, roots::Roots};

use crate::output;
use entry::Entry;

/// x86 cuts the line at 2,048 bytes, its end mark included.
const LONGEST_LINE: usize = 2040;
/// Kernel and ramdisk together have 24 MiB.
const LARGEST_FILE: usize = 1 << 30;
/// Why kexec_file_load(2) declines, as the kernel numbers it.
const EPERM: i32 = 1;
const ENOEXEC: i32 = 8;
const ENOKEY: i32 = 126;
const EKEYREJECTED: i32 = 129;

#[derive(ClapArgs, Debug)]
pub(crate) struct BootIntoArgs {
    /// The controller's plain address for boot loaders, http://HOST:PORT: it says what this machine is to boot
    #[arg(long, value_name = "URL", required_unless_present = "kernel", conflicts_with_all = ["kernel", "ramdisk"])]
    boot_url: Option<String>,
    /// A build's vmlinuz
    #[arg(long, value_name = "FILE", requires = "ramdisk")]
    kernel: Option<PathBuf>,
    /// The initramfs.img of the same build
    #[arg(long, value_name = "FILE", requires = "kernel")]
    ramdisk: Option<PathBuf>,
    /// Words for the kernel command line, beside those of the controller's boot entry
    #[arg(long, default_value = "")]
    cmdline: String,
    /// The build's SHA256SUMS, brought from where it was made: both files must have these digests
    #[arg(long, value_name = "FILE")]
    sums: Option<PathBuf>,
    /// Boot what came over plain HTTP unseen, as a network boot does
    #[arg(long, conflicts_with = "sums")]
    accept_unverified: bool,
    /// How the ramdisk gets its address
    #[arg(long, value_enum, default_value = "keep")]
    network: Network,
    /// Show what would be booted; load nothing
    #[arg(long, conflicts_with = "now")]
    dry_run: bool,
    /// End the running system and boot, at once; without it the kernel is only loaded
    #[arg(long)]
    now: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Network {
    /// A fixed address stays, one from DHCP is asked for again
    Keep,
    /// From DHCP, over the interface that has the default route
    Dhcp,
    /// As `--cmdline` says
    Given,
}

/// What is about to be booted.
struct Booting {
    kernel: Vec<u8>,
    ramdisk: Vec<u8>,
    cmdline: String,
    trust: &'static str,
}

pub(crate) async fn run(args: &BootIntoArgs, json: bool) -> Result<u8> {
    let roots = Roots::live();
    let booting = prepare(args, &roots).await?;
    let shown = json!({
        "cmdline": booting.cmdline,
        "kernel_bytes": booting.kernel.len(),
        "ramdisk_bytes": booting.ramdisk.len(),
        "trust": booting.trust,
        "loaded": !args.dry_run,
    });
    if args.dry_run {
        output::print(json, &shown, |_| {
            format!("{}\nnothing was loaded: this is what would be booted", plan(&booting))
        })?;
        return Ok(0);
    }
    load(&booting, &roots)?;
    if !args.now {
        output::print(json, &shown, |_| {
            format!(
                "{}\nloaded; nothing has changed yet. `systemctl kexec` ends this system in order and boots it; \
                 `kexec --unload` takes it back",
                plan(&booting)
            )
        })?;
        return Ok(0);
    }
    output::print(json, &shown, |_| format!("{}\nthis system ends now", plan(&booting)))?;
    start()
}

fn plan(booting: &Booting) -> String {
    let Booting { kernel, ramdisk, cmdline, trust } = booting;
    format!(
        "kernel of {} bytes and ramdisk of {} bytes ({trust})\ncommand line: {cmdline}",
        kernel.len(),
        ramdisk.len()
    )
}

async fn prepare(args: &BootIntoArgs, roots: &Roots) -> Result<Booting> {
    let uplink = match args.network {
        Network::Given => None,
        Network::Keep | Network::Dhcp => Some(network::uplink(roots).await?),
    };
    let (kernel, ramdisk, words) = match (&args.boot_url, &args.kernel, &args.ramdisk) {
        (Some(url), ..) => {
            ensure!(
                args.sums.is_some() || args.accept_unverified,
                "what comes over plain HTTP is not to be trusted by itself: bring the build's SHA256SUMS (--sums), or say \
                 --accept-unverified"
            );
            let entry = ask(url, uplink.as_ref().map(|uplink| uplink.mac.as_str()), roots).await?;
            let kernel = fetch(&entry.kernel).await?;
            (kernel, fetch(&entry.ramdisk).await?, entry.words)
        }
        (None, Some(kernel), Some(ramdisk)) => (read(kernel)?, read(ramdisk)?, Vec::new()),
        _ => bail!("which kernel? give --boot-url, or --kernel and --ramdisk"),
    };
    let trust = match &args.sums {
        Some(sums) => {
            let text = std::fs::read_to_string(sums).with_context(|| format!("reading {}", sums.display()))?;
            check_sum(&text, "vmlinuz", &kernel)?;
            check_sum(&text, "initramfs.img", &ramdisk)?;
            "their digests are those of SHA256SUMS"
        }
        None if args.boot_url.is_some() => "not verified, as asked",
        None => "as they lie on this machine",
    };
    let cmdline = cmdline(words, uplink.as_ref(), args)?;
    Ok(Booting { kernel, ramdisk, cmdline, trust })
}

/// The boot entry's words, with this machine's network in place of what a boot loader would find.
fn cmdline(mut words: Vec<String>, uplink: Option<&network::Uplink>, args: &BootIntoArgs) -> Result<String> {
    words.retain(|word| !word.starts_with("initrd="));
    if let Some(uplink) = uplink {
        words.retain(|word| !word.starts_with("ip=") && !word.starts_with("BOOTIF="));
        words.extend(uplink.words(args.network == Network::Dhcp));
    }
    words.extend(args.cmdline.split_whitespace().map(str::to_owned));
    let line = words.join(" ");
    ensure!(line.len() <= LONGEST_LINE, "the command line has {} bytes; at most {LONGEST_LINE} arrive", line.len());
    Ok(line)
}

/// Asks as a boot loader would, with all that this machine knows of itself.
async fn ask(url: &str, mac: Option<&str>, roots: &Roots) -> Result<Entry> {
    let (system, _) = dmi::read(roots);
    let url = url.trim_end_matches('/');
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(mac.map(|mac| ("mac", mac)));
    query.extend(system.uuid.as_deref().map(|uuid| ("uuid", uuid)));
    query.extend(
        Some(system.serial_number.as_str()).filter(|serial| !serial.is_empty()).map(|serial| ("serial", serial)),
    );
    ensure!(!query.is_empty(), "this machine says neither MAC address nor UUID nor serial number of itself");
    let path = format!("{url}/boot/ipxe");
    let request = http()?.get(&path).query(&query).timeout(Duration::from_secs(30));
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    let script = match answer {
        Ok(answer) => answer.text().await,
        Err(error) => Err(error),
    }
    .with_context(|| format!("asking {path} what this machine is to boot"))?;
    entry::of_script(&script).with_context(|| format!("reading the boot script from {path}"))
}

async fn fetch(url: &str) -> Result<Vec<u8>> {
    let mut answer = http()?
        .get(url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .with_context(|| format!("fetching {url}"))?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.with_context(|| format!("fetching {url}"))? {
        ensure!(bytes.len() + chunk.len() <= LARGEST_FILE, "{url} does not end: it is no file of a build");
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Boot files come over plain HTTP: TLS is set up with nobody to trust.
fn http() -> Result<reqwest::Client> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("setting up TLS 1.3")?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .context("setting up the HTTP client")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn check_sum(sums: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let wanted = sums.lines().find_map(|line| {
        let (digest, file) = line.split_once(char::is_whitespace)?;
        (file.trim_start_matches([' ', '*']) == name).then(|| digest.to_ascii_lowercase())
    });
    let wanted = wanted.with_context(|| format!("SHA256SUMS does not name {name}"))?;
    let got: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(got == wanted, "{name} has the digest {got}, not {wanted}: nothing was loaded");
    Ok(())
}

fn load(booting: &Booting, roots: &Roots) -> Result<()> {
    let line = CString::new(booting.cmdline.as_bytes()).context("the command line has a NUL in it")?;
    let (kernel, ramdisk) = (in_file(&booting.kernel)?, in_file(&booting.ramdisk)?);
    kexec::load(&kernel, &ramdisk, &line).map_err(|error| {
        let why = match (error.raw_os_error(), kexec::lockdown(roots)) {
            (Some(EPERM | ENOKEY | EKEYREJECTED), Some(level)) => format!(
                "the running kernel is locked down ({level}, as with Secure Boot) and does not trust the signature of this \
                 one; boot it over the network instead"
            ),
            (Some(EPERM), None) => {
                "this takes root, and kexec permitted (sysctl kernel.kexec_load_disabled is 0, no container)".to_owned()
            }
            (Some(ENOEXEC), _) => "the kernel file is no kernel that this machine boots".to_owned(),
            _ => "nothing was loaded, the running system goes on".to_owned(),
        };
        anyhow::Error::new(error).context(why).context("loading the kernel")
    })?;
    ensure!(kexec::is_loaded(roots), "the running kernel took the new one and does not show it as loaded");
    Ok(())
}

/// The kernel takes no file that anybody has open for writing.
fn in_file(bytes: &[u8]) -> Result<File> {
    let (mut file, path) = tempfile::NamedTempFile::new().context("making a temporary file")?.into_parts();
    file.write_all(bytes).context("writing a temporary file")?;
    drop(file);
    File::open(&path).context("opening a temporary file")
}

/// Through systemd where it runs: services stop, file systems are unmounted.
fn start() -> Result<u8> {
    if Path::new("/run/systemd/system").is_dir() {
        let status = Command::new("systemctl").arg("kexec").status().context("starting systemctl")?;
        ensure!(status.success(), "`systemctl kexec` ended with {status}; the kernel stays loaded");
        return Ok(0);
    }
    let Err(error) = kexec::start();
    Err(error).context("starting the kernel that is loaded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_compared_by_name() {
        let sums = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  vmlinuz\n00  initramfs.img\n";
        assert!(check_sum(sums, "vmlinuz", b"abc").is_ok());
        for (name, bytes) in [("vmlinuz", &b"abd"[..]), ("initramfs.img", b"abc"), ("other", b"abc")] {
            assert!(check_sum(sums, name, bytes).is_err(), "{name}");
        }
    }
}
