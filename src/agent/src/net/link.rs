//! Interfaces, addresses and routes, through rtnetlink.
//!
//! Netlink rather than sysfs: it shows the network namespace we are in, whatever is mounted on `/sys`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use speediso_model::inventory::canonical_mac;
use speediso_model::plan::hex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Tried;
use super::lease::Route;

#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("opening a netlink socket")]
    Connect(#[source] io::Error),
    #[error("asking the kernel about {0}")]
    Ask(&'static str, #[source] Box<rtnetlink::Error>),
    #[error("{doing} on {nic}")]
    Change { doing: String, nic: String, source: Box<rtnetlink::Error> },
}

/// An Ethernet interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Nic {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: String,
    pub(super) hardware: [u8; 6],
    pub(super) is_up: bool,
    pub(super) has_carrier: bool,
    pub(super) mtu: u32,
    /// Made by software, and of which kind; `None` stands for a card, or for a container's.
    pub(super) made_as: Option<InfoKind>,
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.mac)
    }
}

/// A netlink connection, served by a task of its own while this lives.
pub(super) struct Links {
    handle: Handle,
    server: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Links {
    pub(super) fn connect() -> Result<Self, LinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Connect)?;
        Ok(Self { handle, server: tokio::spawn(connection) })
    }

    /// All interfaces that can carry DHCP, by index. What stands on others (bridges, bonds, VLANs) or leads nowhere
    /// (dummies, tunnels) is left out; a veth pair is a container's Ethernet and stays in.
    pub(super) async fn list(&self) -> Result<Vec<Nic>, LinkError> {
        let mut nics = self.all().await?;
        nics.retain(|nic| nic.made_as.is_none());
        Ok(nics)
    }

    /// What is made by software too.
    async fn all(&self) -> Result<Vec<Nic>, LinkError> {
        let asked = |e| LinkError::Ask("interfaces", Box::new(e));
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await.map_err(asked)?;
        let mut nics: Vec<Nic> = links.iter().filter_map(nic).collect();
        nics.sort_by_key(|nic| nic.index);
        Ok(nics)
    }

    pub(super) async fn named(&self, name: &str) -> Result<Option<Nic>, LinkError> {
        Ok(self.all().await?.into_iter().find(|nic| nic.name == name))
    }

    /// Makes an interface.
    pub(super) async fn add(&self, message: LinkMessage, name: &str, doing: &str) -> Result<(), LinkError> {
        let failed = |e| LinkError::Change { doing: doing.to_owned(), nic: name.to_owned(), source: Box::new(e) };
        self.handle.link().add(message).execute().await.map_err(failed)
    }

    pub(super) async fn change(&self, message: LinkMessage, nic: &Nic, doing: &str) -> Result<(), LinkError> {
        self.handle.link().change(message).execute().await.map_err(|e| change(doing, nic, e))
    }

    pub(super) async fn set_up(&self, nic: &Nic) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(nic.index).up().build();
        self.handle.link().change(message).execute().await.map_err(|e| change("setting the interface up", nic, e))
    }

    pub(super) async fn set_mtu(&self, nic: &Nic, mtu: u32) -> Result<(), LinkError> {
        let message = LinkUnspec::new_with_index(nic.index).mtu(mtu).build();
        let doing = format!("setting an MTU of {mtu}");
        self.handle.link().change(message).execute().await.map_err(|e| change(doing, nic, e))
    }

    /// Adds the address, or leaves it if it is there.
    pub(super) async fn add_address(&self, nic: &Nic, address: IpAddr, prefix: u8) -> Result<(), LinkError> {
        let doing = format!("setting the address {address}/{prefix}");
        let request = self.handle.address().add(nic.index, address, prefix).replace();
        request.execute().await.map_err(|e| change(doing, nic, e))
    }

    /// Removes every IPv4 address of the interface but `keep`, and with them their routes.
    pub(super) async fn remove_other_addresses(
        &self,
        nic: &Nic,
        keep: Option<(Ipv4Addr, u8)>,
    ) -> Result<(), LinkError> {
        for message in self.addresses(nic).await? {
            if let Some(found) = ipv4(&message)
                && Some(found) != keep
            {
                let doing = format!("removing the address {}/{}", found.0, found.1);
                self.handle.address().del(message).execute().await.map_err(|e| change(doing, nic, e))?;
            }
        }
        Ok(())
    }

    /// A lower `metric` is preferred; 0 is the kernel's own.
    pub(super) async fn add_route(&self, nic: &Nic, route: &Route, metric: u32) -> Result<(), LinkError> {
        let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.network, route.prefix)
            .output_interface(nic.index);
        if metric > 0 {
            message = message.priority(metric);
        }
        if let Some(router) = route.router {
            // On link: hosters give a router outside of the machine's own /32.
            message = message.gateway(router).onlink();
        } else {
            message = message.scope(rtnetlink::packet_route::route::RouteScope::Link);
        }
        let way = route.router.map_or_else(|| "directly".to_owned(), |r| format!("by {r}"));
        let doing = format!("adding the route to {}/{} {way}", route.network, route.prefix);
        self.handle.route().add(message.build()).replace().execute().await.map_err(|e| change(doing, nic, e))
    }

    /// A default route over a router, IPv6.
    pub(super) async fn add_gateway6(&self, nic: &Nic, router: Ipv6Addr) -> Result<(), LinkError> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
            .output_interface(nic.index)
            .gateway(router);
        let doing = format!("adding the default route by {router}");
        self.handle.route().add(message.build()).replace().execute().await.map_err(|e| change(doing, nic, e))
    }

    /// IPv6 addresses of the interface with their lengths; the flag says that one can be used.
    pub(super) async fn addresses6(&self, nic: &Nic) -> Result<Vec<(Ipv6Addr, u8, bool)>, LinkError> {
        Ok(self.addresses(nic).await?.iter().filter_map(ipv6).collect())
    }

    pub(super) async fn remove_address6(&self, nic: &Nic, address: Ipv6Addr) -> Result<(), LinkError> {
        for message in self.addresses(nic).await? {
            if ipv6(&message).is_some_and(|(found, ..)| found == address) {
                let doing = format!("removing the address {address}");
                self.handle.address().del(message).execute().await.map_err(|e| change(doing, nic, e))?;
            }
        }
        Ok(())
    }

    /// The first IPv4 address that reaches beyond this link.
    pub(super) async fn address_of(&self, nic: &Nic) -> Result<Option<(Ipv4Addr, u8)>, LinkError> {
        Ok(self.addresses(nic).await?.iter().filter_map(ipv4).find(|(address, _)| !address.is_link_local()))
    }

    /// The router of the default route over this interface.
    pub(super) async fn gateway_of(&self, nic: &Nic) -> Result<Option<Ipv4Addr>, LinkError> {
        let asked = |e| LinkError::Ask("routes", Box::new(e));
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self.handle.route().get(filter).execute().try_collect().await.map_err(asked)?;
        Ok(routes.iter().filter(|r| r.header.destination_prefix_length == 0).find_map(|route| {
            let is_here = route.attributes.contains(&RouteAttribute::Oif(nic.index));
            let gateway = route.attributes.iter().find_map(|a| match a {
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
                _ => None,
            });
            gateway.filter(|_| is_here)
        }))
    }

    async fn addresses(&self, nic: &Nic) -> Result<Vec<AddressMessage>, LinkError> {
        let asked = |e| LinkError::Ask("addresses", Box::new(e));
        self.handle.address().get().set_link_index_filter(nic.index).execute().try_collect().await.map_err(asked)
    }
}

/// Sets the interface up and waits for its link; `false` if there is none in time.
pub(super) async fn wait_for_carrier(links: &Links, nic: &Nic, limit: Duration) -> Result<bool, Tried> {
    const POLL: Duration = Duration::from_millis(100);
    if !nic.is_up {
        links.set_up(nic).await.map_err(|e| Tried::kernel(nic, &e))?;
    }
    let begun = Instant::now();
    loop {
        let nics = links.all().await.map_err(|e| Tried::kernel(nic, &e))?;
        match nics.iter().find(|n| n.index == nic.index) {
            Some(now) if now.has_carrier => return Ok(true),
            Some(_) => {}
            None => return Err(Tried { nic: nic.clone(), had_link: false, what: "the interface vanished".to_owned() }),
        }
        if begun.elapsed() >= limit {
            return Ok(false);
        }
        sleep(POLL).await;
    }
}

fn change(doing: impl Into<String>, nic: &Nic, error: rtnetlink::Error) -> LinkError {
    LinkError::Change { doing: doing.into(), nic: nic.to_string(), source: Box::new(error) }
}

fn nic(link: &LinkMessage) -> Option<Nic> {
    let flags = link.header.flags;
    if link.header.link_layer_type != LinkLayerType::Ether || flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let (mut name, mut hardware, mut mtu, mut made_as) = (None, None, 0, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => hardware = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::LinkInfo(infos) => {
                made_as = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) if *kind != InfoKind::Veth => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let hardware = hardware?;
    Some(Nic {
        index: link.header.index,
        name: name?,
        mac: canonical_mac(&hex(&hardware))?,
        hardware,
        is_up: flags.contains(LinkFlags::Up),
        has_carrier: flags.contains(LinkFlags::LowerUp),
        mtu,
        made_as,
    })
}

fn ipv6(message: &AddressMessage) -> Option<(Ipv6Addr, u8, bool)> {
    let mut flags = AddressFlags::empty();
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(IpAddr::V6(address)) => found = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let is_usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    found.map(|address| (address, message.header.prefix_len, is_usable))
}

fn ipv4(message: &AddressMessage) -> Option<(Ipv4Addr, u8)> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V4(address)) => Some((*address, message.header.prefix_len)),
        _ => None,
    })
}
