//! Parts of a file, asked for one by one, from whichever server has them.

use std::sync::Arc;

use futures_util::StreamExt as _;
use speediso_model::image::ImageSource;

use super::answer::{Answer, Wanted};
use super::{FetchError, Patience};
use crate::ctx::{Cancel, TaskCtx};

/// What is asked for.
#[derive(Clone, Copy)]
enum What {
    Range { offset: u64, length: u64 },
    Whole { limit: u64 },
}

/// A file on one or several servers. Whoever asks knows how to tell right bytes from wrong ones.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
    urls: Arc<[String]>,
    patience: Patience,
    cancel: Cancel,
}

impl Ranges {
    pub(crate) fn of(image: &ImageSource, ctx: &TaskCtx) -> Self {
        Self::on(std::iter::once(&image.url).chain(&image.mirrors).cloned().collect(), ctx)
    }

    pub(crate) fn at(url: &str, ctx: &TaskCtx) -> Self {
        Self::on([url.to_owned()].into(), ctx)
    }

    fn on(urls: Arc<[String]>, ctx: &TaskCtx) -> Self {
        Self {
            http: ctx.http.clone(),
            runtime: ctx.runtime.clone(),
            urls,
            patience: ctx.patience.clone(),
            cancel: ctx.cancel.clone(),
        }
    }

    /// Another file beside this one, on the same servers.
    pub(crate) fn beside(&self, name: &str) -> Self {
        Self { urls: self.urls.iter().map(|url| beside(url, name)).collect(), ..self.clone() }
    }

    pub(crate) fn servers(&self) -> usize {
        self.urls.len()
    }

    /// Exactly these bytes. `first` chooses the server to begin with, so that several callers share the load.
    pub(crate) fn read(&self, offset: u64, length: u64, first: usize, into: &mut Vec<u8>) -> Result<(), FetchError> {
        *into = self.fetch(What::Range { offset, length }, first, std::mem::take(into))?;
        Ok(())
    }

    /// The whole of a file that is no longer than `limit`.
    pub(crate) fn whole(&self, limit: u64) -> Result<Vec<u8>, FetchError> {
        self.fetch(What::Whole { limit }, 0, Vec::new())
    }

    /// All of it happens on the runtime: where connection and reader share a thread, the buffer that was read from is
    /// free again before the next read, and no page is new.
    fn fetch(&self, what: What, first: usize, into: Vec<u8>) -> Result<Vec<u8>, FetchError> {
        let this = self.clone();
        let fetching = self.runtime.spawn(async move {
            tokio::select! {
                done = this.retry(what, first, into) => done,
                () = this.cancel.cancelled() => Err(FetchError::Cancelled),
            }
        });
        let ended = self.runtime.block_on(fetching);
        ended.unwrap_or_else(|e| Err(FetchError::Unreachable(format!("fetching was given up: {e}"))))
    }

    /// Goes from server to server, with a pause after each round, until one attempt succeeds or none can.
    async fn retry(&self, what: What, first: usize, mut into: Vec<u8>) -> Result<Vec<u8>, FetchError> {
        let servers = self.urls.len();
        let mut given_up = vec![false; servers];
        let mut round = 0;
        loop {
            let mut last = FetchError::Unreachable("no server is left".into());
            for server in (0..servers).map(|i| (first + i) % servers) {
                if given_up[server] {
                    continue;
                }
                into.clear();
                match self.attempt(what, &self.urls[server], &mut into).await {
                    Ok(()) => return Ok(into),
                    Err(error) => {
                        given_up[server] = !error.is_transient();
                        last = error;
                    }
                }
            }
            round += 1;
            if given_up.iter().all(|given_up| *given_up) || round >= self.patience.tries {
                return Err(last);
            }
            tokio::time::sleep(self.patience.pause(round)).await;
        }
    }

    async fn attempt(&self, what: What, url: &str, into: &mut Vec<u8>) -> Result<(), FetchError> {
        let wanted = match what {
            What::Range { offset, length } => Wanted { offset, length: Some(length), ..Wanted::default() },
            What::Whole { .. } => Wanted::default(),
        };
        let answer = wanted.ask(&self.http, url, self.patience.connect).await?;
        let (announced, most) = match what {
            What::Range { .. } if !answer.partial => return Err(FetchError::NoRanges),
            What::Range { length, .. } => (Some(length), length),
            What::Whole { limit } if answer.total.is_some_and(|total| total > limit) => {
                return Err(FetchError::TooLong(limit));
            }
            What::Whole { limit } => (answer.total, answer.total.unwrap_or(limit)),
        };
        self.take(answer, most, into).await.map_err(|error| match error {
            FetchError::Long { .. } if announced.is_none() => FetchError::TooLong(most),
            other => other,
        })?;
        match announced.filter(|announced| (into.len() as u64) < *announced) {
            Some(announced) => Err(FetchError::Short { got: into.len() as u64, announced }),
            None => Ok(()),
        }
    }

    async fn take(&self, answer: Answer, most: u64, into: &mut Vec<u8>) -> Result<(), FetchError> {
        let mut stream = answer.response.bytes_stream();
        loop {
            match tokio::time::timeout(self.patience.stall, stream.next()).await {
                Err(_) => return Err(FetchError::Stalled(self.patience.stall.as_secs())),
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(FetchError::Broken(error.without_url().to_string())),
                Ok(Some(Ok(bytes))) if (into.len() + bytes.len()) as u64 > most => {
                    return Err(FetchError::Long { announced: most });
                }
                Ok(Some(Ok(bytes))) => into.extend_from_slice(&bytes),
            }
        }
    }
}

fn beside(url: &str, name: &str) -> String {
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let folder = path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    query.map_or_else(|| format!("{folder}/{name}"), |query| format!("{folder}/{name}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn a_file_beside_another() {
        assert_eq!(beside("https://h/i/manifest.json", "chunks.bin"), "https://h/i/chunks.bin");
        assert_eq!(beside("https://h/i/manifest.json?key=a/b", "chunks.bin"), "https://h/i/chunks.bin?key=a/b");
    }
}
