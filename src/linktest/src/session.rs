//! From the first connection to the report.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use speediso_model::burn_in::LinkTerms as Terms;

use crate::cancel::{LOOK, Stop};
use crate::datagrams::{self, STRAGGLERS, Socket};
use crate::error::LinkError;
use crate::handshake::{self, Kind, Session};
use crate::report::{Datagrams, LinkReport, Streams, Way};
use crate::secret::Secret;
use crate::streams::{self, Part, Stream};
use crate::wire::{Message, PATIENCE, hear, say};

/// A port that is open for one partner.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    partner: Option<IpAddr>,
    turned_away: u32,
}

impl Listener {
    /// Opens it on this address alone (port 0: any). Who comes from elsewhere than `partner` is not answered.
    ///
    /// # Errors
    /// When the address is not ours, or the port is taken.
    pub fn open(address: SocketAddr, partner: Option<IpAddr>) -> Result<Self, LinkError> {
        let failed = |source| LinkError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, partner, turned_away: 0 })
    }

    /// From now on answers nobody but this one.
    #[must_use]
    pub fn only(mut self, partner: IpAddr) -> Self {
        self.partner = Some(partner);
        self
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for one who knows the secret. Everybody else is turned away, and counted.
    ///
    /// # Errors
    /// When nobody comes in time.
    pub fn wait(mut self, secret: &Secret, wait: Duration, stop: &Stop) -> Result<Link, LinkError> {
        let (socket, session) = self.next(secret, wait, stop, None, |kind| kind == Kind::Words)?.into();
        Ok(Link { words: socket, session, secret: secret.clone(), end: End::Listens(self) })
    }

    fn next(
        &mut self,
        secret: &Secret,
        wait: Duration,
        stop: &Stop,
        session: Option<&Session>,
        wanted: impl Fn(Kind) -> bool,
    ) -> Result<Joined, LinkError> {
        let begin = Instant::now();
        loop {
            stop.check()?;
            match self.listener.accept() {
                Ok((mut socket, from)) => {
                    let known = self.partner.is_none_or(|partner| from.ip() == partner);
                    let answered = socket.set_nonblocking(false).is_ok()
                        && known
                        && match handshake::answer(&mut socket, secret, session) {
                            Ok((kind, of)) if wanted(kind) => return Ok(Joined { socket, session: of, kind }),
                            _ => false,
                        };
                    self.turned_away += u32::from(!answered);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(LOOK / 10),
                // Who knocked has gone before we opened.
                Err(_) => self.turned_away += 1,
            }
            if begin.elapsed() > wait {
                let (address, turned_away) = (self.address, self.turned_away);
                return Err(LinkError::NobodyCame { address, waited: wait, turned_away });
            }
        }
    }
}

struct Joined {
    socket: TcpStream,
    session: Session,
    kind: Kind,
}

impl From<Joined> for (TcpStream, Session) {
    fn from(joined: Joined) -> Self {
        (joined.socket, joined.session)
    }
}

#[derive(Debug)]
enum End {
    Listens(Listener),
    Connects { from: IpAddr, to: SocketAddr },
}

/// Two ends that know one another. The port closes with it.
#[derive(Debug)]
pub struct Link {
    words: TcpStream,
    session: Session,
    secret: Secret,
    end: End,
}

/// Reaches a partner that listens, or will listen soon.
///
/// # Errors
/// When it cannot be reached in time, or does not know the secret.
pub fn connect(from: IpAddr, to: SocketAddr, secret: &Secret, wait: Duration, stop: &Stop) -> Result<Link, LinkError> {
    let begin = Instant::now();
    loop {
        stop.check()?;
        let joined = TcpStream::connect_timeout(&to, PATIENCE.min(wait)).map_err(LinkError::broken("connecting"));
        let joined = joined.and_then(|mut words| {
            let session = handshake::ask(&mut words, secret, Kind::Words, None)?;
            Ok((words, session))
        });
        match joined {
            Ok((words, session)) => {
                return Ok(Link { words, session, secret: secret.clone(), end: End::Connects { from, to } });
            }
            Err(LinkError::Broken { source, .. }) if begin.elapsed() > wait => {
                return Err(LinkError::Unreachable { address: to, waited: wait, source });
            }
            // Not there yet, or busy with somebody who does not belong here.
            Err(LinkError::Broken { .. }) => std::thread::sleep(LOOK),
            Err(other) => return Err(other),
        }
    }
}

impl Link {
    fn listens(&self) -> bool {
        matches!(self.end, End::Listens(_))
    }

    /// Address of the other end.
    ///
    /// # Errors
    /// When it has gone.
    pub fn partner(&self) -> Result<SocketAddr, LinkError> {
        self.words.peer_addr().map_err(LinkError::broken("the word with the partner"))
    }

    /// Tries the link on these terms. `told` hears which phase begins.
    ///
    /// # Errors
    /// When it could not be tried to the end. What is wrong with the link itself is in the report.
    pub fn run(mut self, terms: &Terms, stop: &Stop, told: &dyn Fn(&str)) -> Result<LinkReport, LinkError> {
        let result = self.try_all(terms, stop, told);
        if let Err(error) = &result {
            // It may not hear it any more.
            let _ = say(&mut self.words, &Message::GaveUp { why: error.to_string() });
        }
        result
    }

    fn try_all(&mut self, terms: &Terms, stop: &Stop, told: &dyn Fn(&str)) -> Result<LinkReport, LinkError> {
        let patience = |extra: u32| Some(PATIENCE + Duration::from_secs(extra.into()));
        self.words.set_read_timeout(patience(0)).map_err(LinkError::broken("the word with the partner"))?;
        self.agree(terms)?;
        let mut report = LinkReport::default();
        let mut streams = self.join_streams(terms.streams, stop)?;
        let time = Duration::from_secs(terms.stream_seconds.into()) / 3;
        let most = terms.stream_bytes.map(|bytes| bytes.0 / u64::from(terms.streams.max(1)));
        // The end that connects sends first.
        for (n, (from_listener, from_connector)) in [(false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let (sends, receives) =
                if self.listens() { (from_listener, from_connector) } else { (from_connector, from_listener) };
            told(match (sends, receives) {
                (true, true) => "streams both ways",
                (true, false) => "streams to the partner",
                _ => "streams from the partner",
            });
            self.begin(n)?;
            let done = streams::run(&mut streams, Part { time, most, sends, receives }, stop)?;
            let (sent, received) = (done.sent.as_ref().map(|d| d.0), done.received.as_ref().map(|d| d.0));
            let (their_sent, their_received) = self.compare(sent, received)?;
            let both_at_once = sends && receives;
            if let (Some((sent, over_time)), Some(theirs)) = (done.sent, their_received) {
                report.streams.push(Streams {
                    way: Way::Sent,
                    both_at_once,
                    bytes_sent: sent.amount,
                    bytes_received: theirs.amount,
                    seconds: theirs.seconds,
                    corrupt_blocks: theirs.corrupt,
                    over_time,
                });
            }
            if let (Some((received, over_time)), Some(theirs)) = (done.received, their_sent) {
                report.streams.push(Streams {
                    way: Way::Received,
                    both_at_once,
                    bytes_sent: theirs.amount,
                    bytes_received: received.amount,
                    seconds: received.seconds,
                    corrupt_blocks: received.corrupt,
                    over_time,
                });
            }
        }
        drop(streams);
        if terms.datagram_seconds > 0 {
            self.datagrams(terms, stop, told, &mut report)?;
        }
        if let End::Listens(listener) = &self.end {
            report.turned_away = listener.turned_away;
        }
        Ok(report)
    }

    fn agree(&mut self, terms: &Terms) -> Result<(), LinkError> {
        say(&mut self.words, &Message::Terms(*terms))?;
        match hear(&mut self.words)? {
            Message::Terms(theirs) if theirs == *terms => Ok(()),
            Message::Terms(theirs) => Err(LinkError::Terms { ours: terms.to_string(), theirs: theirs.to_string() }),
            other => Err(unexpected(&other)),
        }
    }

    /// Both ends begin a phase together: each says that it is ready and waits for the other's word.
    fn begin(&mut self, phase: usize) -> Result<(), LinkError> {
        let phase = u8::try_from(phase).unwrap_or(u8::MAX);
        say(&mut self.words, &Message::Begin { phase })?;
        match hear(&mut self.words)? {
            Message::Begin { phase: theirs } if theirs == phase => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn compare(
        &mut self,
        sent: Option<crate::report::Sent>,
        received: Option<crate::report::Received>,
    ) -> Result<(Option<crate::report::Sent>, Option<crate::report::Received>), LinkError> {
        say(&mut self.words, &Message::Did { sent, received })?;
        match hear(&mut self.words)? {
            Message::Did { sent: s, received: r }
                if s.is_some() == received.is_some() && r.is_some() == sent.is_some() =>
            {
                Ok((s, r))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn join_streams(&mut self, n: u8, stop: &Stop) -> Result<Vec<Stream>, LinkError> {
        let mut streams = Vec::new();
        for index in 0..n {
            let socket = match &mut self.end {
                End::Connects { to, .. } => {
                    let mut socket =
                        TcpStream::connect_timeout(to, PATIENCE).map_err(LinkError::broken("opening a stream"))?;
                    handshake::ask(&mut socket, &self.secret, Kind::Stream(index), Some(&self.session))?;
                    socket
                }
                End::Listens(listener) => {
                    let wanted = |kind| kind == Kind::Stream(index);
                    let joined = listener.next(&self.secret, PATIENCE, stop, Some(&self.session), wanted)?;
                    debug_assert_eq!(joined.kind, Kind::Stream(index));
                    joined.socket
                }
            };
            let listens = self.listens();
            streams.push(
                Stream::new(socket, &self.session, index, listens).map_err(LinkError::broken("opening a stream"))?,
            );
        }
        Ok(streams)
    }

    fn datagrams(
        &mut self,
        terms: &Terms,
        stop: &Stop,
        told: &dyn Fn(&str),
        report: &mut LinkReport,
    ) -> Result<(), LinkError> {
        let opening = || LinkError::broken("opening a port for datagrams");
        let local = match &self.end {
            End::Listens(listener) => listener.address,
            End::Connects { from, .. } => SocketAddr::new(*from, 0),
        };
        let socket = Socket::open(local, &self.session).map_err(opening())?;
        say(&mut self.words, &Message::Datagrams { port: socket.port().map_err(opening())? })?;
        let port = match hear(&mut self.words)? {
            Message::Datagrams { port } => port,
            other => return Err(unexpected(&other)),
        };
        socket.partner(SocketAddr::new(self.partner()?.ip(), port)).map_err(opening())?;
        let time = Duration::from_secs(terms.datagram_seconds.into()) / 2;
        let listens = self.listens();
        let from_here = self.session.payload("datagrams", 0, listens);
        let from_there = self.session.payload("datagrams", 0, !listens);
        // While one end waits for what is on its way, the other waits for its word.
        let wait = PATIENCE + time + 2 * STRAGGLERS;
        self.words.set_read_timeout(Some(wait)).map_err(opening())?;
        for (n, sends) in [(3, !listens), (4, listens)] {
            told(if sends { "datagrams to the partner" } else { "datagrams from the partner" });
            self.begin(n)?;
            if sends {
                let (sent, round_trip) =
                    datagrams::send(&socket, from_here, time, terms.datagrams_per_second, terms.datagram_bytes, stop)?;
                if let (_, Some(theirs)) = self.compare(Some(sent), None)? {
                    report.datagrams.push(Datagrams {
                        way: Way::Sent,
                        sent: sent.amount,
                        received: theirs.amount,
                        corrupt: theirs.corrupt,
                        duplicated: theirs.duplicated,
                        reordered: theirs.reordered,
                        jitter_us: theirs.jitter_us,
                        round_trip: Some(round_trip),
                    });
                }
            } else {
                let received = datagrams::receive(&socket, from_there, time, stop)?;
                if let (Some(theirs), _) = self.compare(None, Some(received))? {
                    report.datagrams.push(Datagrams {
                        way: Way::Received,
                        sent: theirs.amount,
                        received: received.amount,
                        corrupt: received.corrupt,
                        duplicated: received.duplicated,
                        reordered: received.reordered,
                        jitter_us: received.jitter_us,
                        round_trip: None,
                    });
                }
            }
        }
        Ok(())
    }
}

fn unexpected(message: &Message) -> LinkError {
    LinkError::Protocol(format!("{message:?}"))
}
