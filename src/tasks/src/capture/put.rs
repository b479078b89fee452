//! One PUT whose body is made while it is sent.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_TYPE, HeaderMap, IF_NONE_MATCH};
use reqwest::{Response, StatusCode};
use speediso_image::digest::Hasher;
use speediso_model::api::ErrorBody;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{DigestAlgorithm, ImageDigest, shown_url};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::ctx::{Cancel, TaskCtx};

/// On their way to the server; a piece is a chunk.
const IN_FLIGHT: usize = 4;
/// Of an answer.
const MOST: usize = 64 << 10;

/// Without [`Piece::End`] a body has not ended: whoever is dropped in the middle leaves a broken connection behind and
/// not half a file that looks like a whole one.
enum Piece {
    Bytes(Bytes),
    End,
}

/// What was sent and how it was answered.
pub(super) struct Sent {
    pub(super) digest: ImageDigest,
    pub(super) length: u64,
    pub(super) answer: Vec<u8>,
}

pub(super) struct Put {
    url: String,
    pieces: mpsc::Sender<Piece>,
    answer: Option<JoinHandle<Result<Vec<u8>, Fault>>>,
    runtime: tokio::runtime::Handle,
    cancel: Cancel,
    /// In which the server must take something.
    stall: Duration,
    hash: Hasher,
    length: u64,
    failed: Option<Fault>,
}

impl Put {
    pub(super) fn begin(url: &str, headers: &HeaderMap, ctx: &TaskCtx) -> Self {
        let (pieces, taken) = mpsc::channel(IN_FLIGHT);
        let body = stream::unfold(Some(taken), |taken| async {
            let mut taken: mpsc::Receiver<Piece> = taken?;
            match taken.recv().await {
                Some(Piece::Bytes(bytes)) => Some((Ok(bytes), Some(taken))),
                Some(Piece::End) => None,
                None => Some((Err(io::Error::other("the capture was given up")), None)),
            }
        });
        // An image is replaced by nobody; servers that know this header see to it.
        let request = ctx.http.put(url).headers(headers.clone()).header(IF_NONE_MATCH, "*");
        let request = request.header(CONTENT_TYPE, "application/octet-stream").body(reqwest::Body::wrap_stream(body));
        let (shown, place) = (shown_url(url), reqwest::Url::parse(url).ok());
        let answer = ctx.runtime.spawn(async move {
            let response = request.send().await.map_err(|e| broken(&shown, e))?;
            judge(response, place.as_ref(), &shown).await
        });
        Self {
            url: shown_url(url),
            pieces,
            answer: Some(answer),
            runtime: ctx.runtime.clone(),
            cancel: ctx.cancel.clone(),
            stall: ctx.patience.stall,
            hash: Hasher::new(DigestAlgorithm::Sha256),
            length: 0,
            failed: None,
        }
    }

    /// Ends the body and waits for the answer.
    pub(super) fn finish(mut self) -> Result<Sent, Fault> {
        self.send(Piece::End)?;
        let answer = self.answer()?;
        Ok(Sent { digest: self.hash.digest(), length: self.length, answer })
    }

    /// Why it took no more.
    pub(super) fn fault(self) -> Fault {
        self.failed.unwrap_or_else(|| Fault::new(FaultCode::Internal, "an upload ended without a reason"))
    }

    fn send(&mut self, piece: Piece) -> Result<(), Fault> {
        let sent = self.runtime.block_on(async {
            tokio::select! {
                sent = tokio::time::timeout(self.stall, self.pieces.send(piece)) => Some(sent),
                () = self.cancel.cancelled() => None,
            }
        });
        match sent {
            None => self.cancel.check(),
            Some(Ok(Ok(()))) => Ok(()),
            Some(Err(_)) => Err(Fault::new(
                FaultCode::UploadBroken,
                format!("sending {}: the server took nothing for {} s", self.url, self.stall.as_secs()),
            )),
            Some(Ok(Err(_))) => {
                let message = format!("sending {}: the server answered before it had everything", self.url);
                Err(self.answer().err().unwrap_or_else(|| Fault::new(FaultCode::UploadMismatch, message)))
            }
        }
    }

    fn answer(&mut self) -> Result<Vec<u8>, Fault> {
        // A server may want to have everything on its medium before it says so.
        let patience = self.stall.saturating_mul(10);
        let Some(mut answer) = self.answer.take() else {
            return Err(Fault::new(FaultCode::Internal, "an upload was answered twice"));
        };
        let answered = self.runtime.block_on(async {
            tokio::select! {
                answered = tokio::time::timeout(patience, &mut answer) => Ok(answered),
                () = self.cancel.cancelled() => Err(()),
            }
        });
        answer.abort();
        match answered {
            Ok(Ok(Ok(answered))) => answered,
            Ok(Ok(Err(e))) => Err(Fault::from_error(FaultCode::Internal, &e)),
            Ok(Err(_)) => Err(Fault::new(
                FaultCode::UploadBroken,
                format!("sending {}: no answer for {} s", self.url, patience.as_secs()),
            )),
            Err(()) => Err(Fault::new(FaultCode::Cancelled, "the task was cancelled")),
        }
    }
}

impl Write for Put {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(fault) = self.send(Piece::Bytes(Bytes::copy_from_slice(bytes))) {
            let error = io::Error::other(fault.clone());
            self.failed = Some(fault);
            return Err(error);
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn broken(shown: &str, error: reqwest::Error) -> Fault {
    let mut fault = Fault::from_error(FaultCode::UploadBroken, &error.without_url());
    fault.causes.insert(0, std::mem::take(&mut fault.message));
    fault.message = format!("sending {shown}: the connection broke");
    fault
}

async fn judge(response: Response, asked: Option<&reqwest::Url>, shown: &str) -> Result<Vec<u8>, Fault> {
    let status = response.status();
    let elsewhere = asked.is_none_or(|asked| {
        let place = |url: &reqwest::Url| (url.origin(), url.path().to_owned());
        place(asked) != place(response.url())
    });
    if elsewhere || status.is_redirection() {
        let message = format!("sending {shown}: the server names another place, and an upload follows nobody");
        return Err(Fault::new(FaultCode::UploadRefused, message));
    }
    let body = body(response, shown).await?;
    if status.is_success() {
        return Ok(body);
    }
    // 507 too is an answer that stays the same.
    let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
        || (status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE);
    let code = if passing { FaultCode::UploadBroken } else { FaultCode::UploadRefused };
    let mut fault = Fault::new(code, format!("sending {shown}: the server answered {status}"));
    if let Ok(ErrorBody { error }) = serde_json::from_slice(&body) {
        fault.causes.push(error.message);
        fault.causes.extend(error.causes);
    }
    Err(fault)
}

async fn body(mut response: Response, shown: &str) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|e| broken(shown, e))? {
        body.extend_from_slice(&bytes);
        if body.len() > MOST {
            return Err(Fault::new(FaultCode::UploadRefused, format!("{shown} answers without end")));
        }
    }
    Ok(body)
}
