//! One network interface as sysfs has it: what it counts, how fast it is, and its addresses. Virtual ones too, since what
//! a port is tried through may be a VLAN or a bond.

use std::fs;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use speediso_model::inventory::canonical_mac;

use crate::roots::{Roots, read_line, read_number};

/// Counters of `statistics/` that mean damage. All of them only ever grow.
const ERRORS: &[&str] = &[
    "rx_errors",
    "tx_errors",
    "rx_crc_errors",
    "rx_frame_errors",
    "rx_length_errors",
    "rx_over_errors",
    "tx_aborted_errors",
    "tx_carrier_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
    "tx_window_errors",
    "collisions",
];

/// Frames that were whole and not taken.
const DROPS: &[&str] = &["rx_dropped", "tx_dropped", "rx_missed_errors", "rx_fifo_errors"];

/// What an interface has counted since it came up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LinkCounts {
    pub errors: Vec<(&'static str, u64)>,
    pub drops: Vec<(&'static str, u64)>,
    pub carrier_changes: Option<u64>,
}

impl LinkCounts {
    /// What grew since, and by how much.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let grown = |now: &[(&'static str, u64)], was: &[(&'static str, u64)]| {
            let old = |name: &str| was.iter().find(|(n, _)| *n == name).map(|(_, count)| *count);
            now.iter().filter_map(|(name, count)| Some((*name, count.saturating_sub(old(name)?)))).collect()
        };
        Self {
            errors: grown(&self.errors, &before.errors),
            drops: grown(&self.drops, &before.drops),
            carrier_changes: self.carrier_changes.zip(before.carrier_changes).map(|(now, was)| now.saturating_sub(was)),
        }
    }
}

/// # Errors
/// When there is no such interface.
pub fn counts(roots: &Roots, name: &str) -> io::Result<LinkCounts> {
    let directory = roots.sys.join("class/net").join(name);
    fs::metadata(directory.join("statistics"))?;
    let read = |names: &[&'static str]| {
        names
            .iter()
            .filter_map(|counter| Some((*counter, read_number(&directory.join("statistics").join(counter))?)))
            .collect()
    };
    Ok(LinkCounts {
        errors: read(ERRORS),
        drops: read(DROPS),
        carrier_changes: read_number(&directory.join("carrier_changes")),
    })
}

/// Mbit/s; none where the driver does not say.
#[must_use]
pub fn speed_mbps(roots: &Roots, name: &str) -> Option<u32> {
    let text = read_line(&roots.sys.join("class/net").join(name).join("speed"))?;
    // -1 and 4294967295 both mean unknown, depending on the driver.
    text.parse().ok().filter(|speed| (1..u32::MAX).contains(speed))
}

/// The interface with this hardware address: one with hardware behind it before a bridge or VLAN that borrows it.
#[must_use]
pub fn with_mac(roots: &Roots, mac: &str) -> Option<String> {
    let wanted = canonical_mac(mac)?;
    let mut found: Vec<(bool, String)> = fs::read_dir(roots.sys.join("class/net"))
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let own = canonical_mac(&read_line(&entry.path().join("address"))?)?;
            let virtual_one = fs::metadata(entry.path().join("device")).is_err();
            (own == wanted).then_some((virtual_one, entry.file_name().into_string().ok()?))
        })
        .collect();
    found.sort();
    found.into_iter().next().map(|(_, name)| name)
}

/// The interface that has this address in the running kernel.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn with_address(address: IpAddr) -> io::Result<Option<String>> {
    Ok(addresses()?.into_iter().find(|(_, own)| *own == address).map(|(name, _)| name))
}

/// Addresses of an interface that another machine can reach: IPv4 first, link-local ones left out.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn addresses_of(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> =
        addresses()?.into_iter().filter(|(of, address)| of == name && is_reachable(*address)).map(|(_, a)| a).collect();
    found.sort();
    Ok(found)
}

fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let of = |found: nix::ifaddrs::InterfaceAddress| {
        let address = found.address?;
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => return None,
        };
        Some((found.interface_name, ip))
    };
    Ok(getifaddrs()?.filter_map(of).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn roots(dir: &std::path::Path) -> Roots {
        Roots { sys: dir.to_owned(), ..Roots::live() }
    }

    #[test]
    fn only_what_grew_is_told_and_what_is_absent_is_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        let nic = dir.path().join("class/net/eth0");
        fs::create_dir_all(nic.join("statistics")).unwrap();
        let put = |name: &str, value: &str| fs::write(nic.join(name), value).unwrap();
        put("statistics/rx_errors", "7\n");
        put("statistics/rx_dropped", "1\n");
        put("carrier_changes", "2\n");
        put("address", "52:54:00:AA:bb:01\n");
        put("speed", "25000\n");
        let roots = roots(dir.path());
        let before = counts(&roots, "eth0").unwrap();
        put("statistics/rx_errors", "10\n");
        put("statistics/tx_errors", "10\n");
        let grown = counts(&roots, "eth0").unwrap().since(&before);
        assert_eq!(grown.errors, [("rx_errors", 3)], "one that was not read before has no increase");
        assert_eq!((grown.drops, grown.carrier_changes), (vec![("rx_dropped", 0)], Some(0)));
        assert_eq!(speed_mbps(&roots, "eth0"), Some(25_000));
        put("speed", "-1\n");
        assert_eq!(speed_mbps(&roots, "eth0"), None);
        assert_eq!(with_mac(&roots, "52-54-00-aa-bb-01").as_deref(), Some("eth0"));
        assert!(with_mac(&roots, "52:54:00:aa:bb:02").is_none() && counts(&roots, "eth9").is_err());
    }

    #[test]
    fn the_loopback_is_known_by_its_address() {
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(with_address(here).unwrap().as_deref(), Some("lo"));
        assert!(addresses_of("lo").unwrap().contains(&here));
        assert_eq!(with_address("192.0.2.250".parse().unwrap()).unwrap(), None);
    }
}
