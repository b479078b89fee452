//! Whether a disk is a medium of its own, or something that another program or adaptor presents as one. Overwriting a
//! volume says nothing about the media under it: spares, remapped sectors and replaced members are out of its reach.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::{Disk, Transport};
use crate::plan::DiskIdentity;
use crate::raid_volume;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Medium {
    /// The device is its own medium.
    Physical,
    /// It is presented by something else, or nothing shows that it is not.
    Volume { of: String },
}

/// Names that hypervisors, clouds and storage servers give to what they present, in vendor and model, in lower case. Some
/// real drive may have one of these by accident: it then needs the site's word, which is the right side to err on.
/// Volumes of RAID adaptors have a place of their own, [`raid_volume`].
const PRESENTED: [(&str, &str); 10] = [
    ("qemu", "a virtual machine (QEMU)"),
    ("vbox", "a virtual machine (VirtualBox)"),
    ("vmware", "a virtual machine (VMware)"),
    ("msft", "a virtual machine (Hyper-V)"),
    ("xen", "a virtual machine (Xen)"),
    ("google", "a cloud's volume"),
    ("amazon elastic block", "a cloud's volume"),
    ("scsi_debug", "the kernel's simulated disk (scsi_debug)"),
    ("lio-org", "a storage server (LIO)"),
    ("multipath", "a multipath device"),
];

/// Kernel names that no medium of its own has.
const KERNEL: [(&str, &str); 12] = [
    ("loop", "a loop device: a file"),
    ("md", "a software RAID"),
    ("dm-", "a mapped device"),
    ("mapper/", "a mapped device"),
    ("vd", "a virtual machine (virtio)"),
    ("xvd", "a virtual machine (Xen)"),
    ("nbd", "a network block device"),
    ("rbd", "a network block device (Ceph)"),
    ("drbd", "a replicated volume (DRBD)"),
    ("bcache", "a cached volume"),
    ("zram", "memory"),
    ("nullb", "the kernel's simulated disk (null_blk)"),
];

impl Medium {
    /// From what the kernel calls it and what the inventory says of it.
    #[must_use]
    pub fn of(seen_as: &str, identity: &DiskIdentity, disk: Option<&Disk>) -> Self {
        let volume = |of: &str| Self::Volume { of: of.to_owned() };
        let name = seen_as.strip_prefix("/dev/").unwrap_or(seen_as);
        if let Some((_, of)) = KERNEL.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            return volume(of);
        }
        let vendor = disk.map(|d| d.vendor.as_str()).unwrap_or_default();
        let text = format!("{vendor} {}", identity.model).to_lowercase();
        if let Some((_, of)) = PRESENTED.iter().find(|(mark, _)| text.contains(mark)) {
            return volume(of);
        }
        // They all say "a volume of ...", or that they are a virtual disk.
        let named = Disk { model: identity.model.clone(), ..disk.cloned().unwrap_or_default() };
        if let Some(what) = raid_volume::of(&named) {
            return volume(what.strip_prefix("a volume of ").unwrap_or(what));
        }
        match disk.map(|d| d.tran) {
            Some(Transport::Nvme | Transport::Sata | Transport::Sas | Transport::Usb | Transport::Mmc) => {
                Self::Physical
            }
            Some(Transport::Loop) => volume("a loop device: a file"),
            Some(Transport::Md) => volume("a software RAID"),
            Some(Transport::Virtio) => volume("a virtual machine (virtio)"),
            Some(Transport::Iscsi) => volume("a storage server (iSCSI)"),
            Some(Transport::Fc) => volume("a storage server (Fibre Channel)"),
            // RAID adaptors present their volumes as plain SCSI disks; drives behind a host adaptor are SAS or SATA.
            Some(Transport::Scsi) => volume("an adaptor that does not say what is behind it (SCSI)"),
            Some(Transport::Unknown) => volume("something unknown: the inventory does not say how it is attached"),
            None => volume("something unknown: the machine's inventory has no such disk"),
        }
    }

    #[must_use]
    pub fn is_physical(&self) -> bool {
        *self == Self::Physical
    }
}

/// `solid-state drive, NVMe`.
#[must_use]
pub fn media_type(medium: &Medium, disk: Option<&Disk>) -> String {
    if let Medium::Volume { of } = medium {
        return format!("volume of {of}");
    }
    let Some(disk) = disk else { return "unknown".into() };
    let kind = match disk.tran {
        Transport::Mmc => "flash card",
        _ if disk.rotational => "magnetic disk drive",
        _ => "solid-state drive",
    };
    let by = match disk.tran {
        Transport::Nvme => "NVMe",
        Transport::Sata => "SATA",
        Transport::Sas => "SAS",
        Transport::Usb => "USB",
        Transport::Mmc => "MMC",
        _ => "unknown attachment",
    };
    format!("{kind}, {by}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::samples::{disk, identity_of};

    fn seen(name: &str, vendor: &str, model: &str, tran: Transport) -> Medium {
        let disk = Disk { name: name.into(), vendor: vendor.into(), model: model.into(), tran, ..disk() };
        Medium::of(&disk.name, &identity_of(&disk), Some(&disk))
    }

    #[test]
    fn drives_are_media() {
        for (name, vendor, model, tran) in [
            ("/dev/sda", "ATA", "Samsung SSD 860", Transport::Sata),
            ("/dev/sdb", "SEAGATE", "ST4000NM0025", Transport::Sas),
            ("/dev/nvme0n1", "", "INTEL SSDPE2KX010T8", Transport::Nvme),
            ("/dev/mmcblk0", "", "SC64G", Transport::Mmc),
        ] {
            assert_eq!(seen(name, vendor, model, tran), Medium::Physical, "{model}");
        }
    }

    #[test]
    fn what_something_else_presents_is_none() {
        for (name, vendor, model, tran) in [
            ("/dev/loop3", "", "", Transport::Loop),
            ("/dev/md0", "", "", Transport::Unknown),
            ("/dev/vda", "", "", Transport::Virtio),
            ("/dev/sda", "DELL", "PERC H730P Mini", Transport::Scsi),
            ("/dev/sda", "HP", "LOGICAL VOLUME", Transport::Sas),
            ("/dev/sda", "AVAGO", "MR9361-8i", Transport::Sas),
            ("/dev/sda", "ATA", "DELLBOSS VD", Transport::Sata),
            ("/dev/sda", "ATA", "QEMU HARDDISK", Transport::Sata),
            ("/dev/nvme0n1", "", "QEMU NVMe Ctrl", Transport::Nvme),
            ("/dev/sda", "Msft", "Virtual Disk", Transport::Sas),
            ("/dev/sda", "NETAPP", "LUN C-Mode", Transport::Fc),
            ("/dev/sda", "HITACHI", "OPEN-V", Transport::Scsi),
            ("/dev/sda", "X", "Y", Transport::Unknown),
        ] {
            assert!(!seen(name, vendor, model, tran).is_physical(), "{vendor} {model}");
        }
        assert!(!Medium::of("/dev/sda", &identity_of(&disk()), None).is_physical(), "a disk nobody recorded");
    }
}
