//! Some seconds on one interface's wire: who offers addresses, which VLANs pass by, who has our address, where the
//! router is. One socket asks all questions and hears all answers; the machine's own configuration has no part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rand::Rng as _;
use speediso_sys::ether::Seen;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::nic::Nic;
use crate::net::ear::Ear;
use crate::net::frame::{self, Heard, Mac};
use crate::net::{Advertisement, Kind, Lease, Reply, Request, request};

/// Questions are asked at once and, since any may be lost or a port may just have come up, again.
const ASKED_AT: [Duration; 3] = [Duration::ZERO, Duration::from_millis(1200), Duration::from_millis(2600)];
/// A jumbo frame's beginning is enough.
const FRAME: usize = 2048;
const VLAN_LIMIT: usize = 64;
const ROUTER_LIMIT: usize = 8;
const SERVER_LIMIT: usize = 16;

/// One DHCP server's answer.
#[derive(Clone, Debug)]
pub(super) struct Offer {
    pub(super) lease: Lease,
    pub(super) from: Mac,
}

#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) listened: Duration,
    /// By server, the first answer of each.
    pub(super) offers: BTreeMap<Ipv4Addr, Offer>,
    /// What a DHCP server said that cannot be used.
    pub(super) unusable: BTreeSet<String>,
    /// Frames by VLAN number.
    pub(super) vlans: BTreeMap<u16, u64>,
    pub(super) untagged: u64,
    /// Switch and port.
    pub(super) neighbour: Option<(String, String)>,
    pub(super) routers: BTreeMap<Ipv6Addr, Advertisement>,
    /// Who claims the addresses that were asked for, and how long after the last question.
    pub(super) claims: BTreeMap<Ipv4Addr, BTreeMap<Mac, Duration>>,
}

/// Asks and listens. Takes all of `limit`: what passes by seldom is not heard sooner.
pub(super) async fn listen(nic: &Nic, asks_dhcp: bool, limit: Duration) -> io::Result<Wire> {
    let ear = Ear::open(nic.index)?;
    let begun = Instant::now();
    let xid: u32 = rand::rng().random();
    let questions = questions(nic, xid, asks_dhcp);
    let watched: BTreeSet<Ipv4Addr> = nic.ipv4().chain(gateways(nic)).collect();
    let mut wire = Wire { listened: limit, ..Wire::default() };
    let mut asked = begun;
    for (at, next) in ASKED_AT.iter().zip(ASKED_AT[1..].iter().chain([&limit])) {
        sleep_until(begun + *at).await;
        asked = Instant::now().max(asked);
        for question in &questions {
            ear.ask(question);
        }
        hear(&ear, begun + *next, |frame, seen| {
            if seen.is_own {
                return;
            }
            match seen.vlan {
                Some(vlan) if wire.vlans.len() < VLAN_LIMIT || wire.vlans.contains_key(&vlan) => {
                    *wire.vlans.entry(vlan).or_default() += 1;
                }
                Some(_) => {}
                None => wire.untagged += 1,
            }
            // What belongs to another VLAN is no answer to us.
            if seen.vlan.is_none() {
                wire.take(frame::read(frame), nic, xid, &watched, asked.elapsed());
            }
        })
        .await?;
    }
    Ok(wire)
}

impl Wire {
    fn take(&mut self, heard: Heard<'_>, nic: &Nic, xid: u32, watched: &BTreeSet<Ipv4Addr>, after: Duration) {
        match heard {
            Heard::Arp { mac, address } => {
                if watched.contains(&address) && mac != nic.mac {
                    self.claims.entry(address).or_default().entry(mac).or_insert(after);
                }
            }
            Heard::Dhcp { from, message } => match Reply::parse(message) {
                Ok(reply) if reply.xid != xid || reply.mac != nic.mac || reply.kind != Kind::Offer => {}
                Ok(reply) => match Lease::from_reply(&reply) {
                    Ok(lease) if self.offers.len() < SERVER_LIMIT => {
                        self.offers.entry(reply.server).or_insert(Offer { lease, from });
                    }
                    Ok(_) => {}
                    Err(error) => self.note(error.to_string()),
                },
                Err(error) => self.note(error.to_string()),
            },
            Heard::RouterAdvertisement { from, message } => {
                if self.routers.len() < ROUTER_LIMIT
                    && let Some(advertisement) = Advertisement::parse(message)
                {
                    self.routers.insert(from, advertisement);
                }
            }
            Heard::Lldp(body) => self.neighbour = frame::neighbour(body).or(self.neighbour.take()),
            Heard::Other => {}
        }
    }

    fn note(&mut self, text: String) {
        if self.unusable.len() < SERVER_LIMIT {
            self.unusable.insert(text);
        }
    }
}

fn gateways(nic: &Nic) -> impl Iterator<Item = Ipv4Addr> {
    nic.gateways.iter().filter_map(|gateway| match gateway {
        IpAddr::V4(four) => Some(*four),
        IpAddr::V6(_) => None,
    })
}

fn questions(nic: &Nic, xid: u32, asks_dhcp: bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    // An offer is not a lease: it is asked for and never taken.
    if asks_dhcp && let Ok(message) = request(Request::Discover, xid, nic.mac, 0, None) {
        frames.extend(frame::dhcp(nic.mac, &message));
    }
    frames.extend(nic.ipv4().map(|own| frame::arp_request(nic.mac, Ipv4Addr::UNSPECIFIED, own)));
    if let Some(own) = nic.ipv4().next() {
        frames.extend(gateways(nic).map(|gateway| frame::arp_request(nic.mac, own, gateway)));
    }
    let link_local = nic.addresses.iter().find_map(|a| match a.ip {
        IpAddr::V6(six) if six.is_unicast_link_local() && !a.is_tentative => Some(six),
        _ => None,
    });
    frames.push(frame::router_solicitation(nic.mac, link_local));
    frames
}

async fn hear(ear: &Ear, until: Instant, mut each: impl FnMut(&[u8], Seen)) -> io::Result<()> {
    let mut frame = [0; FRAME];
    // On a line that is never quiet there is always a next frame at once.
    while Instant::now() < until {
        match timeout_at(until, ear.receive(&mut frame)).await {
            Err(_) => break,
            // The interface went down meanwhile; what was heard before counts.
            Ok(Err(error)) if error.raw_os_error() == Some(libc::ENETDOWN) => sleep_until(until).await,
            Ok(seen) => {
                let seen = seen?;
                each(&frame[..seen.length.min(FRAME)], seen);
            }
        }
    }
    Ok(())
}
