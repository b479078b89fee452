//! What a DHCP server grants, checked before it is used.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::message::{Options, Reply};
use super::names;
use super::param::{is_host, is_hostname, prefix_of};

/// A way to a network, by a router or directly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    pub network: Ipv4Addr,
    pub prefix: u8,
    /// `None`: the network is on the wire.
    pub router: Option<Ipv4Addr>,
}

/// An address and what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub server: Ipv4Addr,
    pub routes: Vec<Route>,
    pub dns: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    /// Option 119: where short names are looked for.
    pub search: Vec<String>,
    /// Option 42. Kept for the notes about the clock: time comes from the controller, signed.
    pub ntp: Vec<Ipv4Addr>,
    /// Option 12.
    pub hostname: Option<String>,
    pub mtu: Option<u32>,
    /// `None` never ends.
    pub duration: Option<Duration>,
    /// When to ask its server to prolong it, and when anybody.
    pub renew_after: Duration,
    pub rebind_after: Duration,
    /// Every option as it came.
    pub options: Options,
    /// What was left out of use, and why.
    pub notes: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("{server} offers {address}, which is no address for a machine")]
    Address { server: Ipv4Addr, address: Ipv4Addr },
    #[error("{server} offers {address} with the netmask {mask}, which is none")]
    Mask { server: Ipv4Addr, address: Ipv4Addr, mask: String },
}

mod option {
    pub(super) const MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS: u8 = 6;
    pub(super) const HOSTNAME: u8 = 12;
    pub(super) const DOMAIN: u8 = 15;
    pub(super) const MTU: u8 = 26;
    pub(super) const NTP: u8 = 42;
    pub(super) const LEASE: u8 = 51;
    pub(super) const RENEW: u8 = 58;
    pub(super) const REBIND: u8 = 59;
    pub(super) const SEARCH: u8 = 119;
    pub(super) const ROUTES: u8 = 121;
}

/// A server that names no time, or hardly any, is asked again no more often than this.
const SHORTEST: Duration = Duration::from_secs(4);
const DEFAULT: Duration = Duration::from_secs(3600);
const FOREVER: u32 = u32::MAX;
/// IPv4 needs 576 (RFC 791); jumbo frames end well below this.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 576..=65_535;
/// More than any network needs, fewer than would drown the machine.
const LIST_LIMIT: usize = 64;

impl Lease {
    /// # Errors
    /// When there is no usable address. Whatever else is unusable is left out, with a note.
    pub fn from_reply(reply: &Reply) -> Result<Self, LeaseError> {
        let (server, address, options) = (reply.server, reply.address, &reply.options);
        let mut notes = Vec::new();
        if !is_host(address) {
            return Err(LeaseError::Address { server, address });
        }
        let prefix = match options.get(&option::MASK) {
            Some(raw) => four(raw)
                .and_then(|m| prefix_of(Ipv4Addr::from(m)))
                .filter(|p| *p > 0)
                .ok_or_else(|| LeaseError::Mask { server, address, mask: dotted(raw) })?,
            None => {
                notes.push(format!("{server} gives no netmask: {address} is taken alone, without neighbours"));
                32
            }
        };
        if prefix < 31 && is_edge(address, prefix) {
            return Err(LeaseError::Address { server, address });
        }
        let duration = match options.get(&option::LEASE).and_then(|raw| seconds(raw)) {
            Some(FOREVER) => None,
            Some(given) => Some(Duration::from_secs(u64::from(given)).max(SHORTEST)),
            None => Some(DEFAULT),
        };
        let (renew_after, rebind_after) = timers(options, duration);
        let routes = routes(options, &mut notes);
        let text =
            |code: u8| options.get(&code).map(|raw| String::from_utf8_lossy(raw).trim_end_matches('\0').to_owned());
        let mut name = |code: u8, what: &str| {
            let name = text(code).filter(|t| !t.is_empty())?;
            if is_hostname(name.trim_end_matches('.')) {
                return Some(name.trim_end_matches('.').to_ascii_lowercase());
            }
            notes.push(format!("{server} gives the {what} {name:?}, which is none (RFC 1123): not used"));
            None
        };
        let hostname = name(option::HOSTNAME, "host name");
        let domain = name(option::DOMAIN, "domain");
        let mtu =
            options.get(&option::MTU).and_then(|raw| <[u8; 2]>::try_from(raw.as_slice()).ok()).map(u16::from_be_bytes);
        let mtu = mtu.map(u32::from).filter(|mtu| {
            let is_sane = MTU_RANGE.contains(mtu);
            if !is_sane {
                notes.push(format!("{server} gives an MTU of {mtu}: not used"));
            }
            is_sane
        });
        let dns = addresses(options.get(&option::DNS));
        let ntp = addresses(options.get(&option::NTP));
        let search = match options.get(&option::SEARCH).map(|raw| names::list(raw)) {
            Some(Some(names)) => names,
            Some(None) => {
                notes.push(format!("{server} gives search domains (option 119) that cannot be read: not used"));
                Vec::new()
            }
            None => Vec::new(),
        };
        Ok(Self {
            address,
            prefix,
            server,
            routes,
            dns,
            domain,
            search,
            ntp,
            hostname,
            mtu,
            duration,
            renew_after,
            rebind_after,
            options: options.clone(),
            notes,
        })
    }

    /// `12 h`, for a console.
    #[must_use]
    pub fn duration_text(&self) -> String {
        match self.duration.map(|d| d.as_secs()) {
            None => "without end".to_owned(),
            Some(s) if s >= 7200 => format!("{} h", s / 3600),
            Some(s) if s >= 120 => format!("{} min", s / 60),
            Some(s) => format!("{s} s"),
        }
    }
}

/// RFC 2131 section 4.4.5, where the server's own figures make no sense too.
fn timers(options: &Options, duration: Option<Duration>) -> (Duration, Duration) {
    let Some(duration) = duration else { return (Duration::MAX, Duration::MAX) };
    let given = |code: u8| options.get(&code).and_then(|raw| seconds(raw)).map(|s| Duration::from_secs(u64::from(s)));
    let rebind = given(option::REBIND).filter(|t| !t.is_zero() && *t < duration).unwrap_or(duration * 7 / 8);
    let renew = given(option::RENEW).filter(|t| !t.is_zero() && *t < rebind).unwrap_or((duration / 2).min(rebind));
    (renew.max(SHORTEST / 4), rebind.max(SHORTEST / 2))
}

/// Classless routes (RFC 3442) replace the router option where a server gives both.
fn routes(options: &Options, notes: &mut Vec<String>) -> Vec<Route> {
    if let Some(raw) = options.get(&option::ROUTES) {
        match classless(raw) {
            Some(routes) => return routes,
            None => notes.push("the classless static routes (option 121) cannot be read: not used".to_owned()),
        }
    }
    addresses(options.get(&option::ROUTER))
        .first()
        .map(|router| Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(*router) })
        .into_iter()
        .collect()
}

fn classless(mut raw: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let [prefix, rest @ ..] = raw {
        if *prefix > 32 || routes.len() >= LIST_LIMIT {
            return None;
        }
        // Only the significant bytes of the network are there.
        let (significant, rest) = rest.split_at_checked(usize::from(prefix.div_ceil(8)))?;
        let (router, rest) = rest.split_first_chunk::<4>()?;
        let mut network = [0; 4];
        network[..significant.len()].copy_from_slice(significant);
        let router = Ipv4Addr::from(*router);
        if !router.is_unspecified() && !is_host(router) {
            return None;
        }
        routes.push(Route {
            // Stray bits behind the prefix would be refused by the kernel.
            network: Ipv4Addr::from(u32::from_be_bytes(network) & mask(*prefix)),
            prefix: *prefix,
            router: (!router.is_unspecified()).then_some(router),
        });
        raw = rest;
    }
    Some(routes)
}

pub(super) fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

/// Network and broadcast address of a network are nobody's.
fn is_edge(address: Ipv4Addr, prefix: u8) -> bool {
    let host = u32::from(address) & !mask(prefix);
    host == 0 || host == !mask(prefix)
}

/// The usable addresses of a list.
fn addresses(raw: Option<&Vec<u8>>) -> Vec<Ipv4Addr> {
    let all = raw.map(Vec::as_slice).unwrap_or_default().chunks_exact(4);
    all.filter_map(four).map(Ipv4Addr::from).filter(|a| is_host(*a)).take(LIST_LIMIT).collect()
}

fn four(raw: &[u8]) -> Option<[u8; 4]> {
    raw.try_into().ok()
}

fn seconds(raw: &[u8]) -> Option<u32> {
    four(raw).map(u32::from_be_bytes)
}

fn dotted(raw: &[u8]) -> String {
    raw.iter().take(8).map(u8::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{DhcpOption, MessageType};
    use proptest::prelude::*;

    use super::*;
    use crate::net::message::Kind;
    use crate::net::message::tests::reply;

    fn lease(options: Vec<DhcpOption>) -> Result<Lease, LeaseError> {
        Lease::from_reply(&Reply::parse(&reply(MessageType::Ack, options)).expect("well-formed"))
    }

    fn raw(options: &[(u8, &[u8])]) -> Result<Lease, LeaseError> {
        Lease::from_reply(&Reply {
            xid: 1,
            mac: [0; 6],
            kind: Kind::Ack,
            address: Ipv4Addr::new(192, 0, 2, 50),
            server: Ipv4Addr::new(192, 0, 2, 1),
            options: options.iter().map(|(code, value)| (*code, value.to_vec())).collect(),
        })
    }

    const MASK: (u8, &[u8]) = (1, &[255, 255, 255, 0]);

    #[test]
    fn a_usual_grant_is_used_whole() {
        let router = Ipv4Addr::new(192, 0, 2, 1);
        let lease = lease(vec![
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
            DhcpOption::Router(vec![router]),
            DhcpOption::DomainNameServer(vec![Ipv4Addr::new(192, 0, 2, 53)]),
            DhcpOption::DomainName("Example.ORG".into()),
            DhcpOption::Hostname("Node7".into()),
            DhcpOption::InterfaceMtu(9000),
            DhcpOption::AddressLeaseTime(3600),
        ])
        .expect("good");
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(192, 0, 2, 50), 24));
        assert_eq!(lease.routes, [Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(router) }]);
        assert_eq!(lease.hostname.as_deref(), Some("node7"));
        assert_eq!(lease.domain.as_deref(), Some("example.org"));
        assert_eq!(lease.mtu, Some(9000));
        assert_eq!(lease.duration, Some(Duration::from_secs(3600)));
        assert_eq!((lease.renew_after, lease.rebind_after), (Duration::from_secs(1800), Duration::from_secs(3150)));
        assert_eq!(lease.notes, Vec::<String>::new());
        assert_eq!(lease.options[&26], 9000u16.to_be_bytes());
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let routes: &[u8] = &[0, 192, 0, 2, 254, 25, 198, 51, 100, 255, 0, 0, 0, 0];
        let lease = raw(&[MASK, (3, &[192, 0, 2, 1]), (121, routes)]).expect("good");
        assert_eq!(
            lease.routes,
            [
                Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, router: Some(Ipv4Addr::new(192, 0, 2, 254)) },
                // The stray bits of .255 are cut off.
                Route { network: Ipv4Addr::new(198, 51, 100, 128), prefix: 25, router: None },
            ]
        );
        for broken in [&[33, 0][..], &[24, 192, 0], &[0, 127, 0, 0, 1]] {
            let lease = raw(&[MASK, (3, &[192, 0, 2, 1]), (121, broken)]).expect("an address all the same");
            assert_eq!(lease.routes[0].router, Some(Ipv4Addr::new(192, 0, 2, 1)));
            assert!(lease.notes[0].contains("option 121"), "{:?}", lease.notes);
        }
    }

    #[test]
    fn what_cannot_be_is_not_used() {
        assert!(matches!(raw(&[(1, &[255, 0, 255, 0])]), Err(LeaseError::Mask { .. })));
        assert!(matches!(raw(&[(1, &[255, 255])]), Err(LeaseError::Mask { .. })));
        assert!(matches!(raw(&[(1, &[0, 0, 0, 0])]), Err(LeaseError::Mask { .. })));
        // 192.0.2.50 is the broadcast address of 192.0.2.48/31... but not with 31 bits; with 30 it would be .51.
        assert!(raw(&[(1, &[255, 255, 255, 254])]).is_ok());
        let odd =
            raw(&[MASK, (12, b"$(reboot)"), (15, b"a\nnameserver 6.6.6.6"), (26, &[0, 68]), (6, &[127, 0, 0, 1])]);
        let odd = odd.expect("an address all the same");
        assert_eq!((odd.hostname, odd.domain, odd.mtu), (None, None, None));
        assert!(odd.dns.is_empty());
        assert_eq!(odd.notes.len(), 3, "{:?}", odd.notes);
    }

    #[test]
    fn times_are_put_in_order() {
        let time = |s: u32| s.to_be_bytes();
        let swapped = raw(&[MASK, (51, &time(100)), (58, &time(90)), (59, &time(50))]).expect("good");
        assert!(swapped.renew_after <= swapped.rebind_after && swapped.rebind_after < Duration::from_secs(100));
        let hasty = raw(&[MASK, (51, &time(0))]).expect("good");
        assert_eq!(hasty.duration, Some(SHORTEST));
        let endless = raw(&[MASK, (51, &time(u32::MAX))]).expect("good");
        assert_eq!((endless.duration, endless.renew_after), (None, Duration::MAX));
    }

    proptest! {
        /// Whatever the options: what is used is sane.
        #[test]
        fn any_options_give_a_sane_lease_or_none(
            options in prop::collection::btree_map(
                prop_oneof![Just(1u8), Just(3), Just(6), Just(12), Just(15), Just(26), Just(51), Just(58), Just(59), Just(121), any::<u8>()],
                prop::collection::vec(any::<u8>(), 0..40),
                0..12,
            ),
            address in any::<u32>(),
        ) {
            let reply = Reply {
                xid: 1, mac: [0; 6], kind: Kind::Ack,
                address: Ipv4Addr::from(address), server: Ipv4Addr::new(192, 0, 2, 1), options,
            };
            let Ok(lease) = Lease::from_reply(&reply) else { return Ok(()) };
            prop_assert!(is_host(lease.address) && (1..=32).contains(&lease.prefix));
            prop_assert!(lease.renew_after <= lease.rebind_after);
            prop_assert!(lease.duration.is_none_or(|d| lease.rebind_after <= d && d >= SHORTEST));
            prop_assert!(lease.renew_after >= SHORTEST / 4);
            prop_assert!(lease.hostname.as_deref().is_none_or(is_hostname));
            prop_assert!(lease.domain.as_deref().is_none_or(is_hostname));
            prop_assert!(lease.mtu.is_none_or(|m| MTU_RANGE.contains(&m)));
            prop_assert!(lease.routes.len() <= LIST_LIMIT && lease.dns.iter().all(|d| is_host(*d)));
            for route in &lease.routes {
                prop_assert_eq!(u32::from(route.network) & !mask(route.prefix), 0);
            }
        }
    }
}
