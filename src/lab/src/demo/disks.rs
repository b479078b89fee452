//! The demo machine's two disks: a blank one to be installed, and one with somebody's data that nobody may touch.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use speediso_lab::tool;

pub(crate) const TARGET_SERIAL: &str = "DEMO-TARGET";
pub(crate) const DATA_SERIAL: &str = "DEMO-DATA";
pub(crate) const TARGET_BYTES: u64 = 2 << 30;
const DATA_BYTES: u64 = 256 << 20;

pub(crate) struct Disks {
    pub(crate) target: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) data_digest: String,
}

impl Disks {
    pub(crate) fn make(dir: &Path) -> Result<Self> {
        let (target, data) = (dir.join("target.raw"), dir.join("data.raw"));
        blank(&target, TARGET_BYTES)?;
        blank(&data, DATA_BYTES)?;
        // A file system with random content: found by probing, and different in every run.
        let files = dir.join("data-files");
        fs::create_dir(&files)?;
        let mut random = File::open("/dev/urandom").context("opening /dev/urandom")?.take(32 << 20);
        std::io::copy(&mut random, &mut File::create(files.join("precious.bin"))?)?;
        tool::run(Command::new(tool::find("mkfs.ext4")?).args(["-q", "-L", "precious", "-d"]).arg(&files).arg(&data))?;
        fs::remove_dir_all(&files)?;
        let data_digest = digest(&data)?;
        Ok(Self { target, data, data_digest })
    }

    /// Whether the data disk is byte for byte what it was.
    pub(crate) fn check_data(&self) -> Result<()> {
        let now = digest(&self.data)?;
        anyhow::ensure!(
            now == self.data_digest,
            "the second disk ({DATA_SERIAL}) was changed: its SHA-256 was {}, is {now}",
            self.data_digest
        );
        Ok(())
    }
}

fn blank(path: &Path, bytes: u64) -> Result<()> {
    File::create(path)
        .and_then(|file| file.set_len(bytes))
        .with_context(|| format!("making the disk {}", path.display()))
}

fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).with_context(|| format!("reading {}", path.display()))?;
        if n == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..n]);
    }
}
