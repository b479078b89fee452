//! PCI functions, from sysfs.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use speediso_model::inventory::{Gpu, PciDevice, PcieLink, class_words};
use speediso_model::units::Bytes;

use crate::roots::Roots;
use crate::sysfs;

/// All functions, in the order of their addresses. A kernel without PCI has none.
#[must_use]
pub fn read(roots: &Roots, unread: &mut Vec<String>) -> Vec<PciDevice> {
    let listed = sysfs::entries(&roots.sys.join("bus/pci/devices")).unwrap_or_else(|error| {
        sysfs::gap(unread, "the PCI bus", &error);
        Vec::new()
    });
    let slots = slots(&roots.sys.join("bus/pci/slots"));
    let mut devices: Vec<PciDevice> = listed
        .into_iter()
        .filter_map(|(address, dir)| match read_one(&dir, &address, &slots) {
            Ok(device) => device,
            Err(error) => {
                sysfs::gap(unread, &format!("PCI device {address}"), &error);
                None
            }
        })
        .collect();
    // Hexadecimal digits are not counted as people count.
    devices.sort_by(|a, b| a.bus.cmp(&b.bus));
    devices
}

/// None if it went away while it was read.
fn read_one(dir: &Path, address: &str, slots: &BTreeMap<String, String>) -> io::Result<Option<PciDevice>> {
    let hex =
        |name: &str, digits: usize| Ok::<_, io::Error>(sysfs::text(&dir.join(name))?.and_then(|t| id(&t, digits)));
    let (Some(vendor_id), Some(product_id), Some(class)) = (hex("vendor", 4)?, hex("device", 4)?, hex("class", 6)?)
    else {
        return Ok(None);
    };
    let optional = |name: &str, digits| hex(name, digits).ok().flatten();
    Ok(Some(PciDevice {
        bus: address.to_owned(),
        subsystem_vendor_id: optional("subsystem_vendor", 4).filter(|id| id != "0000"),
        subsystem_id: optional("subsystem_device", 4)
            .filter(|id| id != "0000" || optional("subsystem_vendor", 4).is_some_and(|vendor| vendor != "0000")),
        kind: class_words(&class).to_owned(),
        vendor_id,
        product_id,
        class,
        revision: optional("revision", 2),
        driver: sysfs::link_name(&dir.join("driver")),
        numa_node_id: sysfs::number::<i32>(&dir.join("numa_node")).filter(|node| *node >= 0).map(|n| n.to_string()),
        link: link(dir),
        // A slot has the address without the function.
        slot: address.rsplit_once('.').and_then(|(device, _)| slots.get(device).cloned()),
        iommu_group: sysfs::link_name(&dir.join("iommu_group")).and_then(|group| group.parse().ok()),
        virtual_function: dir.join("physfn").symlink_metadata().is_ok(),
        vendor_name: None,
        product_name: None,
        subsystem_name: None,
    }))
}

/// `0x1af4` -> `1af4`, if it has as many digits as it must.
fn id(text: &str, digits: usize) -> Option<String> {
    let id = text.strip_prefix("0x")?;
    (id.len() == digits && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
}

/// What is known of its PCI Express link; none of a function that has none.
fn link(dir: &Path) -> Option<PcieLink> {
    // `8.0 GT/s PCIe`, `Unknown`
    let speed = |name: &str| sysfs::read(&dir.join(name))?.split_once(" GT/s")?.0.parse().ok();
    // 255 is unknown.
    let lanes = |name: &str| sysfs::number(&dir.join(name)).filter(|lanes: &u32| *lanes != 255);
    let link = PcieLink {
        max_speed: speed("max_link_speed"),
        max_lanes: lanes("max_link_width"),
        speed: speed("current_link_speed"),
        lanes: lanes("current_link_width"),
    };
    // Devices inside a processor claim a link of no lanes.
    let is_there = link.max_speed.is_some() || link.max_lanes.is_some_and(|lanes| lanes > 0);
    is_there.then_some(link)
}

/// Address without function -> name of the slot.
fn slots(dir: &Path) -> BTreeMap<String, String> {
    let listed = sysfs::entries(dir).unwrap_or_default();
    listed.into_iter().filter_map(|(name, path)| Some((sysfs::read(&path.join("address"))?, name))).collect()
}

/// Those of the devices that compute.
#[must_use]
pub fn gpus(roots: &Roots, devices: &[PciDevice]) -> Vec<Gpu> {
    let gpu = |device: &PciDevice| Gpu {
        pci_address: device.bus.clone(),
        vendor_id: device.vendor_id.clone(),
        product_id: device.product_id.clone(),
        name: None,
        driver: device.driver.clone(),
        numa_node_id: device.numa_node_id.clone(),
        memory_window: memory_window(&roots.sys.join("bus/pci/devices").join(&device.bus).join("resource")),
        link: device.link,
    };
    devices.iter().filter(|device| device.is_gpu()).map(gpu).collect()
}

/// Each line is start, end and flags of a window; bit 13 of the flags says prefetchable (`IORESOURCE_PREFETCH`).
fn memory_window(resource: &Path) -> Bytes {
    const PREFETCH: u64 = 0x2000;
    let text = sysfs::lines(resource).unwrap_or_default();
    let size = |line: &str| {
        let mut fields = line.split_whitespace().map(|f| u64::from_str_radix(f.trim_start_matches("0x"), 16));
        let (Some(Ok(start)), Some(Ok(end)), Some(Ok(flags))) = (fields.next(), fields.next(), fields.next()) else {
            return None;
        };
        (flags & PREFETCH != 0 && end > start).then(|| (end - start).saturating_add(1))
    };
    // The first six are the function's own; behind them come its ROM and, of a bridge, what lies below it.
    Bytes(text.lines().take(6).filter_map(size).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn device(sys: &Path, address: &str, files: &[(&str, &str)]) {
        let dir = sys.join("devices/pci0000:00").join(address);
        fs::create_dir_all(&dir).expect("made");
        for (name, content) in files {
            fs::write(dir.join(name), content).expect("written");
        }
        fs::create_dir_all(sys.join("bus/pci/devices")).expect("made");
        symlink(&dir, sys.join("bus/pci/devices").join(address)).expect("linked");
    }

    #[test]
    fn functions_with_links_slots_and_windows() {
        let dir = tempfile::tempdir().expect("a directory");
        let sys = dir.path().join("sys");
        let gpu = [
            ("vendor", "0x10de\n"),
            ("device", "0x2330\n"),
            ("class", "0x030200\n"),
            ("revision", "0xa1\n"),
            ("subsystem_vendor", "0x10de\n"),
            ("subsystem_device", "0x16c1\n"),
            ("numa_node", "1\n"),
            ("current_link_speed", "16.0 GT/s PCIe\n"),
            ("max_link_speed", "32.0 GT/s PCIe\n"),
            ("current_link_width", "8\n"),
            ("max_link_width", "16\n"),
            (
                "resource",
                "0x00000000c0000000 0x00000000c0ffffff 0x0000000000040200\n\
                 0x0000002000000000 0x0000003fffffffff 0x000000000014220c\n",
            ),
        ];
        device(&sys, "0000:3b:00.0", &gpu);
        device(
            &sys,
            "0000:00:1f.0",
            &[
                ("vendor", "0x8086\n"),
                ("device", "0xa1c1\n"),
                ("class", "0x060100\n"),
                ("numa_node", "-1\n"),
                ("max_link_width", "0\n"),
                ("max_link_speed", "Unknown\n"),
            ],
        );
        // It went away: its directory is still listed.
        device(&sys, "0000:5e:00.0", &[]);
        let slot = sys.join("bus/pci/slots/7-1");
        fs::create_dir_all(&slot).expect("made");
        fs::write(slot.join("address"), "0000:3b:00\n").expect("written");
        let roots = Roots::under(dir.path());
        let mut unread = Vec::new();
        let devices = read(&roots, &mut unread);
        assert!(unread.is_empty(), "{unread:?}");
        assert_eq!(devices.iter().map(|d| d.bus.as_str()).collect::<Vec<_>>(), ["0000:00:1f.0", "0000:3b:00.0"]);
        assert_eq!((devices[0].numa_node_id.as_deref(), devices[0].link), (None, None));
        let card = &devices[1];
        assert_eq!((card.slot.as_deref(), card.numa_node_id.as_deref()), (Some("7-1"), Some("1")));
        assert_eq!(card.kind, "3D controller");
        assert!(card.link.is_some_and(|link| link.is_narrow() && link.max_speed == Some(32.0)), "{card:?}");
        let gpus = gpus(&roots, &devices);
        assert_eq!(gpus.iter().map(|g| g.memory_window).collect::<Vec<_>>(), [Bytes::gib(128)]);
    }
}
