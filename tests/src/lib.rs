//! What the whole-system tests share: disks with known content, the built ramdisk started at once or over PXE, and the
//! words to wait for.
//!
//! These tests need root (a network namespace), the built programs and the ramdisk; `make test` makes both. They fail,
//! and say what is missing, where something is: a test that did not run is not a test that passed.

#![forbid(unsafe_code)]

pub mod bad;
pub mod builder;
mod disk;
mod live;
mod orders;
mod ramdisk;
pub mod screen;
mod ssh;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use speediso_lab::{Log, Programs, repository, tool};

pub use disk::TestDisk;
pub use live::LiveFlavour;
pub use orders::Orders;
pub use ramdisk::{Ramdisk, boot_words};
pub use ssh::{LiveSsh, as_operator, end_access, is_open};

/// From power on to the agent's first word under emulation: 10 s by direct start, 40 s over PXE. Twice that several
/// times over, since a busy machine is slow and nothing else here waits long.
pub const BOOT: Duration = Duration::from_secs(240);
/// For what follows within seconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(90);
/// For writing and verifying the small disks of these tests.
pub const WORK: Duration = Duration::from_secs(300);

fn root() -> Result<PathBuf> {
    repository(Path::new(env!("CARGO_MANIFEST_DIR"))).context("looking for the repository's Cargo.lock")
}

pub fn programs() -> Result<Programs> {
    Ok(Programs::beside_this(&root()?)?)
}

/// Where `make ramdisk-aarch64` puts its builds.
pub fn aarch64_builds() -> Result<PathBuf> {
    let builds = root()?.join("target/images/aarch64");
    ensure!(builds.join("latest").exists(), "there is no ramdisk in {}; run `make ramdisk-aarch64`", builds.display());
    Ok(builds)
}

/// The small operating system that is installed in these tests: raw, and the same under zstd.
#[derive(Clone, Debug)]
pub struct TinyImage {
    pub raw: PathBuf,
    pub zst: PathBuf,
}

impl TinyImage {
    /// Made from packages: seconds the first time, since the ramdisk needed the same ones.
    pub fn get() -> Result<Self> {
        Self::made("tiny", "")
    }

    /// One that assembles the array it stands on, degraded if need be, and runs from it.
    pub fn on_mirrors() -> Result<Self> {
        Self::made("tiny-raid", "tiny.raid")
    }

    fn made(name: &str, words: &str) -> Result<Self> {
        let root = root()?;
        let raw = root.join(format!("target/images/{name}.raw"));
        let zst = root.join(format!("target/images/{name}.raw.zst"));
        // The script keeps what it makes by content: always asking costs a second and never gives an old image.
        std::fs::create_dir_all(root.join("target/images"))?;
        tool::run(Command::new(root.join("tests/images/tiny.sh")).arg(&raw).arg(words).current_dir(&root))?;
        // Made anew whenever the image is younger: both must be the same disk.
        let stale = match (zst.metadata().and_then(|m| m.modified()), raw.metadata()?.modified()) {
            (Ok(packed), Ok(unpacked)) => packed < unpacked,
            _ => true,
        };
        if stale {
            tool::run(Command::new("zstd").args(["-q", "-f", "-3"]).arg(&raw).arg("-o").arg(&zst))?;
        }
        Ok(Self { raw, zst })
    }

    pub fn size(&self) -> Result<u64> {
        Ok(self.raw.metadata()?.len())
    }
}

/// The tools and kernel modules that build stacks in the live system, which has none of them.
pub fn stack_archive(to: &Path) -> Result<()> {
    tool::run(Command::new(root()?.join("tests/images/stack.sh")).arg(to))?;
    Ok(())
}

/// SHA-256 of a whole file, in hex.
pub fn sha256(path: &Path) -> Result<String> {
    use sha2::{Digest, Sha256};
    use std::io::Read;
    let mut file = std::fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..n]);
    }
}

/// The approval code on a machine's console, as a person reads it there. The list may know it a moment earlier.
pub fn code_on_console(console: &Log) -> Result<String> {
    let begun = Instant::now();
    loop {
        match code_in(&console.text()) {
            Some(code) => return Ok(code),
            None if begun.elapsed() < SOON => std::thread::sleep(Duration::from_millis(200)),
            None => bail!("the console shows no approval code; its tail:\n{}", console.tail()),
        }
    }
}

fn code_in(text: &str) -> Option<String> {
    let is_letter = |c: char| c.is_ascii_digit() || (c.is_ascii_uppercase() && !"ILOU".contains(c));
    text.lines().rev().filter(|line| line.to_lowercase().contains("code")).find_map(|line| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let is_code = |word: &&str| {
            word.len() == 9 && word.char_indices().all(|(at, c)| if at == 4 { c == '-' } else { is_letter(c) })
        };
        words.find(is_code).map(str::to_owned)
    })
}
