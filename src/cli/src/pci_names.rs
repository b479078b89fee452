//! Names for PCI devices that came without: the controller had no table of them, and this machine may.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use speediso_model::inventory::Inventory;
use speediso_model::pci_ids::{DIRECTORIES, Names};

/// Fails only if the table that was asked for cannot be read.
pub(crate) fn add(inventory: &mut Inventory, table: Option<&Path>) -> Result<()> {
    let file = match table {
        Some(table) => Some(File::open(table).with_context(|| format!("opening {}", table.display()))?),
        None if inventory.pci_devices.iter().all(|device| device.vendor_name.is_some()) => None,
        None => DIRECTORIES.iter().find_map(|directory| File::open(Path::new(directory).join("pci.ids")).ok()),
    };
    if let Some(file) = file {
        let mut names = Names::wanted_by(inventory);
        names.find_through(file);
        names.name(inventory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use speediso_model::inventory::PciDevice;

    use super::*;

    #[test]
    fn names_come_from_the_table_that_was_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let table = dir.path().join("table");
        std::fs::write(&table, "1af4  Red Hat, Inc.\n\t1041  Virtio 1.0 network device\n").expect("written");
        let device = |vendor: &str, product: &str| PciDevice {
            vendor_id: vendor.into(),
            product_id: product.into(),
            class: "020000".into(),
            ..PciDevice::default()
        };
        let mut inventory =
            Inventory { pci_devices: vec![device("1af4", "1041"), device("ffff", "0001")], ..Inventory::default() };
        // What the machine itself knew stays.
        inventory.pci_devices[0].vendor_name = Some("Its own word".into());
        add(&mut inventory, Some(&table)).expect("read");
        let titles: Vec<String> = inventory.pci_devices.iter().map(PciDevice::title).collect();
        assert_eq!(titles, ["Its own word Virtio 1.0 network device", "[ffff:0001]"]);
        let error = add(&mut inventory, Some(&dir.path().join("none"))).expect_err("it was asked for");
        assert!(error.to_string().contains("none"), "{error}");
    }
}
