//! Network interfaces, from sysfs, and their addresses.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use nix::ifaddrs::getifaddrs;
use speediso_model::inventory::{Interface, canonical_mac};

use crate::roots::{Roots, read_line, read_number};

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
    Ok(names.iter().filter_map(|(name, path)| interface(name, path)).collect())
}

fn interface(name: &str, path: &Path) -> Option<Interface> {
    let device = fs::canonicalize(path.join("device")).ok()?;
    let kind = read_number(&path.join("type"))?;
    if kind != ARPHRD_ETHER && kind != ARPHRD_INFINIBAND {
        return None;
    }
    let mac = read_line(&path.join("address"))?;
    let pci = pci_directory(&device);
    let pci_id = |file: &str| pci.as_ref().and_then(|dir| read_line(&dir.join(file)));
    Some(Interface {
        name: name.to_owned(),
        // Infiniband's twenty bytes stay as they are.
        mac_address: canonical_mac(&mac).unwrap_or(mac),
        ipv4_address: None,
        ipv6_address: None,
        has_carrier: read_line(&path.join("carrier")).as_deref() == Some("1"),
        // -1 and 4294967295 both mean unknown, depending on the driver.
        speed_mbps: read_line(&path.join("speed")).and_then(|s| s.parse().ok()).filter(|s| (1..u32::MAX).contains(s)),
        mtu: read_number(&path.join("mtu")).and_then(|m| u32::try_from(m).ok()),
        vendor: pci_id("vendor"),
        product: pci_id("device"),
        pci_address: pci.as_ref().and_then(|dir| Some(dir.file_name()?.to_str()?.to_owned())),
        driver: fs::read_link(path.join("device/driver")).ok().and_then(|d| Some(d.file_name()?.to_str()?.to_owned())),
        boot: false,
    })
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
        ];
        let virtio = nic("enp1s0", "pci0000:00/0000:01:00.0/virtio0", &up);
        fs::write(virtio.join("vendor"), "0x1af4\n").unwrap();
        fs::write(virtio.join("device"), "0x0001\n").unwrap();
        fs::write(virtio.parent().unwrap().join("vendor"), "0x1af4\n").unwrap();
        fs::write(virtio.parent().unwrap().join("device"), "0x1041\n").unwrap();
        let down = [("type", "1\n"), ("address", "52:54:00:00:00:01\n"), ("speed", "10000\n")];
        let onboard = nic("eno1", "pci0000:00/0000:00:1f.6", &down);
        let driver = dir.path().join("sys/bus/pci/drivers/ixgbe");
        fs::create_dir_all(&driver).unwrap();
        symlink(&driver, onboard.join("driver")).unwrap();
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
        assert_eq!(nics.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["eno1", "enp1s0"]);
        assert_eq!(nics[0].driver.as_deref(), Some("ixgbe"));
        assert_eq!(nics[0].speed_mbps, Some(10_000));
        assert!(!nics[0].has_carrier);
        let virtio = &nics[1];
        assert_eq!(virtio.mac_address, "52:54:00:ab:cd:ef");
        assert_eq!(virtio.pci_address.as_deref(), Some("0000:01:00.0"));
        // The PCI identity, not the virtio bus's own numbers.
        assert_eq!((virtio.vendor.as_deref(), virtio.product.as_deref()), (Some("0x1af4"), Some("0x1041")));
        assert_eq!((virtio.speed_mbps, virtio.mtu, virtio.has_carrier), (None, Some(1500), true));
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
