//! DHCPv6 messages (RFC 8415). As with DHCPv4: what we send is encoded by `dhcproto`, what we receive is taken apart
//! here, where one bad option does not hide the rest.

use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::Encodable as _;
use dhcproto::v6::{self, DhcpOption, IAAddr, IANA, MessageType, ORO, OptionCode};

use super::names;
use super::ra::{is_host, is_server};

const CLIENT_ID: u16 = 1;
const SERVER_ID: u16 = 2;
const IA_NA: u16 = 3;
const IA_ADDRESS: u16 = 5;
const PREFERENCE: u16 = 7;
const STATUS: u16 = 13;
const DNS: u16 = 23;
const SEARCH: u16 = 24;
const LIST_LIMIT: usize = 16;
const FOREVER: u32 = u32::MAX;
/// RFC 8415 section 11.1
const DUID_LIMIT: usize = 130;
/// DUID-LL (RFC 8415 section 11.4) of an Ethernet card.
const DUID_LINK_LAYER: [u8; 4] = [0, 3, 0, 1];

/// What a client says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask<'a> {
    Solicit,
    Request {
        server: &'a [u8],
        address: Ipv6Addr,
    },
    Renew {
        server: &'a [u8],
        address: Ipv6Addr,
    },
    Rebind {
        address: Ipv6Addr,
    },
    Release {
        server: &'a [u8],
        address: Ipv6Addr,
    },
    /// Name servers only.
    Information,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Advertise,
    Reply,
}

/// An address and how long it may be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lent {
    pub(super) address: Ipv6Addr,
    /// `None` never ends.
    pub(super) valid: Option<Duration>,
    pub(super) renew_after: Duration,
    pub(super) rebind_after: Duration,
}

/// A server's message, taken apart and not yet believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) xid: [u8; 3],
    pub(super) client: Vec<u8>,
    pub(super) server: Vec<u8>,
    pub(super) preference: u8,
    /// The first that is not success: of the message, of the addresses together, or of one.
    pub(super) status: Option<u16>,
    pub(super) lent: Option<Lent>,
    pub(super) dns: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
}

/// The same in every boot, so the server gives the same address.
pub(super) fn duid(mac: [u8; 6]) -> Vec<u8> {
    [&DUID_LINK_LAYER[..], &mac].concat()
}

fn iaid(mac: [u8; 6]) -> u32 {
    u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]])
}

pub(super) fn encode(
    ask: Ask<'_>,
    xid: [u8; 3],
    mac: [u8; 6],
    elapsed: Duration,
) -> Result<Vec<u8>, dhcproto::error::EncodeError> {
    let (kind, server, address) = match ask {
        Ask::Solicit => (MessageType::Solicit, None, None),
        Ask::Request { server, address } => (MessageType::Request, Some(server), Some(address)),
        Ask::Renew { server, address } => (MessageType::Renew, Some(server), Some(address)),
        Ask::Rebind { address } => (MessageType::Rebind, None, Some(address)),
        Ask::Release { server, address } => (MessageType::Release, Some(server), Some(address)),
        Ask::Information => (MessageType::InformationRequest, None, None),
    };
    let mut message = v6::Message::new_with_id(kind, xid);
    let options = message.opts_mut();
    options.insert(DhcpOption::ClientId(duid(mac)));
    // In hundredths of a second.
    options.insert(DhcpOption::ElapsedTime(u16::try_from(elapsed.as_millis() / 10).unwrap_or(u16::MAX)));
    if let Some(server) = server {
        options.insert(DhcpOption::ServerId(server.to_vec()));
    }
    if ask != Ask::Information {
        let mut inner = v6::DhcpOptions::new();
        if let Some(addr) = address {
            inner.insert(DhcpOption::IAAddr(IAAddr {
                addr,
                preferred_life: 0,
                valid_life: 0,
                opts: v6::DhcpOptions::new(),
            }));
        }
        options.insert(DhcpOption::IANA(IANA { id: iaid(mac), t1: 0, t2: 0, opts: inner }));
    }
    if !matches!(ask, Ask::Release { .. }) {
        options
            .insert(DhcpOption::ORO(ORO { opts: vec![OptionCode::DomainNameServers, OptionCode::DomainSearchList] }));
    }
    message.to_vec()
}

impl Answer {
    /// `None` for what is no whole message of a server to a client.
    pub(super) fn parse(message: &[u8], mac: [u8; 6]) -> Option<Self> {
        let (header, rest) = message.split_first_chunk::<4>()?;
        let kind = match header[0] {
            2 => Kind::Advertise,
            7 => Kind::Reply,
            _ => return None,
        };
        let mut answer = Self {
            kind,
            xid: [header[1], header[2], header[3]],
            client: Vec::new(),
            server: Vec::new(),
            preference: 0,
            status: None,
            lent: None,
            dns: Vec::new(),
            search: Vec::new(),
        };
        for (code, value) in options(rest)? {
            match code {
                CLIENT_ID => answer.client = value.to_vec(),
                SERVER_ID if value.len() <= DUID_LIMIT => answer.server = value.to_vec(),
                PREFERENCE => answer.preference = value.first().copied().unwrap_or(0),
                STATUS => answer.note(value),
                IA_NA => answer.lend(value, mac),
                DNS => {
                    let servers = value.chunks_exact(16).filter_map(address).filter(is_server);
                    answer.dns = servers.take(LIST_LIMIT).collect();
                }
                SEARCH => answer.search = names::list(value).unwrap_or_default(),
                _ => {}
            }
        }
        (!answer.server.is_empty()).then_some(answer)
    }

    fn note(&mut self, status: &[u8]) {
        let code = status.first_chunk::<2>().map(|code| u16::from_be_bytes(*code)).filter(|code| *code != 0);
        self.status = self.status.or(code);
    }

    fn lend(&mut self, value: &[u8], mac: [u8; 6]) {
        let Some((head, inner)) = value.split_first_chunk::<12>() else { return };
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if word(0) != iaid(mac) {
            return;
        }
        for (code, value) in options(inner).unwrap_or_default() {
            match (code, value.split_first_chunk::<24>()) {
                (STATUS, _) => self.note(value),
                (IA_ADDRESS, Some((fixed, inner))) if self.lent.is_none() => {
                    for (_, status) in options(inner).unwrap_or_default().iter().filter(|(code, _)| *code == STATUS) {
                        self.note(status);
                    }
                    let valid = u32::from_be_bytes([fixed[20], fixed[21], fixed[22], fixed[23]]);
                    self.lent = address(fixed)
                        .filter(|a| is_host(a) && !a.is_unicast_link_local() && valid > 0)
                        .map(|address| lent(address, valid, word(4), word(8)));
                }
                _ => {}
            }
        }
    }
}

/// Times in order, whatever the server says (RFC 8415 section 21.4 leaves 0 to the client).
fn lent(address: Ipv6Addr, valid: u32, t1: u32, t2: u32) -> Lent {
    if valid == FOREVER {
        return Lent { address, valid: None, renew_after: Duration::MAX, rebind_after: Duration::MAX };
    }
    // A server that gives next to nothing is asked again no more often than this.
    let valid = Duration::from_secs(u64::from(valid.max(4)));
    let given = |t: u32| Some(Duration::from_secs(u64::from(t))).filter(|d| !d.is_zero() && *d < valid);
    let rebind_after = given(t2).unwrap_or(valid * 4 / 5);
    let renew_after = given(t1).filter(|t| *t < rebind_after).unwrap_or(rebind_after / 2);
    Lent { address, valid: Some(valid), renew_after: renew_after.max(Duration::from_secs(1)), rebind_after }
}

fn options(mut area: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !area.is_empty() {
        let (head, rest) = area.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([head[2], head[3]])))?;
        found.push((u16::from_be_bytes([head[0], head[1]]), value));
        area = rest;
    }
    Some(found)
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    bytes.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 10];

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).expect("small");
        [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    }

    fn message(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
        [&[kind, 1, 2, 3][..], &options.concat()].concat()
    }

    fn lease(valid: u32, t1: u32, t2: u32, more: &[u8]) -> Vec<u8> {
        let ip: Ipv6Addr = "2001:db8::77".parse().expect("good");
        let inner = [&ip.octets()[..], &valid.to_be_bytes(), &valid.to_be_bytes(), more].concat();
        option(3, &[&iaid(MAC).to_be_bytes()[..], &t1.to_be_bytes(), &t2.to_be_bytes(), &option(5, &inner)].concat())
    }

    #[test]
    fn a_usual_reply_is_read_whole() {
        let dns: Ipv6Addr = "2001:db8::53".parse().expect("good");
        let bytes = message(
            7,
            &[
                option(1, &duid(MAC)),
                option(2, b"server"),
                lease(3600, 900, 1800, &[]),
                option(23, &dns.octets()),
                option(24, b"\x07example\x03org\0"),
            ],
        );
        let answer = Answer::parse(&bytes, MAC).expect("good");
        assert_eq!((answer.kind, answer.xid, answer.status), (Kind::Reply, [1, 2, 3], None));
        assert_eq!((answer.client, answer.server), (duid(MAC), b"server".to_vec()));
        assert_eq!((answer.dns, answer.search), (vec![dns], vec!["example.org".to_owned()]));
        let lent = answer.lent.expect("an address");
        assert_eq!((lent.valid, lent.renew_after), (Some(Duration::from_secs(3600)), Duration::from_secs(900)));
    }

    #[test]
    fn refusals_and_nonsense_are_told_apart() {
        let server = option(2, b"s");
        let status = option(13, &[0, 2]);
        let refused = Answer::parse(
            &message(2, &[server.clone(), option(3, &[&iaid(MAC).to_be_bytes()[..], &[0; 8], &status].concat())]),
            MAC,
        );
        assert_eq!(refused.expect("well-formed").status, Some(2), "no addresses available");
        assert!(Answer::parse(&message(7, &[]), MAC).is_none(), "nobody's");
        assert!(Answer::parse(&message(1, std::slice::from_ref(&server)), MAC).is_none(), "a client's");
        assert!(Answer::parse(&message(7, &[server.clone(), vec![0, 23, 0, 99]]), MAC).is_none(), "cut short");
        let other = Answer::parse(&message(7, &[server.clone(), lease(60, 0, 0, &[])]), [9; 6]).expect("well-formed");
        assert_eq!(other.lent, None, "another card's");
        let ended = Answer::parse(&message(7, &[server, lease(0, 0, 0, &[])]), MAC).expect("well-formed");
        assert_eq!(ended.lent, None, "an address that is valid for no time");
    }

    #[test]
    fn requests_say_who_and_what() {
        let bytes = encode(Ask::Solicit, [1, 2, 3], MAC, Duration::from_secs(1)).expect("encodes");
        assert_eq!(bytes[..4], [1, 1, 2, 3]);
        let said = options(&bytes[4..]).expect("well-formed");
        let value = |code| said.iter().find(|(c, _)| *c == code).map(|(_, v)| *v);
        assert_eq!(value(1), Some(&duid(MAC)[..]));
        assert_eq!(value(6), Some(&[0, 23, 0, 24][..]));
        assert_eq!(value(8), Some(&[0, 100][..]));
        assert_eq!(value(3).map(|ia| &ia[..4]), Some(&iaid(MAC).to_be_bytes()[..]));
        let information = encode(Ask::Information, [1, 2, 3], MAC, Duration::ZERO).expect("encodes");
        assert!(
            options(&information[4..]).expect("well-formed").iter().all(|(code, _)| *code != 3),
            "no address is asked for"
        );
    }

    proptest! {
        #[test]
        fn any_message_is_survived(kind in prop_oneof![Just(2u8), Just(7)], tail in prop::collection::vec(any::<u8>(), 0..200), times in any::<[u32; 3]>()) {
            let _ = Answer::parse(&message(kind, std::slice::from_ref(&tail)), MAC);
            let full = message(kind, &[option(2, b"s"), lease(times[0], times[1], times[2], &tail), option(23, &tail), option(24, &tail)]);
            if let Some(answer) = Answer::parse(&full, MAC) {
                prop_assert!(answer.dns.iter().all(is_server) && answer.dns.len() <= LIST_LIMIT);
                if let Some(lent) = answer.lent {
                    prop_assert!(is_host(&lent.address) && lent.renew_after <= lent.rebind_after.max(Duration::from_secs(1)));
                    prop_assert!(lent.valid.is_none_or(|valid| lent.rebind_after < valid));
                }
            }
        }
    }
}
