//! An NVMe controller itself, for what concerns all of its namespaces.
//!
//! Commands that delete namespaces go to the controller: the disks they were do not exist any more in the middle of it. So
//! that no disk is lost that nobody claimed, a [`ClaimedController`] is made of claimed disks, and only if they are all
//! that the controller shows to this machine.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::{major, minor};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;

use crate::claim::ClaimedDisk;
use crate::passthrough::linux::{nvme_admin, nvme_rescan};
use crate::passthrough::questions::is_nvme_question;
use crate::passthrough::{CommandError, Data, NvmeCommand, Passthrough, nvme};
use crate::roots::{Roots, read_line, read_number};

/// A controller of this machine, by what sysfs says of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Local {
    /// `nvme0`
    pub name: String,
    pub serial: String,
    pub model: String,
}

/// A namespace as the kernel shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    /// In bytes.
    pub size: u64,
    pub sector_size: u32,
}

impl Local {
    fn read(roots: &Roots, name: &str) -> Option<Self> {
        let dir = roots.sys.join("class/nvme").join(name);
        let text = |file| read_line(&dir.join(file));
        Some(Self { name: name.to_owned(), serial: text("serial")?, model: text("model").unwrap_or_default() })
    }

    /// The controller through which a disk comes.
    ///
    /// # Errors
    /// `unsupported` if it is no NVMe disk, comes over a network, or has several ways to it.
    pub fn of_disk(roots: &Roots, disk: &Disk) -> Result<Self, Fault> {
        let refused = |why: &str| Fault::new(FaultCode::Unsupported, format!("{}: {why}", describe(disk)));
        let name = disk.name.rsplit('/').next().unwrap_or_default();
        if !name.starts_with("nvme") {
            return Err(refused("only NVMe disks have namespaces"));
        }
        match ways_to(roots, name).as_slice() {
            [] => Err(refused("the kernel does not show its controller")),
            [one] if read_line(&one.join("transport")).is_some_and(|t| t != "pcie") => {
                Err(refused("its controller is not in this machine; namespaces are managed where it is"))
            }
            [one] => one
                .file_name()
                .and_then(|name| Self::read(roots, name.to_str()?))
                .ok_or_else(|| refused("the kernel does not tell the serial number of its controller")),
            several => Err(refused(&format!(
                "it comes through {} controllers; namespaces that several share are not touched",
                several.len()
            ))),
        }
    }

    /// The one of this serial number.
    ///
    /// # Errors
    /// `no-matching-disk` with those that are there; `ambiguous-disk` where several have it.
    pub fn by_serial(roots: &Roots, serial: &str) -> Result<Self, Fault> {
        let entries = std::fs::read_dir(roots.sys.join("class/nvme")).into_iter().flatten().flatten();
        let all: Vec<Self> = entries
            .filter(|entry| read_line(&entry.path().join("transport")).is_some_and(|t| t == "pcie"))
            .filter_map(|entry| Self::read(roots, entry.file_name().to_str()?))
            .collect();
        let mut found = all.iter().filter(|c| c.serial.eq_ignore_ascii_case(serial.trim()));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => {
                let message = format!("no NVMe controller in this machine has the serial number {serial:?}");
                let mut fault = Fault::new(FaultCode::NoMatchingDisk, message);
                fault.causes = all.iter().map(ToString::to_string).collect();
                Err(fault)
            }
            (Some(_), Some(_)) => {
                let message = format!("several NVMe controllers have the serial number {serial:?}");
                Err(Fault::new(FaultCode::AmbiguousDisk, message))
            }
        }
    }

    fn open(&self, roots: &Roots) -> Result<File, Fault> {
        let failed = |e: io::Error| Fault::new(FaultCode::DiskIo, format!("opening {self}")).because(e.to_string());
        let path = roots.dev.join(&self.name);
        let file = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path).map_err(failed)?;
        let rdev = file.metadata().map_err(failed)?.rdev();
        let expected = read_line(&roots.sys.join("class/nvme").join(&self.name).join("dev"));
        if expected != Some(format!("{}:{}", major(rdev), minor(rdev))) {
            return Err(Fault::new(FaultCode::DiskChanged, format!("what opens as {} is not {self}", self.name)));
        }
        Ok(file)
    }

    /// What the kernel shows of a namespace, if it shows it.
    fn shown(&self, roots: &Roots, namespace: u32) -> Option<Shown> {
        std::fs::read_dir(roots.sys.join("block")).ok()?.flatten().find_map(|entry| {
            let (name, dir) = (entry.file_name().into_string().ok()?, entry.path());
            let is_it = name.starts_with("nvme")
                && read_number(&dir.join("hidden")) != Some(1)
                && read_number(&dir.join("nsid")) == Some(u64::from(namespace))
                && ways_to(roots, &name).iter().any(|way| way.ends_with(&self.name));
            let sector_size = u32::try_from(read_number(&dir.join("queue/logical_block_size"))?).ok()?;
            // sysfs counts in sectors of 512 bytes, whatever the device's own size is.
            is_it.then_some(Shown { size: read_number(&dir.join("size"))?.checked_mul(512)?, sector_size })
        })
    }
}

impl std::fmt::Display for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NVMe controller {} ({} serial {})", self.name, self.model, self.serial)
    }
}

/// The controllers of a disk: with the kernel's multipath its device is the subsystem, in which they are.
fn ways_to(roots: &Roots, disk: &str) -> Vec<PathBuf> {
    let Ok(device) = std::fs::canonicalize(roots.sys.join("block").join(disk).join("device")) else {
        return Vec::new();
    };
    let class = roots.sys.join("class/nvme");
    let inside = std::fs::read_dir(&device).into_iter().flatten().flatten();
    let mut names: Vec<_> = device.file_name().map(ToOwned::to_owned).into_iter().collect();
    names.extend(inside.map(|entry| entry.file_name()));
    let mut found: Vec<PathBuf> = names.into_iter().map(|name| class.join(name)).filter(|dir| dir.is_dir()).collect();
    found.sort();
    found
}

/// A controller that is only asked.
#[derive(Debug)]
pub struct ControllerPeek {
    file: File,
    pub local: Local,
}

impl ControllerPeek {
    /// # Errors
    /// `disk-io` if it cannot be opened, `disk-changed` if another has its name.
    pub fn open(roots: &Roots, local: &Local) -> Result<Self, Fault> {
        Ok(Self { file: local.open(roots)?, local: local.clone() })
    }
}

impl Passthrough for ControllerPeek {
    fn nvme(
        &self,
        name: &'static str,
        command: &NvmeCommand,
        data: Data<'_>,
        limit: Duration,
    ) -> Result<u32, CommandError> {
        if !is_nvme_question(command, &data) {
            let source = io::Error::other("it may change the controller, which is not claimed");
            return Err(CommandError::NoWay { command: name, source });
        }
        nvme_admin(&self.file, &self.local.name, name, command, data, limit)
    }
}

/// A controller all of whose namespaces that this machine sees are claimed, or that shows none.
#[derive(Debug)]
pub struct ClaimedController {
    roots: Roots,
    file: File,
    local: Local,
    disks: Vec<ClaimedDisk>,
}

impl ClaimedController {
    /// # Errors
    /// `disk-changed` if the disks are of another controller, or it shows a namespace that is none of them.
    pub fn of(roots: &Roots, local: &Local, disks: Vec<ClaimedDisk>) -> Result<Self, Fault> {
        let changed = |what: String| Fault::new(FaultCode::DiskChanged, what);
        let asked = |e: CommandError| Fault::from_error(FaultCode::DiskIo, &e);
        let file = local.open(roots)?;
        let mut claimed = Vec::new();
        for disk in &disks {
            if Local::of_disk(roots, disk.disk())? != *local {
                return Err(changed(format!("{} is not of {local}", describe(disk.disk()))));
            }
            claimed.push(disk.nvme_namespace().map_err(asked)?);
        }
        let controller = Self { roots: roots.clone(), file, local: local.clone(), disks };
        let serial = nvme::controller(&controller).map_err(asked)?.serial;
        if serial != local.serial {
            return Err(changed(format!("{local} calls itself {serial:?}")));
        }
        let shown = nvme::namespaces(&controller).map_err(asked)?;
        if let Some((other, _)) = shown.iter().find(|(id, attached)| *attached && !claimed.contains(id)) {
            return Err(changed(format!(
                "{local} has a namespace {other}, which is a disk that the task does not name"
            )));
        }
        Ok(controller)
    }

    #[must_use]
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Ends the claims, once the namespaces are gone: what holds them keeps their names from new ones.
    pub fn release(&mut self) {
        self.disks.clear();
    }

    /// Has the kernel ask again which namespaces there are.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn rescan(&self) -> Result<(), CommandError> {
        nvme_rescan(&self.file)
    }

    /// What the kernel shows of a namespace, if it shows it.
    #[must_use]
    pub fn shown(&self, namespace: u32) -> Option<Shown> {
        self.local.shown(&self.roots, namespace)
    }
}

impl Passthrough for ClaimedController {
    fn nvme(
        &self,
        name: &'static str,
        command: &NvmeCommand,
        data: Data<'_>,
        limit: Duration,
    ) -> Result<u32, CommandError> {
        nvme_admin(&self.file, &self.local.name, name, command, data, limit)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Two controllers in the machine, one with multipath, and one behind a network.
    fn fixture() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = dir.path().join("sys").join(path);
            fs::create_dir_all(path.parent().expect("inside")).expect("made");
            fs::write(path, text).expect("written");
        };
        for (name, transport, serial) in
            [("nvme0", "pcie", "S0  "), ("nvme1", "pcie", "S1"), ("nvme2", "pcie", "S1"), ("nvme3", "tcp", "S3")]
        {
            write(&format!("class/nvme/{name}/transport"), transport);
            write(&format!("class/nvme/{name}/serial"), serial);
            write(&format!("class/nvme/{name}/model"), "Model");
        }
        write("devices/subsys0/nvme0/x", "");
        write("devices/subsys1/nvme1/x", "");
        write("devices/subsys1/nvme2/x", "");
        write("devices/nvme3/x", "");
        for (disk, device) in [("nvme0n1", "subsys0"), ("nvme1n1", "subsys1"), ("nvme3n1", "nvme3")] {
            for (file, text) in [("nsid", "7"), ("size", "16"), ("queue/logical_block_size", "4096")] {
                write(&format!("block/{disk}/{file}"), text);
            }
            let target = dir.path().join("sys/devices").join(device);
            symlink(target, dir.path().join("sys/block").join(disk).join("device")).expect("linked");
        }
        dir
    }

    #[test]
    fn the_controller_of_a_disk_is_found_and_shared_ones_are_refused() {
        let dir = fixture();
        let roots = Roots::under(dir.path());
        let of = |name: &str| Local::of_disk(&roots, &Disk { name: format!("/dev/{name}"), ..Disk::default() });
        let local = of("nvme0n1").expect("its controller");
        assert_eq!(local.to_string(), "NVMe controller nvme0 (Model serial S0)");
        assert_eq!(local.shown(&roots, 7), Some(Shown { size: 8192, sector_size: 4096 }));
        assert_eq!(local.shown(&roots, 1), None);
        for (name, why) in [("nvme1n1", "2 controllers"), ("nvme3n1", "not in this machine"), ("sda", "only NVMe")] {
            let fault = of(name).expect_err(name);
            assert!(fault.message.contains(why), "{fault}");
        }
        assert_eq!(Local::by_serial(&roots, "s0").expect("one").name, "nvme0");
        assert_eq!(Local::by_serial(&roots, "S1").expect_err("two").code, FaultCode::AmbiguousDisk);
        let none = Local::by_serial(&roots, "S3").expect_err("not in the machine");
        assert!(none.code == FaultCode::NoMatchingDisk && none.causes.len() == 3, "{none}");
    }

    #[test]
    fn a_node_of_another_device_is_not_opened() {
        let dir = fixture();
        let roots = Roots::under(dir.path());
        let local = Local::by_serial(&roots, "S0").expect("one");
        fs::create_dir_all(dir.path().join("dev")).expect("made");
        fs::write(dir.path().join("dev/nvme0"), "").expect("written");
        fs::write(dir.path().join("sys/class/nvme/nvme0/dev"), "240:0").expect("written");
        assert_eq!(ControllerPeek::open(&roots, &local).expect_err("a file").code, FaultCode::DiskChanged);
    }
}
