//! The interfaces as the kernel shows them: link, counters, addresses, ways out.
//!
//! All through rtnetlink, which shows the network namespace we are in; driver, speed and duplex from sysfs, and only
//! where that shows the same interface.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};
use speediso_sys::roots::{Roots, read_line, read_number};

use crate::net::frame::{Mac, mac_text};

/// What is counted on an interface since it exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counters {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) receive_errors: u64,
    pub(super) send_errors: u64,
    pub(super) dropped: u64,
    pub(super) checksum_errors: u64,
    pub(super) carrier_changes: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
    /// IPv6: the kernel saw that somebody else has it.
    pub(super) is_duplicate: bool,
    /// IPv6: the kernel still asks whether somebody has it.
    pub(super) is_tentative: bool,
}

impl Address {
    pub(super) fn is_global(&self) -> bool {
        match self.ip {
            IpAddr::V4(four) => !four.is_link_local() && !four.is_loopback(),
            IpAddr::V6(six) => !six.is_unicast_link_local() && !six.is_loopback(),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Nic {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Mac,
    /// `bond`, `vlan`, `veth`, ...; `None` stands for hardware.
    pub(super) kind: Option<String>,
    /// Something else stands on it and has the addresses: a bond, a bridge, a VLAN.
    pub(super) is_member: bool,
    /// Of a VLAN: what it stands on.
    pub(super) below: Option<u32>,
    pub(super) is_up: bool,
    pub(super) has_carrier: bool,
    pub(super) mtu: u32,
    pub(super) counters: Counters,
    pub(super) addresses: Vec<Address>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) speed_mbps: Option<u64>,
    pub(super) duplex: Option<String>,
    pub(super) driver: Option<String>,
}

impl Nic {
    pub(super) fn mac_text(&self) -> String {
        mac_text(&self.mac)
    }

    pub(super) fn ipv4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().filter(|a| a.is_global()).filter_map(|a| match a.ip {
            IpAddr::V4(four) => Some(four),
            IpAddr::V6(_) => None,
        })
    }

    pub(super) fn is_configured(&self) -> bool {
        self.addresses.iter().any(Address::is_global)
    }
}

/// The interfaces that may lead to a controller, by index. What leads into containers of this machine is left out
/// unless it has a way out.
pub(super) async fn read(handle: &Handle, roots: &Roots) -> Result<Vec<Nic>, rtnetlink::Error> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let addresses: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
    let four = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let six = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    let mut routes: Vec<RouteMessage> = handle.route().get(four).execute().try_collect().await?;
    // A kernel without IPv6 knows no such routes.
    routes.extend(handle.route().get(six).execute().try_collect::<Vec<_>>().await.unwrap_or_default());
    let mut nics: Vec<Nic> = links.iter().filter_map(|link| nic(link, roots)).collect();
    for nic in &mut nics {
        nic.addresses = addresses.iter().filter(|m| m.header.index == nic.index).filter_map(address).collect();
        nic.gateways = routes.iter().filter_map(|route| gateway(route, nic.index)).collect();
        nic.gateways.dedup();
    }
    let carrying: Vec<u32> = nics.iter().filter_map(|nic| nic.below).collect();
    for nic in &mut nics {
        nic.is_member |= carrying.contains(&nic.index) && !nic.is_configured();
    }
    nics.retain(|nic| match nic.kind.as_deref() {
        None | Some("bond" | "vlan") => true,
        Some("veth") => !nic.is_member,
        Some(_) => !nic.gateways.is_empty(),
    });
    nics.sort_by_key(|nic| nic.index);
    Ok(nics)
}

fn nic(link: &LinkMessage, roots: &Roots) -> Option<Nic> {
    let flags = link.header.flags;
    if link.header.link_layer_type != LinkLayerType::Ether || flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let (mut name, mut mac, mut mtu, mut kind, mut is_member, mut below) = (None, None, 0, None, false, None);
    let mut counters = Counters::default();
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::Controller(_) => is_member = true,
            // Of a veth pair it is the other end, in another network.
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::CarrierChanges(count) => counters.carrier_changes = u64::from(*count),
            LinkAttribute::Stats64(stats) => {
                counters.received = stats.rx_packets;
                counters.sent = stats.tx_packets;
                counters.receive_errors = stats.rx_errors;
                counters.send_errors = stats.tx_errors;
                counters.dropped = stats.rx_dropped.saturating_add(stats.tx_dropped);
                counters.checksum_errors = stats.rx_crc_errors;
            }
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind_name(kind)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let (name, mac) = (name?, mac?);
    let directory = roots.sys.join("class/net").join(&name);
    let is_same = read_number(&directory.join("ifindex")) == Some(u64::from(link.header.index))
        && read_line(&directory.join("address")) == Some(mac_text(&mac));
    let shown = |path: &Path| is_same.then(|| read_line(path)).flatten();
    Some(Nic {
        index: link.header.index,
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        // -1 and 4294967295 both mean unknown, depending on the driver.
        speed_mbps: shown(&directory.join("speed")).and_then(|s| s.parse().ok()).filter(|s| *s < u64::from(u32::MAX)),
        duplex: shown(&directory.join("duplex")).filter(|text| text != "unknown"),
        driver: is_same
            .then(|| std::fs::read_link(directory.join("device/driver")).ok())
            .flatten()
            .and_then(|path| Some(path.file_name()?.to_str()?.to_owned())),
        name,
        mac,
        below: below.filter(|_| kind.as_deref() == Some("vlan")),
        kind,
        is_member,
        mtu,
        counters,
        addresses: Vec::new(),
        gateways: Vec::new(),
    })
}

fn kind_name(kind: &InfoKind) -> String {
    match kind {
        InfoKind::Bond => "bond".to_owned(),
        InfoKind::Vlan => "vlan".to_owned(),
        InfoKind::Veth => "veth".to_owned(),
        InfoKind::Bridge => "bridge".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn address(message: &AddressMessage) -> Option<Address> {
    let mut flags = AddressFlags::empty();
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            // Of a point-to-point link the address is the other end's.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    Some(Address {
        ip: local.or(address)?,
        prefix: message.header.prefix_len,
        is_duplicate: flags.contains(AddressFlags::Dadfailed),
        is_tentative: flags.contains(AddressFlags::Tentative),
    })
}

fn gateway(route: &RouteMessage, index: u32) -> Option<IpAddr> {
    if route.header.destination_prefix_length != 0 || !route.attributes.contains(&RouteAttribute::Oif(index)) {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(four)) => Some(IpAddr::V4(*four)),
        RouteAttribute::Gateway(RouteAddress::Inet6(six)) => Some(IpAddr::V6(*six)),
        _ => None,
    })
}
