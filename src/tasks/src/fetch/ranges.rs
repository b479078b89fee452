//! Parts of a file, asked for one by one, from whichever server has them.

use futures_util::StreamExt as _;
use speediso_model::image::ImageSource;

use super::answer::{Answer, Wanted};
use super::{FetchError, Patience};
use crate::ctx::{Cancel, TaskCtx};

/// A file on one or several servers. Whoever asks knows how to tell right bytes from wrong ones.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
    urls: Vec<String>,
    patience: Patience,
    cancel: Cancel,
}

impl Ranges {
    pub(crate) fn of(image: &ImageSource, ctx: &TaskCtx) -> Self {
        Self {
            http: ctx.http.clone(),
            runtime: ctx.runtime.clone(),
            urls: std::iter::once(&image.url).chain(&image.mirrors).cloned().collect(),
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
        self.retry(first, into, &async |url: &str, into: &mut Vec<u8>| {
            let wanted = Wanted { offset, length: Some(length), ..Wanted::default() };
            let answer = wanted.ask(&self.http, url, self.patience.connect).await?;
            if !answer.partial {
                return Err(FetchError::NoRanges);
            }
            self.take(answer, length, into).await?;
            match into.len() as u64 {
                got if got < length => Err(FetchError::Short { got, announced: length }),
                _ => Ok(()),
            }
        })
    }

    /// The whole of a file that is no longer than `limit`.
    pub(crate) fn whole(&self, limit: u64) -> Result<Vec<u8>, FetchError> {
        let mut bytes = Vec::new();
        self.retry(0, &mut bytes, &async |url: &str, into: &mut Vec<u8>| {
            let answer = Wanted::default().ask(&self.http, url, self.patience.connect).await?;
            let total = answer.total;
            if total.is_some_and(|total| total > limit) {
                return Err(FetchError::Refused(format!("it is larger than {limit} bytes")));
            }
            self.take(answer, total.unwrap_or(limit), into).await?;
            match total.filter(|total| (into.len() as u64) < *total) {
                Some(announced) => Err(FetchError::Short { got: into.len() as u64, announced }),
                None => Ok(()),
            }
        })?;
        Ok(bytes)
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

    /// Goes from server to server, with a pause after each round, until one attempt succeeds or none can.
    fn retry(
        &self,
        first: usize,
        into: &mut Vec<u8>,
        attempt: &impl AsyncFn(&str, &mut Vec<u8>) -> Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        let work = async {
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
                    match attempt(&self.urls[server], into).await {
                        Ok(()) => return Ok(()),
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
        };
        self.runtime.block_on(async {
            tokio::select! {
                done = work => done,
                () = self.cancel.cancelled() => Err(FetchError::Cancelled),
            }
        })
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
