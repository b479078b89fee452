//! DHCP messages (RFC 2131, 2132, 3396).
//!
//! What we send is encoded by `dhcproto`. What we receive is taken apart here: it comes from whoever is on the wire,
//! every option has to be kept as raw bytes, and one option that is not to somebody's liking must not hide the rest.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Flags, MessageType, OptionCode};
use dhcproto::{Encodable as _, v4};

/// Raw values by option number.
pub type Options = BTreeMap<u8, Vec<u8>>;

const HEADER: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const BOOT_REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const PAD: u8 = 0;
const END: u8 = 255;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
/// Of one option, its pieces joined (RFC 3396).
const OPTION_LIMIT: usize = 4096;

/// What a server may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Offer,
    Ack,
    Nak,
}

/// A server's message, taken apart and not yet believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    pub xid: u32,
    pub mac: [u8; 6],
    pub kind: Kind,
    /// `yiaddr`
    pub address: Ipv4Addr,
    /// Option 54, by which servers are told apart.
    pub server: Ipv4Addr,
    pub options: Options,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MessageError {
    #[error("a message of {0} bytes is no DHCP message")]
    Short(usize),
    #[error("not a reply over Ethernet")]
    NotAReply,
    #[error("the DHCP magic number is missing")]
    Cookie,
    #[error("option {0} is cut short")]
    CutShort(u8),
    #[error("option {0} is longer than any use of it")]
    TooLong(u8),
    #[error("the message type is missing or not a server's")]
    Kind,
    #[error("the server does not name itself")]
    NoServer,
}

impl Reply {
    /// # Errors
    /// When the bytes are not a well-formed message of a server. Nothing beyond them is read.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let short = MessageError::Short(bytes.len());
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or(short)?;
        let (cookie, area) = rest.split_first_chunk::<4>().ok_or(short)?;
        if header[..3] != [BOOT_REPLY, ETHERNET, 6] {
            return Err(MessageError::NotAReply);
        }
        if *cookie != COOKIE {
            return Err(MessageError::Cookie);
        }
        let mut options = Options::new();
        collect(area, &mut options)?;
        // The fields for file and server name may hold options too; 1 is the file, 2 the server name, 3 both.
        let overload = options.get(&OVERLOAD).and_then(|v| v.first().copied()).unwrap_or(0);
        if overload & 1 != 0 {
            collect(&header[108..236], &mut options)?;
        }
        if overload & 2 != 0 {
            collect(&header[44..108], &mut options)?;
        }
        let kind = match options.get(&MESSAGE_TYPE).map(Vec::as_slice) {
            Some([2]) => Kind::Offer,
            Some([5]) => Kind::Ack,
            Some([6]) => Kind::Nak,
            _ => return Err(MessageError::Kind),
        };
        let server = options.get(&SERVER).and_then(|v| <[u8; 4]>::try_from(v.as_slice()).ok());
        let four = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        Ok(Self {
            xid: u32::from_be_bytes(four(4)),
            mac: [header[28], header[29], header[30], header[31], header[32], header[33]],
            kind,
            address: Ipv4Addr::from(four(16)),
            server: Ipv4Addr::from(server.ok_or(MessageError::NoServer)?),
            options,
        })
    }
}

fn collect(mut area: &[u8], options: &mut Options) -> Result<(), MessageError> {
    loop {
        match area {
            [] | [END, ..] => return Ok(()),
            [PAD, rest @ ..] => area = rest,
            [code] => return Err(MessageError::CutShort(*code)),
            [code, length, rest @ ..] => {
                let (value, rest) = rest.split_at_checked(usize::from(*length)).ok_or(MessageError::CutShort(*code))?;
                let whole = options.entry(*code).or_default();
                if whole.len() + value.len() > OPTION_LIMIT {
                    return Err(MessageError::TooLong(*code));
                }
                whole.extend(value);
                area = rest;
            }
        }
    }
}

/// What we ask for, besides an address.
const WANTED: [OptionCode; 12] = [
    OptionCode::SubnetMask,
    OptionCode::Router,
    OptionCode::ClasslessStaticRoute,
    OptionCode::DomainNameServer,
    OptionCode::DomainName,
    OptionCode::DomainSearch,
    OptionCode::Hostname,
    OptionCode::InterfaceMtu,
    OptionCode::NtpServers,
    OptionCode::AddressLeaseTime,
    OptionCode::Renewal,
    OptionCode::Rebinding,
];

/// What a client says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Request {
    Discover,
    /// Takes an offer.
    Select {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// Prolongs a lease, to its server or (broadcast) to any.
    Extend {
        address: Ipv4Addr,
    },
    /// Gives an address back that is not wanted after all.
    Release {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
}

/// Encodes a request. `elapsed` are the seconds since asking began, which some relays and backup servers wait for.
pub(crate) fn request(
    what: Request,
    xid: u32,
    mac: [u8; 6],
    elapsed: u16,
    hostname: Option<&str>,
) -> Result<Vec<u8>, dhcproto::error::EncodeError> {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = v4::Message::new_with_id(xid, none, none, none, none, &mac);
    message.set_secs(elapsed);
    // Without an address of our own we can only hear a broadcast.
    if !matches!(what, Request::Extend { .. } | Request::Release { .. }) {
        message.set_flags(Flags::default().set_broadcast());
    }
    let kind = match what {
        Request::Discover => MessageType::Discover,
        Request::Select { .. } | Request::Extend { .. } => MessageType::Request,
        Request::Release { .. } => MessageType::Release,
    };
    match what {
        Request::Discover => {}
        Request::Select { address, server } => {
            message.opts_mut().insert(DhcpOption::RequestedIpAddress(address));
            message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
        }
        Request::Extend { address } => {
            message.set_ciaddr(address);
        }
        Request::Release { address, server } => {
            message.set_ciaddr(address);
            message.opts_mut().insert(DhcpOption::ServerIdentifier(server));
        }
    }
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType(kind));
    // Hardware type and address: the same in every boot, so the server gives the same address.
    options.insert(DhcpOption::ClientIdentifier([&[ETHERNET][..], &mac].concat()));
    // A release asks for nothing (RFC 2131, table 5).
    if !matches!(what, Request::Release { .. }) {
        options.insert(DhcpOption::ParameterRequestList(WANTED.to_vec()));
        options.insert(DhcpOption::MaxMessageSize(1500));
    }
    options.insert(DhcpOption::ClassIdentifier(b"speediso".to_vec()));
    if let Some(name) = hostname {
        options.insert(DhcpOption::Hostname(name.to_owned()));
    }
    message.to_vec()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server's message as `dhcproto` writes it.
    pub(in crate::net) fn reply(kind: MessageType, options: Vec<DhcpOption>) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mac = [0x52, 0x54, 0, 1, 2, 3];
        let mut message = v4::Message::new_with_id(7, none, Ipv4Addr::new(192, 0, 2, 50), none, none, &mac);
        message.set_opcode(v4::Opcode::BootReply);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        message.opts_mut().insert(DhcpOption::ServerIdentifier(Ipv4Addr::new(192, 0, 2, 1)));
        for option in options {
            message.opts_mut().insert(option);
        }
        message.to_vec().expect("encodes")
    }

    #[test]
    fn a_servers_message_is_taken_apart() {
        let bytes = reply(MessageType::Offer, vec![DhcpOption::Hostname("node7".into())]);
        let offer = Reply::parse(&bytes).expect("good");
        assert_eq!((offer.xid, offer.kind), (7, Kind::Offer));
        assert_eq!(offer.mac, [0x52, 0x54, 0, 1, 2, 3]);
        assert_eq!(offer.address, Ipv4Addr::new(192, 0, 2, 50));
        assert_eq!(offer.server, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(offer.options[&12], b"node7");
    }

    #[test]
    fn what_is_no_reply_is_refused_by_name() {
        let good = reply(MessageType::Ack, vec![]);
        assert_eq!(Reply::parse(&good[..100]), Err(MessageError::Short(100)));
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Reply::parse(&bytes)
        };
        assert_eq!(changed(0, 1), Err(MessageError::NotAReply), "a request");
        assert_eq!(changed(2, 16), Err(MessageError::NotAReply), "a hardware address of sixteen bytes");
        assert_eq!(changed(236, 0), Err(MessageError::Cookie));
        let mut cut = good[..240].to_vec();
        cut.extend([53, 1, 5, 1, 4, 255]);
        assert_eq!(Reply::parse(&cut), Err(MessageError::CutShort(1)));
        let mut nameless = good[..240].to_vec();
        nameless.extend([53, 1, 5, 255]);
        assert_eq!(Reply::parse(&nameless), Err(MessageError::NoServer));
        let mut clients = good[..240].to_vec();
        clients.extend([53, 1, 1, 54, 4, 1, 2, 3, 4, 255]);
        assert_eq!(Reply::parse(&clients), Err(MessageError::Kind));
    }

    #[test]
    fn split_and_overloaded_options_are_joined() {
        let mut bytes = reply(MessageType::Ack, vec![])[..240].to_vec();
        bytes.extend([53, 1, 5, 54, 4, 192, 0, 2, 1, 12, 2, b'n', b'o', 12, 2, b'd', b'e', 52, 1, 3, 255]);
        bytes[108..113].copy_from_slice(&[15, 2, b'x', b'y', 255]);
        bytes[44..48].copy_from_slice(&[26, 2, 5, 220]);
        bytes[48] = 255;
        let ack = Reply::parse(&bytes).expect("good");
        assert_eq!(ack.options[&12], b"node");
        assert_eq!(ack.options[&15], b"xy");
        assert_eq!(ack.options[&26], [5, 220]);
    }

    #[test]
    fn requests_say_who_and_what() {
        let mac = [2, 0, 0, 0, 0, 9];
        let what = Request::Select { address: Ipv4Addr::new(192, 0, 2, 50), server: Ipv4Addr::new(192, 0, 2, 1) };
        let bytes = request(what, 99, mac, 3, Some("node7")).expect("encodes");
        assert_eq!(bytes[0], 1);
        assert_eq!(bytes[4..8], 99u32.to_be_bytes());
        assert_eq!(bytes[10], 0x80, "broadcast wanted");
        assert_eq!(bytes[28..34], mac);
        let mut options = Options::new();
        collect(&bytes[240..], &mut options).expect("well-formed");
        assert_eq!(options[&53], [3]);
        assert_eq!(options[&50], [192, 0, 2, 50]);
        assert_eq!(options[&54], [192, 0, 2, 1]);
        assert_eq!(options[&61], [1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(options[&12], b"node7");
        let extend =
            request(Request::Extend { address: Ipv4Addr::new(192, 0, 2, 50) }, 1, mac, 0, None).expect("encodes");
        assert_eq!(extend[12..16], [192, 0, 2, 50]);
        assert_eq!(extend[10], 0, "it can hear a unicast");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let _ = Reply::parse(&bytes);
        }

        /// With a good header in front, the options are reached.
        #[test]
        fn any_options_are_survived(area in prop::collection::vec(any::<u8>(), 0..500), file in prop::collection::vec(any::<u8>(), 128)) {
            let mut bytes = reply(MessageType::Ack, vec![])[..240].to_vec();
            bytes[108..236].copy_from_slice(&file);
            bytes.extend([53, 1, 5, 54, 4, 192, 0, 2, 1, 52, 1, 1]);
            bytes.extend(area);
            if let Ok(reply) = Reply::parse(&bytes) {
                prop_assert!(reply.options.values().all(|v| v.len() <= OPTION_LIMIT));
                let _ = crate::net::Lease::from_reply(&reply);
            }
        }
    }
}
