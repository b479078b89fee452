//! The whole inventory of machines that no laboratory has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use speediso_model::inventory::Inventory;
use speediso_sys::disks::DiskScope;
use speediso_sys::roots::Roots;
use speediso_tasks::{Look, look};

fn look_at(root: &Path) -> Inventory {
    look(&Look {
        roots: Roots::under(root),
        scope: DiskScope::default(),
        probe: None,
        boot_mac: None,
        build: Default::default(),
    })
}

/// Reads by this thread so far.
fn reads() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").expect("the kernel counts reads (CONFIG_TASK_IO_ACCOUNTING)");
    let line = text.lines().find_map(|line| line.strip_prefix("syscr: ")).expect("a count");
    line.trim().parse().expect("a number")
}

/// Disks and network cards, each behind a PCI function of its own. Every seventh serial number is no text.
fn hall(n_disks: usize, n_nics: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path();
    let write = |path: &Path, content: &[u8]| {
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, content).expect("written");
    };
    let function = |n: usize, class: &str| {
        let address = format!("{:04x}:{:02x}:{:02x}.{}", n >> 16, n >> 8 & 255, n >> 3 & 31, n & 7);
        let path = root.join("sys/devices/pci0000:00").join(&address);
        for (file, content) in [("vendor", "0x8086\n"), ("device", "0x1572\n"), ("class", class)] {
            write(&path.join(file), content.as_bytes());
        }
        fs::create_dir_all(root.join("sys/bus/pci/devices")).expect("made");
        symlink(&path, root.join("sys/bus/pci/devices").join(address)).expect("linked");
        path
    };
    for n in 0..n_disks {
        let name = format!("nvme{n}n1");
        let controller = function(n, "0x010802\n").join(format!("nvme/nvme{n}"));
        let disk = controller.join(&name);
        write(&disk.join("size"), b"2097152\n");
        write(&disk.join("queue/logical_block_size"), b"512\n");
        let serial = if n % 7 == 0 { b"S\xff\xfe\x1b[2J\n".to_vec() } else { format!("S{n}\n").into_bytes() };
        write(&controller.join("serial"), &serial);
        write(&controller.join("model"), b"Example\n");
        symlink(&controller, disk.join("device")).expect("linked");
        fs::create_dir_all(root.join("sys/block")).expect("made");
        symlink(&disk, root.join("sys/block").join(name)).expect("linked");
    }
    for n in 0..n_nics {
        let device = function(n_disks + n, "0x020000\n");
        let nic = device.join(format!("net/eth{n}"));
        write(&nic.join("type"), b"1\n");
        write(&nic.join("address"), format!("52:54:00:00:{:02x}:{:02x}\n", n >> 8, n & 255).as_bytes());
        symlink(&device, nic.join("device")).expect("linked");
        fs::create_dir_all(root.join("sys/class/net")).expect("made");
        symlink(&nic, root.join("sys/class/net").join(format!("eth{n}"))).expect("linked");
    }
    for file in ["self/mountinfo", "swaps", "cmdline"] {
        write(&root.join("proc").join(file), b"");
    }
    dir
}

#[test]
fn five_hundred_disks_and_a_hundred_cards_take_twice_the_reads_of_half_of_them() {
    let count = |n_disks: usize, n_nics: usize| {
        let dir = hall(n_disks, n_nics);
        let before = reads();
        let inventory = look_at(dir.path());
        let took = reads() - before;
        assert_eq!((inventory.disks.len(), inventory.interfaces.len()), (n_disks, n_nics));
        assert_eq!(inventory.pci_devices.len(), n_disks + n_nics);
        let text = serde_json::to_string(&inventory).expect("JSON");
        assert!(!text.contains("\\u00"), "a control character is in the inventory");
        took
    };
    let (half, whole) = (count(250, 50), count(500, 100));
    println!("{half} reads, then {whole}");
    assert!(whole <= 2 * half, "{half} reads for half of the machine, {whole} for the whole");
}

#[test]
fn nothing_at_all_is_a_machine_with_gaps() {
    let dir = tempfile::tempdir().expect("a directory");
    let inventory = look_at(dir.path());
    assert_eq!(inventory.boot.current_boot_mode, "bios");
    for part in ["SMBIOS", "processors", "memory", "disks", "network interfaces", "command line"] {
        assert!(inventory.unread.iter().any(|line| line.contains(part)), "{part} is not among {:?}", inventory.unread);
    }
}
