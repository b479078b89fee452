//! Where an image goes, and how one knows that it has arrived.
//!
//! The controller answers each PUT with the SHA-256 of what it has on its medium. From any other server everything is
//! fetched back and hashed.

use std::cell::RefCell;
use std::io::Write as _;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use speediso_image::manifest::{DEFAULT_NAME, MANIFEST_NAME, PackedFiles};
use speediso_model::api::{ImageView, path};
use speediso_model::capture::CaptureTask;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::shown_url;

use super::put::{Put, Sent};
use super::stored;
use crate::ctx::TaskCtx;

pub(super) struct Destination<'a> {
    ctx: &'a TaskCtx,
    /// In the store.
    name: Option<&'a str>,
    data: String,
    index: String,
    manifest: String,
    headers: HeaderMap,
    /// What was sent to a server, which may have taken it.
    taken: RefCell<Vec<String>>,
}

/// An image that is there.
pub(super) struct Done {
    /// For an order.
    pub(super) url: String,
    pub(super) how: &'static str,
}

impl<'a> Destination<'a> {
    pub(super) fn of(task: &'a CaptureTask, ctx: &'a TaskCtx) -> Result<Self, Fault> {
        let invalid = |what: &str| Fault::new(FaultCode::TaskInvalid, what.to_owned());
        let taken = RefCell::new(Vec::new());
        if let Some(name) = task.to.store.as_deref() {
            let Some(uploads) = &ctx.uploads else {
                return Err(Fault::new(
                    FaultCode::Unsupported,
                    "there is no controller here whose image store could take an image; name a url instead",
                ));
            };
            let run = uploads.run.to_string();
            let at = |part: &str| format!("{}{}", uploads.controller, part.replace("{run}", &run));
            let (data, index, manifest) = (at(path::CAPTURE_DATA), at(path::CAPTURE_INDEX), at(path::CAPTURE_MANIFEST));
            return Ok(Self { ctx, name: Some(name), data, index, manifest, headers: HeaderMap::new(), taken });
        }
        let url = task.to.url.as_deref().ok_or_else(|| invalid("to: neither store nor url"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &task.to.headers {
            let name = HeaderName::try_from(name).map_err(|_| invalid("to.headers: not a name"))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| invalid("to.headers: not a value"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Self {
            ctx,
            name: None,
            data: in_folder(url, &format!("{DEFAULT_NAME}.bin")),
            index: in_folder(url, &format!("{DEFAULT_NAME}.idx")),
            manifest: in_folder(url, MANIFEST_NAME),
            headers,
            taken,
        })
    }

    /// Of data and index.
    pub(super) fn name(&self) -> Option<&str> {
        self.name
    }

    /// Seen before hours are spent. The controller says it to the first byte that is sent.
    pub(super) fn must_be_empty(&self) -> Result<(), Fault> {
        if self.name.is_some() {
            return Ok(());
        }
        for url in [&self.manifest, &self.index, &self.data] {
            if stored::is_there(url, &self.headers, self.ctx)? {
                let message = format!("{} is there already; nothing was sent", shown_url(url));
                return Err(Fault::new(FaultCode::UploadRefused, message));
            }
        }
        Ok(())
    }

    pub(super) fn begin_data(&self) -> Put {
        self.note(&self.data);
        Put::begin(&self.data, &self.headers, self.ctx)
    }

    fn note(&self, url: &str) {
        if self.name.is_none() {
            self.taken.borrow_mut().push(url.to_owned());
        }
    }

    pub(super) fn check_data(&self, sent: &Sent) -> Result<(), Fault> {
        self.check(&self.data, sent).map(drop)
    }

    /// Index and manifest, each compared before the next is sent.
    pub(super) fn complete(&self, files: &PackedFiles) -> Result<Done, Fault> {
        self.store(&self.index, &files.index)?;
        let view = self.store(&self.manifest, &files.manifest)?;
        Ok(match view {
            Some(view) => Done { url: view.url, how: "which has stored what was sent, by the digest of each file" },
            None => Done {
                url: self.manifest.split('?').next().unwrap_or_default().to_owned(),
                how: "fetched back from there and found to be the same, by the digest of each file",
            },
        })
    }

    /// A small file, sent again when the way there breaks.
    fn store(&self, url: &str, bytes: &[u8]) -> Result<Option<ImageView>, Fault> {
        let mut tries = 0;
        self.note(url);
        loop {
            self.ctx.cancel.check()?;
            let mut put = Put::begin(url, &self.headers, self.ctx);
            let sent = match put.write_all(bytes) {
                Ok(()) => put.finish(),
                Err(_) => Err(put.fault()),
            };
            match sent.and_then(|sent| self.check(url, &sent)) {
                Ok(view) => return Ok(view),
                // The answer to an earlier attempt may have been what was lost.
                Err(fault) if tries > 0 && fault.code == FaultCode::UploadRefused && self.holds(url, bytes)? => {
                    return Ok(None);
                }
                Err(fault) if !fault.is_transient() || tries + 1 >= self.ctx.patience.tries => return Err(fault),
                Err(fault) => self.ctx.reporter.notice(&format!("{fault}; trying on")),
            }
            tries += 1;
            std::thread::sleep(self.ctx.patience.pause(tries));
        }
    }

    fn holds(&self, url: &str, bytes: &[u8]) -> Result<bool, Fault> {
        if self.name.is_some() {
            return Ok(false);
        }
        let mut hash = speediso_image::digest::Hasher::new(speediso_model::image::DigestAlgorithm::Sha256);
        hash.update(bytes);
        Ok(stored::digest(url, &self.headers, self.ctx)?.0 == hash.digest())
    }

    /// Whether the other side holds what was sent to it.
    fn check(&self, url: &str, sent: &Sent) -> Result<Option<ImageView>, Fault> {
        let (digest, length, view) = if self.name.is_some() {
            let view: ImageView = serde_json::from_slice(&sent.answer).map_err(|e| {
                let message = "the controller's answer to an upload is not understood";
                Fault::new(FaultCode::ProtocolError, message).because(e.to_string())
            })?;
            (view.digest.clone(), view.size, Some(view))
        } else {
            let (digest, length) = stored::digest(url, &self.headers, self.ctx)?;
            (digest.to_string(), length, None)
        };
        if digest == sent.digest.to_string() && length == sent.length {
            return Ok(view);
        }
        let shown = shown_url(url);
        Err(Fault::new(FaultCode::UploadMismatch, format!("what {shown} holds is not what was sent there"))
            .because(format!("sent: {} bytes, {}", sent.length, sent.digest))
            .because(format!("stored: {length} bytes, {digest}")))
    }

    /// After a failure, the newest first. What a server has refused may be somebody else's that was there before.
    pub(super) fn take_back(&self, fault: &Fault) {
        let mut taken = self.taken.take();
        if fault.code == FaultCode::UploadRefused {
            taken.pop();
        }
        for url in taken.iter().rev() {
            stored::remove(url, &self.headers, self.ctx);
        }
    }
}

/// Its query, which may be what permits to write there, belongs to every file.
fn in_folder(url: &str, name: &str) -> String {
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let path = path.trim_end_matches('/');
    query.map_or_else(|| format!("{path}/{name}"), |query| format!("{path}/{name}?{query}"))
}

#[cfg(test)]
mod tests {
    use super::in_folder;

    #[test]
    fn a_file_in_a_folder() {
        assert_eq!(in_folder("https://h/i", "manifest.json"), "https://h/i/manifest.json");
        assert_eq!(in_folder("https://h/i/", "chunks.bin"), "https://h/i/chunks.bin");
        assert_eq!(in_folder("https://h/i?sig=a/b", "chunks.bin"), "https://h/i/chunks.bin?sig=a/b");
    }
}
