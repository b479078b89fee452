//! Putting an address and what belongs to it in force.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use nix::unistd::sethostname;
use speediso_model::fault::Fault;

use super::error;
use super::lease::{Lease, Route};
use super::link::{LinkError, Links, Nic};
use super::param::StaticIp;

/// glibc and musl read no more than three name servers.
const NAME_SERVERS: usize = 3;

/// What an interface shall have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    address: Ipv4Addr,
    prefix: u8,
    routes: Vec<Route>,
    pub(super) dns: Vec<Ipv4Addr>,
    domain: Option<String>,
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
            hostname: lease.hostname.clone(),
            mtu: lease.mtu,
        }
    }

    pub(super) fn from_param(wanted: &StaticIp) -> Self {
        let default = |router| Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(router) };
        Self {
            address: wanted.address,
            prefix: wanted.prefix,
            routes: wanted.gateway.map(default).into_iter().collect(),
            dns: wanted.dns.clone(),
            domain: None,
            hostname: wanted.hostname.clone(),
            mtu: None,
        }
    }

    pub(super) fn gateway(&self) -> Option<Ipv4Addr> {
        self.routes.iter().find(|r| r.prefix == 0).and_then(|r| r.router)
    }
}

/// Sets everything. The address and the way out must succeed; what else fails is noted.
pub(super) async fn apply(
    links: &Links,
    nic: &Nic,
    settings: &Settings,
    resolv_conf: &Path,
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
    links.add_address(nic, settings.address, settings.prefix).await.map_err(required)?;
    // Of an earlier lease, or of an agent that died.
    note(links.remove_other_addresses(nic, Some((settings.address, settings.prefix))).await);
    // Networks on the wire come first: routers may be in them.
    let (direct, routed): (Vec<_>, Vec<_>) = settings.routes.iter().partition(|r| r.router.is_none());
    for route in direct.into_iter().chain(routed) {
        let added = links.add_route(nic, route).await;
        if route.prefix == 0 {
            added.map_err(required)?;
        } else {
            note(added);
        }
    }
    if !settings.dns.is_empty()
        && let Err(error) = fs::write(resolv_conf, resolver(settings))
    {
        notes.push(format!("name servers could not be written to {}: {error}", resolv_conf.display()));
    }
    if let Some(name) = &settings.hostname
        && let Err(error) = sethostname(name)
    {
        notes.push(format!("the host name {name} could not be set: {error}"));
    }
    Ok(())
}

fn resolver(settings: &Settings) -> String {
    let mut text = String::new();
    if let Some(domain) = &settings.domain {
        let _ = writeln!(text, "search {domain}");
    }
    for server in settings.dns.iter().take(NAME_SERVERS) {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
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
