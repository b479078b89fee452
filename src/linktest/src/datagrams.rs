//! Datagrams: numbered, filled by their number, echoed. What does not come back within a moment is lost.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use speediso_model::latency::LatencyHistogram;

use crate::cancel::Stop;
use crate::error::LinkError;
use crate::handshake::Session;
use crate::payload::Payload;
use crate::report::{Received, Sent};

/// Mark, kind, number, time of sending.
const HEAD: usize = 8 + 1 + 8 + 8;
/// With IP and UDP it fits into any Ethernet frame.
pub(crate) const LARGEST: u16 = 1400;
/// For what is still on its way when the last one was sent.
pub(crate) const STRAGGLERS: Duration = Duration::from_millis(800);
const SLICE: Duration = Duration::from_millis(50);

const PROBE: u8 = 1;
const ECHO: u8 = 2;

pub(crate) struct Socket {
    socket: UdpSocket,
    mark: u64,
}

impl Socket {
    pub(crate) fn open(address: SocketAddr, session: &Session) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
        socket.set_read_timeout(Some(SLICE))?;
        socket.set_write_timeout(Some(SLICE))?;
        Ok(Self { socket, mark: session.mark() })
    }

    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    /// From now on nothing from elsewhere is heard.
    pub(crate) fn partner(&self, address: SocketAddr) -> io::Result<()> {
        self.socket.connect(address)
    }

    fn head(&self, kind: u8, number: u64, time: u64, into: &mut [u8]) {
        into[..8].copy_from_slice(&self.mark.to_le_bytes());
        into[8] = kind;
        into[9..17].copy_from_slice(&number.to_le_bytes());
        into[17..25].copy_from_slice(&time.to_le_bytes());
    }

    /// One datagram of this session, if one comes in time: its kind, number, time and length.
    fn hear(&self, buffer: &mut [u8]) -> Option<(u8, u64, u64, usize)> {
        // What the network says of an earlier datagram (refused, unreachable) is a loss, which is counted as such.
        let length = self.socket.recv(buffer).ok()?;
        let found = buffer.get(..length)?;
        let word = |at: usize| found.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        (word(0)? == self.mark).then_some((found[8], word(9)?, word(17)?, length))
    }
}

/// Sends at a steady rate for a time, and takes the echoes.
pub(crate) fn send(
    socket: &Socket,
    payload: Payload,
    time: Duration,
    per_second: u32,
    size: u16,
    stop: &Stop,
) -> Result<(Sent, LatencyHistogram), LinkError> {
    let begin = Instant::now();
    let ended = AtomicBool::new(false);
    let nanos = || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
    std::thread::scope(|scope| {
        let echoes = scope.spawn(|| {
            let mut round_trip = LatencyHistogram::default();
            let mut buffer = vec![0; usize::from(LARGEST)];
            let mut end = None;
            while end.is_none_or(|end| Instant::now() < end) {
                if let Some((ECHO, _, sent, _)) = socket.hear(&mut buffer) {
                    round_trip.record(Duration::from_nanos(nanos().saturating_sub(sent)));
                }
                if end.is_none() && ended.load(Ordering::Relaxed) {
                    end = Some(Instant::now() + STRAGGLERS);
                }
            }
            round_trip
        });
        let mut datagram = vec![0; usize::from(size.clamp(64, LARGEST))];
        let gap = Duration::from_secs(1) / per_second.max(1);
        let mut number = 0u64;
        let sent = loop {
            if let Err(cancelled) = stop.check() {
                break Err(cancelled);
            }
            let due = gap * u32::try_from(number).unwrap_or(u32::MAX);
            if due >= time {
                break Ok(Sent { amount: number, seconds: begin.elapsed().as_secs_f64() });
            }
            // Behind its time it sends what is due at once: the rate is kept over the whole, not between two.
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            payload.fill(number, &mut datagram[HEAD..]);
            socket.head(PROBE, number, nanos(), &mut datagram);
            // One that our own kernel does not take has not reached the partner either: it is sent, and lost.
            let _ = socket.socket.send(&datagram);
            number += 1;
        };
        ended.store(true, Ordering::Relaxed);
        let round_trip = echoes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((sent?, round_trip))
    })
}

/// Takes and echoes for a time, and for what may still be on its way then.
pub(crate) fn receive(socket: &Socket, payload: Payload, time: Duration, stop: &Stop) -> Result<Received, LinkError> {
    let begin = Instant::now();
    let end = begin + time + STRAGGLERS;
    let mut seen: HashSet<u64> = HashSet::new();
    let mut received = Received::default();
    let mut buffer = vec![0; usize::from(LARGEST)];
    let mut transit_before: Option<f64> = None;
    let mut newest = None;
    while Instant::now() < end {
        stop.check()?;
        let Some((PROBE, number, sent, length)) = socket.hear(&mut buffer) else { continue };
        if !payload.is(number, &buffer[HEAD..length]) {
            received.corrupt += 1;
            continue;
        }
        if !seen.insert(number) {
            received.duplicated += 1;
            continue;
        }
        if newest.is_some_and(|newest| number < newest) {
            received.reordered += 1;
        }
        newest = newest.max(Some(number));
        // The clocks of both ends differ by a constant, which the difference of two transits does not have.
        #[allow(clippy::cast_precision_loss, reason = "microseconds of a test that lasts hours at most")]
        let transit = begin.elapsed().as_secs_f64() * 1e6 - sent as f64 / 1e3;
        if let Some(before) = transit_before {
            received.jitter_us += ((transit - before).abs() - received.jitter_us) / 16.0;
        }
        transit_before = Some(transit);
        let mut echo = [0; HEAD];
        socket.head(ECHO, number, sent, &mut echo);
        // A lost echo is a round trip less, no loss of this direction.
        let _ = socket.socket.send(&echo);
    }
    received.amount = seen.len() as u64;
    received.seconds = begin.elapsed().as_secs_f64();
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake;
    use crate::secret::Secret;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::sync::Arc;

    fn session() -> Session {
        let secret = Secret::random();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let to = listener.local_addr().expect("bound");
        let theirs = secret.clone();
        let there = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("it connects");
            handshake::answer(&mut socket, &theirs, None).expect("it knows the secret")
        });
        let mut socket = TcpStream::connect(to).expect("it listens");
        let session = handshake::ask(&mut socket, &secret, handshake::Kind::Words, None).expect("the same secret");
        assert_eq!(there.join().expect("it ended").1.mark(), session.mark());
        session
    }

    /// Every 10th is lost, every 25th doubled, every 40th damaged, every 50th late by two.
    fn relay(between: &UdpSocket, to: SocketAddr, ended: &AtomicBool) {
        let mut buffer = [0; 2048];
        let (mut n, mut late) = (0u32, None::<(u32, Vec<u8>)>);
        between.set_read_timeout(Some(SLICE)).expect("a socket");
        while !ended.load(Ordering::Relaxed) {
            let Ok((length, from)) = between.recv_from(&mut buffer) else { continue };
            if from == to {
                continue;
            }
            n += 1;
            let mut bytes = buffer[..length].to_vec();
            if n % 40 == 7 {
                bytes[HEAD + 3] ^= 1;
            }
            let times = if n % 10 == 1 { 0 } else { 1 + usize::from(n % 25 == 3) };
            if n % 50 == 5 {
                late = Some((n + 2, bytes));
                continue;
            }
            for _ in 0..times {
                let _ = between.send_to(&bytes, to);
            }
            if let Some((_, bytes)) = late.take_if(|(due, _)| *due == n) {
                let _ = between.send_to(&bytes, to);
            }
        }
    }

    #[test]
    fn lost_doubled_damaged_and_late_ones_are_told_apart() {
        let session = session();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (here, there) =
            (Socket::open(any, &session).expect("a port"), Socket::open(any, &session).expect("a port"));
        let between = Arc::new(UdpSocket::bind(any).expect("a port"));
        let middle = between.local_addr().expect("bound");
        let port = |socket: &Socket| SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port().expect("bound")));
        let target = port(&there);
        here.partner(middle).expect("a socket");
        there.partner(middle).expect("a socket");
        let payload = session.payload("datagrams", 0, true);
        let (time, ended) = (Duration::from_secs(1), AtomicBool::new(false));
        let (sent, received) = std::thread::scope(|scope| {
            scope.spawn(|| relay(&between, target, &ended));
            let receiver = scope.spawn(|| receive(&there, payload, time * 2, &Stop::never()));
            let sent = send(&here, payload, time, 1000, 200, &Stop::never());
            let received = receiver.join().expect("it ended");
            ended.store(true, Ordering::Relaxed);
            (sent.expect("sent").0, received.expect("received"))
        });
        assert_eq!(sent.amount, 1000);
        // Of the hundred that were lost none was doubled; those that were damaged did not arrive as sent either.
        assert_eq!(received.corrupt, 25);
        assert_eq!(received.amount, 1000 - 100 - 25);
        assert_eq!((received.duplicated, received.reordered), (40, 20));
        assert!(received.jitter_us > 0.0);
    }
}
