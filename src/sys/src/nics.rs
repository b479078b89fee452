//! Network interfaces, from sysfs, and their addresses.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::ifaddrs::getifaddrs;
use speediso_model::inventory::{Interface, canonical_mac};

use crate::roots::{Roots, read_line, read_number};
use crate::{disk_link, sysfs};

/// Ethernet, and InfiniBand, as `<linux/if_arp.h>` numbers them.
const ARPHRD_ETHER: u64 = 1;
const ARPHRD_INFINIBAND: u64 = 32;

/// The interfaces that stand for hardware, ordered by name. Bridges, VLANs, tunnels and the loopback have no device
/// behind them and are left out.
///
/// # Errors
/// When `/sys/class/net` cannot be listed. A single property that cannot be read is left empty: most cannot be asked
/// while the interface is down.
pub fn read(roots: &Roots) -> io::Result<Vec<Interface>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(roots.sys.join("class/net"))? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.path()));
        }
    }
    names.sort();
    Ok(names.iter().filter_map(|(name, path)| interface(roots, name, path)).collect())
}

fn interface(roots: &Roots, name: &str, path: &Path) -> Option<Interface> {
    let device = fs::canonicalize(path.join("device")).ok()?;
    let kind = read_number(&path.join("type"))?;
    if kind != ARPHRD_ETHER && kind != ARPHRD_INFINIBAND {
        return None;
    }
    let address = read_line(&path.join("address"))?;
    let pci = pci_directory(&device);
    let pci_id = |file: &str| pci.as_ref().and_then(|dir| read_line(&dir.join(file)));
    let count = |file: &str| read_number(&device.join(file)).and_then(|n| u32::try_from(n).ok());
    let label = read_line(&device.join("label")).filter(|label| !label.is_empty());
    let pci_address = pci.as_ref().and_then(|dir| Some(dir.file_name()?.to_str()?.to_owned()));
    let slot = pci_address.as_deref().and_then(|address| slot(roots, address));
    Some(Interface {
        name: name.to_owned(),
        // Infiniband's twenty bytes stay as they are.
        mac_address: canonical_mac(&address).unwrap_or_else(|| address.clone()),
        ipv4_address: None,
        ipv6_address: None,
        has_carrier: read_line(&path.join("carrier")).as_deref() == Some("1"),
        up: read_line(&path.join("flags")).is_some_and(|flags| is_up(&flags)),
        // -1 and 4294967295 both mean unknown, depending on the driver.
        speed_mbps: read_line(&path.join("speed")).and_then(|s| s.parse().ok()).filter(|s| (1..u32::MAX).contains(s)),
        mtu: read_number(&path.join("mtu")).and_then(|m| u32::try_from(m).ok()),
        vendor: pci_id("vendor"),
        product: pci_id("device"),
        pci_address,
        driver: fs::read_link(path.join("device/driver")).ok().and_then(|d| Some(d.file_name()?.to_str()?.to_owned())),
        // -1 on a machine without nodes.
        numa_node: pci_id("numa_node").and_then(|n| n.parse().ok()),
        link: pci.as_deref().and_then(disk_link::of_pci),
        sriov_total_vfs: count("sriov_totalvfs"),
        sriov_vfs: count("sriov_numvfs"),
        master: link_name(&path.join("master")),
        client_id: if kind == ARPHRD_INFINIBAND { port_guid(&address) } else { None },
        biosdevname: biosdevname(&device, path, label.as_deref(), slot),
        label,
        ..Interface::default()
    })
}

fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

/// The last eight of an InfiniBand address's twenty bytes.
fn port_guid(address: &str) -> Option<String> {
    let bytes: Vec<&str> = address.split(':').collect();
    (bytes.len() == 20).then(|| bytes[12..].join(":"))
}

/// What biosdevname would say: `em1` for the first one on the board, by the number that the firmware gives it; `p3p1` for
/// port 1 in slot 3. Absent if the firmware says neither.
fn biosdevname(device: &Path, interface: &Path, label: Option<&str>, slot: Option<u32>) -> Option<String> {
    // ACPI's, else that of SMBIOS type 41: the kernel shows either as `index` beside a label.
    let index = read_number(&device.join("index")).filter(|n| (1..=999).contains(n));
    if let (Some(index), Some(_)) = (index, label) {
        return Some(format!("em{index}"));
    }
    let slot = slot?;
    let port = read_number(&interface.join("dev_port")).unwrap_or(0) + 1;
    Some(format!("p{slot}p{port}"))
}

/// The number of the slot that a PCI device is in; a slot's address has no function.
fn slot(roots: &Roots, pci_address: &str) -> Option<u32> {
    let (device, _function) = pci_address.rsplit_once('.')?;
    let slots = fs::read_dir(roots.sys.join("bus/pci/slots")).ok()?;
    slots.flatten().find_map(|entry| {
        let here = read_line(&entry.path().join("address")).is_some_and(|address| address == device);
        entry.file_name().to_str()?.parse().ok().filter(|_| here)
    })
}

/// VLANs that stand on interfaces of hardware, by the names of those.
///
/// # Errors
/// Never for a kernel without VLANs; else what `/proc/net/vlan/config` says when it is read.
pub fn add_vlans(roots: &Roots, interfaces: &mut [Interface]) -> io::Result<()> {
    let text = match sysfs::whole(&roots.proc.join("net/vlan/config")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    // `eth0.7 | 7 | eth0`, below two lines of headings.
    for line in text.lines() {
        let mut columns = line.split('|').map(str::trim).skip(1);
        let (Some(id), Some(lower)) = (columns.next().and_then(|n| n.parse().ok()), columns.next()) else { continue };
        if let Some(interface) = interfaces.iter_mut().find(|i| i.name == lower) {
            interface.vlans.push(id);
        }
    }
    Ok(())
}

/// IFF_UP of `linux/if.h`, in hex.
fn is_up(flags: &str) -> bool {
    u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 != 0)
}

/// The PCI function a device belongs to: itself, or (virtio, USB) the nearest above it.
fn pci_directory(device: &Path) -> Option<PathBuf> {
    device
        .ancestors()
        .find(|dir| {
            dir.components()
                .next_back()
                .is_some_and(|last| matches!(last, Component::Normal(n) if n.to_str().is_some_and(is_pci_address)))
        })
        .map(Path::to_path_buf)
}

/// `0000:03:00.1`
fn is_pci_address(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() == 12
        && bytes.iter().enumerate().all(|(i, b)| match i {
            4 | 7 => *b == b':',
            10 => *b == b'.',
            _ => b.is_ascii_hexdigit(),
        })
}

/// Fills in the addresses the running kernel has given to the interfaces: the first IPv4 address of each, and the
/// first IPv6 address that is more than link-local, else that one.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn add_addresses(interfaces: &mut [Interface]) -> io::Result<()> {
    for found in getifaddrs()? {
        let Some(interface) = interfaces.iter_mut().find(|i| i.name == found.interface_name) else { continue };
        let Some(address) = found.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            interface.ipv4_address.get_or_insert_with(|| v4.ip().to_string());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            let ip = v6.ip();
            let better = interface.ipv6_address.as_deref().is_none_or(|old| old.starts_with("fe80"));
            if better {
                interface.ipv6_address = Some(ip.to_string());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use super::*;

    /// A captured machine: a virtio NIC behind PCI, an onboard NIC that is down, a bridge, the loopback.
    fn machine() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("sys/class/net");
        fs::create_dir_all(&net).unwrap();
        let nic = |name: &str, device: &str, files: &[(&str, &str)]| {
            let device = dir.path().join("sys/devices").join(device);
            let own = device.join("net").join(name);
            fs::create_dir_all(&own).unwrap();
            symlink(&device, own.join("device")).unwrap();
            for (file, content) in files {
                fs::write(own.join(file), content).unwrap();
            }
            symlink(&own, net.join(name)).unwrap();
            device
        };
        let up = [
            ("type", "1\n"),
            ("address", "52:54:00:AB:CD:EF\n"),
            ("carrier", "1\n"),
            ("speed", "-1\n"),
            ("mtu", "1500\n"),
            ("flags", "0x1003\n"),
        ];
        let virtio = nic("enp1s0", "pci0000:00/0000:01:00.0/virtio0", &up);
        fs::write(virtio.join("vendor"), "0x1af4\n").unwrap();
        fs::write(virtio.join("device"), "0x0001\n").unwrap();
        fs::write(virtio.parent().unwrap().join("vendor"), "0x1af4\n").unwrap();
        fs::write(virtio.parent().unwrap().join("device"), "0x1041\n").unwrap();
        fs::create_dir_all(dir.path().join("sys/bus/pci/slots/3")).unwrap();
        fs::write(dir.path().join("sys/bus/pci/slots/3/address"), "0000:01:00\n").unwrap();
        let down = [("type", "1\n"), ("address", "52:54:00:00:00:01\n"), ("speed", "10000\n"), ("dev_port", "1\n")];
        let onboard = nic("eno1", "pci0000:00/0000:00:1f.6", &down);
        let driver = dir.path().join("sys/bus/pci/drivers/ixgbe");
        fs::create_dir_all(&driver).unwrap();
        symlink(&driver, onboard.join("driver")).unwrap();
        for (file, content) in [
            ("numa_node", "1\n"),
            ("sriov_totalvfs", "63\n"),
            ("sriov_numvfs", "0\n"),
            ("label", "Embedded NIC 2\n"),
            ("index", "2\n"),
            ("current_link_speed", "8.0 GT/s PCIe\n"),
            ("max_link_speed", "8.0 GT/s PCIe\n"),
            ("current_link_width", "4\n"),
            ("max_link_width", "8\n"),
        ] {
            fs::write(onboard.join(file), content).unwrap();
        }
        symlink(dir.path().join("sys/class/net/br0"), onboard.join("net/eno1/master")).unwrap();
        let guid = "80:00:02:08:fe:80:00:00:00:00:00:00:24:8a:07:03:00:a4:4d:0c\n";
        nic("ib0", "pci0000:00/0000:81:00.0", &[("type", "32\n"), ("address", guid)]);
        fs::create_dir_all(dir.path().join("proc/net/vlan")).unwrap();
        let vlans = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\nenp1s0.7       | 7  | enp1s0\nbr0.9 | 9 | br0\n";
        fs::write(dir.path().join("proc/net/vlan/config"), vlans).unwrap();
        for (name, kind) in [("br0", "1\n"), ("lo", "772\n")] {
            fs::create_dir_all(net.join(name)).unwrap();
            fs::write(net.join(name).join("type"), kind).unwrap();
            fs::write(net.join(name).join("address"), "00:00:00:00:00:00\n").unwrap();
        }
        dir
    }

    #[test]
    fn hardware_is_listed_with_its_pci_function() {
        let dir = machine();
        let nics = read(&Roots::under(dir.path())).unwrap();
        assert_eq!(nics.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["eno1", "enp1s0", "ib0"]);
        assert_eq!(nics[0].driver.as_deref(), Some("ixgbe"));
        assert_eq!(nics[0].speed_mbps, Some(10_000));
        assert!(!nics[0].has_carrier && !nics[0].up && nics[1].up);
        let virtio = &nics[1];
        assert_eq!(virtio.mac_address, "52:54:00:ab:cd:ef");
        assert_eq!(virtio.pci_address.as_deref(), Some("0000:01:00.0"));
        // The PCI identity, not the virtio bus's own numbers.
        assert_eq!((virtio.vendor.as_deref(), virtio.product.as_deref()), (Some("0x1af4"), Some("0x1041")));
        assert_eq!((virtio.speed_mbps, virtio.mtu, virtio.has_carrier), (None, Some(1500), true));
    }

    #[test]
    fn what_sysfs_knows_beside_is_taken_along() {
        let dir = machine();
        let roots = Roots::under(dir.path());
        let mut nics = read(&roots).unwrap();
        add_vlans(&roots, &mut nics).unwrap();
        let [onboard, virtio, infiniband] = nics.as_slice() else { panic!("three") };
        assert_eq!((onboard.numa_node, onboard.sriov_total_vfs, onboard.sriov_vfs), (Some(1), Some(63), Some(0)));
        assert_eq!((onboard.biosdevname.as_deref(), onboard.label.as_deref()), (Some("em2"), Some("Embedded NIC 2")));
        assert_eq!(onboard.link.unwrap().to_string(), "PCIe 8.0 GT/s x4 (of x8)");
        assert_eq!(onboard.master.as_deref(), Some("br0"));
        // In slot 3, the first port.
        assert_eq!((virtio.biosdevname.as_deref(), virtio.label.as_deref(), virtio.link), (Some("p3p1"), None, None));
        assert_eq!(virtio.vlans, [7]);
        assert_eq!(infiniband.client_id.as_deref(), Some("24:8a:07:03:00:a4:4d:0c"));
        assert_eq!(infiniband.mac_address.len(), 59);
    }

    #[test]
    fn a_hundred_interfaces_and_one_that_is_no_text() {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = tempfile::tempdir().unwrap();
        let net = dir.path().join("sys/class/net");
        fs::create_dir_all(&net).unwrap();
        for n in 0..100 {
            let device = dir.path().join(format!("sys/devices/pci0000:00/0000:{n:02x}:00.0"));
            let own = device.join(format!("net/eth{n}"));
            fs::create_dir_all(&own).unwrap();
            symlink(&device, own.join("device")).unwrap();
            fs::write(own.join("type"), "1\n").unwrap();
            fs::write(own.join("address"), format!("52:54:00:00:00:{n:02x}\n")).unwrap();
            fs::write(device.join("label"), b"\xff\xfeNIC").unwrap();
            symlink(&own, net.join(format!("eth{n}"))).unwrap();
        }
        // Gone between listing and reading.
        symlink(dir.path().join("nowhere"), net.join("gone0")).unwrap();
        fs::create_dir(net.join(std::ffi::OsStr::from_bytes(b"\xff\xfe"))).unwrap();
        let nics = read(&Roots::under(dir.path())).unwrap();
        assert_eq!(nics.len(), 100);
        assert!(nics.iter().all(|n| n.label.is_none() && n.pci_address.is_some()));
    }

    #[test]
    fn a_machine_without_sysfs_is_an_error_not_a_machine_without_nics() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&Roots::under(dir.path())).is_err());
    }

    #[test]
    fn addresses_come_from_the_running_kernel() {
        let mut interfaces = vec![Interface { name: "lo".into(), ..Interface::default() }];
        add_addresses(&mut interfaces).unwrap();
        assert_eq!(interfaces[0].ipv4_address.as_deref(), Some("127.0.0.1"));
    }
}
