//! Asking for an address (RFC 2131 section 4.4.1) and for more time.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rand::Rng as _;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::lease::Lease;
use super::link::Nic;
use super::message::{Kind, Reply, Request, request};
use super::socket::{self, EVERYBODY, SERVER_PORT};

/// How long the first wait for an answer may be; it doubles up to the last. A server that pings an address before
/// offering it needs a second or more.
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LAST_WAIT: Duration = Duration::from_secs(16);
/// Below this a wait would only make noise.
const LEAST_WAIT: Duration = Duration::from_millis(700);
/// After the first offer, for a second server to show itself.
const OTHER_OFFERS: Duration = Duration::from_millis(150);
/// How often an offer is asked for before starting over.
const SELECT_TRIES: u32 = 3;
/// Kept of what was heard, so that a chattering network does not fill memory.
const NOTE_LIMIT: usize = 8;
/// Larger than any Ethernet frame that is not jumbo; DHCP messages are smaller yet.
const PACKET: usize = 2048;

/// An address was granted.
#[derive(Debug)]
pub(super) struct Obtained {
    pub(super) lease: Lease,
    pub(super) notes: Vec<String>,
}

/// None was, and this is what was tried and heard.
#[derive(Debug)]
pub(super) enum Failure {
    Socket(io::Error),
    Silence {
        asked: u32,
        elapsed: Duration,
        heard: Vec<String>,
    },
    /// The server took the address back.
    Refused {
        server: Ipv4Addr,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "DHCP could not be spoken: {error}"),
            Self::Refused { server } => write!(f, "{server} refused to prolong the lease"),
            Self::Silence { asked, elapsed, heard } => {
                write!(f, "asked {asked} times in {} s, ", elapsed.as_secs())?;
                if heard.is_empty() {
                    f.write_str("nothing was heard")
                } else {
                    write!(f, "heard only: {}", heard.join("; "))
                }
            }
        }
    }
}

/// Speaks DHCP on one interface.
#[derive(Debug)]
pub(super) struct Client {
    nic: Nic,
    hostname: Option<String>,
}

impl Client {
    pub(super) fn new(nic: &Nic, hostname: Option<&str>) -> Self {
        Self { nic: nic.clone(), hostname: hostname.map(str::to_owned) }
    }

    /// Asks whoever is there, until an address is granted or the limit is reached.
    pub(super) async fn obtain(&self, limit: Duration) -> Result<Obtained, Failure> {
        let socket = socket::open(&self.nic).map_err(Failure::Socket)?;
        let mut talk = Talk::new(self, &socket);
        let end = talk.begun + limit;
        let mut wait = FIRST_WAIT;
        while Instant::now() < end {
            talk.asked += 1;
            talk.send(Request::Discover, EVERYBODY).await;
            let until = (Instant::now() + jitter(wait)).min(end);
            if let Some(offer) = talk.best_offer(until).await
                && let Some(lease) = talk.select(&offer, end).await
            {
                return Ok(Obtained { lease, notes: talk.heard });
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
        Err(Failure::Silence { asked: talk.asked, elapsed: talk.begun.elapsed(), heard: talk.heard })
    }

    /// Asks for more time: its own server, or (when `server` is `None`) any. One question, one wait.
    pub(super) async fn extend(
        &self,
        lease: &Lease,
        server: Option<Ipv4Addr>,
        wait: Duration,
    ) -> Result<Lease, Failure> {
        let socket = socket::open(&self.nic).map_err(Failure::Socket)?;
        let mut talk = Talk::new(self, &socket);
        let to = server.map_or(EVERYBODY, |server| SocketAddrV4::new(server, SERVER_PORT));
        talk.send(Request::Extend { address: lease.address }, to).await;
        let until = Instant::now() + wait;
        while let Some(reply) = talk.receive(until).await {
            match reply.kind {
                Kind::Nak => return Err(Failure::Refused { server: reply.server }),
                Kind::Ack => match Lease::from_reply(&reply) {
                    Ok(lease) => return Ok(lease),
                    Err(error) => talk.note(error.to_string()),
                },
                Kind::Offer => {}
            }
        }
        Err(Failure::Silence { asked: 1, elapsed: talk.begun.elapsed(), heard: talk.heard })
    }

    /// Gives the address back, while it is still there to speak from. Nobody answers, so nothing is waited for.
    pub(super) async fn release(&self, lease: &Lease) {
        let Ok(socket) = socket::open(&self.nic) else { return };
        let mut talk = Talk::new(self, &socket);
        let what = Request::Release { address: lease.address, server: lease.server };
        talk.send(what, SocketAddrV4::new(lease.server, SERVER_PORT)).await;
        for note in talk.heard {
            tracing::debug!(nic = %self.nic, "{note}");
        }
    }
}

/// A random wait between the least and `most`: machines that were powered on together do not ask together for long.
fn jitter(most: Duration) -> Duration {
    rand::rng().random_range(LEAST_WAIT..=most.max(LEAST_WAIT))
}

/// One exchange.
struct Talk<'a> {
    client: &'a Client,
    socket: &'a UdpSocket,
    xid: u32,
    begun: Instant,
    asked: u32,
    heard: Vec<String>,
}

impl<'a> Talk<'a> {
    fn new(client: &'a Client, socket: &'a UdpSocket) -> Self {
        Self { client, socket, xid: rand::rng().random(), begun: Instant::now(), asked: 0, heard: Vec::new() }
    }

    fn note(&mut self, text: String) {
        if self.heard.len() < NOTE_LIMIT && !self.heard.contains(&text) {
            self.heard.push(text);
        }
    }

    /// A packet that cannot be sent is like one that is lost: the next try may do better.
    async fn send(&mut self, what: Request, to: SocketAddrV4) {
        let elapsed = u16::try_from(self.begun.elapsed().as_secs()).unwrap_or(u16::MAX);
        let hostname = self.client.hostname.as_deref();
        let packet = match request(what, self.xid, self.client.nic.hardware, elapsed, hostname) {
            Ok(packet) => packet,
            Err(error) => return self.note(format!("a request could not be encoded: {error}")),
        };
        if let Err(error) = self.socket.send_to(&packet, to).await {
            self.note(format!("sending failed: {error}"));
        }
    }

    /// The next reply that is for us, or `None` when the time is over.
    async fn receive(&mut self, until: Instant) -> Option<Reply> {
        let mut packet = [0; PACKET];
        loop {
            let (length, from) = match timeout_at(until, self.socket.recv_from(&mut packet)).await {
                Err(_) => return None,
                Ok(Ok(received)) => received,
                Ok(Err(error)) => {
                    self.note(format!("receiving failed: {error}"));
                    // The interface may have gone down for a moment; without a pause this would spin.
                    tokio::time::sleep_until(until.min(Instant::now() + LEAST_WAIT)).await;
                    continue;
                }
            };
            match Reply::parse(&packet[..length]) {
                // Answers to other machines are broadcast too.
                Ok(reply) if reply.xid != self.xid || reply.mac != self.client.nic.hardware => {}
                Ok(reply) => return Some(reply),
                Err(error) => self.note(format!("from {}: {error}", from.ip())),
            }
        }
    }

    /// The first usable offer. Other servers' offers are noted: two servers on one network are a mistake of somebody's.
    async fn best_offer(&mut self, until: Instant) -> Option<Reply> {
        let mut best: Option<Reply> = None;
        let mut until = until;
        while let Some(reply) = self.receive(until).await {
            if reply.kind != Kind::Offer {
                continue;
            }
            if let Err(error) = Lease::from_reply(&reply) {
                self.note(format!("an offer that cannot be used: {error}"));
                continue;
            }
            match &best {
                None => {
                    until = Instant::now() + OTHER_OFFERS;
                    best = Some(reply);
                }
                Some(first) if first.server != reply.server => {
                    let note = two_servers(first.server, reply.server);
                    self.note(note);
                }
                Some(_) => {}
            }
        }
        best
    }

    /// Takes an offer; `None` if the server does not stand by it.
    async fn select(&mut self, offer: &Reply, end: Instant) -> Option<Lease> {
        let mut wait = FIRST_WAIT;
        for _ in 0..SELECT_TRIES {
            self.send(Request::Select { address: offer.address, server: offer.server }, EVERYBODY).await;
            let until = (Instant::now() + jitter(wait)).min(end);
            while let Some(reply) = self.receive(until).await {
                if reply.server != offer.server {
                    let note = two_servers(offer.server, reply.server);
                    self.note(note);
                    continue;
                }
                match reply.kind {
                    Kind::Ack => match Lease::from_reply(&reply) {
                        Ok(lease) => return Some(lease),
                        Err(error) => self.note(format!("a grant that cannot be used: {error}")),
                    },
                    Kind::Nak => {
                        self.note(format!("{} offered {} and then refused it", offer.server, offer.address));
                        // Do not ask again at once: a server that does this does it every time.
                        tokio::time::sleep_until(until).await;
                        return None;
                    }
                    Kind::Offer => {}
                }
            }
            wait = (wait * 2).min(LAST_WAIT);
        }
        self.note(format!("{} offered {} and then fell silent", offer.server, offer.address));
        None
    }
}

fn two_servers(first: Ipv4Addr, second: Ipv4Addr) -> String {
    format!("two DHCP servers answer on this network, {first} and {second}: one of them should not")
}
