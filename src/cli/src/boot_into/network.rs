//! The way by which this machine reaches others now, in the words of the ramdisk's command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use speediso_model::inventory::canonical_mac;
use speediso_sys::roots::{Roots, read_line};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Uplink {
    pub(super) mac: String,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
    /// Set by hand: it has no end. One from DHCP has.
    is_fixed: bool,
    host: String,
    name_servers: Vec<Ipv4Addr>,
}

impl Uplink {
    /// Its names change from kernel to kernel, so the interface is named by its address.
    pub(super) fn words(&self, dhcp: bool) -> Vec<String> {
        let Self { mac, address, prefix, gateway, host, name_servers, .. } = self;
        let ip = if dhcp || !self.is_fixed {
            "ip=dhcp".to_owned()
        } else {
            let mut ip = format!("ip={address}::{gateway}:{prefix}:{host}::none");
            for server in name_servers.iter().take(2) {
                ip.push_str(&format!(":{server}"));
            }
            ip
        };
        vec![format!("BOOTIF=01-{}", mac.replace(':', "-")), ip]
    }
}

/// The interface of the default route.
///
/// # Errors
/// When there is none, or it is not a plain network card.
pub(super) async fn uplink(roots: &Roots) -> Result<Uplink> {
    const ASK: &str = "asking the kernel for addresses and routes";
    let (connection, handle, _) = rtnetlink::new_connection().context(ASK)?;
    tokio::spawn(connection);
    let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<RouteMessage> = handle.route().get(filter).execute().try_collect().await.context(ASK)?;
    let (index, gateway) = default_route(&routes).context(
        "this machine has no IPv4 default route to go by: give the whole address with --network given --cmdline \"ip=...\"",
    )?;
    let addresses: Vec<AddressMessage> =
        handle.address().get().set_link_index_filter(index).execute().try_collect().await.context(ASK)?;
    let (address, prefix, is_fixed) =
        addresses.iter().find_map(own_address).context("the default route's interface has no IPv4 address")?;
    let name = name_of(roots, index)?;
    let dir = roots.sys.join("class/net").join(&name);
    if !dir.join("device").exists() {
        bail!(
            "the default route goes over {name}, which is no network card itself (a bond, VLAN or bridge): say what the \
             ramdisk is to make of it with --network given --cmdline \"speediso.bond=... speediso.vlan=... ip=...\""
        );
    }
    let mac = read_line(&dir.join("address")).and_then(|text| canonical_mac(&text));
    let mac = mac.with_context(|| format!("{name} has no Ethernet address"))?;
    let host = read_line(&roots.proc.join("sys/kernel/hostname")).unwrap_or_default();
    Ok(Uplink { mac, address, prefix, gateway, is_fixed, host: label(&host), name_servers: name_servers() })
}

/// Interface and router of the one that is preferred.
fn default_route(routes: &[RouteMessage]) -> Option<(u32, Ipv4Addr)> {
    let defaults = routes.iter().filter(|route| route.header.destination_prefix_length == 0);
    let mut found: Vec<(u32, u32, Ipv4Addr)> = defaults
        .filter_map(|route| {
            let (mut metric, mut index, mut gateway) = (0, None, None);
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Priority(value) => metric = *value,
                    RouteAttribute::Oif(value) => index = Some(*value),
                    RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                    _ => {}
                }
            }
            Some((metric, index?, gateway?))
        })
        .collect();
    found.sort_unstable();
    found.first().map(|(_, index, gateway)| (*index, *gateway))
}

fn own_address(message: &AddressMessage) -> Option<(Ipv4Addr, u8, bool)> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let (mut address, mut flags) = (None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(own)) => address = Some(*own),
            AddressAttribute::Flags(value) => flags = *value,
            _ => {}
        }
    }
    let usable = address.filter(|address| !address.is_link_local() && !flags.contains(AddressFlags::Secondary))?;
    Some((usable, message.header.prefix_len, flags.contains(AddressFlags::Permanent)))
}

fn name_of(roots: &Roots, index: u32) -> Result<String> {
    let wanted = index.to_string();
    for entry in std::fs::read_dir(roots.sys.join("class/net")).context("listing the network interfaces")? {
        let entry = entry?;
        if read_line(&entry.path().join("ifindex")).as_deref() == Some(wanted.as_str()) {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("the interface of the default route is gone")
}

/// The first label of a host name, if it is one.
fn label(host: &str) -> String {
    let first = host.split('.').next().unwrap_or_default();
    let plain = first.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !first.starts_with('-');
    if plain && !first.ends_with('-') && first.len() <= 63 { first.to_owned() } else { String::new() }
}

/// Those that are asked in the end: not the resolver on this machine itself.
fn name_servers() -> Vec<Ipv4Addr> {
    for file in ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"] {
        let text = std::fs::read_to_string(Path::new(file)).unwrap_or_default();
        let found = servers_in(&text);
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn servers_in(text: &str) -> Vec<Ipv4Addr> {
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<Ipv4Addr>().ok());
    servers.filter(|server| !server.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(is_fixed: bool) -> Uplink {
        Uplink {
            mac: "52:54:00:12:00:01".to_owned(),
            address: Ipv4Addr::new(192, 0, 2, 10),
            prefix: 24,
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            is_fixed,
            host: "web1".to_owned(),
            name_servers: servers_in("search x\nnameserver 127.0.0.53\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"),
        }
    }

    #[test]
    fn a_fixed_address_stays_and_a_lent_one_is_asked_for_again() {
        let bootif = "BOOTIF=01-52-54-00-12-00-01";
        let fixed = uplink(true);
        assert_eq!(fixed.words(false), [bootif, "ip=192.0.2.10::192.0.2.1:24:web1::none:192.0.2.2:192.0.2.3"]);
        assert_eq!(fixed.words(true), [bootif, "ip=dhcp"]);
        assert_eq!(uplink(false).words(false), [bootif, "ip=dhcp"]);
    }

    #[test]
    fn host_names_are_made_plain() {
        assert_eq!(label("web1.example.org"), "web1");
        assert_eq!(label("(none)"), "");
        assert_eq!(label("-x"), "");
    }
}
