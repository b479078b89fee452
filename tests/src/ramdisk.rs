//! The built ramdisk, started without firmware and PXE where booting is not what a test is about.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use speediso_lab::{Lab, MachineSpec, Programs, Start};

#[derive(Clone, Debug)]
pub struct Ramdisk {
    kernel: PathBuf,
    initrd: PathBuf,
}

impl Ramdisk {
    pub fn of(programs: &Programs) -> Self {
        Self { kernel: programs.boot_files.join("vmlinuz"), initrd: programs.boot_files.join("initramfs.img") }
    }

    /// With a second archive behind it, as a boot loader has them in memory that is told of both.
    pub fn and(&self, second: &Path, joined: PathBuf) -> Result<Self> {
        let mut bytes = std::fs::read(&self.initrd).with_context(|| format!("reading {}", self.initrd.display()))?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(std::fs::read(second).with_context(|| format!("reading {}", second.display()))?);
        std::fs::write(&joined, bytes)?;
        Ok(Self { kernel: self.kernel.clone(), initrd: joined })
    }

    /// A machine that starts this kernel at once, with these words on its command line beside the console's.
    pub fn machine(&self, name: &str, words: &str) -> MachineSpec {
        MachineSpec::new(name).firmware(speediso_lab::Firmware::Bios).start_with(Start::Kernel {
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            append: format!("console=ttyS0,115200 {words}"),
        })
    }
}

/// What a boot script says about the controller: the words beginning with `speediso.` of its kernel line, for this
/// machine's MAC, UUID and serial number, as the controller renders them.
pub fn boot_words(lab: &Lab, mac: &str, uuid: &str, serial: &str) -> Result<Vec<String>> {
    let url = format!("http://192.0.2.1:8080/boot/ipxe?mac={mac}&uuid={uuid}&serial={serial}");
    let script = speediso_lab::tool::run(lab.command("curl").args(["-sSf", "--max-time", "20", &url]))?;
    let line = script
        .lines()
        .find(|line| line.split_whitespace().any(|word| word.starts_with("speediso.controller=")))
        .with_context(|| format!("the boot script names no controller:\n{script}"))?;
    Ok(line.split_whitespace().filter(|word| word.starts_with("speediso.")).map(str::to_owned).collect())
}
