//! One file from its first byte to its last, over as many connections and servers as it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use speediso_model::image::ImageSource;
use tokio::sync::mpsc;

use super::answer::{Answer, Wanted};
use super::pool::{Piece, Pool};
use super::{FetchError, Patience};
use crate::ctx::{Cancel, Reporter, TaskCtx};

/// An attempt that brings less than this counts as one that brought nothing.
const PROGRESS: u64 = 64 << 10;

/// The servers that have the file, and what they said of it.
pub(super) struct Origin {
    http: reqwest::Client,
    urls: Vec<Server>,
    current: usize,
    patience: Patience,
    cancel: Cancel,
    reporter: Arc<dyn Reporter>,
    pub(super) resumed: Arc<AtomicU32>,
    tries: u32,
}

struct Server {
    url: String,
    validator: Option<String>,
}

impl Origin {
    pub(super) fn new(image: &ImageSource, ctx: &TaskCtx) -> Self {
        let server = |url: &String| Server { url: url.clone(), validator: None };
        Self {
            http: ctx.http.clone(),
            urls: std::iter::once(&image.url).chain(&image.mirrors).map(server).collect(),
            current: 0,
            patience: ctx.patience.clone(),
            cancel: ctx.cancel.clone(),
            reporter: Arc::clone(&ctx.reporter),
            resumed: Arc::default(),
            tries: 0,
        }
    }

    /// The beginning of the file.
    pub(super) async fn first(&mut self) -> Result<Answer, FetchError> {
        self.from(0, None).await
    }

    /// Asks until a server answers with bytes from `offset` on.
    async fn from(&mut self, offset: u64, total: Option<u64>) -> Result<Answer, FetchError> {
        loop {
            let server = &self.urls[self.current];
            let wanted = Wanted { offset, length: None, validator: server.validator.as_deref(), total };
            let asked = tokio::select! {
                asked = wanted.ask(&self.http, &server.url, self.patience.connect) => asked,
                () = self.cancel.cancelled() => return Err(FetchError::Cancelled),
            };
            match asked {
                Ok(answer) => {
                    self.urls[self.current].validator.clone_from(&answer.validator);
                    return Ok(answer);
                }
                Err(error) => self.after(error).await?,
            }
        }
    }

    /// Goes to the next server, after a pause if all of them had their turn. Returns the error when it is the end.
    async fn after(&mut self, error: FetchError) -> Result<(), FetchError> {
        if error.is_transient() {
            self.tries += 1;
            if self.tries >= self.patience.tries {
                return Err(error);
            }
            self.current = (self.current + 1) % self.urls.len();
            self.reporter.notice(&format!("fetching the image: {error}; trying on"));
            let round = self.tries / u32::try_from(self.urls.len()).unwrap_or(1);
            tokio::select! {
                () = tokio::time::sleep(self.patience.pause(round)) => Ok(()),
                () = self.cancel.cancelled() => Err(FetchError::Cancelled),
            }
        } else {
            if self.urls.len() == 1 || matches!(error, FetchError::Cancelled) {
                return Err(error);
            }
            let gone = self.urls.remove(self.current);
            let shown = speediso_model::image::shown_url(&gone.url);
            self.reporter.notice(&format!("{shown} is not asked again: {error}"));
            self.current %= self.urls.len();
            Ok(())
        }
    }
}

/// Where a connection ended.
enum End {
    Whole,
    /// Nobody wants the rest.
    Unwanted,
    Failed(FetchError),
}

/// Sends the file's bytes to both sides, in order and without a gap; then, if that is how it ended, the error.
pub(super) async fn pump(
    mut origin: Origin,
    first: Answer,
    to_reader: mpsc::Sender<Result<Arc<Piece>, FetchError>>,
    to_hash: mpsc::Sender<Arc<Piece>>,
) {
    let total = first.total;
    let mut answer = first;
    let pool = Pool::default();
    let mut out = Out { to_reader, to_hash, piece: pool.empty(), pool, got: 0 };
    let error = loop {
        let before = out.got;
        let end = tokio::select! {
            end = out.take(answer, total, &origin.patience) => end,
            () = origin.cancel.cancelled() => End::Failed(FetchError::Cancelled),
        };
        let error = match end {
            End::Whole | End::Unwanted => return,
            End::Failed(error) => error,
        };
        if out.got - before >= PROGRESS {
            origin.tries = 0;
        }
        if let Err(error) = origin.after(error).await {
            break error;
        }
        match origin.from(out.got, total).await {
            Ok(next) => answer = next,
            Err(error) => break error,
        }
        origin.resumed.fetch_add(1, Ordering::Relaxed);
    };
    // If the reader has gone, nobody wants to know.
    let _ = out.to_reader.send(Err(error)).await;
}

/// What was fetched, on its way to both sides.
struct Out {
    to_reader: mpsc::Sender<Result<Arc<Piece>, FetchError>>,
    to_hash: mpsc::Sender<Arc<Piece>>,
    pool: Pool,
    /// Being filled.
    piece: Piece,
    /// Of the file so far.
    got: u64,
}

impl Out {
    async fn take(&mut self, answer: Answer, total: Option<u64>, patience: &Patience) -> End {
        let mut position = answer.begins;
        let mut stream = answer.response.bytes_stream();
        let mut pace = Pace::default();
        let end = loop {
            let waiting = Instant::now();
            match tokio::time::timeout(patience.stall, stream.next()).await {
                Err(_) => break End::Failed(FetchError::Stalled(patience.stall.as_secs())),
                Ok(None) => match total.filter(|total| position < *total) {
                    Some(announced) => break End::Failed(FetchError::Short { got: position, announced }),
                    None => break End::Whole,
                },
                Ok(Some(Err(error))) => {
                    // hyper notices a body that ends early itself; to us that is the same as ending early.
                    break End::Failed(match total {
                        Some(announced) if error.is_body() || error.is_decode() => {
                            FetchError::Short { got: position, announced }
                        }
                        _ => FetchError::Broken(error.without_url().to_string()),
                    });
                }
                Ok(Some(Ok(bytes))) => {
                    if pace.is_too_slow(bytes.len(), waiting.elapsed(), patience.stall) {
                        break End::Failed(FetchError::Stalled(patience.stall.as_secs()));
                    }
                    let begins = position;
                    position += bytes.len() as u64;
                    if let Some(announced) = total.filter(|total| position > *total) {
                        break End::Failed(FetchError::Long { announced });
                    }
                    if !self.push(begins, &bytes).await {
                        return End::Unwanted;
                    }
                }
            }
        };
        if self.flush().await { end } else { End::Unwanted }
    }

    /// Keeps what is new of these bytes, which begin at `begins`. `false` when nobody wants more.
    async fn push(&mut self, begins: u64, bytes: &[u8]) -> bool {
        let known = usize::try_from(self.got - begins.min(self.got)).unwrap_or(usize::MAX).min(bytes.len());
        let mut new = &bytes[known..];
        self.got += new.len() as u64;
        while !new.is_empty() {
            let n = self.piece.fill(new);
            new = &new[n..];
            if self.piece.is_full() && !self.flush().await {
                return false;
            }
        }
        true
    }

    async fn flush(&mut self) -> bool {
        if self.piece.is_empty() {
            return true;
        }
        let piece = Arc::new(std::mem::replace(&mut self.piece, self.pool.empty()));
        let hashed = self.to_hash.send(Arc::clone(&piece)).await;
        hashed.is_ok() && self.to_reader.send(Ok(piece)).await.is_ok()
    }
}

/// Notices a server that sends just enough not to stall. Time that we take ourselves does not count.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: usize,
}

impl Pace {
    /// Slower than this is no connection, in bytes for each stall's length.
    const LEAST: usize = 64 << 10;

    fn is_too_slow(&mut self, bytes: usize, waited: Duration, stall: Duration) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.bytes >= Self::LEAST {
            *self = Self::default();
        }
        self.waited > stall
    }
}
