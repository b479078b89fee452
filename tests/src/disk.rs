//! Disks with known content, so that "nothing was touched" can be said to the byte.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use speediso_lab::{Disk, Lab, tool};

use crate::sha256;

#[derive(Debug)]
pub struct TestDisk {
    pub path: PathBuf,
    pub serial: String,
    digest: String,
}

impl TestDisk {
    /// A blank disk.
    pub fn blank(lab: &Lab, serial: &str, mib: u64) -> Result<Self> {
        let path = lab.dir().join(format!("{serial}.raw"));
        File::create(&path)?.set_len(mib << 20)?;
        Self::known(path, serial)
    }

    /// A disk with a file system and random files: something to find and to lose.
    pub fn with_data(lab: &Lab, serial: &str, mib: u64) -> Result<Self> {
        let path = lab.dir().join(format!("{serial}.raw"));
        File::create(&path)?.set_len(mib << 20)?;
        let files = lab.dir().join(format!("{serial}.files"));
        std::fs::create_dir(&files)?;
        let mut random = File::open("/dev/urandom")?.take(mib << 18);
        std::io::copy(&mut random, &mut File::create(files.join("data"))?)?;
        tool::run(Command::new(tool::find("mkfs.ext4")?).args(["-q", "-d"]).arg(&files).arg(&path))?;
        Self::known(path, serial)
    }

    /// The same disk as it is now.
    pub fn of(disk: &Self) -> Result<Self> {
        Self::known(disk.path.clone(), &disk.serial)
    }

    fn known(path: PathBuf, serial: &str) -> Result<Self> {
        let digest = sha256(&path)?;
        Ok(Self { path, serial: serial.to_owned(), digest })
    }

    /// As a virtio disk of a machine.
    pub fn plugged(&self) -> Disk {
        Disk::new(&self.path, &self.serial)
    }

    /// Fails unless the disk is byte for byte what it was made as.
    pub fn assert_untouched(&self) -> Result<()> {
        let now = sha256(&self.path)?;
        ensure!(now == self.digest, "disk {} was changed: SHA-256 was {}, is {now}", self.serial, self.digest);
        Ok(())
    }

    pub fn is_untouched(&self) -> Result<bool> {
        Ok(sha256(&self.path)? == self.digest)
    }

    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        read(&self.path, offset, length)
    }

    /// Whether any firmware or kernel would find a partition table: MBR signature or GPT header, at either end.
    pub fn has_table(&self) -> Result<bool> {
        let size = self.path.metadata()?.len();
        let start = self.read(0, 4096)?;
        let end = self.read(size - 512, 512)?;
        Ok(start[510..512] == [0x55, 0xaa] || &start[512..520] == b"EFI PART" || &end[..8] == b"EFI PART")
    }

    /// The image's bytes between its table and its end are on the disk.
    pub fn holds(&self, image: &Path) -> Result<bool> {
        // Table, its backup and the last partition's end move when the disk is larger; what is between does not.
        let size = image.metadata()?.len();
        let (mut at, end) = (1 << 20, size - (1 << 20));
        while at < end {
            let length = usize::try_from((end - at).min(1 << 20)).context("at most a MiB")?;
            if read(image, at, length)? != self.read(at, length)? {
                return Ok(false);
            }
            at += 1 << 20;
        }
        Ok(true)
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut file = File::options().write(true).open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.write_all(bytes)?)
    }
}

fn read(path: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).with_context(|| format!("reading {length} bytes at {offset} of {}", path.display()))?;
    Ok(bytes)
}
