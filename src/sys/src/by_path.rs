//! Where a disk is plugged in, under the name that udev gives it below `/dev/disk/by-path/`.
//!
//! The mini ramdisk has no udev, and its names must be those that an operator reads on the installed system. udev
//! composes them while it walks from the device up to the root of sysfs (its `path_id` built-in, compared in the tests),
//! and so does this. Left out are buses that no machine here has: S/390, FireWire, Hyper-V, SPI.

use std::fs;
use std::path::{Path, PathBuf};

use crate::roots::{Roots, read_line, read_number};
use crate::sysfs;

/// The name of a whole disk, without the directory. `None` where udev makes none either: no bus that is known, or none
/// whose numbers mean the same at the next boot.
pub(crate) fn id_path(roots: &Roots, name: &str) -> Option<String> {
    let disk = Node::at(roots, &roots.sys.join("class/block").join(name))
        .or_else(|| Node::at(roots, &roots.sys.join("block").join(name)))?;
    let mut walk = Walk { roots, parts: Vec::new(), has_parent: false, has_transport: false };
    let mut here = Some(disk.clone());
    while let Some(node) = here {
        here = walk.visit(&disk, node).and_then(|node| node.parent());
    }
    if walk.parts.is_empty() || !walk.has_parent || !walk.has_transport {
        return None;
    }
    walk.parts.reverse();
    Some(walk.parts.join("-"))
}

/// A device in sysfs: a directory with a `uevent`.
#[derive(Clone, Debug)]
struct Node {
    path: PathBuf,
    /// Nothing above is a device.
    top: PathBuf,
}

impl Node {
    fn at(roots: &Roots, link: &Path) -> Option<Self> {
        let path = fs::canonicalize(link).ok()?;
        let top = fs::canonicalize(roots.sys.join("devices")).ok()?;
        path.starts_with(&top).then_some(Self { path, top })
    }

    fn in_class(roots: &Roots, class: &str, name: &str) -> Option<Self> {
        Self::at(roots, &roots.sys.join("class").join(class).join(name))
    }

    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn subsystem(&self) -> Option<String> {
        let target = fs::read_link(self.path.join("subsystem")).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    fn is_in(&self, subsystem: &str) -> bool {
        self.subsystem().is_some_and(|name| name == subsystem)
    }

    fn kind(&self) -> Option<String> {
        let uevent = sysfs::lines(&self.path.join("uevent")).ok()?;
        uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=").map(str::to_owned))
    }

    fn parent(&self) -> Option<Self> {
        let above = self.path.ancestors().skip(1).take_while(|path| **path != self.top && path.starts_with(&self.top));
        above
            .into_iter()
            .find(|path| path.join("uevent").exists())
            .map(|path| Self { path: path.into(), ..self.clone() })
    }

    fn parent_that(&self, test: impl Fn(&Self) -> bool) -> Option<Self> {
        std::iter::successors(self.parent(), Self::parent).find(test)
    }

    fn scsi_parent(&self, kind: &str) -> Option<Self> {
        self.parent_that(|node| node.is_in("scsi") && node.kind().as_deref() == Some(kind))
    }

    /// The outermost of the devices of one subsystem that begin with this one: behind bridges and hubs.
    fn outermost(self, subsystem: &str) -> Self {
        let outer = std::iter::successors(Some(self.clone()), Self::parent).take_while(|node| node.is_in(subsystem));
        outer.last().unwrap_or(self)
    }

    fn text(&self, attribute: &str) -> Option<String> {
        read_line(&self.path.join(attribute))
    }
}

struct Walk<'a> {
    roots: &'a Roots,
    /// From the disk to the root.
    parts: Vec<String>,
    /// Something was met whose name means the same at every boot.
    has_parent: bool,
    /// The bus tells its devices apart.
    has_transport: bool,
}

impl Walk<'_> {
    /// Takes what a device adds to the name. Returns from where to go on upwards.
    fn visit(&mut self, disk: &Node, node: Node) -> Option<Node> {
        let Some(subsystem) = node.subsystem() else { return Some(node) };
        let named = |walk: &mut Self, transport: bool| {
            walk.parts.push(format!("{subsystem}-{}", node.name()));
            walk.has_parent = true;
            walk.has_transport |= transport;
        };
        match subsystem.as_str() {
            "scsi" => {
                self.has_transport = true;
                if node.kind().as_deref() != Some("scsi_device") {
                    return Some(node);
                }
                self.scsi(node)
            }
            "usb" => {
                self.has_transport = true;
                if !matches!(node.kind().as_deref(), Some("usb_interface" | "usb_device")) {
                    return Some(node);
                }
                let Some((_, port)) = node.name().split_once('-') else { return Some(node) };
                // The number of the bus depends on which driver was first; the ports behind it do not.
                self.parts.push(format!("usb-0:{port}"));
                Some(node.outermost("usb"))
            }
            "nvme" | "nvme-subsystem" => {
                let Some(namespace) = disk.text("nsid") else { return Some(node) };
                self.parts.push(format!("nvme-{namespace}"));
                (self.has_parent, self.has_transport) = (true, true);
                // With multipath the disk stands below no controller; the first one's number is in its name.
                let controller = if subsystem == "nvme" { node } else { self.nvme_controller(disk)? };
                Some(controller.outermost("nvme"))
            }
            "virtio" => {
                self.has_transport = true;
                Some(node.outermost("virtio"))
            }
            "pci" | "acpi" | "xen" => {
                named(self, false);
                Some(node.outermost(&subsystem))
            }
            "platform" | "amba" => {
                named(self, true);
                Some(node.outermost(&subsystem))
            }
            _ => Some(node),
        }
    }

    fn nvme_controller(&self, disk: &Node) -> Option<Node> {
        let number = disk.name().strip_prefix("nvme")?;
        let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
        let controller = Node::in_class(self.roots, "nvme", &format!("nvme{}", &number[..digits]))?;
        // Over a network there is no place where it is plugged in.
        (!controller.path.starts_with(controller.top.join("virtual"))).then_some(controller)
    }

    fn scsi(&mut self, device: Node) -> Option<Node> {
        let has = |part: &str| device.path.to_string_lossy().contains(part);
        if has("/rport-") {
            self.has_parent = true;
            let part = self.fibre_channel(&device)?;
            self.parts.push(part);
        } else if has("/end_device-") {
            self.has_parent = true;
            let part = self.sas(&device)?;
            self.parts.push(part);
        } else if has("/session") {
            self.has_parent = true;
            let part = self.iscsi(&device)?;
            self.parts.push(part);
        } else if has("/ata") {
            let part = self.ata(&device)?;
            self.parts.push(part);
        } else {
            return self.parallel(&device);
        }
        Some(device)
    }

    fn fibre_channel(&self, device: &Node) -> Option<String> {
        let target = device.scsi_parent("scsi_target")?;
        let port = Node::in_class(self.roots, "fc_transport", target.name())?.text("port_name")?;
        Some(format!("fc-{port}-{}", lun(device)?))
    }

    fn sas(&self, device: &Node) -> Option<String> {
        let end = device.scsi_parent("scsi_target")?.parent()?;
        let end_device = Node::in_class(self.roots, "sas_device", end.name())?;
        let port = end.parent()?;
        let phys = Node::in_class(self.roots, "sas_port", port.name())?.text("num_phys")?;
        let lun = lun(device)?;
        if phys != "1" {
            return Some(format!("sas-{}-{lun}", end_device.text("sas_address")?));
        }
        let phy = end_device.text("phy_identifier")?;
        // Above the port is an expander, or the adaptor itself.
        match Node::in_class(self.roots, "sas_device", port.parent()?.name()) {
            Some(expander) => Some(format!("sas-exp{}-phy{phy}-{lun}", expander.text("sas_address")?)),
            None => Some(format!("sas-phy{phy}-{lun}")),
        }
    }

    fn iscsi(&self, device: &Node) -> Option<String> {
        let session = device.parent_that(|node| node.name().starts_with("session"))?;
        let number = session.name().trim_start_matches(|c: char| !c.is_ascii_digit());
        let target = Node::in_class(self.roots, "iscsi_session", session.name())?.text("targetname")?;
        let connection = Node::in_class(self.roots, "iscsi_connection", &format!("connection{number}:0"))?;
        let (address, port) = (connection.text("persistent_address")?, connection.text("persistent_port")?);
        Some(format!("ip-{address}:{port}-iscsi-{target}-{}", lun(device)?))
    }

    fn ata(&self, device: &Node) -> Option<String> {
        let [_, bus, target, _] = numbers(device.name())?;
        let port = device.scsi_parent("scsi_host")?.parent()?;
        let port = Node::in_class(self.roots, "ata_port", port.name())?.text("port_no")?;
        // Behind a port multiplier each disk has a bus; without one there may be master and slave.
        if bus == 0 { Some(format!("ata-{port}.{target}")) } else { Some(format!("ata-{port}.{bus}.0")) }
    }

    /// The kernel counts hosts over the whole machine; here they count from the first one of the same adaptor.
    fn parallel(&mut self, device: &Node) -> Option<Node> {
        let host = device.scsi_parent("scsi_host")?;
        let [number, bus, target, lun] = numbers(device.name())?;
        let siblings = fs::read_dir(host.path.parent()?).ok()?;
        let first = siblings
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("host")?.parse::<u64>().ok())
            .min();
        if let Some(first) = first {
            self.parts.push(format!("scsi-{}:{bus}:{target}:{lun}", number.saturating_sub(first)));
        }
        Some(host)
    }
}

/// Host, channel, target and logical unit.
fn numbers(name: &str) -> Option<[u64; 4]> {
    let numbers: Vec<u64> = name.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// As SAM-5, 4.7 has it: below 256 by peripheral device addressing, else the number as the kernel packs it.
fn lun(device: &Node) -> Option<String> {
    let [.., lun] = numbers(device.name())?;
    if lun < 256 {
        return Some(format!("lun-{lun}"));
    }
    Some(format!("lun-0x{:04x}{:04x}00000000", lun & 0xffff, (lun >> 16) & 0xffff))
}

/// Whether the kernel made the disk up.
pub(crate) fn is_virtual(roots: &Roots, name: &str) -> bool {
    let path = fs::canonicalize(roots.sys.join("block").join(name)).unwrap_or_default();
    path.components().any(|part| part.as_os_str() == "virtual") && read_number(&path.join("nsid")).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A machine's sysfs, as `fixtures/by_path.sh` writes it down.
    struct Captured {
        dir: tempfile::TempDir,
        /// What udev calls each disk.
        expected: Vec<(String, Option<String>)>,
    }

    impl Captured {
        fn new(text: &str) -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut expected = Vec::new();
            let place = |path: &str| {
                let path = dir.path().join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().expect("below the root")).expect("made");
                path
            };
            for line in text.lines() {
                let mut words = line.splitn(3, ' ');
                let (kind, name, rest) = (
                    words.next().unwrap_or_default(),
                    words.next().unwrap_or_default(),
                    words.next().unwrap_or_default(),
                );
                match kind {
                    "ORACLE" => {
                        let path = rest.split(' ').find_map(|word| word.strip_prefix("ID_PATH="));
                        expected.push((name.to_owned(), path.map(str::to_owned)));
                    }
                    "LINK" => {
                        let link = place(name);
                        if fs::symlink_metadata(&link).is_err() {
                            symlink(dir.path().join(rest.trim_start_matches('/')), link).expect("linked");
                        }
                    }
                    // Twice, when two disks have a parent in common; and without its content from the class.
                    "FILE" if !rest.is_empty() || !place(name).exists() => {
                        fs::write(place(name), format!("{rest}\n")).expect("written");
                    }
                    _ => {}
                }
            }
            Self { dir, expected }
        }

        #[track_caller]
        fn check(&self) {
            let roots = Roots::under(self.dir.path());
            for (disk, expected) in &self.expected {
                assert_eq!(&id_path(&roots, disk), expected, "{disk}");
            }
        }
    }

    /// Of a virtual machine with NVMe (two namespaces; another behind a bridge), AHCI, virtio, virtio-scsi, MegaRAID and
    /// USB (behind a hub too), whose `udevadm test-builtin path_id` was asked at the same moment.
    #[test]
    fn udev_says_the_same() {
        let captured = Captured::new(include_str!("fixtures/by_path.txt"));
        assert_eq!(captured.expected.len(), 11);
        assert!(captured.expected.iter().all(|(_, path)| path.is_some()));
        captured.check();
    }

    /// Buses that could not be emulated: written after the kernel's documentation and udev's source, not captured.
    #[test]
    fn fabrics_and_port_multipliers() {
        Captured::new(include_str!("fixtures/by_path_fabrics.txt")).check();
    }

    #[test]
    fn what_is_plugged_in_nowhere_has_no_path() {
        let text = "ORACLE loop0\nLINK /sys/block/loop0 /sys/devices/virtual/block/loop0\n\
                    FILE /sys/devices/virtual/block/loop0/uevent DEVTYPE=disk\n\
                    LINK /sys/devices/virtual/block/loop0/subsystem /sys/class/block\n\
                    ORACLE mmcblk0\nLINK /sys/block/mmcblk0 /sys/devices/pci0000:00/0000:00:02.0/mmc0/mmcblk0\n\
                    FILE /sys/devices/pci0000:00/0000:00:02.0/uevent\n\
                    LINK /sys/devices/pci0000:00/0000:00:02.0/subsystem /sys/bus/pci\n\
                    FILE /sys/devices/pci0000:00/0000:00:02.0/mmc0/mmcblk0/uevent DEVTYPE=disk\n";
        let captured = Captured::new(text);
        assert_eq!(captured.expected.len(), 2);
        captured.check();
        let roots = Roots::under(captured.dir.path());
        assert!(is_virtual(&roots, "loop0") && !is_virtual(&roots, "mmcblk0"));
    }
}
