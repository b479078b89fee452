//! Which disk this system was started from.
//!
//! The live system runs in memory and holds nothing: only the firmware still knows. It is asked which of its entries
//! this boot came from, and where that points. Disks inside of the machine are not excluded for it: whoever boots a
//! machine from its own disk in order to install it anew means that disk, and a kernel started by another one (kexec)
//! finds the entry of that. What is protected is the stick. One with parameters of ours is known by its id as well, in BIOS
//! mode too ([`crate::medium`]).

use speediso_model::inventory::{Disk, Exclusion, Transport};

use crate::efi::{self, DeviceNode, LoadOption};
use crate::medium;
use crate::roots::{Roots, read_number};

/// UEFI 2.10, 10.3.4 and 10.3.5: messaging device path, and its subtypes for USB.
pub(crate) const MESSAGING: u8 = 3;
const USB: u8 = 5;
const USB_WWID: u8 = 16;

/// Marks the disks that the firmware started this system from.
pub(crate) fn mark(roots: &Roots, disks: &mut [Disk]) {
    for disk in disks.iter_mut().filter(|disk| disk.excluded.is_none()) {
        if medium::is_noted(roots, disk.name.rsplit('/').next().unwrap_or_default()) {
            disk.excluded = Some(Exclusion::LiveSystem { how: "the medium with its parameters".to_owned() });
        }
    }
    let Some(option) = booted_by(roots) else { return };
    let over_usb = option
        .path
        .iter()
        .any(|node| matches!(node, DeviceNode::Other { kind: MESSAGING, subtype: USB | USB_WWID, .. }));
    let partition = option.path.iter().find_map(|node| match node {
        DeviceNode::HardDrive { number, start, size, .. } => Some((*number, *start, *size)),
        _ => None,
    });
    for disk in disks.iter_mut().filter(|disk| disk.removable || disk.tran == Transport::Usb) {
        let here = match partition {
            Some(partition) => has_partition(roots, disk, partition),
            // Firmware and kernel count the ports of a USB controller differently: any stick may be the one.
            None => over_usb,
        };
        if here && disk.excluded.is_none() {
            disk.excluded = Some(Exclusion::LiveSystem { how: format!("boot entry {:?}", option.description) });
        }
    }
}

/// The firmware's own entry for this boot.
pub(crate) fn booted_by(roots: &Roots) -> Option<LoadOption> {
    if !efi::is_uefi(roots) {
        return None;
    }
    let number = efi::boot_current(roots).ok()??;
    let variable = efi::read(roots, &efi::boot_name(number), efi::GLOBAL).ok()??;
    LoadOption::decode(&variable.data).ok()
}

/// Start and size are in the disk's own sectors; sysfs counts in 512 bytes.
fn has_partition(roots: &Roots, disk: &Disk, (number, start, size): (u32, u64, u64)) -> bool {
    let name = disk.name.rsplit('/').next().unwrap_or_default();
    let scale = u64::from(disk.logical_sectors.max(512) / 512);
    let entries = std::fs::read_dir(roots.sys.join("block").join(name)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|dir| {
        read_number(&dir.join("partition")) == Some(u64::from(number))
            && read_number(&dir.join("start")) == start.checked_mul(scale)
            && read_number(&dir.join("size")) == size.checked_mul(scale)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn stick(name: &str) -> Disk {
        Disk { name: format!("/dev/{name}"), tran: Transport::Usb, logical_sectors: 512, ..Disk::default() }
    }

    fn machine(option: &LoadOption) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        fs::create_dir_all(&roots.efivars).expect("made");
        for (disk, start) in [("sda", 2048), ("sdb", 4096)] {
            let part = roots.sys.join(format!("block/{disk}/{disk}1"));
            fs::create_dir_all(&part).expect("made");
            for (file, value) in [("partition", 1), ("start", start), ("size", 8192)] {
                fs::write(part.join(file), format!("{value}\n")).expect("written");
            }
        }
        efi::set_boot_entry(&roots, 7, option).expect("written");
        efi::write(&roots, "BootCurrent", efi::GLOBAL, 6, &[7, 0]).expect("written");
        (dir, roots)
    }

    #[test]
    fn the_stick_with_the_partition_of_the_boot_entry() {
        let option = LoadOption::for_file("stick", 1, 4096, 8192, [7; 16], "\\EFI\\BOOT\\BOOTX64.EFI");
        let (_dir, roots) = machine(&option);
        let mut disks = [stick("sda"), stick("sdb")];
        mark(&roots, &mut disks);
        assert_eq!(disks[0].excluded, None);
        assert!(matches!(&disks[1].excluded, Some(Exclusion::LiveSystem { how }) if how.contains("stick")));
        // The same on a disk inside of the machine is the machine's own.
        let mut inside = [Disk { tran: Transport::Sata, ..stick("sdb") }];
        mark(&roots, &mut inside);
        assert_eq!(inside[0].excluded, None);
    }

    #[test]
    fn any_stick_if_the_entry_only_says_usb() {
        let usb = DeviceNode::Other { kind: MESSAGING, subtype: USB, data: vec![0, 0] };
        let option =
            LoadOption { attributes: 1, description: "UEFI: USB".into(), path: vec![usb], optional_data: Vec::new() };
        let (_dir, roots) = machine(&option);
        let mut disks = [stick("sda"), Disk { tran: Transport::Nvme, ..stick("nvme0n1") }];
        mark(&roots, &mut disks);
        assert!(disks[0].excluded.is_some() && disks[1].excluded.is_none());
    }
}
