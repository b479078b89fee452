//! How fast disks and network cards are attached, from sysfs.

use std::path::Path;

use speediso_model::inventory::link::{Link, LinkKind, mtps};

use crate::roots::{Roots, read_line, read_number};

/// Of a PCI function by its directory; `None` for one that has no such link, a virtual one for instance.
pub(crate) fn of_pci(function: &Path) -> Option<Link> {
    let speed = |file: &str| read_line(&function.join(file)).and_then(|text| mtps(&text));
    // A width of 0 is a link that is down, or none at all.
    let width = |file: &str| {
        read_number(&function.join(file)).and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=32).contains(n))
    };
    let link = Link {
        kind: LinkKind::Pcie,
        speed_mtps: speed("current_link_speed"),
        max_speed_mtps: speed("max_link_speed"),
        width: width("current_link_width"),
        max_width: width("max_link_width"),
    };
    (link.speed_mtps.is_some() || link.width.is_some()).then_some(link)
}

/// Of a disk by its name in `/sys/block`.
pub(crate) fn of_disk(roots: &Roots, name: &str) -> Option<Link> {
    let device = std::fs::canonicalize(roots.sys.join("block").join(name).join("device")).ok()?;
    let component = |prefix: &str| {
        device.ancestors().find(|dir| {
            let last = dir.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(prefix));
            last.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    if name.starts_with("nvme") {
        // Several controllers of one subsystem have several links.
        return of_pci(component("nvme")?.parent()?.parent()?);
    }
    if let Some(port) = component("ata") {
        let number = port.file_name()?.to_str()?.strip_prefix("ata")?;
        let dir = port.join(format!("link{number}/ata_link/link{number}"));
        let speed_mtps = read_line(&dir.join("sata_spd")).and_then(|text| mtps(&text))?;
        return Some(Link { kind: LinkKind::Sata, speed_mtps: Some(speed_mtps), ..Link::default() });
    }
    // A port has as many phys as it has lanes.
    let port = component("port-")?;
    let mut link = Link { kind: LinkKind::Sas, ..Link::default() };
    let mut lanes = 0;
    for entry in std::fs::read_dir(port).ok()?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| n.starts_with("phy-")) else { continue };
        let dir = entry.path().join("sas_phy").join(name);
        let rate = |file: &str| read_line(&dir.join(file)).and_then(|text| mtps(&text));
        link.speed_mtps = rate("negotiated_linkrate").or(link.speed_mtps);
        link.max_speed_mtps = rate("maximum_linkrate").or(link.max_speed_mtps);
        lanes += 1;
    }
    link.width = (lanes > 0).then_some(lanes);
    link.speed_mtps.is_some().then_some(link)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn disk(dir: &Path, name: &str, device: &str, files: &[(&str, &str)]) {
        for (file, content) in files {
            let path = dir.join("sys/devices").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let device = dir.join("sys/devices").join(device);
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(dir.join("sys/block").join(name)).unwrap();
        symlink(device, dir.join("sys/block").join(name).join("device")).unwrap();
    }

    #[test]
    fn each_kind_of_bus_tells_its_speed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |file: &str| format!("pci0000:00/0000:01:00.0/{file}");
        disk(
            dir.path(),
            "nvme0n1",
            &at("nvme/nvme0"),
            &[
                (&at("current_link_speed"), "8.0 GT/s PCIe\n"),
                (&at("max_link_speed"), "16.0 GT/s PCIe\n"),
                (&at("current_link_width"), "2\n"),
                (&at("max_link_width"), "4\n"),
            ],
        );
        let sata = "pci0000:00/0000:00:1f.2/ata3";
        disk(
            dir.path(),
            "sda",
            &format!("{sata}/host2/target2:0:0/2:0:0:0"),
            &[(&format!("{sata}/link3/ata_link/link3/sata_spd"), "3.0 Gbps\n")],
        );
        let port = "pci0000:00/0000:3b:00.0/host0/port-0:1";
        disk(
            dir.path(),
            "sdb",
            &format!("{port}/end_device-0:1/target0:0:1/0:0:1:0"),
            &[
                (&format!("{port}/phy-0:1/sas_phy/phy-0:1/negotiated_linkrate"), "12.0 Gbit\n"),
                (&format!("{port}/phy-0:1/sas_phy/phy-0:1/maximum_linkrate"), "12.0 Gbit\n"),
            ],
        );
        disk(dir.path(), "vda", "pci0000:00/0000:00:03.0/virtio1", &[]);
        let roots = Roots::under(dir.path());
        let words = |name: &str| of_disk(&roots, name).map(|l| l.to_string());
        assert_eq!(words("nvme0n1").as_deref(), Some("PCIe 8.0 GT/s x2 (of 16.0 GT/s x4)"));
        assert_eq!(words("sda").as_deref(), Some("SATA 3.0 Gbit/s"));
        assert_eq!(words("sdb").as_deref(), Some("SAS 12.0 Gbit/s x1"));
        assert_eq!((words("vda"), words("sdz")), (None, None));
    }
}
