//! IPv6 on one interface. Addresses are made by the kernel from what routers advertise, or come from DHCPv6 where the
//! advertisement says so; name servers come from either.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::dhcp6::{self, Failure};
use super::dhcp6_message::Lent;
use super::ear::Ear;
use super::frame::{self, Heard};
use super::link::{Links, Nic};
use super::ra::Advertisement;
use super::resolver::{Family, Names, Resolver};
use super::term::{ANSWER_WAIT, Answer, Ended, Keeper, Term};

/// A router may take half a second to answer, and the first question may come before the switch forwards.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// From an advertisement to an address that the kernel has seen nobody else use.
const ADDRESS_WAIT: Duration = Duration::from_secs(10);
const DHCP_WAIT: Duration = Duration::from_secs(20);
const INFORMATION_WAIT: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(100);
const FRAME: usize = 2048;

/// What an interface got.
#[derive(Clone, Debug)]
pub(super) struct Gained {
    pub(super) address: Ipv6Addr,
    pub(super) prefix: u8,
    pub(super) router: Option<Ipv6Addr>,
    pub(super) names: Names,
    /// From DHCPv6, to be kept and given back.
    pub(super) lent: Option<(Lent, Vec<u8>)>,
    pub(super) notes: Vec<String>,
}

/// Lets the kernel make addresses, or keeps it from it.
pub(super) fn permit(proc: &Path, nic: &str, permitted: bool) {
    let settings: &[(&str, &str)] = if permitted {
        // 2: even where somebody made this machine forward. No temporary addresses: a server wants to be found again.
        &[("disable_ipv6", "0"), ("use_tempaddr", "0"), ("autoconf", "1"), ("accept_ra", "2")]
    } else {
        &[("accept_ra", "0")]
    };
    for (name, value) in settings {
        set(proc, nic, name, value);
    }
}

/// On an interface that was not chosen: no address, and above all no way out over it.
pub(super) fn leave(proc: &Path, nic: &str) {
    set(proc, nic, "disable_ipv6", "1");
}

fn set(proc: &Path, nic: &str, name: &str, value: &str) {
    let path = proc.join("sys/net/ipv6/conf").join(nic).join(name);
    let is_so = std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value);
    if !is_so && let Err(error) = std::fs::write(&path, value) {
        tracing::debug!(path = %path.display(), %error, "ignoring a network setting that could not be made");
    }
}

/// Waits for a router and for an address. The kernel must have been permitted to make one before the link came up or
/// after; the question asked here makes routers answer either way.
pub(super) async fn obtain(nic: &Nic, limit: Duration) -> Result<Gained, String> {
    let (router, advertised) = solicit(nic, limit)
        .await
        .map_err(|e| format!("listening for routers: {e}"))?
        .ok_or_else(|| format!("no router advertised IPv6 in {} s", limit.as_secs()))?;
    let links = Links::connect().map_err(|e| e.to_string())?;
    let mut names =
        Names { servers: advertised.dns.iter().copied().map(IpAddr::V6).collect(), search: advertised.search.clone() };
    let mut notes = Vec::new();
    let router = (!advertised.lifetime.is_zero()).then_some(router);
    if advertised.is_managed {
        match dhcp6::obtain(nic, DHCP_WAIT).await {
            Ok(given) => {
                add(&mut names, &given.dns, &given.search);
                notes.extend(given.notes);
                if let Some(lent) = given.lent {
                    links.add_address(nic, lent.address.into(), 128).await.map_err(|e| e.to_string())?;
                    let address = lent.address;
                    wait_for(&links, nic, Some(address)).await?;
                    return Ok(Gained { address, prefix: 128, router, names, lent: Some((lent, given.server)), notes });
                }
            }
            Err(failure) if advertised.prefixes.is_empty() => return Err(failure.to_string()),
            Err(failure) => notes.push(format!("{nic}: {failure}; the address is one made from the prefix")),
        }
    } else if advertised.has_other {
        match dhcp6::information(nic, INFORMATION_WAIT).await {
            Ok(given) => add(&mut names, &given.dns, &given.search),
            Err(failure) => notes.push(format!("{nic}: {failure}; name servers may be missing")),
        }
    }
    if advertised.prefixes.is_empty() && !advertised.is_managed {
        return Err("routers advertise no prefix to make an address from, and no DHCPv6".to_owned());
    }
    let (address, prefix) = wait_for(&links, nic, None).await?;
    Ok(Gained { address, prefix, router, names, lent: None, notes })
}

fn add(names: &mut Names, dns: &[Ipv6Addr], search: &[String]) {
    for server in dns.iter().copied().map(IpAddr::V6) {
        if !names.servers.contains(&server) {
            names.servers.push(server);
        }
    }
    names.search.extend(search.iter().cloned());
    names.search.dedup();
}

/// Until the kernel has seen that nobody else has the address: packets from it are refused before. One that it makes
/// itself it makes of the next advertisement, where the one that was heard came before its own side of the link was
/// ready; so it is asked for again.
async fn wait_for(links: &Links, nic: &Nic, wanted: Option<Ipv6Addr>) -> Result<(Ipv6Addr, u8), String> {
    let ear = Ear::open(nic.index).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let mut ask_again = begun + ASK_EVERY;
    while begun.elapsed() < ADDRESS_WAIT {
        if wanted.is_none() && Instant::now() >= ask_again {
            ear.ask(&frame::router_solicitation(nic.hardware, None));
            ask_again = Instant::now() + ASK_EVERY;
        }
        let now = links.addresses6(nic).await.map_err(|e| e.to_string())?;
        let is_it = |ip: Ipv6Addr| wanted.map_or(!ip.is_unicast_link_local(), |wanted| ip == wanted);
        if let Some((address, prefix, _)) = now.into_iter().find(|(ip, _, is_usable)| *is_usable && is_it(*ip)) {
            return Ok((address, prefix));
        }
        sleep(POLL).await;
    }
    Err(format!("no address could be used within {} s: is it in use by another machine?", ADDRESS_WAIT.as_secs()))
}

/// Asks for advertisements until one comes.
async fn solicit(nic: &Nic, limit: Duration) -> io::Result<Option<(Ipv6Addr, Advertisement)>> {
    let ear = Ear::open(nic.index)?;
    let end = Instant::now() + limit;
    let mut next = Instant::now();
    let mut bytes = [0; FRAME];
    loop {
        if Instant::now() >= next {
            ear.ask(&frame::router_solicitation(nic.hardware, None));
            next = Instant::now() + ASK_EVERY;
        }
        let seen = match timeout_at(next.min(end), ear.receive(&mut bytes)).await {
            Err(_) if Instant::now() >= end => return Ok(None),
            Err(_) => continue,
            // Down for a moment.
            Ok(Err(error)) if error.raw_os_error() == Some(libc::ENETDOWN) => {
                sleep(POLL).await;
                continue;
            }
            Ok(seen) => seen?,
        };
        if !seen.is_own
            && seen.vlan.is_none()
            && let Heard::RouterAdvertisement { from, message } = frame::read(&bytes[..seen.length.min(FRAME)])
            && let Some(advertised) = Advertisement::parse(message)
            && (!advertised.prefixes.is_empty() || advertised.is_managed || !advertised.lifetime.is_zero())
        {
            return Ok(Some((from, advertised)));
        }
    }
}

/// Keeps an address of DHCPv6. `None` where nothing has to be kept: the kernel keeps what it made.
pub(super) fn start(nic: &Nic, gained: &Gained, resolver: &Resolver) -> Option<Keeper> {
    let (lent, server) = gained.lent.clone()?;
    lent.valid?;
    let (nic, resolver, names) = (nic.clone(), resolver.clone(), gained.names.clone());
    Some(Keeper::of(async move { keep(&nic, lent, server, names, &resolver).await }))
}

const ASK_ANEW: Duration = Duration::from_secs(60);

/// When it is over the address goes, and one is asked for anew for ever.
async fn keep(nic: &Nic, mut lent: Lent, mut server: Vec<u8>, mut names: Names, resolver: &Resolver) {
    loop {
        if let Some((again, by)) = prolonged(nic, &lent, &server).await {
            (lent, server) = (again, by);
        } else {
            if let Ok(links) = Links::connect()
                && let Err(error) = links.remove_address6(nic, lent.address).await
            {
                tracing::error!(nic = %nic, %error, "proceeding though the old address could not be removed");
            }
            let gained = loop {
                match obtain(nic, ASK_ANEW).await {
                    Ok(gained) => break gained,
                    Err(why) => tracing::error!(nic = %nic, "still without an IPv6 address: {why}"),
                }
                sleep(ANSWER_WAIT).await;
            };
            tracing::warn!(nic = %nic, before = %lent.address, now = %gained.address, "the IPv6 address changed");
            names = gained.names.clone();
            match gained.lent {
                Some((again, by)) => (lent, server) = (again, by),
                None => return,
            }
        }
        if let Some(note) = resolver.set(Family::V6, nic.index, names.clone()) {
            tracing::warn!("{note}");
        }
        if lent.valid.is_none() {
            return;
        }
    }
}

/// The address with its new times, and by whom; `None` when it was refused or ran out.
async fn prolonged(nic: &Nic, lent: &Lent, server: &[u8]) -> Option<(Lent, Vec<u8>)> {
    let term = Term::from_now(lent.renew_after, lent.rebind_after, lent.valid?);
    let asked = term.prolonged(move |turn| async move {
        let of = turn.asks_its_server.then_some(server);
        match dhcp6::extend(nic, lent.address, of, turn.wait).await {
            Ok(dhcp6::Obtained { lent: Some(again), server, .. }) => Answer::Prolonged((again, server)),
            Err(Failure::Refused) => Answer::Refused,
            Ok(_) => Answer::NotYet,
            Err(failure) => {
                tracing::warn!(nic = %nic, %failure, "the IPv6 address was not prolonged yet");
                Answer::NotYet
            }
        }
    });
    let ended = match asked.await {
        Ok(again) => return Some(again),
        Err(Ended::Refused) => "the DHCPv6 server took the address back",
        Err(Ended::RanOut) => "the IPv6 address ran out: no DHCPv6 server prolonged it",
    };
    tracing::error!(nic = %nic, address = %lent.address, "{ended}");
    None
}
