//! What the bytes of an image must be, as far as that has to be asked for itself.

use speediso_image::checksums::{self, MAX_CHECKSUMS};
use speediso_image::trust::{Expected, Wrong};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{ImageDigest, ImageSource, shown_url};
use speediso_model::trust::{Signature, Trust};

use super::Ranges;
use crate::ctx::TaskCtx;

const MAX_SIGNATURE: u64 = 4096;

/// # Errors
/// When digests or signature cannot be had, are not signed, or do not name the image. Nothing was fetched of it.
pub(crate) fn expected(image: &ImageSource, ctx: &TaskCtx) -> Result<Expected, Fault> {
    match image.trust().map_err(|wrong| Fault::new(FaultCode::TaskInvalid, wrong))? {
        Trust::Digest(digest) => Ok(Expected::Digest(digest.clone())),
        Trust::Anything => Ok(Expected::Anything),
        Trust::Signature(signature) => signed(signature, &image.url, ctx),
        Trust::Checksums(list) => {
            let text = small(&list.url, MAX_CHECKSUMS as u64, ctx)?;
            if let Some(signature) = &list.signature {
                let of_list = signed(signature, &list.url, ctx)?;
                of_list.check(|take| take(&text)).map_err(|wrong| fault(&wrong, &list.url))?;
            }
            let address = image.url.split(['?', '#']).next().unwrap_or_default();
            let own_name = address.rsplit('/').next().unwrap_or_default();
            let name = list.file.as_deref().unwrap_or(own_name);
            let digest = checksums::find(&text, name);
            digest.map(Expected::Digest).map_err(|e| {
                Fault::new(FaultCode::TaskInvalid, format!("{}: {e}", shown_url(&list.url)))
                    .because("checksums.file says what the image is called there")
            })
        }
    }
}

/// Whether the whole of a small file is right.
pub(crate) fn check_whole(image: &ImageSource, bytes: &[u8], ctx: &TaskCtx) -> Result<Option<ImageDigest>, Fault> {
    expected(image, ctx)?.check(|take| take(bytes)).map_err(|wrong| fault(&wrong, &image.url))
}

pub(crate) fn fault(wrong: &Wrong, url: &str) -> Fault {
    let code = match wrong {
        Wrong::Digest { .. } => FaultCode::ImageDigestMismatch,
        Wrong::Signature(_) | Wrong::TooLong => FaultCode::SignatureInvalid,
    };
    Fault::new(code, format!("{}: {wrong}", shown_url(url)))
}

fn signed(signature: &Signature, url: &str, ctx: &TaskCtx) -> Result<Expected, Fault> {
    let place = signature.url_for(url);
    let bytes = small(&place, MAX_SIGNATURE, ctx)?;
    Expected::signed(&signature.key, &bytes)
        .map_err(|e| Fault::new(FaultCode::SignatureInvalid, format!("{}: {e}", shown_url(&place))))
}

fn small(url: &str, limit: u64, ctx: &TaskCtx) -> Result<Vec<u8>, Fault> {
    Ranges::at(url, ctx).whole(limit).map_err(|e| e.fault_at(url))
}
