//! Router advertisements (RFC 4861 section 4.2), as far as they matter beyond what the kernel does with them by itself:
//! name servers and search domains (RFC 8106), whether there is a DHCPv6 server to ask, the MTU.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::names;

const ADVERTISEMENT: u8 = 134;
const HEADER: usize = 16;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const DNS: u8 = 25;
const SEARCH: u8 = 31;
const MANAGED: u8 = 0x80;
const OTHER: u8 = 0x40;
/// The prefix may be used for addresses that the machine makes up itself.
const AUTONOMOUS: u8 = 0x40;
/// Of each list.
const LIST_LIMIT: usize = 16;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Advertisement {
    /// Of the router as a way out; zero: it is none.
    pub lifetime: Duration,
    /// Addresses come from DHCPv6.
    pub is_managed: bool,
    /// Name servers and the like come from DHCPv6.
    pub has_other: bool,
    pub mtu: Option<u32>,
    /// Those from which addresses are made, with their lengths.
    pub prefixes: Vec<(Ipv6Addr, u8)>,
    pub dns: Vec<Ipv6Addr>,
    pub search: Vec<String>,
}

impl Advertisement {
    /// `None` if it is none, or breaks off. Unknown options are passed over.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (header, mut options) = message.split_first_chunk::<HEADER>()?;
        if header[0] != ADVERTISEMENT || header[1] != 0 {
            return None;
        }
        let mut found = Self {
            lifetime: Duration::from_secs(u64::from(u16::from_be_bytes([header[6], header[7]]))),
            is_managed: header[5] & MANAGED != 0,
            has_other: header[5] & OTHER != 0,
            ..Self::default()
        };
        while let [kind, units, ..] = options {
            // In units of eight bytes; none at all would never end (RFC 4861 section 4.6).
            let length = usize::from(*units) * 8;
            if length == 0 {
                return None;
            }
            let (option, rest) = options.split_at_checked(length)?;
            found.take(*kind, option);
            options = rest;
        }
        Some(found)
    }

    fn take(&mut self, kind: u8, option: &[u8]) {
        match kind {
            PREFIX if option.len() == 32 && option[3] & AUTONOMOUS != 0 => {
                let valid = u32::from_be_bytes([option[4], option[5], option[6], option[7]]);
                if let Some(prefix) = address(&option[16..])
                    && valid > 0
                    && option[2] <= 128
                    && self.prefixes.len() < LIST_LIMIT
                {
                    self.prefixes.push((prefix, option[2]));
                }
            }
            MTU if option.len() == 8 => {
                // IPv6 needs 1280 (RFC 8200 section 5); jumbo frames end well below this.
                let mtu = u32::from_be_bytes([option[4], option[5], option[6], option[7]]);
                self.mtu = Some(mtu).filter(|mtu| (1280..=65_535).contains(mtu));
            }
            DNS if option.len() >= 24 && option[4..8] != [0; 4] => {
                let servers = option[8..].chunks_exact(16).filter_map(address).filter(is_server);
                self.dns.extend(servers.take(LIST_LIMIT - self.dns.len().min(LIST_LIMIT)));
            }
            SEARCH if option.len() >= 16 && option[4..8] != [0; 4] => {
                for name in names::list(&option[8..]).unwrap_or_default() {
                    if self.search.len() < LIST_LIMIT && !self.search.contains(&name) {
                        self.search.push(name);
                    }
                }
            }
            _ => {}
        }
    }
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    bytes.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

/// Whether a name server can be there. One on the link itself cannot be written to `resolv.conf` without the interface,
/// and is left out.
pub(super) fn is_server(address: &Ipv6Addr) -> bool {
    is_host(address) && !address.is_unicast_link_local()
}

pub(super) fn is_host(address: &Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn advertisement(flags: u8, options: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![ADVERTISEMENT, 0, 0, 0, 64, flags, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        options.iter().for_each(|option| message.extend(*option));
        message
    }

    #[test]
    fn a_usual_advertisement_is_read_whole() {
        let server: Ipv6Addr = "2001:db8::53".parse().expect("good");
        let mut dns = vec![DNS, 3, 0, 0, 0, 0, 1, 0];
        dns.extend(server.octets());
        let search = [&[SEARCH, 3, 0, 0, 0, 0, 1, 0][..], b"\x07example\x03org\0\0\0\0"].concat();
        let prefix: Ipv6Addr = "2001:db8::".parse().expect("good");
        let mut information = vec![PREFIX, 4, 64, 0xc0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0];
        information.extend(prefix.octets());
        let mtu = [MTU, 1, 0, 0, 0, 0, 5, 0xdc];
        let found = Advertisement::parse(&advertisement(OTHER, &[&information, &mtu, &dns, &search])).expect("good");
        assert_eq!(
            found,
            Advertisement {
                lifetime: Duration::from_secs(1800),
                is_managed: false,
                has_other: true,
                mtu: Some(1500),
                prefixes: vec![(prefix, 64)],
                dns: vec![server],
                search: vec!["example.org".into()],
            }
        );
        assert!(Advertisement::parse(&advertisement(0, &[&[9, 0, 0, 0]])).is_none(), "an option without length");
        assert!(Advertisement::parse(&advertisement(0, &[&[9, 2, 0, 0]])).is_none(), "an option cut short");
        let small = Advertisement::parse(&advertisement(0, &[&[MTU, 1, 0, 0, 0, 0, 0, 68]])).expect("good");
        assert_eq!(small.mtu, None);
    }

    proptest! {
        #[test]
        fn any_options_are_survived(options in prop::collection::vec(any::<u8>(), 0..300), flags in any::<u8>()) {
            if let Some(found) = Advertisement::parse(&advertisement(flags, &[&options])) {
                prop_assert!(found.dns.iter().all(is_server) && found.dns.len() <= LIST_LIMIT);
                prop_assert!(found.prefixes.iter().all(|(_, length)| *length <= 128));
                prop_assert!(found.mtu.is_none_or(|mtu| mtu >= 1280));
            }
        }
    }
}
