//! Images as files: named by the digest of their bytes, listed by name in the store.
//!
//! A file appears under its digest only when it is whole and on the disk, and the list names it only after that; so
//! whatever ends the controller in between leaves the list true.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::plan::hex;
use speediso_model::units;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt as _, BufWriter};

use crate::http::ApiError;
use crate::service::Failure;
use crate::store::{Image, Store};
use crate::token;

/// An upload that stands still for so long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// After so many bytes one looks again whether there is room.
const CHECK_ROOM: u64 = 64 << 20;

/// Uploads in the making; removed at start, for they belonged to a controller that is gone.
const PARTIAL: &str = ".upload-";

#[derive(Clone, Debug)]
pub struct ImageStore {
    directory: Arc<PathBuf>,
}

/// Names are parts of URLs and nothing else; still they are kept plain.
///
/// # Errors
/// When it is not.
pub fn check_name(name: &str) -> Result<(), Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    if (1..=128).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') {
        return Ok(());
    }
    Err(Fault::new(
        FaultCode::TaskInvalid,
        format!("the image name {name:?} is not 1 to 128 letters, digits, dots, dashes, beginning without a dot"),
    ))
}

impl ImageStore {
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn in_directory(directory: PathBuf) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { directory: Arc::new(directory) })
    }

    #[must_use]
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.directory.join(format!("sha256-{sha256}"))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A name for what is in the making.
    pub(crate) fn partial(&self) -> Result<PathBuf, ApiError> {
        Ok(self.directory.join(format!("{PARTIAL}{}", &token::new().map_err(Failure::from)?[..16])))
    }

    /// Writes a stream of bytes, whole and onto the medium, or leaves nothing. Size and SHA-256 of it.
    pub(crate) async fn receive<E: std::error::Error + Send + Sync + 'static>(
        &self,
        partial: &Path,
        bound: Bound,
        stream: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<(u64, String), ApiError> {
        let written = write(partial, bound, stream).await;
        if written.is_err() {
            // The first error is the one to tell.
            let _ = tokio::fs::remove_file(partial).await;
        }
        Ok(written?)
    }

    /// Stores a stream of bytes under this name.
    ///
    /// # Errors
    /// When the name is no good, the stream breaks off, or the disk does not take it. The list is as it was then.
    pub async fn put<E: std::error::Error + Send + Sync + 'static>(
        &self,
        store: &dyn Store,
        name: &str,
        stream: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Image, ApiError> {
        check_name(name)?;
        let partial = self.partial()?;
        let (size, sha256) = self.receive(&partial, Bound::default(), stream).await?;
        let keep = async {
            tokio::fs::rename(&partial, self.path(&sha256)).await?;
            File::open(&*self.directory).await?.sync_all().await
        };
        keep.await.map_err(|e| Fault::from_error(FaultCode::Io, &e))?;
        let record = async {
            let mut tx = store.write().await?;
            let replaced = tx.image(name).await?;
            let image = Image { name: name.to_owned(), size, sha256: sha256.clone(), stored: tx.now() };
            tx.put_image(&image).await?;
            let used: Vec<String> = tx.images().await?.into_iter().map(|i| i.sha256).collect();
            tx.commit().await?;
            if let Some(old) = replaced.filter(|old| !used.contains(&old.sha256)) {
                // Whoever is reading it keeps it open.
                let _ = tokio::fs::remove_file(self.path(&old.sha256)).await;
            }
            Ok::<_, crate::store::StoreError>(image)
        };
        Ok(record.await.map_err(Failure::from)?)
    }
}

/// How large an upload may be, besides that it leaves some room on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bound {
    pub(crate) most: Option<u64>,
    pub(crate) may_be_empty: bool,
}

/// A disk that is full to its last byte stops more than uploads.
fn check_room(path: &Path) -> Result<(), Fault> {
    const ENOUGH: u64 = 1 << 30;
    // What cannot be asked for is noticed when it is written.
    let Some(room) = path.parent().and_then(|directory| nix::sys::statvfs::statvfs(directory).ok()) else {
        return Ok(());
    };
    let (free, all) = (room.blocks_available() * room.fragment_size(), room.blocks() * room.fragment_size());
    if free < ENOUGH.min(all / 20) {
        let message = format!("the image store has {} left; the upload was given up", units::Bytes(free));
        return Err(Fault::new(FaultCode::StoreFull, message));
    }
    Ok(())
}

async fn write<E: std::error::Error + Send + Sync + 'static>(
    path: &Path,
    bound: Bound,
    stream: impl Stream<Item = Result<Bytes, E>>,
) -> Result<(u64, String), Fault> {
    let io = |e: std::io::Error| Fault::from_error(FaultCode::Io, &e);
    let mut file = BufWriter::with_capacity(1024 * 1024, File::create(path).await.map_err(io)?);
    let mut hash = Sha256::new();
    let mut size = 0u64;
    let mut unchecked = u64::MAX;
    let mut stream = std::pin::pin!(stream);
    loop {
        let next = tokio::time::timeout(IDLE, stream.next()).await;
        let next = next.map_err(|_| Fault::new(FaultCode::ImageTruncated, "the upload stood still for a minute"))?;
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|e| {
            Fault::new(
                FaultCode::ImageTruncated,
                format!("the upload broke off after {size} bytes; nothing was stored"),
            )
            .because(e.to_string())
        })?;
        hash.update(&chunk);
        size += chunk.len() as u64;
        if let Some(most) = bound.most.filter(|most| size > *most) {
            return Err(Fault::new(FaultCode::UploadRefused, format!("it has more than {most} bytes")));
        }
        unchecked = unchecked.saturating_add(chunk.len() as u64);
        if unchecked > CHECK_ROOM {
            check_room(path)?;
            unchecked = 0;
        }
        file.write_all(&chunk).await.map_err(io)?;
    }
    if size == 0 && !bound.may_be_empty {
        return Err(Fault::new(FaultCode::ImageTruncated, "the upload is empty; nothing was stored"));
    }
    file.flush().await.map_err(io)?;
    file.get_ref().sync_all().await.map_err(io)?;
    Ok((size, hex(&hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_place() {
        for good in ["debian-12.raw.zst", "a", "x_y+z"] {
            check_name(good).expect(good);
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "../etc/passwd", "a\\b", "a\nb", "a b", "ä", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
