//! A manifest image that lies in a directory of this machine: checked whole, unpacked again.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use speediso_model::image::{DigestAlgorithm, ImageDigest};

use super::inorder::{Pool, in_order, threads};
use super::{
    Chunk, ChunkDecoder, Index, KeyError, MANIFEST_NAME, MAX_MANIFEST_LENGTH, Manifest, PublicKey, SIGNATURE_SUFFIX,
    StoreError, Totals,
};
use crate::digest::Hasher;

/// What is known of the maker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SignedBy {
    /// No key was asked for, and the manifest names none.
    Nobody,
    /// The signature is the key's that the *manifest* names. Whose that is, nobody has checked.
    Named(PublicKey),
    /// The signature is the key's that the caller named.
    Trusted(PublicKey),
}

/// Manifest and index of an image, both right; the data is as long as it must be.
#[derive(Debug)]
pub struct ImageDirectory {
    path: PathBuf,
    pub manifest: Manifest,
    pub index: Index,
    pub signed_by: SignedBy,
}

/// What a whole image was found to be.
#[derive(Clone, Debug)]
pub struct VerifySummary {
    pub disk_size: u64,
    pub totals: Totals,
    pub data_size: u64,
    pub signed_by: SignedBy,
    /// Of the disk, as `b3sum` gives it.
    pub blake3: ImageDigest,
    /// Of the disk, as `sha256sum` gives it.
    pub sha256: ImageDigest,
}

/// Reads and decodes every chunk, and compares each with the index. With `key`, the manifest must be signed by it.
///
/// # Errors
/// At the first thing that is not right.
pub fn verify(
    directory: &Path,
    key: Option<&PublicKey>,
    progress: &mut dyn FnMut(u64),
) -> Result<VerifySummary, StoreError> {
    let image = ImageDirectory::open(directory, key)?;
    let mut blake3 = Hasher::new(DigestAlgorithm::Blake3);
    let mut sha256 = Hasher::new(DigestAlgorithm::Sha256);
    image.each_chunk(progress, |_, _, bytes| {
        blake3.update(bytes);
        sha256.update(bytes);
        Ok(())
    })?;
    Ok(VerifySummary {
        disk_size: image.manifest.disk_size(),
        totals: image.index.totals(),
        data_size: image.manifest.data_size(),
        signed_by: image.signed_by,
        blake3: blake3.digest(),
        sha256: sha256.digest(),
    })
}

impl ImageDirectory {
    /// Reads what there is beside the data. With `key`, the manifest must be signed by it, and nothing of it is parsed
    /// before that is known.
    ///
    /// # Errors
    /// When a file is missing, too long or short, or not right.
    pub fn open(directory: &Path, key: Option<&PublicKey>) -> Result<Self, StoreError> {
        let path = directory.join(MANIFEST_NAME);
        let json = read_at_most(&path, MAX_MANIFEST_LENGTH + 1)?;
        let signature = read_signature(&directory.join(format!("{MANIFEST_NAME}{SIGNATURE_SUFFIX}")))?;
        let check = |key: &PublicKey| {
            let signature = signature.as_ref().ok_or_else(|| StoreError::Unsigned { path: path.clone() })?;
            key.verify(&json, signature).map_err(|source| StoreError::Signature { path: path.clone(), source })
        };
        if let Some(key) = key {
            check(key)?;
        }
        let manifest = Manifest::parse(&json).map_err(|source| StoreError::Manifest { path: path.clone(), source })?;
        let signed_by = match (key, manifest.signed_by()) {
            (Some(key), Some(said)) if key != said => {
                let source = KeyError::Other { said: said.clone(), key: key.clone() };
                return Err(StoreError::Signature { path, source });
            }
            (Some(key), _) => SignedBy::Trusted(key.clone()),
            (None, Some(said)) => {
                check(said)?;
                SignedBy::Named(said.clone())
            }
            (None, None) => SignedBy::Nobody,
        };
        let path = directory.join(manifest.index_name());
        must_have(&path, manifest.index_size())?;
        let bytes = fs::read(&path).map_err(StoreError::io("reading", &path))?;
        let index = Index::parse(bytes, &manifest).map_err(|source| StoreError::Manifest { path, source })?;
        must_have(&directory.join(manifest.data_name()), manifest.data_size())?;
        Ok(Self { path: directory.to_owned(), manifest, index, signed_by })
    }

    /// Decodes the chunks on all cores and gives each, verified, to `sink` in their order: its number, what the index
    /// says of it, its bytes.
    ///
    /// # Errors
    /// The sink's, or that of the first chunk that is not as it was packed.
    pub fn each_chunk(
        &self,
        progress: &mut dyn FnMut(u64),
        mut sink: impl FnMut(u64, Chunk, &[u8]) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let path = self.path.join(self.manifest.data_name());
        let file = File::open(&path).map_err(StoreError::io("opening", &path))?;
        let chunk_size = self.manifest.chunk_size() as usize;
        let zeros = vec![0; chunk_size];
        let pool = Pool::default();
        let mut next = 0;
        let read =
            |offset, stored: &mut [u8]| file.read_exact_at(stored, offset).map_err(StoreError::io("reading", &path));
        in_order(
            threads(4 * chunk_size),
            || {
                if next == self.index.chunk_count() {
                    return Ok(None);
                }
                let chunk = next;
                next += 1;
                progress(self.manifest.disk_range(chunk).end);
                Ok(Some(chunk))
            },
            || {
                let mut decoder = ChunkDecoder::new().map_err(StoreError::Zstd)?;
                let mut stored = Vec::new();
                let (pool, read) = (&pool, &read);
                Ok(move |number| {
                    let chunk = self.index.chunk(number);
                    let Chunk::Data { offset, length, .. } = chunk else { return Ok((number, chunk, Vec::new())) };
                    stored.resize(length as usize, 0);
                    read(offset, &mut stored)?;
                    let mut out = pool.take();
                    out.resize(self.manifest.decoded_length(number) as usize, 0);
                    decoder.decode(&chunk, &stored, &mut out).map_err(|source| StoreError::Chunk {
                        chunk: number,
                        disk: self.manifest.disk_range(number),
                        source,
                    })?;
                    Ok((number, chunk, out))
                })
            },
            |(number, chunk, bytes): (u64, Chunk, Vec<u8>)| {
                let Chunk::Data { .. } = chunk else {
                    return sink(number, chunk, &zeros[..self.manifest.decoded_length(number) as usize]);
                };
                sink(number, chunk, &bytes)?;
                pool.give(bytes);
                Ok(())
            },
        )
    }

    /// Writes the disk into a new file, with holes where it is zero. The file has its name only when it is whole.
    ///
    /// # Errors
    /// When a chunk is not as it was packed, or the file cannot be written or exists.
    pub fn unpack(&self, out: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let mut name = out.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        for path in [out, &partial] {
            if fs::symlink_metadata(path).is_ok() {
                return Err(StoreError::Exists { path: path.to_owned() });
            }
        }
        let file = File::create_new(&partial).map_err(StoreError::io("creating", &partial))?;
        let written = self
            .unpack_into(&file, &partial, progress)
            .and_then(|()| fs::rename(&partial, out).map_err(StoreError::io("renaming to", out)));
        if written.is_err() {
            // Best effort: the error that led here is the one to tell.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn unpack_into(&self, file: &File, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        file.set_len(self.manifest.disk_size()).map_err(StoreError::io("sizing", path))?;
        self.each_chunk(progress, |number, chunk, bytes| {
            if chunk == Chunk::Zero {
                return Ok(());
            }
            let at = self.manifest.disk_range(number).start;
            file.write_all_at(bytes, at).map_err(StoreError::io("writing", path))
        })?;
        file.sync_all().map_err(StoreError::io("syncing", path))
    }
}

fn read_at_most(path: &Path, length: usize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(length as u64).read_to_end(&mut bytes))
        .map_err(StoreError::io("reading", path))?;
    Ok(bytes)
}

fn read_signature(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match read_at_most(path, 256) {
        Ok(signature) => Ok(Some(signature)),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Asked before a byte is read, so that no file is read that is larger than it may be.
fn must_have(path: &Path, expected: u64) -> Result<(), StoreError> {
    let found = fs::metadata(path).map_err(StoreError::io("reading", path))?.len();
    if found != expected {
        return Err(StoreError::FileLength { path: path.to_owned(), found, expected });
    }
    Ok(())
}
