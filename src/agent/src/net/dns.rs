//! Asking one name server for one name: to compare servers, and to ask over a certain interface. Whoever just wants an
//! address uses the system's resolver.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rand::Rng as _;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::names;

const PORT: u16 = 53;
const HEADER: usize = 12;
/// Recursion desired.
const FLAGS: u16 = 0x0100;
const ANSWER: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const IN: u16 = 1;
const NAME_ERROR: u8 = 3;
const RECORD_LIMIT: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    A,
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// What a server said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// In order; empty where the name exists without such an address.
    Addresses(Vec<IpAddr>),
    NoSuchName,
    /// Refused, server failure, and so on.
    Error(u8),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    #[error("{0:?} is no name that can be asked for")]
    Name(String),
    #[error("no answer in {} ms", .0.as_millis())]
    Silence(Duration),
    #[error("asking")]
    Io(#[from] io::Error),
}

/// Asks, twice if need be, within the limit. With an interface the question leaves by that one only.
pub(crate) async fn ask(
    server: IpAddr,
    name: &str,
    kind: Kind,
    nic: Option<&str>,
    limit: Duration,
) -> Result<Answer, DnsError> {
    let id = rand::rng().random();
    let question = query(id, name, kind).ok_or_else(|| DnsError::Name(name.to_owned()))?;
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    if let Some(nic) = nic {
        socket.bind_device(Some(nic.as_bytes()))?;
    }
    // Connected: answers of anybody else do not arrive, and a refusal does.
    socket.connect(SocketAddr::new(server, PORT)).await?;
    let begun = Instant::now();
    let mut packet = [0; 1500];
    for until in [begun + limit / 2, begun + limit] {
        socket.send(&question).await?;
        while let Ok(received) = timeout_at(until, socket.recv(&mut packet)).await {
            let length = received?;
            if let Some(answer) = parse(&packet[..length], id, kind) {
                return Ok(answer);
            }
        }
    }
    Err(DnsError::Silence(limit))
}

fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    for word in [id, FLAGS, 1, 0, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(names::write(name)?);
    bytes.extend(kind.number().to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    Some(bytes)
}

/// `None` for what is no answer to the question, or breaks off. One that was cut by the server counts as far as it goes.
fn parse(message: &[u8], id: u16, kind: Kind) -> Option<Answer> {
    let header = message.first_chunk::<HEADER>()?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if word(0) != id || header[2] & ANSWER == 0 {
        return None;
    }
    match header[3] & 0xf {
        0 => {}
        NAME_ERROR => return Some(Answer::NoSuchName),
        code => return Some(Answer::Error(code)),
    }
    let mut at = HEADER;
    for _ in 0..word(4) {
        at = names::read(message, at)?.1 + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..usize::from(word(6)).min(RECORD_LIMIT) {
        let Some((record, next)) = record(message, at) else {
            if header[2] & TRUNCATED != 0 {
                break;
            }
            return None;
        };
        if record.0 == kind.number() && record.1 == IN {
            let address = match record.2 {
                four if four.len() == 4 => <[u8; 4]>::try_from(four).ok().map(IpAddr::from),
                sixteen => <[u8; 16]>::try_from(sixteen).ok().map(IpAddr::from),
            };
            addresses.extend(address);
        }
        at = next;
    }
    Some(Answer::Addresses(addresses))
}

type Record<'a> = (u16, u16, &'a [u8]);

fn record(message: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let (_, at) = names::read(message, at)?;
    let fixed = message.get(at..at + 10)?;
    let word = |i: usize| u16::from_be_bytes([fixed[i], fixed[i + 1]]);
    let end = at + 10 + usize::from(word(8));
    Some(((word(0), word(2), message.get(at + 10..end)?), end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(id: u16, code: u8, records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = query(id, "node.example", Kind::A).expect("good");
        bytes[2] |= ANSWER;
        bytes[3] = code;
        bytes[7] = u8::try_from(records.len()).expect("few");
        records.iter().for_each(|record| bytes.extend(*record));
        bytes
    }

    #[test]
    fn addresses_are_found_behind_an_alias() {
        // The name by pointer; a CNAME first, as servers send it.
        let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x09\0\x04\x01b\xc0\x11";
        let address = b"\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\xc0\0\x02\x07";
        let found = parse(&answer(9, 0, &[alias, address]), 9, Kind::A);
        assert_eq!(found, Some(Answer::Addresses(vec![Ipv4Addr::new(192, 0, 2, 7).into()])));
        assert_eq!(parse(&answer(9, 0, &[address]), 8, Kind::A), None, "another question's");
        assert_eq!(parse(&answer(9, 3, &[]), 9, Kind::A), Some(Answer::NoSuchName));
        assert_eq!(parse(&answer(9, 5, &[]), 9, Kind::A), Some(Answer::Error(5)));
        assert_eq!(parse(&answer(9, 0, &[&address[..12]]), 9, Kind::A), None, "it breaks off");
        assert_eq!(parse(&answer(9, 0, &[address]), 9, Kind::Aaaa), Some(Answer::Addresses(vec![])));
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(tail in prop::collection::vec(any::<u8>(), 0..200), counts in any::<[u8; 4]>()) {
            let mut bytes = answer(1, 0, &[&tail]);
            bytes[4..8].copy_from_slice(&counts);
            if let Some(Answer::Addresses(found)) = parse(&bytes, 1, Kind::Aaaa) {
                prop_assert!(found.len() <= RECORD_LIMIT);
            }
        }
    }
}
