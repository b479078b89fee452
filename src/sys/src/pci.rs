//! PCI functions and the disks below them, from sysfs.

use std::io;
use std::path::Path;

use crate::roots::{Roots, read_line};

/// One function of a PCI device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Function {
    /// `0000:3b:00.0`
    pub address: String,
    pub vendor: u16,
    pub device: u16,
    pub subsystem_vendor: u16,
    pub driver: Option<String>,
}

/// The functions that are storage controllers by their class, in the order of their addresses.
///
/// # Errors
/// When the bus cannot be listed. A kernel without PCI has none.
pub fn storage_controllers(roots: &Roots) -> io::Result<Vec<Function>> {
    of_class(roots, STORAGE)
}

/// The functions that are network cards by their class, likewise.
///
/// # Errors
/// When the bus cannot be listed. A kernel without PCI has none.
pub fn network_cards(roots: &Roots) -> io::Result<Vec<Function>> {
    of_class(roots, NETWORK)
}

/// Base classes of the PCI Code and ID Assignment Specification, 1.2 and 1.3.
const STORAGE: u32 = 0x01;
const NETWORK: u32 = 0x02;

fn of_class(roots: &Roots, class: u32) -> io::Result<Vec<Function>> {
    let bus = roots.sys.join("bus/pci/devices");
    let entries = match std::fs::read_dir(&bus) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let mut functions: Vec<Function> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            read_one(&entry.path(), entry.file_name().to_str()?, class)
        })
        .collect();
    functions.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(functions)
}

fn read_one(dir: &Path, address: &str, class: u32) -> Option<Function> {
    let hex = |file: &str| {
        let text = read_line(&dir.join(file))?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    if hex("class")? >> 16 != class {
        return None;
    }
    let id = |file: &str| u16::try_from(hex(file)?).ok();
    Some(Function {
        address: address.to_owned(),
        vendor: id("vendor")?,
        device: id("device")?,
        subsystem_vendor: id("subsystem_vendor").unwrap_or(0),
        driver: link_name(&dir.join("driver")),
    })
}

fn link_name(link: &Path) -> Option<String> {
    Some(std::fs::canonicalize(link).ok()?.file_name()?.to_str()?.to_owned())
}

/// The kernel's names of the disks that hang on this function: `sda`.
///
/// # Errors
/// When the disks cannot be listed.
pub fn disks_below(roots: &Roots, address: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(roots.sys.join("block"))? {
        let entry = entry?;
        let Ok(path) = std::fs::canonicalize(entry.path()) else { continue };
        if path.components().any(|c| c.as_os_str() == address)
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The driver of the controller on which a disk hangs: `megaraid_sas`. By its kernel name, `sda`.
#[must_use]
pub fn driver_of_disk(roots: &Roots, name: &str) -> Option<String> {
    let path = std::fs::canonicalize(roots.sys.join("block").join(name)).ok()?;
    // The last function on the way: what stands before it are bridges.
    let function = path.ancestors().find(|dir| {
        let is_address = |n: &str| n.len() == 12 && n.as_bytes()[4] == b':' && n.as_bytes()[10] == b'.';
        dir.file_name().and_then(|n| n.to_str()).is_some_and(is_address)
    })?;
    link_name(&function.join("driver"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A RAID controller behind a bridge with one disk, and a network card.
    fn fixture() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join("sys").join(path);
        let raid = at("devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0");
        let nic = at("devices/pci0000:00/0000:00:1f.6");
        let disk = raid.join("host0/target0:2:0/0:2:0:0/block/sda");
        for made in [&raid, &nic, &disk, &at("bus/pci/devices"), &at("bus/pci/drivers/megaraid_sas"), &at("block")] {
            fs::create_dir_all(made).expect("made");
        }
        for (function, class, vendor) in [(&raid, "0x010400", "0x1000"), (&nic, "0x020000", "0x8086")] {
            fs::write(function.join("class"), format!("{class}\n")).expect("written");
            fs::write(function.join("vendor"), format!("{vendor}\n")).expect("written");
            fs::write(function.join("device"), "0x10e2\n").expect("written");
            let name = function.file_name().expect("an address");
            symlink(function, at("bus/pci/devices").join(name)).expect("linked");
        }
        fs::write(raid.join("subsystem_vendor"), "0x1028\n").expect("written");
        symlink(at("bus/pci/drivers/megaraid_sas"), raid.join("driver")).expect("linked");
        symlink(&disk, at("block/sda")).expect("linked");
        dir
    }

    #[test]
    fn controllers_their_disks_and_their_drivers() {
        let dir = fixture();
        let roots = Roots::under(dir.path());
        let function = Function {
            address: "0000:3b:00.0".into(),
            vendor: 0x1000,
            device: 0x10e2,
            subsystem_vendor: 0x1028,
            driver: Some("megaraid_sas".into()),
        };
        assert_eq!(storage_controllers(&roots).expect("listed"), [function]);
        assert_eq!(disks_below(&roots, "0000:3b:00.0").expect("listed"), ["sda"]);
        assert!(disks_below(&roots, "0000:3c:00.0").expect("listed").is_empty());
        assert_eq!(driver_of_disk(&roots, "sda").as_deref(), Some("megaraid_sas"));
        assert_eq!(driver_of_disk(&roots, "sdb"), None);
        let nothing = tempfile::tempdir().expect("a directory");
        assert!(storage_controllers(&Roots::under(nothing.path())).expect("no bus").is_empty());
    }
}
