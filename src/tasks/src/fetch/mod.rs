//! Bytes from HTTP servers, as blocking readers.
//!
//! This is the one place where async code and blocking code meet: a task on the runtime fetches into bounded channels,
//! a reader takes from one of them, a thread that hashes from the other. A connection that breaks is taken up again
//! where it broke; a server that stalls, ends early, sends more than it announced, or meanwhile has something else is an
//! error, never an end.

mod answer;
mod error;
mod pool;
mod pump;
mod ranges;
mod trusted;

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use speediso_image::trust::Wrong;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{ImageDigest, ImageSource};
use tokio::sync::mpsc;

use crate::ctx::TaskCtx;

pub(crate) use self::error::FetchError;
use self::pool::Piece;
use self::pump::{Origin, pump};
pub(crate) use self::ranges::Ranges;
pub(crate) use self::trusted::check_whole;

/// Pieces in flight to each of the two sides, which share them.
const IN_FLIGHT: usize = 16;

/// How long a server is given. Only tests have less.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Until the head of an answer.
    pub connect: Duration,
    /// Without any byte.
    pub stall: Duration,
    /// Attempts in a row that bring nothing worth mentioning.
    pub tries: u32,
    /// Before the second attempt; doubled before each that follows, up to `longest_pause`.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            tries: 10,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(20),
        }
    }
}

impl Patience {
    pub(crate) fn pause(&self, tries: u32) -> Duration {
        self.first_pause.saturating_mul(1 << tries.min(16)).min(self.longest_pause)
    }
}

/// A source that is being fetched and hashed.
pub(crate) struct Fetch {
    /// As the server announced it.
    pub(crate) length: Option<u64>,
    pieces: mpsc::Receiver<Result<Arc<Piece>, FetchError>>,
    piece: Option<Arc<Piece>>,
    /// How much of the piece has been read.
    at: usize,
    failed: Option<FetchError>,
}

/// What is known of a source once all of it was read.
pub(crate) struct Hashed {
    thread: std::thread::JoinHandle<(Result<Option<ImageDigest>, Wrong>, u64)>,
    resumed: Arc<AtomicU32>,
}

pub(crate) struct Sum {
    /// Unless it was a signature that was checked.
    pub(crate) digest: Option<ImageDigest>,
    pub(crate) length: u64,
    /// How often the connection was lost and taken up again.
    pub(crate) resumed: u32,
}

impl Hashed {
    /// Waits until every byte that was fetched is hashed. Only after the reader has come to its end.
    ///
    /// # Errors
    /// `image-digest-mismatch` or `signature-invalid` when they are not what the order says.
    pub(crate) fn sum(self, image: &ImageSource) -> Result<Sum, Fault> {
        let (checked, length) =
            self.thread.join().map_err(|_| Fault::new(FaultCode::Internal, "the hashing thread panicked"))?;
        let digest = checked.map_err(|wrong| trusted::fault(&wrong, &image.url))?;
        Ok(Sum { digest, length, resumed: self.resumed.load(Ordering::Relaxed) })
    }
}

/// Asks for the image and returns once a server has answered with success.
///
/// # Errors
/// `image-unreachable` when nobody answers, `image-refused` when the answer is no.
pub(crate) fn open(image: &ImageSource, ctx: &TaskCtx) -> Result<(Fetch, Hashed), Fault> {
    let expected = trusted::expected(image, ctx)?;
    let mut origin = Origin::new(image, ctx);
    let first = ctx.runtime.block_on(origin.first()).map_err(|e| e.fault(image))?;
    let length = first.total;
    let (to_reader, pieces) = mpsc::channel(IN_FLIGHT);
    let (to_hash, mut hashed) = mpsc::channel::<Arc<Piece>>(IN_FLIGHT);
    let resumed = Arc::clone(&origin.resumed);
    let thread = std::thread::Builder::new()
        .name("hash".into())
        .spawn(move || {
            let mut length = 0;
            let checked = expected.check(|take| {
                while let Some(piece) = hashed.blocking_recv() {
                    length += piece.len() as u64;
                    take(&piece);
                }
            });
            (checked, length)
        })
        .map_err(|e| Fault::from_error(FaultCode::Internal, &e))?;
    ctx.runtime.spawn(pump(origin, first, to_reader, to_hash));
    let fetch = Fetch { length, pieces, piece: None, at: 0, failed: None };
    Ok((fetch, Hashed { thread, resumed }))
}

impl Read for Fetch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &self.piece
                && self.at < piece.len()
            {
                let n = buffer.len().min(piece.len() - self.at);
                buffer[..n].copy_from_slice(&piece[self.at..self.at + n]);
                self.at += n;
                return Ok(n);
            }
            (self.piece, self.at) = (None, 0);
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => self.piece = Some(piece),
                Some(Err(error)) => self.failed = Some(error),
                // After an error nothing comes any more, which must never look like the end.
                None => return self.failed.clone().map_or(Ok(0), |error| Err(io::Error::other(error))),
            }
        }
    }
}
