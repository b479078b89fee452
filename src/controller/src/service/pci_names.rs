//! Names for the numbers of PCI devices. The ramdisk has no room for a table of them; the controller may have one.

use std::fs::File;
use std::path::{Path, PathBuf};

use speediso_model::inventory::Inventory;
use speediso_model::pci_ids::{DIRECTORIES, Names};

/// The inventory with names where there is a table, and as it was where there is none: nothing needs them. Names that the
/// machine knew itself stay.
pub(super) async fn added(table: Option<&Path>, inventory: Inventory) -> Inventory {
    if inventory.pci_devices.is_empty() {
        return inventory;
    }
    let places: Vec<PathBuf> = match table {
        Some(table) => vec![table.to_owned()],
        None => DIRECTORIES.iter().map(|directory| Path::new(directory).join("pci.ids")).collect(),
    };
    let mut names = Names::wanted_by(&inventory);
    // The file has megabytes.
    let found = tokio::task::spawn_blocking(move || {
        let table = places.iter().find_map(|place| File::open(place).ok())?;
        names.find_through(table);
        Some(names)
    });
    let mut inventory = inventory;
    match found.await {
        Ok(Some(names)) => names.name(&mut inventory),
        Ok(None) => {}
        Err(error) => tracing::error!("looking for names of PCI devices; proceeding without: {error}"),
    }
    inventory
}
