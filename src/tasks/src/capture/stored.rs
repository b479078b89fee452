//! What a server has now, by its own answer to a GET.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Response, StatusCode};
use speediso_image::digest::Hasher;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{DigestAlgorithm, ImageDigest, shown_url};

use super::put::broken;
use crate::ctx::TaskCtx;

/// Whether there is something. A server that does not say counts as having nothing.
pub(super) fn is_there(url: &str, headers: &HeaderMap, ctx: &TaskCtx) -> Result<bool, Fault> {
    let request = ctx.http.get(url).headers(headers.clone()).header(RANGE, "bytes=0-0").send();
    let answered = ctx.runtime.block_on(async { tokio::time::timeout(ctx.patience.connect, request).await });
    match answered {
        Ok(Ok(response)) => Ok(response.status().is_success()),
        Ok(Err(error)) => Err(broken(&shown_url(url), error)),
        Err(_) => Err(no_answer(url, ctx.patience.connect)),
    }
}

/// Reads all of it; a connection that breaks is taken up where it broke.
pub(super) fn digest(url: &str, headers: &HeaderMap, ctx: &TaskCtx) -> Result<(ImageDigest, u64), Fault> {
    let reading = async {
        let mut got = Got { hash: Hasher::new(DigestAlgorithm::Sha256), length: 0 };
        let mut tries = 0;
        loop {
            let before = got.length;
            let error = match got.take(url, headers, ctx).await {
                Ok(()) => return Ok((got.hash.digest(), got.length)),
                Err(error) => error,
            };
            tries = if got.length > before { 0 } else { tries + 1 };
            if !error.is_transient() || tries >= ctx.patience.tries {
                return Err(error);
            }
            tokio::time::sleep(ctx.patience.pause(tries)).await;
        }
    };
    ctx.runtime.block_on(async {
        tokio::select! {
            read = reading => read,
            () = ctx.cancel.cancelled() => Err(Fault::new(FaultCode::Cancelled, "the task was cancelled")),
        }
    })
}

/// Takes away what was sent. Best effort: without a manifest it is no image anyway.
pub(super) fn remove(url: &str, headers: &HeaderMap, ctx: &TaskCtx) {
    let request = ctx.http.delete(url).headers(headers.clone()).send();
    let removed = ctx.runtime.block_on(async { tokio::time::timeout(ctx.patience.connect, request).await });
    let gone = |status: StatusCode| status.is_success() || [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&status);
    if !matches!(removed, Ok(Ok(response)) if gone(response.status())) {
        ctx.reporter.notice(&format!("{} could not be removed; it is no part of any image", shown_url(url)));
    }
}

fn no_answer(url: &str, patience: Duration) -> Fault {
    Fault::new(FaultCode::UploadBroken, format!("{}: no answer for {} s", shown_url(url), patience.as_secs()))
}

struct Got {
    hash: Hasher,
    length: u64,
}

impl Got {
    async fn take(&mut self, url: &str, headers: &HeaderMap, ctx: &TaskCtx) -> Result<(), Fault> {
        let mut request = ctx.http.get(url).headers(headers.clone()).header(ACCEPT_ENCODING, "identity");
        if self.length > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.length));
        }
        let response = tokio::time::timeout(ctx.patience.connect, request.send())
            .await
            .map_err(|_| no_answer(url, ctx.patience.connect))?
            .map_err(|e| broken(&shown_url(url), e))?;
        self.place(&response, url)?;
        let announced = response.content_length().map(|length| self.length + length);
        let mut stream = response.bytes_stream();
        loop {
            match tokio::time::timeout(ctx.patience.stall, stream.next()).await {
                Err(_) => return Err(no_answer(url, ctx.patience.stall)),
                Ok(Some(Ok(bytes))) => {
                    self.hash.update(&bytes);
                    self.length += bytes.len() as u64;
                }
                Ok(Some(Err(error))) => return Err(broken(&shown_url(url), error)),
                Ok(None) if announced.is_some_and(|announced| self.length < announced) => {
                    let message = format!("{} ended early while it was read back", shown_url(url));
                    return Err(Fault::new(FaultCode::UploadBroken, message));
                }
                Ok(None) => return Ok(()),
            }
        }
    }

    /// A server that does not go on where it was asked to begins anew.
    fn place(&mut self, response: &Response, url: &str) -> Result<(), Fault> {
        let goes_on = || {
            let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            let first: u64 = range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()?;
            Some(first == self.length)
        };
        match response.status() {
            StatusCode::OK => *self = Self { hash: Hasher::new(DigestAlgorithm::Sha256), length: 0 },
            StatusCode::PARTIAL_CONTENT if goes_on() == Some(true) => {}
            status => {
                let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                let code = if passing { FaultCode::UploadBroken } else { FaultCode::UploadMismatch };
                let message = format!("reading {} back: the server answered {status}", shown_url(url));
                return Err(Fault::new(code, message));
            }
        }
        Ok(())
    }
}
