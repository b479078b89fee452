//! Names of PCI and USB numbers, from the tables that distributions install.

use std::fs::File;
use std::path::Path;

use speediso_model::inventory::Inventory;
use speediso_model::pci_ids::Names;

use crate::roots::Roots;
use crate::sysfs;

/// Adds names where the system has the tables; leaves them out where not.
pub fn add(roots: &Roots, inventory: &mut Inventory) {
    if !inventory.pci_devices.is_empty()
        && let Some(table) = open(&roots.share, "pci.ids")
    {
        let mut names = Names::wanted_by(inventory);
        names.find_through(table);
        names.name(inventory);
    }
    let nameless = |text: &str| text.is_empty();
    if inventory.usb_devices.iter().any(|device| nameless(&device.product) || nameless(&device.vendor))
        && let Some(table) = open(&roots.share, "usb.ids")
    {
        let mut names = Names::default();
        for device in &inventory.usb_devices {
            names.want(&device.vendor_id, &device.product_id);
        }
        names.find_through(table);
        for device in &mut inventory.usb_devices {
            if nameless(&device.vendor) {
                device.vendor = names.vendor(&device.vendor_id).unwrap_or_default().to_owned();
            }
            if nameless(&device.product) {
                device.product = names.product(&device.vendor_id, &device.product_id).unwrap_or_default().to_owned();
            }
        }
    }
}

/// Debian has them in one place, others in the other.
fn open(share: &Path, name: &str) -> Option<File> {
    ["misc", "hwdata"].iter().find_map(|dir| sysfs::open(&share.join(dir).join(name)).ok())
}
