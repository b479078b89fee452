//! Images that agents send while they capture a disk.
//!
//! Data and index wait beside the store under the name of their run, seen by nobody; the manifest, which comes last,
//! makes an image of the three in one transaction. A run that ends without it leaves nothing behind, and no image is
//! ever replaced: what an order says is a name, not whose image may be lost.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::Stream;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::RunId;
use tokio::fs::{self, File};

use crate::http::ApiError;
use crate::images::{Bound, ImageStore};
use crate::service::{Failure, Service};
use crate::store::Image;

const STAGED: &str = ".capture-";

/// A file of a manifest image, in the order in which they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Data,
    Index,
    Manifest,
}

impl Part {
    const ALL: [Self; 3] = [Self::Data, Self::Index, Self::Manifest];

    fn suffix(self) -> &'static str {
        match self {
            Self::Data => "bin",
            Self::Index => "idx",
            Self::Manifest => "json",
        }
    }

    fn name(self, image: &str) -> String {
        format!("{image}.{}", self.suffix())
    }

    /// By what the format says of each; of the data the free space decides.
    fn bound(self) -> Bound {
        Bound {
            most: match self {
                Self::Data => None,
                Self::Index => Some(45 << 20),
                Self::Manifest => Some(64 << 10),
            },
            // A disk that has nothing, in an image, is nothing.
            may_be_empty: self == Self::Data,
        }
    }
}

/// A whole file that waits.
struct Staged {
    part: Part,
    path: PathBuf,
    size: u64,
    sha256: String,
}

fn refused(message: String) -> ApiError {
    ApiError::from(Fault::new(FaultCode::UploadRefused, message)).conflict()
}

fn io(error: &std::io::Error) -> ApiError {
    Fault::from_error(FaultCode::Io, error).into()
}

impl ImageStore {
    /// Takes one file of the image that the run makes under `name`. What is answered is on the medium.
    ///
    /// # Errors
    /// When the name is taken, the stream breaks off, or there is no room.
    pub async fn take<E: std::error::Error + Send + Sync + 'static>(
        &self,
        service: &Service,
        run: RunId,
        name: &str,
        part: Part,
        stream: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Image, ApiError> {
        if part == Part::Data {
            self.sweep(service).await?;
            self.must_be_free(service, name).await?;
        }
        let partial = self.partial()?;
        let (size, sha256) = self.receive(&partial, part.bound(), stream).await?;
        let path = self.directory().join(format!("{STAGED}{run}.{}.{sha256}", part.suffix()));
        let kept = async {
            fs::rename(&partial, &path).await?;
            File::open(self.directory()).await?.sync_all().await
        };
        kept.await.map_err(|e| io(&e))?;
        for earlier in self.staged(run).await?.into_iter().filter(|s| s.part == part && s.path != path) {
            fs::remove_file(&earlier.path).await.map_err(|e| io(&e))?;
        }
        let stored = service.store.read().await.map_err(Failure::from)?.now();
        let image = Image { name: part.name(name), size, sha256, stored };
        if part == Part::Manifest { self.publish(service, run, name, image).await } else { Ok(image) }
    }

    async fn must_be_free(&self, service: &Service, name: &str) -> Result<(), ApiError> {
        let mut tx = service.store.read().await.map_err(Failure::from)?;
        for part in Part::ALL {
            let name = part.name(name);
            if tx.image(&name).await.map_err(Failure::from)?.is_some() {
                return Err(refused(format!("the store has an image named {name}; name another in the order")));
            }
        }
        Ok(())
    }

    /// All three or none.
    async fn publish(&self, service: &Service, run: RunId, name: &str, manifest: Image) -> Result<Image, ApiError> {
        let staged = self.staged(run).await?;
        let mut tx = service.store.write().await.map_err(Failure::from)?;
        if tx.image(&manifest.name).await.map_err(Failure::from)?.is_some_and(|there| there.sha256 == manifest.sha256) {
            // Done before; the answer was lost.
            drop(tx);
            self.forget(run).await?;
            return Ok(manifest);
        }
        for part in Part::ALL {
            let name = part.name(name);
            let Some(found) = staged.iter().find(|staged| staged.part == part) else {
                return Err(refused(format!("the manifest of {name} came before it")));
            };
            if tx.image(&name).await.map_err(Failure::from)?.is_some() {
                return Err(refused(format!("the store has an image named {name} by now; it was not replaced")));
            }
            fs::rename(&found.path, self.path(&found.sha256)).await.map_err(|e| io(&e))?;
            let image = Image { name, size: found.size, sha256: found.sha256.clone(), stored: tx.now() };
            tx.put_image(&image).await.map_err(Failure::from)?;
        }
        let synced = async { File::open(self.directory()).await?.sync_all().await };
        synced.await.map_err(|e| io(&e))?;
        tx.commit().await.map_err(Failure::from)?;
        Ok(manifest)
    }

    async fn all_staged(&self) -> Result<Vec<(RunId, Staged)>, ApiError> {
        let mut staged = Vec::new();
        let mut entries = fs::read_dir(self.directory()).await.map_err(|e| io(&e))?;
        while let Some(entry) = entries.next_entry().await.map_err(|e| io(&e))? {
            let name = entry.file_name().to_string_lossy().into_owned();
            let parts: Vec<&str> = name.strip_prefix(STAGED).unwrap_or_default().split('.').collect();
            let [run, suffix, sha256] = parts[..] else { continue };
            let part = Part::ALL.into_iter().find(|part| part.suffix() == suffix);
            let (Ok(run), Some(part)) = (run.parse(), part) else { continue };
            let size = entry.metadata().await.map_err(|e| io(&e))?.len();
            staged.push((run, Staged { part, path: entry.path(), size, sha256: sha256.to_owned() }));
        }
        Ok(staged)
    }

    async fn staged(&self, run: RunId) -> Result<Vec<Staged>, ApiError> {
        Ok(self.all_staged().await?.into_iter().filter(|(of, _)| *of == run).map(|(_, staged)| staged).collect())
    }

    /// Whatever the run has left, once it has ended.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub async fn forget(&self, run: RunId) -> Result<(), ApiError> {
        for staged in self.staged(run).await? {
            fs::remove_file(&staged.path).await.map_err(|e| io(&e))?;
        }
        Ok(())
    }

    /// Of runs that are no longer going on, whatever ended them.
    ///
    /// # Errors
    /// When the directory or the store cannot be read.
    pub async fn sweep(&self, service: &Service) -> Result<(), ApiError> {
        for (run, staged) in self.all_staged().await? {
            if !service.is_running(run).await? {
                fs::remove_file(&staged.path).await.map_err(|e| io(&e))?;
            }
        }
        Ok(())
    }
}
