//! Asking a DHCPv6 server (RFC 8415 section 18.2) for an address, for more time, or only for name servers.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt,
};
use rand::Rng as _;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::dhcp6_message::{Answer, Ask, Kind, Lent, duid, encode};
use super::link::Nic;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// All relays and servers on the link.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(8);
/// After the first offer, for one with a higher preference; one of 255 is not waited on.
const OTHER_OFFERS: Duration = Duration::from_millis(200);
const SELECT_TRIES: u32 = 3;
const PACKET: usize = 2048;
const NOTE_LIMIT: usize = 8;

/// What a server gave.
#[derive(Clone, Debug)]
pub(super) struct Obtained {
    /// `None`: only name servers were asked for.
    pub(super) lent: Option<Lent>,
    pub(super) server: Vec<u8>,
    pub(super) dns: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
    pub(super) notes: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Failure {
    Socket(io::Error),
    Silence {
        heard: Vec<String>,
    },
    /// The server does not know the address any more.
    Refused,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "DHCPv6 could not be spoken: {error}"),
            Self::Refused => f.write_str("the DHCPv6 server refused to prolong the address"),
            Self::Silence { heard } if heard.is_empty() => f.write_str("no DHCPv6 server answered"),
            Self::Silence { heard } => write!(f, "no usable answer by DHCPv6, heard only: {}", heard.join("; ")),
        }
    }
}

/// Asks for an address until one is given or the limit is reached.
pub(super) async fn obtain(nic: &Nic, limit: Duration) -> Result<Obtained, Failure> {
    let mut talk = Talk::new(nic)?;
    let end = talk.begun + limit;
    let mut wait = FIRST_WAIT;
    while Instant::now() < end {
        talk.send(Ask::Solicit).await;
        if let Some(offer) = talk.best_offer((Instant::now() + wait).min(end)).await
            && let Some(address) = offer.lent.as_ref().map(|lent| lent.address)
        {
            for _ in 0..SELECT_TRIES {
                talk.send(Ask::Request { server: &offer.server, address }).await;
                let until = (Instant::now() + wait.max(FIRST_WAIT)).min(end);
                if let Some(reply) = talk.reply(until, Some(&offer.server)).await {
                    match (reply.lent.is_some(), reply.status) {
                        (true, None) => return Ok(talk.obtained(reply)),
                        (_, status) => talk.note(format!(
                            "a server offered an address and then refused it (status {})",
                            status.unwrap_or(0)
                        )),
                    }
                    break;
                }
            }
        }
        wait = (wait * 2).min(LAST_WAIT);
    }
    Err(Failure::Silence { heard: talk.heard })
}

/// Asks for name servers only.
pub(super) async fn information(nic: &Nic, limit: Duration) -> Result<Obtained, Failure> {
    let mut talk = Talk::new(nic)?;
    let end = talk.begun + limit;
    let mut wait = FIRST_WAIT;
    while Instant::now() < end {
        talk.send(Ask::Information).await;
        if let Some(reply) = talk.reply((Instant::now() + wait).min(end), None).await {
            return Ok(talk.obtained(Answer { lent: None, ..reply }));
        }
        wait = (wait * 2).min(LAST_WAIT);
    }
    Err(Failure::Silence { heard: talk.heard })
}

/// Asks for more time: its own server, or (without one) any.
pub(super) async fn extend(
    nic: &Nic,
    address: Ipv6Addr,
    server: Option<&[u8]>,
    wait: Duration,
) -> Result<Obtained, Failure> {
    let mut talk = Talk::new(nic)?;
    talk.send(server.map_or(Ask::Rebind { address }, |server| Ask::Renew { server, address })).await;
    let until = Instant::now() + wait;
    match talk.reply(until, server).await {
        Some(reply) if reply.status.is_none() && reply.lent.as_ref().is_some_and(|l| l.address == address) => {
            Ok(talk.obtained(reply))
        }
        Some(_) => Err(Failure::Refused),
        None => Err(Failure::Silence { heard: talk.heard }),
    }
}

/// Gives the address back. Nobody waits for the answer: if it is lost, the lease ends by itself.
pub(super) async fn release(nic: &Nic, address: Ipv6Addr, server: &[u8]) {
    if let Ok(mut talk) = Talk::new(nic) {
        talk.send(Ask::Release { server, address }).await;
    }
}

/// One exchange.
struct Talk<'a> {
    nic: &'a Nic,
    socket: UdpSocket,
    xid: [u8; 3],
    begun: Instant,
    heard: Vec<String>,
}

impl<'a> Talk<'a> {
    fn new(nic: &'a Nic) -> Result<Self, Failure> {
        let socket = open(nic).map_err(Failure::Socket)?;
        Ok(Self { nic, socket, xid: rand::rng().random(), begun: Instant::now(), heard: Vec::new() })
    }

    fn obtained(self, reply: Answer) -> Obtained {
        Obtained { lent: reply.lent, server: reply.server, dns: reply.dns, search: reply.search, notes: self.heard }
    }

    fn note(&mut self, text: String) {
        if self.heard.len() < NOTE_LIMIT && !self.heard.contains(&text) {
            self.heard.push(text);
        }
    }

    /// A packet that cannot be sent is like one that is lost: for the first second the card's own address is still
    /// being checked, and nothing leaves.
    async fn send(&mut self, ask: Ask<'_>) {
        let packet = match encode(ask, self.xid, self.nic.hardware, self.begun.elapsed()) {
            Ok(packet) => packet,
            Err(error) => return self.note(format!("a request could not be encoded: {error}")),
        };
        let to = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, self.nic.index);
        if let Err(error) = self.socket.send_to(&packet, to).await {
            tracing::debug!(nic = %self.nic, %error, "a DHCPv6 request was not sent");
        }
    }

    /// The next answer to this exchange, or `None` when the time is over.
    async fn receive(&mut self, until: Instant) -> Option<Answer> {
        let mut packet = [0; PACKET];
        loop {
            match timeout_at(until, self.socket.recv_from(&mut packet)).await {
                Err(_) => return None,
                Ok(Ok((length, from))) => match Answer::parse(&packet[..length], self.nic.hardware) {
                    Some(answer) if answer.xid == self.xid && answer.client == duid(self.nic.hardware) => {
                        return Some(answer);
                    }
                    Some(_) => {}
                    None => self.note(format!("from {}: no DHCPv6 answer", from.ip())),
                },
                Ok(Err(error)) => {
                    self.note(format!("receiving failed: {error}"));
                    tokio::time::sleep_until(until.min(Instant::now() + FIRST_WAIT)).await;
                }
            }
        }
    }

    async fn best_offer(&mut self, until: Instant) -> Option<Answer> {
        let mut best: Option<Answer> = None;
        let mut until = until;
        while let Some(offer) = self.receive(until).await {
            if offer.kind != Kind::Advertise || offer.lent.is_none() || offer.status.is_some() {
                if let Some(status) = offer.status {
                    self.note(format!("a server has no address for us (status {status})"));
                }
                continue;
            }
            match &best {
                Some(first) if first.server != offer.server => {
                    self.note(
                        "two DHCPv6 servers answer on this network: one of them should not, unless that is meant"
                            .into(),
                    );
                }
                _ => {}
            }
            if best.is_none() {
                until = Instant::now() + OTHER_OFFERS;
            }
            let is_last = offer.preference == u8::MAX;
            if best.as_ref().is_none_or(|first| offer.preference > first.preference) {
                best = Some(offer);
            }
            if is_last {
                break;
            }
        }
        best
    }

    async fn reply(&mut self, until: Instant, server: Option<&[u8]>) -> Option<Answer> {
        while let Some(answer) = self.receive(until).await {
            if answer.kind == Kind::Reply && server.is_none_or(|server| answer.server == server) {
                return Some(answer);
            }
        }
        None
    }
}

/// Bound to the interface, so that it hears and sends there only.
fn open(nic: &Nic) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, flags, SockProtocol::Udp)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    setsockopt(&fd, sockopt::BindToDevice, &OsString::from(&nic.name))?;
    let address = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0));
    bind(fd.as_raw_fd(), &address)?;
    UdpSocket::from_std(std::net::UdpSocket::from(fd))
}
