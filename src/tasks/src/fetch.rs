//! Bytes from an HTTP server, as a blocking reader.
//!
//! This is the one place where async code and blocking code meet: a task on the runtime fetches into a bounded
//! channel, the reader takes from it. A server that stalls, ends early, or sends more than it announced is an error,
//! never an end.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::shown_url;
use tokio::sync::mpsc;

use crate::ctx::{Cancel, TaskCtx};

/// Chunks in flight: with reqwest's chunks of up to 16 KiB to 1 MiB a few MiB at most.
const IN_FLIGHT: usize = 16;
/// No byte for this long is a stall.
const STALL: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(30);

/// Why fetching stopped; carried inside of `io::Error` through the decoders.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the server sent {got} of {announced} bytes and ended")]
    Short { got: u64, announced: u64 },
    #[error("the server sent more than the {announced} bytes it announced")]
    Long { announced: u64 },
    #[error("the server sent nothing for {} s", STALL.as_secs())]
    Stalled,
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("cancelled")]
    Cancelled,
}

impl FetchError {
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    pub(crate) fn code(&self) -> FaultCode {
        match self {
            Self::Short { .. } => FaultCode::ImageTruncated,
            Self::Long { .. } => FaultCode::ImageTrailingData,
            Self::Stalled | Self::Broken(_) => FaultCode::ImageUnreachable,
            Self::Cancelled => FaultCode::Cancelled,
        }
    }
}

/// An answer whose body is being fetched.
pub(crate) struct Fetch {
    /// As the server announced it.
    pub(crate) length: Option<u64>,
    chunks: mpsc::Receiver<Result<Bytes, FetchError>>,
    rest: Bytes,
    ended: bool,
}

/// Asks for `url` and returns once the server has answered with success.
///
/// # Errors
/// `image-unreachable` when nobody answers, `image-refused` when the answer is no.
pub(crate) fn open(url: &str, ctx: &TaskCtx) -> Result<Fetch, Fault> {
    let request = ctx.http.get(url);
    // In what is reported there is no password.
    let url = shown_url(url);
    let request = request
        // What is hashed is what the server stores, not what a helpful server makes of it.
        .header(ACCEPT_ENCODING, "identity")
        .send();
    let response = ctx
        .runtime
        .block_on(async { tokio::time::timeout(CONNECT, request).await })
        .map_err(|_| {
            Fault::new(FaultCode::ImageUnreachable, format!("fetching {url}: no answer for {} s", CONNECT.as_secs()))
        })?
        .map_err(|e| {
            Fault::from_error(FaultCode::ImageUnreachable, &e.without_url()).because(format!("fetching {url}"))
        })?;
    let status = response.status();
    if status.is_server_error() {
        return Err(Fault::new(FaultCode::ImageUnreachable, format!("fetching {url}: the server answered {status}")));
    }
    if status != reqwest::StatusCode::OK {
        return Err(Fault::new(FaultCode::ImageRefused, format!("fetching {url}: the server answered {status}")));
    }
    if response.headers().get(CONTENT_ENCODING).is_some_and(|e| e != "identity") {
        return Err(Fault::new(FaultCode::ImageRefused, format!("fetching {url}: the server encoded the content")));
    }
    let length = response.content_length();
    let (sender, chunks) = mpsc::channel(IN_FLIGHT);
    ctx.runtime.spawn(pump(response, length, sender, ctx.cancel.clone()));
    Ok(Fetch { length, chunks, rest: Bytes::new(), ended: false })
}

async fn pump(
    response: reqwest::Response,
    announced: Option<u64>,
    sender: mpsc::Sender<Result<Bytes, FetchError>>,
    cancel: Cancel,
) {
    let mut stream = response.bytes_stream();
    let mut got = 0u64;
    let end = loop {
        if cancel.is_cancelled() {
            break Some(FetchError::Cancelled);
        }
        match tokio::time::timeout(STALL, stream.next()).await {
            Err(_) => break Some(FetchError::Stalled),
            Ok(None) => {
                break announced.filter(|a| got < *a).map(|announced| FetchError::Short { got, announced });
            }
            Ok(Some(Err(error))) => {
                // hyper notices a body that ends early itself; to us that is the same as ending early.
                break Some(match announced {
                    Some(announced) if error.is_body() || error.is_decode() => FetchError::Short { got, announced },
                    _ => FetchError::Broken(error.without_url().to_string()),
                });
            }
            Ok(Some(Ok(chunk))) => {
                got += chunk.len() as u64;
                if let Some(announced) = announced
                    && got > announced
                {
                    break Some(FetchError::Long { announced });
                }
                // The reader has gone: nobody wants the rest.
                if sender.send(Ok(chunk)).await.is_err() {
                    return;
                }
            }
        }
    };
    if let Some(error) = end {
        // The same: if the reader has gone, nobody wants to know.
        let _ = sender.send(Err(error)).await;
    }
}

impl Read for Fetch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(io::Error::other(error));
                }
                None => self.ended = true,
            }
        }
        let n = self.rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}
