//! Machines captured from QEMU (tests/images/capture.sh), read whole.

use std::path::Path;

use serde_json::{Value, json};
use speediso_model::inventory::Inventory;

use super::{boot, hwmon, kernel, memory, numa, pci, tpm, usb};
use crate::disks::{self, DiskScope};
use crate::roots::Roots;
use crate::{cpu, dmi, nics};

pub(super) const MACHINES: [(&str, &[u8]); 3] = [
    ("q35_numa", include_bytes!("../fixtures/machines/q35_numa.tar.gz")),
    ("q35_uefi", include_bytes!("../fixtures/machines/q35_uefi.tar.gz")),
    ("pc_small", include_bytes!("../fixtures/machines/pc_small.tar.gz")),
];

pub(super) fn unpack(name: &str) -> tempfile::TempDir {
    let (_, packed) = MACHINES.iter().find(|(known, _)| *known == name).expect("a captured machine");
    let dir = tempfile::tempdir().expect("a directory");
    tar::Archive::new(flate2::read::GzDecoder::new(*packed)).unpack(dir.path()).expect("a whole archive");
    dir
}

/// All that the readers of this module say of a machine, and what they could not say.
pub(super) fn read(root: &Path) -> Inventory {
    let roots = Roots::under(root);
    let mut unread = Vec::new();
    let smbios = dmi::examine(&roots);
    unread.extend(smbios.problems);
    let mut cpu = cpu::read(&roots).unwrap_or_else(|error| {
        unread.push(format!("processors: {error}"));
        Default::default()
    });
    cpu.sockets = smbios.sockets;
    let mut inventory = Inventory {
        system_vendor: smbios.system,
        cpu,
        // Not all captures have them.
        disks: disks::read(&roots, DiskScope::default()).unwrap_or_default(),
        interfaces: nics::read(&roots).unwrap_or_default(),
        boot: boot::read(&roots, &mut unread),
        numa_topology: numa::read(&roots, &mut unread),
        pci_devices: pci::read(&roots, &mut unread),
        usb_devices: usb::read(&roots, &mut unread),
        tpm: tpm::read(&roots, &mut unread),
        sensors: hwmon::read(&roots, &mut unread),
        boards: smbios.boards,
        chassis: smbios.chassis,
        slots: smbios.slots,
        onboard_devices: smbios.onboard_devices,
        power_supplies: smbios.power_supplies,
        kernel: kernel::read(&roots, &mut unread),
        ..Inventory::default()
    };
    inventory.memory.total = memory::total(&roots, &mut unread);
    inventory.memory.modules = smbios.modules;
    inventory.memory.empty_slots = smbios.empty_slots;
    inventory.memory.arrays = smbios.arrays;
    inventory.gpus = pci::gpus(&roots, &inventory.pci_devices);
    inventory.unread = unread;
    inventory
}

/// Without what another capture of the same machine would have otherwise.
fn lasting(mut inventory: Inventory) -> Value {
    inventory.kernel.uptime_s = 0;
    inventory.kernel.command_line = inventory.kernel.command_line.split(" speediso.").next().unwrap_or_default().into();
    // What QEMU's processor can do fills pages, and is the same in all of them.
    inventory.cpu.flags.truncate(4);
    // Where the archive was unpacked.
    let as_there = |path: &str| path.rsplit_once("/dev/").map_or(path.to_owned(), |(_, name)| format!("/dev/{name}"));
    for disk in &mut inventory.disks {
        disk.name = as_there(&disk.name);
        disk.by_path = disk.by_path.as_deref().map(as_there);
    }
    let mut value = serde_json::to_value(&inventory).expect("JSON");
    let fields = value.as_object_mut().expect("an object");
    for absent in ["hostname", "bmc_address", "build"] {
        fields.remove(absent);
    }
    json!(value)
}

#[test]
fn two_sockets_with_nodes_and_a_tpm() {
    let dir = unpack("q35_numa");
    let machine = read(dir.path());
    // What capture.sh gave to QEMU.
    assert_eq!(machine.system_vendor.uuid.as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
    assert_eq!((machine.cpu.socket_count, machine.cpu.core_count, machine.cpu.count), (2, 4, 8));
    let nodes: Vec<_> = machine.numa_topology.nodes.iter().map(|n| (n.cpus.as_str(), n.distances.as_slice())).collect();
    assert_eq!(nodes, [("0-3", &[10, 21][..]), ("4-7", &[21, 10][..])]);
    let far = machine.pci_devices.iter().find(|d| d.bus == "0000:81:00.0").expect("the card behind the far bridge");
    assert_eq!((far.driver.as_deref(), far.numa_node_id.as_deref()), (Some("e1000e"), Some("1")));
    assert_eq!(machine.tpm.as_ref().and_then(|tpm| tpm.version.as_deref()), Some("2.0"));
    assert_eq!(kernel::boot_mac(&Roots::under(dir.path())).as_deref(), Some("52:54:00:a1:00:01"));
    insta::assert_json_snapshot!(lasting(machine));
}

#[test]
fn uefi_with_variables_and_placeholders() {
    let dir = unpack("q35_uefi");
    let machine = read(dir.path());
    assert_eq!(machine.boot.current_boot_mode, "uefi");
    assert_eq!(machine.system_vendor.uuid, None, "all ones are no UUID");
    insta::assert_json_snapshot!(lasting(machine));
}

#[test]
fn an_old_chipset() {
    insta::assert_json_snapshot!(lasting(read(unpack("pc_small").path())));
}
