//! Streams: blocks of one size, each numbered and filled by its number.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use speediso_model::burn_in::Series;

use crate::cancel::Stop;
use crate::error::LinkError;
use crate::handshake::Session;
use crate::payload::Payload;
use crate::report::{Received, Sent};
use crate::wire::PATIENCE;

const BLOCK: usize = 64 << 10;
/// In front of a block: its number, or this if it is the last of a phase.
const HEAD: usize = 8;
const LAST: u64 = u64::MAX;

/// One stream and the payloads of its two directions.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    away: Payload,
    towards: Payload,
    sent: u64,
    received: u64,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, session: &Session, n: u8, listens: bool) -> io::Result<Self> {
        // A partner that has gone is noticed long before TCP gives up.
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            away: session.payload("stream", n, listens),
            towards: session.payload("stream", n, !listens),
            sent: 0,
            received: 0,
        })
    }
}

/// Bits per second of all streams of one direction together.
#[derive(Debug)]
pub(crate) struct Gauge {
    begin: Instant,
    state: Mutex<(Instant, u64, Series)>,
}

impl Gauge {
    const STEP: Duration = Duration::from_millis(250);

    fn new(begin: Instant) -> Self {
        Self { begin, state: Mutex::new((begin, 0, Series::default())) }
    }

    fn moved(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += bytes;
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(state.0);
        if elapsed >= Self::STEP {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = (state.1 as f64 * 8.0 / elapsed.as_secs_f64()).round();
            let at = now.saturating_duration_since(self.begin).as_secs_f64();
            state.2.push((at * 10.0).round() / 10.0, rate);
            (state.0, state.1) = (now, 0);
        }
    }

    fn series(self) -> Series {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).2
    }
}

/// What all streams do at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) time: Duration,
    /// Bytes of each stream in one direction, after which it ends before its time.
    pub(crate) most: Option<u64>,
    pub(crate) sends: bool,
    pub(crate) receives: bool,
}

fn send(stream: &mut Stream, part: Part, stop: &Stop, gauge: &Gauge) -> Result<u64, LinkError> {
    let mut block = vec![0; HEAD + BLOCK];
    let (begin, mut bytes) = (Instant::now(), 0);
    loop {
        stop.check()?;
        let is_enough = part.most.is_some_and(|most| bytes + block.len() as u64 >= most);
        let last = is_enough || begin.elapsed() >= part.time;
        let number = stream.sent;
        block[..HEAD].copy_from_slice(&(if last { LAST } else { number }).to_le_bytes());
        stream.away.fill(number, &mut block[HEAD..]);
        stream.socket.write_all(&block).map_err(LinkError::broken("sending"))?;
        stream.sent += 1;
        bytes += block.len() as u64;
        gauge.moved(block.len() as u64);
        if last {
            return Ok(bytes);
        }
    }
}

fn receive(stream: &mut Stream, most: Option<u64>, stop: &Stop, gauge: &Gauge) -> Result<(u64, u64), LinkError> {
    let mut block = vec![0; HEAD + BLOCK];
    let (mut bytes, mut corrupt) = (0, 0);
    loop {
        stop.check()?;
        // The block that reaches the bound is the last.
        if let Some(most) = most.filter(|most| bytes >= (*most).max(1)) {
            return Err(LinkError::Protocol(format!("more than the {most} bytes of a stream that were agreed on")));
        }
        stream.socket.read_exact(&mut block).map_err(LinkError::broken("receiving"))?;
        let number = stream.received;
        stream.received += 1;
        bytes += block.len() as u64;
        gauge.moved(block.len() as u64);
        let head = block.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        let last = head == LAST;
        // TCP neither loses nor reorders: a block that bears another number is damaged.
        if (!last && head != number) || !stream.towards.is(number, &block[HEAD..]) {
            corrupt += 1;
        }
        if last {
            return Ok((bytes, corrupt));
        }
    }
}

/// What one end did in a phase.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) sent: Option<(Sent, Series)>,
    pub(crate) received: Option<(Received, Series)>,
}

/// All streams for a time: sending, receiving, or both.
pub(crate) fn run(streams: &mut [Stream], part: Part, stop: &Stop) -> Result<Done, LinkError> {
    let begin = Instant::now();
    let (out, into) = (Gauge::new(begin), Gauge::new(begin));
    let mut done = Done::default();
    let results: Vec<Halves> = std::thread::scope(|scope| {
        let workers: Vec<_> = streams
            .iter_mut()
            .map(|stream| {
                let (out, into) = (&out, &into);
                scope.spawn(move || both(scope, stream, part, stop, out, into))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<_, LinkError>>()
    })?;
    let seconds = |found: &dyn Fn(&Halves) -> Option<Duration>| {
        results.iter().filter_map(found).max().unwrap_or_default().as_secs_f64()
    };
    if part.sends {
        let amount = results.iter().filter_map(|r| r.0.as_ref()).map(|c| c.bytes).sum();
        done.sent = Some((Sent { amount, seconds: seconds(&|r| r.0.as_ref().map(|c| c.took)) }, out.series()));
    }
    if part.receives {
        let all = || results.iter().filter_map(|r| r.1.as_ref());
        let received = Received {
            amount: all().map(|c| c.bytes).sum(),
            corrupt: all().map(|c| c.corrupt).sum(),
            seconds: seconds(&|r| r.1.as_ref().map(|c| c.took)),
            ..Received::default()
        };
        done.received = Some((received, into.series()));
    }
    Ok(done)
}

#[derive(Debug)]
struct Counted {
    bytes: u64,
    corrupt: u64,
    took: Duration,
}

/// What was sent, and what was received, on one stream.
type Halves = (Option<Counted>, Option<Counted>);

fn both<'scope, 'env>(
    scope: &'scope std::thread::Scope<'scope, 'env>,
    stream: &mut Stream,
    part: Part,
    stop: &'env Stop,
    out: &'env Gauge,
    into: &'env Gauge,
) -> Result<Halves, LinkError> {
    let begin = Instant::now();
    let sender = if part.sends {
        let mut away = Stream {
            socket: stream.socket.try_clone().map_err(LinkError::broken("sending"))?,
            away: stream.away,
            towards: stream.towards,
            sent: stream.sent,
            received: 0,
        };
        Some(scope.spawn(move || {
            let bytes = send(&mut away, part, stop, out)?;
            Ok::<_, LinkError>((away.sent, Counted { bytes, corrupt: 0, took: begin.elapsed() }))
        }))
    } else {
        None
    };
    let received = if part.receives {
        let found = receive(stream, part.most, stop, into);
        if found.is_err() {
            // The other half would wait for its timeout: the stream is of no use any more.
            let _ = stream.socket.shutdown(std::net::Shutdown::Both);
        }
        Some(found.map(|(bytes, corrupt)| Counted { bytes, corrupt, took: begin.elapsed() }))
    } else {
        None
    };
    let sent = sender.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).transpose();
    let received = received.transpose()?;
    let sent = sent?.map(|(sent, counted)| {
        stream.sent = sent;
        counted
    });
    Ok((sent, received))
}
