//! What is seen on an interface, and what it means. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::json;
use speediso_model::network::{Check, CheckKind, Verdict};

use super::echo::Echo;
use super::nic::{Address, Counters, Nic};
use super::span;
use super::wire::{Offer, Wire};
use crate::net::frame::mac_text;

/// Slower than any server's port; a link that should be faster was negotiated badly.
const SLOW_MBPS: u64 = 1000;
/// A link that went up once changed twice, and a few times more while switch and driver came up.
const STEADY: u64 = 10;
/// One in this many packets may be bad.
const TOLERATED: u64 = 100_000;

/// What the interface's surroundings have to do with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    /// Another interface has a link.
    pub(super) link_elsewhere: bool,
    /// Another interface has an address.
    pub(super) address_elsewhere: bool,
    /// An address is wanted by DHCP.
    pub(super) expects_dhcp: bool,
}

pub(super) fn link(nic: &Nic, context: Context) -> Check {
    let check = |verdict, text: String| {
        Check::new(CheckKind::Link, &*nic.name, verdict, text)
            .fact("mac", nic.mac_text())
            .fact("up", nic.is_up)
            .fact("carrier", nic.has_carrier)
            .fact("speed_mbps", nic.speed_mbps)
            .fact("duplex", &nic.duplex)
            .fact("driver", &nic.driver)
            .fact("kind", &nic.kind)
            .fact("mtu", nic.mtu)
    };
    if !nic.has_carrier {
        let text = if nic.is_up { "no link" } else { "switched off, so whether there is a link cannot be seen" };
        let verdict = if context.link_elsewhere { Verdict::Skipped } else { Verdict::Failed };
        return check(verdict, text.to_owned()).do_this("check cable, transceiver and switch port");
    }
    let mut text = match (nic.speed_mbps, &nic.duplex) {
        (Some(speed), Some(duplex)) => format!("{speed} Mbit/s {duplex} duplex"),
        (Some(speed), None) => format!("{speed} Mbit/s"),
        (None, _) => "link, speed unread".to_owned(),
    };
    if let Some(what) = nic.driver.as_ref().or(nic.kind.as_ref()) {
        text.push_str(&format!(", {what}"));
    }
    text.push_str(&format!(", MTU {}", nic.mtu));
    if nic.duplex.as_deref() == Some("half") {
        check(Verdict::Warning, text)
            .do_this("set both ends to negotiate: half duplex on one side loses packets under load")
    } else if nic.speed_mbps.is_some_and(|speed| speed > 0 && speed < SLOW_MBPS) {
        check(Verdict::Warning, text).do_this("check the cable's pairs and the switch port's speed")
    } else {
        check(Verdict::Ok, text)
    }
}

/// `before` and `now` are some seconds apart.
pub(super) fn errors(nic: &Nic, before: Counters, now: Counters) -> Check {
    let bad = now.receive_errors.saturating_add(now.send_errors);
    let grown = bad.saturating_sub(before.receive_errors.saturating_add(before.send_errors));
    let packets = now.received.saturating_add(now.sent);
    let check = |verdict, text: String| {
        Check::new(CheckKind::Errors, &*nic.name, verdict, text)
            .fact("packets", packets)
            .fact("errors", bad)
            .fact("errors_meanwhile", grown)
            .fact("checksum_errors", now.checksum_errors)
            .fact("dropped", now.dropped)
            .fact("carrier_changes", now.carrier_changes)
    };
    let text =
        format!("{bad} bad of {packets} packets, {} dropped, link changed {} times", now.dropped, now.carrier_changes);
    if grown > 0 || bad > packets / TOLERATED {
        check(Verdict::Warning, text).do_this(if now.checksum_errors > 0 {
            "frames arrive damaged: change cable or transceiver, clean the optics"
        } else {
            "look at the switch port's counters, then at cable and card"
        })
    } else if now.carrier_changes > STEADY {
        check(Verdict::Warning, text).do_this("the link comes and goes: reseat cable and transceiver at both ends")
    } else {
        check(Verdict::Ok, text)
    }
}

/// What was heard on an interface that has a link.
pub(super) fn heard(nic: &Nic, wire: &Wire, context: Context) -> Vec<Check> {
    let mut checks = vec![neighbour(nic, wire)];
    // On a VLAN's own interface tags are gone.
    if nic.kind.as_deref() != Some("vlan") {
        checks.push(vlans(nic, wire, context));
    }
    if !nic.is_member {
        checks.push(dhcp(nic, wire, context));
        checks.push(ipv6(nic, wire));
    }
    checks
}

fn neighbour(nic: &Nic, wire: &Wire) -> Check {
    match &wire.neighbour {
        Some((system, port)) => {
            Check::new(CheckKind::Lldp, &*nic.name, Verdict::Ok, format!("switch {system}, port {port}"))
                .fact("system", system)
                .fact("port", port)
        }
        None => {
            let text = format!("none heard in {} s; switches speak every 30 s", wire.listened.as_secs());
            Check::new(CheckKind::Lldp, &*nic.name, Verdict::Skipped, text)
        }
    }
}

fn vlans(nic: &Nic, wire: &Wire, context: Context) -> Check {
    let check = |verdict, text: String| {
        Check::new(CheckKind::Vlans, &*nic.name, verdict, text)
            .fact(
                "tagged",
                wire.vlans.iter().map(|(id, n)| (id.to_string(), json!(n))).collect::<serde_json::Map<_, _>>(),
            )
            .fact("untagged", wire.untagged)
    };
    if wire.vlans.is_empty() {
        return if wire.untagged == 0 {
            check(Verdict::Warning, format!("nothing at all was heard in {} s", wire.listened.as_secs()))
                .do_this("check that the switch port is enabled and in the right VLAN, and spanning tree forwards")
        } else {
            check(Verdict::Ok, format!("no tagged frames, {} untagged", wire.untagged))
        };
    }
    let ids = span::list(wire.vlans.keys());
    let text = format!("tagged for {ids}; {} untagged", wire.untagged);
    // A trunk whose untagged side leads nowhere is what a missing speediso.vlan= looks like.
    let has_address = nic.is_configured() || nic.is_member || context.address_elsewhere;
    if wire.offers.is_empty() && !has_address {
        check(Verdict::Warning, text).do_this(format!(
            "the port is a trunk: if the machine belongs into one of these, boot with speediso.vlan= ({ids})"
        ))
    } else {
        check(Verdict::Ok, text)
    }
}

fn dhcp(nic: &Nic, wire: &Wire, context: Context) -> Check {
    let offers: Vec<_> = wire.offers.values().map(|offer| offer_facts(offer, nic)).collect();
    let check = |verdict, text: String| Check::new(CheckKind::Dhcp, &*nic.name, verdict, text).fact("offers", &offers);
    let mut servers = wire.offers.values();
    match (servers.next(), servers.next()) {
        (None, _) if !context.expects_dhcp => {
            check(Verdict::Skipped, "not asked for: the address is set by hand".into())
        }
        (None, _) => {
            let heard = if wire.unusable.is_empty() {
                String::new()
            } else {
                format!("; heard only: {}", span::list(&wire.unusable))
            };
            let text = format!("no server answers{heard}");
            let verdict =
                if nic.is_configured() || context.address_elsewhere { Verdict::Warning } else { Verdict::Failed };
            check(verdict, text)
                .do_this("check that a DHCP server or relay serves this VLAN, or set the address by ip=")
        }
        (Some(only), None) => {
            let odd = oddities(only, nic);
            let text = format!("{}{}", offer_text(only), odd.iter().map(|o| format!("; {o}")).collect::<String>());
            if odd.is_empty() {
                check(Verdict::Ok, text)
            } else {
                check(Verdict::Warning, text)
                    .do_this("make sure that this is the site's server, and correct what it says")
            }
        }
        (Some(first), Some(second)) => {
            let all = wire.offers.values().map(|o| format!("{} ({})", o.lease.server, mac_text(&o.from)));
            let differs = difference(first, second);
            check(Verdict::Warning, format!("{} servers answer: {}{differs}", wire.offers.len(), span::list(all)))
                .do_this("find the one that should not be there by its hardware address: a machine takes the quicker")
        }
    }
}

fn offer_text(offer: &Offer) -> String {
    let lease = &offer.lease;
    let gateway = gateway(offer).map_or_else(|| "no gateway".to_owned(), |g| format!("gateway {g}"));
    let dns = if lease.dns.is_empty() { "no DNS".to_owned() } else { format!("DNS {}", span::list(&lease.dns)) };
    format!(
        "{} offers {}/{}, {gateway}, {dns}, lease {}",
        lease.server,
        lease.address,
        lease.prefix,
        lease.duration_text()
    )
}

fn offer_facts(offer: &Offer, nic: &Nic) -> serde_json::Value {
    let lease = &offer.lease;
    json!({
        "server": lease.server,
        "server_mac": mac_text(&offer.from),
        "address": lease.address,
        "prefix": lease.prefix,
        "gateway": gateway(offer),
        "dns": lease.dns,
        "domain": lease.domain,
        "hostname": lease.hostname,
        "mtu": lease.mtu,
        "ntp": lease.ntp,
        "lease_s": lease.duration.map(|d| d.as_secs()),
        "odd": oddities(offer, nic),
    })
}

fn gateway(offer: &Offer) -> Option<Ipv4Addr> {
    offer.lease.routes.iter().find(|route| route.prefix == 0).and_then(|route| route.router)
}

fn difference(first: &Offer, second: &Offer) -> String {
    let network = |o: &Offer| {
        (u32::from(o.lease.address).checked_shr(32 - u32::from(o.lease.prefix)).unwrap_or(0), o.lease.prefix)
    };
    if network(first) != network(second) {
        format!("; of different networks, {} and {}", first.lease.address, second.lease.address)
    } else if gateway(first) != gateway(second) {
        let shown = |o| gateway(o).map_or_else(|| "none".to_owned(), |g| g.to_string());
        format!("; with different gateways, {} and {}", shown(first), shown(second))
    } else if first.lease.dns != second.lease.dns {
        "; with different name servers".to_owned()
    } else {
        "; they agree on network and gateway".to_owned()
    }
}

/// What a site's own server hardly says.
fn oddities(offer: &Offer, nic: &Nic) -> Vec<String> {
    let lease = &offer.lease;
    let mut odd = Vec::new();
    let is_near = |ip: Ipv4Addr| within(ip, lease.address, lease.prefix);
    if let Some(gateway) = gateway(offer).filter(|g| lease.prefix < 31 && !is_near(*g)) {
        odd.push(format!("the gateway {gateway} is outside of the network"));
    }
    if let Some(own) = nic.ipv4().next().filter(|own| !is_near(*own)) {
        odd.push(format!("the interface has {own}, of another network"));
    }
    if lease.duration.is_some_and(|d| d < Duration::from_secs(120)) {
        odd.push(format!("the lease is short: {}", lease.duration_text()));
    }
    odd.extend(lease.notes.iter().cloned());
    odd
}

fn within(ip: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let shift = 32 - u32::from(prefix.min(32));
    u32::from(ip).checked_shr(shift).unwrap_or(0) == u32::from(network).checked_shr(shift).unwrap_or(0)
}

fn ipv6(nic: &Nic, wire: &Wire) -> Check {
    let own: Vec<IpAddr> = nic.addresses.iter().filter(|a| a.ip.is_ipv6() && a.is_global()).map(|a| a.ip).collect();
    let routers: Vec<_> = wire
        .routers
        .iter()
        .map(|(from, ra)| {
            json!({
                "router": from,
                "lifetime_s": ra.lifetime.as_secs(),
                "managed": ra.is_managed,
                "other": ra.has_other,
                "mtu": ra.mtu,
                "prefixes": ra.prefixes.iter().map(|(p, l)| format!("{p}/{l}")).collect::<Vec<_>>(),
                "dns": ra.dns,
                "search": ra.search,
            })
        })
        .collect();
    let check = |verdict, text: String| {
        Check::new(CheckKind::Ipv6, &*nic.name, verdict, text).fact("routers", &routers).fact("addresses", &own)
    };
    let prefixes: BTreeSet<_> =
        wire.routers.values().flat_map(|ra| ra.prefixes.iter().map(|(p, l)| format!("{p}/{l}"))).collect();
    let addresses =
        if own.is_empty() { "no address taken".to_owned() } else { format!("address {}", span::list(&own)) };
    match wire.routers.len() {
        0 if own.is_empty() => check(Verdict::Skipped, "no router advertises IPv6".into()),
        0 => check(Verdict::Ok, format!("{addresses}; no router advertises")),
        1 => {
            let (from, ra) = wire.routers.iter().next().expect("one");
            let mut text = format!(
                "{from} advertises {}",
                if prefixes.is_empty() { "no prefix".to_owned() } else { span::list(&prefixes) }
            );
            if ra.is_managed {
                text.push_str(", addresses by DHCPv6");
            }
            if !ra.dns.is_empty() {
                text.push_str(&format!(", DNS {}", span::list(&ra.dns)));
            }
            check(Verdict::Ok, format!("{text}; {addresses}"))
        }
        n if prefixes.len() > 1 => check(
            Verdict::Warning,
            format!("{n} routers advertise different prefixes: {}; {addresses}", span::list(&prefixes)),
        )
        .do_this("make sure that all of them are the site's: any machine can advertise"),
        n => check(Verdict::Ok, format!("{n} routers advertise {}; {addresses}", span::list(&prefixes))),
    }
}

pub(super) fn address(nic: &Nic, wire: Option<&Wire>, context: Context) -> Check {
    let shown = |a: &Address| format!("{}/{}", a.ip, a.prefix);
    let all: Vec<String> = nic.addresses.iter().map(shown).collect();
    let check =
        |verdict, text: String| Check::new(CheckKind::Address, &*nic.name, verdict, text).fact("addresses", &all);
    for address in &nic.addresses {
        if address.is_duplicate {
            return check(
                Verdict::Failed,
                format!("{} is in use by another machine, so the kernel does not use it", address.ip),
            )
            .do_this("find the other machine, or give this one another address");
        }
        let IpAddr::V4(four) = address.ip else { continue };
        if let Some(others) = wire.and_then(|w| w.claims.get(&four)) {
            let others: Vec<String> = others.keys().map(|mac| mac_text(mac)).collect();
            return check(Verdict::Failed, format!("{four} is also at {}", span::list(&others)))
                .fact("also_at", &others)
                .do_this(
                    "find the machine with that hardware address: two with one address break each other's connections",
                );
        }
    }
    let global: Vec<String> = nic.addresses.iter().filter(|a| a.is_global()).map(shown).collect();
    if global.is_empty() {
        let verdict = if context.address_elsewhere { Verdict::Skipped } else { Verdict::Failed };
        return check(verdict, "no address".into()).do_this("see the checks dhcp and ipv6, or set one by ip=");
    }
    let asked = if wire.is_some() { ", nobody else answers for it" } else { ", not asked whether others have it" };
    check(Verdict::Ok, format!("{}{asked}", span::list(&global)))
}

/// `echo`: of the gateway; `None` if it could not be asked.
pub(super) fn gateway_of(nic: &Nic, gateway: IpAddr, wire: Option<&Wire>, echo: Option<Echo>) -> Check {
    let ping = match echo {
        Some(Echo::Answered(took)) => format!("ping {} ms", span::ms(took)),
        Some(_) => "no answer to pings, which a router need not give".to_owned(),
        None => "not pinged".to_owned(),
    };
    let check = |verdict, text: String| {
        let took = echo.and_then(|e| if let Echo::Answered(took) = e { Some(span::ms(took)) } else { None });
        Check::new(CheckKind::Gateway, format!("{} {gateway}", nic.name), verdict, text).fact("ping_ms", took)
    };
    let is_alive = matches!(echo, Some(Echo::Answered(_)));
    let claims = match (gateway, wire) {
        (IpAddr::V4(four), Some(wire)) => wire.claims.get(&four),
        (IpAddr::V6(_), _) | (_, None) if is_alive => return check(Verdict::Ok, ping),
        (IpAddr::V6(_), Some(wire)) if wire.routers.keys().any(|router| IpAddr::V6(*router) == gateway) => {
            return check(Verdict::Ok, format!("advertises itself; {ping}"));
        }
        _ if echo.is_none() => return check(Verdict::Skipped, "cannot be asked".into()).do_this("run this as root"),
        _ => return check(Verdict::Warning, ping).do_this("check that this is the router's address"),
    };
    let Some(claims) = claims else {
        return if is_alive {
            check(Verdict::Ok, ping)
        } else {
            check(Verdict::Failed, "nobody answers for this address (ARP), so nothing leaves this network".into())
                .do_this("correct the gateway (DHCP option 3, ip=), or look why the router is not in this VLAN")
        };
    };
    let macs: Vec<String> = claims.keys().map(|mac| mac_text(mac)).collect();
    let text = format!("at {}; {ping}", span::list(&macs));
    let check = check(if macs.len() > 1 { Verdict::Warning } else { Verdict::Ok }, text).fact("macs", &macs);
    if macs.len() > 1 { check.do_this("two machines claim to be the gateway: find the wrong one") } else { check }
}

pub(super) fn no_gateway(nic: &Nic) -> Check {
    Check::new(CheckKind::Gateway, &*nic.name, Verdict::Skipped, "none is set: only this network can be reached")
}

/// The agent's own connections never go through a proxy; whoever set one expects otherwise.
pub(super) fn proxy(variables: &[String]) -> Check {
    if variables.is_empty() {
        Check::new(CheckKind::Proxy, "", Verdict::Ok, "none is set, and none would be used")
    } else {
        Check::new(CheckKind::Proxy, "", Verdict::Warning, format!("{} set, and not used", span::list(variables)))
            .fact("variables", variables)
            .do_this("the agent speaks to its controller directly: give it a way there")
    }
}

#[cfg(test)]
mod tests;
