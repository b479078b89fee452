//! Machines as makers really ship them, made by hand: tables full of placeholders, slots of no size, disks without a serial
//! number, cards without an address. What is there is told as it is, and nothing of it is taken for a name.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use speediso_model::hints::RootDeviceHints;
use speediso_model::inventory::{Inventory, is_real_identifier, names_machine};
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;
use speediso_tasks::{Look, look};

const OEM: &str = "To Be Filled By O.E.M.";
/// That of every board of one maker, as SMBIOS has it: 03000200-0400-0500-0006-000700080009.
const UUID: [u8; 16] = [0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9];

fn structure(kind: u8, length: usize, fields: &[(usize, &[u8])], strings: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind, u8::try_from(length).expect("short"), 0, 0];
    bytes.resize(length, 0);
    for (offset, value) in fields {
        bytes[*offset..*offset + value.len()].copy_from_slice(value);
    }
    for text in strings {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0][..] });
    bytes
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, content).expect("written");
}

/// A white box of the cheapest kind.
fn white_box() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    let dimm = |size: u16, slot: &str| {
        structure(
            17,
            0x28,
            &[(0x0c, &size.to_le_bytes()), (0x10, &[1]), (0x17, &[2]), (0x18, &[2]), (0x1a, &[2])],
            &[slot, OEM],
        )
    };
    let tables = [
        structure(0, 0x18, &[(4, &[1]), (5, &[2])], &["American Megatrends Inc.", "P1.40"]),
        structure(1, 0x1b, &[(4, &[1]), (5, &[1]), (6, &[1]), (7, &[1]), (8, &UUID)], &[OEM]),
        structure(2, 0x0f, &[(4, &[1]), (8, &[2])], &["ASRockRack", "Default string"]),
        structure(3, 0x16, &[(4, &[1]), (7, &[1]), (8, &[1])], &[OEM]),
        // In use, empty, and of a size that the firmware does not know.
        dimm(8192, "DIMM_A1"),
        dimm(0, "DIMM_A2"),
        dimm(0, "DIMM_B1"),
        dimm(0xffff, "DIMM_B2"),
        structure(127, 4, &[], &[]),
    ];
    write(&root.join("sys/firmware/dmi/tables/DMI"), tables.concat());
    let entry = b"_SM3_\0\x18\x03\x02\0\x01\0\0\x10\0\0\0\0\0\0\0\0\0\0";
    write(&root.join("sys/firmware/dmi/tables/smbios_entry_point"), entry);
    let disk = |name: &str, serial: &str| {
        let at = root.join(format!("sys/devices/pci0000:00/0000:00:17.0/{name}h/target/0:0:0:0/block/{name}"));
        write(&at.join("size"), "4194304\n");
        write(&at.join("device/serial"), serial);
        write(&at.join("device/model"), "Generic\n");
        fs::create_dir_all(root.join("sys/block")).expect("made");
        symlink(&at, root.join("sys/block").join(name)).expect("linked");
    };
    disk("sda", "");
    disk("sdb", "0000000000\n");
    // It is there, and cannot say how large it is: the kernel answers EIO.
    let mute = root.join("sys/devices/pci0000:00/0000:00:17.0/mute/block/sdc");
    fs::create_dir_all(&mute).expect("made");
    symlink("/proc/self/mem", mute.join("size")).expect("linked");
    symlink(&mute, root.join("sys/block/sdc")).expect("linked");
    for (name, mac, driver) in [
        ("eno1", "00:00:00:00:00:00\n", "igb"),
        ("eno2", "52:54:00:00:00:02\n", "igb"),
        ("usb0", "be:3a:f2:b6:05:9f\n", "cdc_ether"),
    ] {
        let device = root.join(format!("sys/devices/pci0000:00/{name}"));
        let own = device.join("net").join(name);
        write(&own.join("type"), "1\n");
        write(&own.join("address"), mac);
        fs::create_dir_all(root.join("sys/class/net")).expect("made");
        symlink(format!("/sys/bus/drivers/{driver}"), device.join("driver")).expect("linked");
        symlink(&device, own.join("device")).expect("linked");
        symlink(&own, root.join("sys/class/net").join(name)).expect("linked");
    }
    write(&root.join("proc/self/mountinfo"), "");
    write(&root.join("proc/cpuinfo"), "processor\t: 0\n");
    write(&root.join("proc/meminfo"), "MemTotal:        8000000 kB\n");
    dir
}

fn seen(root: &Path) -> Inventory {
    look(&Look {
        roots: Roots::under(root),
        scope: DiskScope::default(),
        probe: None,
        boot_mac: None,
        build: Default::default(),
    })
}

#[test]
fn placeholders_are_told_and_name_nobody() {
    let dir = white_box();
    let machine = seen(dir.path());
    let system = &machine.system_vendor;
    // As the firmware has them, so that a person sees what is wrong with the machine.
    assert_eq!(
        (system.manufacturer.as_str(), system.serial_number.as_str(), system.asset_tag.as_str()),
        (OEM, OEM, OEM)
    );
    assert_eq!(system.uuid.as_deref(), Some("03000200-0400-0500-0006-000700080009"));
    for text in
        [OEM, "03000200-0400-0500-0006-000700080009", "Default string", "be:3a:f2:b6:05:9f", "00:00:00:00:00:00"]
    {
        assert!(!names_machine(text, system, &machine.macs()), "{text} would name the neighbour too");
    }
    assert!(names_machine("52-54-00-00-00-02", system, &machine.macs()));
    assert_eq!(machine.interfaces.len(), 3, "what names nobody is in the inventory all the same");
}

#[test]
fn slots_without_a_size_are_empty_or_said_to_be_unknown() {
    let dir = white_box();
    let machine = seen(dir.path());
    let slots: Vec<&str> = machine.memory.empty_slots.iter().map(|slot| slot.slot.as_str()).collect();
    assert_eq!(slots, ["DIMM_A2", "DIMM_B1"]);
    assert_eq!(machine.memory.modules.iter().map(|m| m.size_mb).collect::<Vec<_>>(), [8192]);
    let about = |word: &str| machine.unread.iter().any(|line| line.contains(word));
    assert!(about("DIMM_B2"), "{:?}", machine.unread);
}

#[test]
fn a_disk_without_a_serial_number_is_there_and_is_not_chosen_by_it() {
    let dir = white_box();
    let machine = seen(dir.path());
    let serials: Vec<(&str, &str)> =
        machine.disks.iter().map(|d| (d.name.rsplit('/').next().unwrap_or_default(), d.serial.as_str())).collect();
    assert_eq!(serials, [("sda", ""), ("sdb", "0000000000"), ("sdc", "")]);
    assert!(machine.disks.iter().all(|disk| !is_real_identifier(&disk.serial)));
    assert_eq!(machine.disks[2].size.0, 0, "unknown, and so never the one that is taken");
    let hints: RootDeviceHints = serde_json::from_str(r#"{"serial": "S3Z9NB12"}"#).expect("good");
    assert!(hints.resolve(&machine.disks).is_err());
}
