//! Putting an address and what belongs to it in force.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use nix::unistd::sethostname;
use speediso_model::fault::Fault;

use super::error;
use super::lease::{Lease, Route};
use super::link::{LinkError, Links, Nic};
use super::resolver::{Family, Names, Resolver};

/// What an interface shall have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    address: Ipv4Addr,
    prefix: u8,
    routes: Vec<Route>,
    pub(super) dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    search: Vec<String>,
    pub(super) hostname: Option<String>,
    mtu: Option<u32>,
}

impl Settings {
    pub(super) fn from_lease(lease: &Lease) -> Self {
        Self {
            address: lease.address,
            prefix: lease.prefix,
            routes: lease.routes.clone(),
            dns: lease.dns.clone(),
            domain: lease.domain.clone(),
            search: lease.search.clone(),
            hostname: lease.hostname.clone(),
            mtu: lease.mtu,
        }
    }

    /// From `ip=`, whose parts have been looked at.
    pub(super) fn by_hand(address: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>) -> Self {
        let default = |router| Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(router) };
        Self {
            address,
            prefix,
            routes: gateway.map(default).into_iter().collect(),
            dns: Vec::new(),
            domain: None,
            search: Vec::new(),
            hostname: None,
            mtu: None,
        }
    }

    pub(super) fn gateway(&self) -> Option<Ipv4Addr> {
        self.routes.iter().find(|r| r.prefix == 0).and_then(|r| r.router)
    }
}

/// Sets everything but names. The address and the way out must succeed; what else fails is noted.
pub(super) async fn apply(
    links: &Links,
    nic: &Nic,
    settings: &Settings,
    metric: u32,
    notes: &mut Vec<String>,
) -> Result<(), Fault> {
    let mut note = |result: Result<(), LinkError>| {
        if let Err(error) = result {
            notes.push(chain(&error));
        }
    };
    if let Some(mtu) = settings.mtu.filter(|mtu| *mtu != nic.mtu) {
        note(links.set_mtu(nic, mtu).await);
    }
    let required = |e: LinkError| error::kernel(&e, &format!("configuring {nic}"));
    links.add_address(nic, IpAddr::V4(settings.address), settings.prefix).await.map_err(required)?;
    // Of an earlier lease, or of an agent that died.
    note(links.remove_other_addresses(nic, Some((settings.address, settings.prefix))).await);
    // Networks on the wire come first: routers may be in them.
    let (direct, routed): (Vec<_>, Vec<_>) = settings.routes.iter().partition(|r| r.router.is_none());
    for route in direct.into_iter().chain(routed) {
        let added = links.add_route(nic, route, metric).await;
        if route.prefix == 0 {
            added.map_err(required)?;
        } else {
            note(added);
        }
    }
    Ok(())
}

/// Name servers, search domains, and what this machine is called.
pub(super) fn names(nic: &Nic, settings: &Settings, resolver: &Resolver, notes: &mut Vec<String>) {
    let mut search: Vec<String> = settings.domain.iter().cloned().collect();
    search.extend(settings.search.iter().filter(|name| settings.domain.as_ref() != Some(name)).cloned());
    let servers: Vec<IpAddr> = settings.dns.iter().copied().map(IpAddr::V4).collect();
    // Domains without a server to look in say nothing.
    let names = if servers.is_empty() { Names::default() } else { Names { servers, search } };
    notes.extend(resolver.set(Family::V4, nic.index, names));
    if let Some(name) = &settings.hostname {
        call(name, notes);
    }
}

/// Sets the machine's host name.
pub(super) fn call(name: &str, notes: &mut Vec<String>) {
    if let Err(error) = sethostname(name) {
        notes.push(format!("the host name {name} could not be set: {error}"));
    }
}

fn chain(error: &LinkError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
