//! A disk image as independently compressed chunks: docs/image-manifest.md says every byte of it.
//!
//! Three files in one directory, for which any static web server is enough:
//!
//! - the *manifest* (`manifest.json`, a few hundred bytes), the root of trust: an order's digest or an ed25519
//!   signature covers its exact bytes;
//! - the *index*, whose BLAKE3 is in the manifest: place, length and BLAKE3 of each chunk;
//! - the *data*: the stored chunks one after the other, so that one range request covers many neighbours.
//!
//! Everything here is parsed as if an enemy wrote it, since the data may come from any mirror: no length is allocated
//! before it is compared with a limit, and nothing is handed on before its BLAKE3 is right.

mod chunk;
mod directory;
mod index;
mod inorder;
mod pack;
mod sign;

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use speediso_model::plan::hex;

pub use chunk::{ChunkDecoder, decode_chunk};
pub use directory::{ImageDirectory, SignedBy, VerifySummary, verify};
pub use index::{Chunk, HEADER_LENGTH, Index, Stored, Totals};
pub use pack::{PackOptions, PackSource, PackSummary, PackedFiles, pack, pack_to};
pub use sign::{KeyError, PublicKey, SIGNATURE_SUFFIX, SigningKey};

pub const MANIFEST_NAME: &str = "manifest.json";
/// Of the data and the index, before `.bin` and `.idx`.
pub const DEFAULT_NAME: &str = "chunks";

pub const FORMAT: &str = "speediso-image";
pub const VERSION: u32 = 1;
/// Of `manifest.json`, which has some 400 bytes.
pub const MAX_MANIFEST_LENGTH: usize = 64 << 10;
pub const MIN_CHUNK_SIZE: u32 = 64 << 10;
pub const DEFAULT_CHUNK_SIZE: u32 = 1 << 20;
pub const MAX_CHUNK_SIZE: u32 = 16 << 20;
/// Keeps the index, which a reader holds in memory, at 44 MiB: disks up to 1 TiB in chunks of 1 MiB, 16 TiB in chunks
/// of 16 MiB.
pub const MAX_CHUNKS: u64 = 1 << 20;

/// Why bytes are not a manifest image.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is longer than the {MAX_MANIFEST_LENGTH} bytes that are read of one")]
    TooLong,
    #[error("the manifest is not understood")]
    Json(#[source] serde_json::Error),
    #[error("it is {0:?}, not {FORMAT:?}")]
    NotOurs(String),
    #[error("the manifest is of version {0}, of which nothing is known here; version {VERSION} is")]
    Version(u32),
    #[error("the manifest's {field} cannot be {found}: {why}")]
    Field { field: &'static str, found: String, why: &'static str },
    #[error("the index has {found} bytes instead of {expected}")]
    IndexLength { found: usize, expected: u64 },
    #[error("the index is not the one that the manifest names: its BLAKE3 is {found}")]
    IndexDigest { found: String },
    #[error("the index and the manifest do not agree about the {0}")]
    IndexHeader(&'static str),
    #[error("chunk {chunk} in the index is impossible: {why}")]
    Entry { chunk: u64, why: &'static str },
    #[error("a chunk has {found} stored bytes instead of {expected}")]
    StoredLength { found: usize, expected: usize },
    #[error("a chunk has {found} bytes instead of {expected}")]
    DecodedLength { found: usize, expected: usize },
    #[error("a chunk is not exactly one zstd frame")]
    NotOneFrame,
    #[error("a chunk is damaged: {0}")]
    Zstd(#[source] io::Error),
    #[error("a chunk's BLAKE3 is not the one in the index")]
    ChunkDigest,
}

/// What goes wrong around files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} has {found} bytes instead of {expected}")]
    FileLength { path: PathBuf, found: u64, expected: u64 },
    #[error("{path} is not as it must be")]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("chunk {chunk} (disk bytes {} to {}) is not as it was packed", disk.start, disk.end)]
    Chunk { chunk: u64, disk: Range<u64>, source: ManifestError },
    #[error("{path} is not signed")]
    Unsigned { path: PathBuf },
    #[error("the signature of {path} is not accepted")]
    Signature { path: PathBuf, source: KeyError },
    #[error("{path} exists and is not an empty directory; name another, or remove it")]
    NotEmpty { path: PathBuf },
    #[error("{path} exists; name another, or remove it")]
    Exists { path: PathBuf },
    #[error("reading the disk image at byte {at}")]
    Source { at: u64, source: io::Error },
    #[error("the disk image ends at byte {found} of {expected}")]
    SourceShort { found: u64, expected: u64 },
    #[error("the disk image goes on after the {expected} bytes that it was to have")]
    SourceLong { expected: u64 },
    #[error("the packed data is not taken any more")]
    Sink { source: io::Error },
    #[error("the disk image cannot be packed")]
    Unpackable(#[source] ManifestError),
    #[error("setting up zstd")]
    Zstd(#[source] io::Error),
}

impl StoreError {
    fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// How the chunks that shrink are stored. Each of the others is stored as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChunkCompression {
    None,
    Zstd,
}

impl ChunkCompression {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Zstd => "zstd",
        }
    }
}

/// The root of trust, parsed and possible in itself: every number in it may be computed with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    disk_size: u64,
    // `deserialize_with` makes serde demand the key even of an option.
    #[serde(deserialize_with = "Option::deserialize")]
    sector_size: Option<u32>,
    chunk_size: u32,
    compression: ChunkCompression,
    data: DataFile,
    index: IndexFile,
    #[serde(deserialize_with = "Option::deserialize")]
    signed_by: Option<PublicKey>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DataFile {
    file: String,
    size: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexFile {
    file: String,
    blake3: String,
}

/// Read before the rest, so that a later version is refused by its number and not by a field of it.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u32,
}

impl Manifest {
    /// Takes the bytes of a `manifest.json` that is trusted already, by its digest or by its signature.
    ///
    /// # Errors
    /// When it is not one, or not a possible one.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        if json.len() > MAX_MANIFEST_LENGTH {
            return Err(ManifestError::TooLong);
        }
        let kind: Kind = serde_json::from_slice(json).map_err(ManifestError::Json)?;
        if kind.format != FORMAT {
            return Err(ManifestError::NotOurs(kind.format.chars().take(64).collect()));
        }
        if kind.version != VERSION {
            return Err(ManifestError::Version(kind.version));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(ManifestError::Json)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        check_geometry(self.disk_size, self.sector_size, self.chunk_size)?;
        let field =
            |field, found: &dyn ToString, why| Err(ManifestError::Field { field, found: found.to_string(), why });
        if self.data.size > self.disk_size {
            return field("data.size", &self.data.size, "no chunk is stored in more bytes than it has");
        }
        for (name, found) in [("data.file", &self.data.file), ("index.file", &self.index.file)] {
            if !is_plain_name(found) {
                return field(name, &format!("{found:?}"), "it must be a plain name of a file beside the manifest");
            }
        }
        if self.data.file == self.index.file {
            return field("index.file", &self.index.file, "the data has this name");
        }
        if index::parse_digest(&self.index.blake3).is_none() {
            return field(
                "index.blake3",
                &format!("{:?}", self.index.blake3),
                "it must have 64 hex digits, in lower case",
            );
        }
        Ok(())
    }

    /// Of the disk that the image is of, in bytes.
    #[must_use]
    pub fn disk_size(&self) -> u64 {
        self.disk_size
    }

    /// That the image's partition table is made for; `None` without a GPT.
    #[must_use]
    pub fn sector_size(&self) -> Option<u32> {
        self.sector_size
    }

    #[must_use]
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    #[must_use]
    pub fn compression(&self) -> ChunkCompression {
        self.compression
    }

    /// Name of the data file, beside the manifest. It needs no escaping in a URL.
    #[must_use]
    pub fn data_name(&self) -> &str {
        &self.data.file
    }

    #[must_use]
    pub fn data_size(&self) -> u64 {
        self.data.size
    }

    /// Name of the index, beside the manifest. It needs no escaping in a URL.
    #[must_use]
    pub fn index_name(&self) -> &str {
        &self.index.file
    }

    /// Exact length of the index, at most 44 MiB and 64 bytes.
    #[must_use]
    pub fn index_size(&self) -> u64 {
        HEADER_LENGTH as u64 + self.chunk_count() * index::ENTRY_LENGTH as u64
    }

    /// Whose signature the maker put beside the manifest, by his own word: proves nothing until it is compared with a
    /// key that the reader knows.
    #[must_use]
    pub fn signed_by(&self) -> Option<&PublicKey> {
        self.signed_by.as_ref()
    }

    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.disk_size.div_ceil(u64::from(self.chunk_size))
    }

    /// Which bytes of the disk the chunk is; all chunks but the last have the same size.
    ///
    /// # Panics
    /// When there is no such chunk.
    #[must_use]
    pub fn disk_range(&self, chunk: u64) -> Range<u64> {
        assert!(chunk < self.chunk_count(), "chunk {chunk} of {}", self.chunk_count());
        let start = chunk * u64::from(self.chunk_size);
        start..self.disk_size.min(start + u64::from(self.chunk_size))
    }

    /// Bytes of the chunk on the disk.
    ///
    /// # Panics
    /// When there is no such chunk.
    #[must_use]
    pub fn decoded_length(&self, chunk: u64) -> u32 {
        let range = self.disk_range(chunk);
        u32::try_from(range.end - range.start).unwrap_or(self.chunk_size)
    }

    /// The bytes of `manifest.json` as `pack` writes them: one line, the fields in their order.
    fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        let mut json = serde_json::to_vec(self).map_err(ManifestError::Json)?;
        json.push(b'\n');
        Ok(json)
    }

    fn index_digest(&self) -> Option<blake3::Hash> {
        index::parse_digest(&self.index.blake3)
    }

    fn geometry(&self) -> Geometry {
        let Self { disk_size, sector_size, chunk_size, compression, .. } = *self;
        Geometry { disk_size, sector_size, chunk_size, compression }
    }
}

/// What the manifest and, before there is one, `pack` ask of the numbers.
fn check_geometry(disk_size: u64, sector_size: Option<u32>, chunk_size: u32) -> Result<(), ManifestError> {
    let field = |field, found: u64, why| Err(ManifestError::Field { field, found: found.to_string(), why });
    if !chunk_size.is_power_of_two() || !(MIN_CHUNK_SIZE..=MAX_CHUNK_SIZE).contains(&chunk_size) {
        return field("chunk_size", chunk_size.into(), "it must be a power of two from 64 KiB to 16 MiB");
    }
    if let Some(size) = sector_size
        && ![512, 4096].contains(&size)
    {
        return field("sector_size", size.into(), "disks have sectors of 512 or of 4096 bytes");
    }
    if disk_size == 0 || !disk_size.is_multiple_of(sector_size.unwrap_or(512).into()) {
        return field("disk_size", disk_size, "a disk has whole sectors, and at least one");
    }
    if disk_size.div_ceil(chunk_size.into()) > MAX_CHUNKS {
        return field("disk_size", disk_size, "that is more than 1048576 chunks; use a larger chunk_size");
    }
    Ok(())
}

/// Whether it can be a name beside the manifest, on a disk as in a URL.
fn is_plain_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && !name.starts_with(MANIFEST_NAME)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Of the files beside a manifest that is made.
#[derive(Debug)]
struct Names {
    data: String,
    index: String,
}

impl Names {
    fn new(name: &str) -> Result<Self, ManifestError> {
        let names = Self { data: format!("{name}.bin"), index: format!("{name}.idx") };
        if is_plain_name(&names.data) {
            return Ok(names);
        }
        let why = "only letters, digits, '.', '-' and '_' can be in it, and no '.' at its front";
        Err(ManifestError::Field { field: "name", found: format!("{name:?}"), why })
    }
}

fn make(
    geometry: Geometry,
    names: Names,
    data_size: u64,
    index: blake3::Hash,
    signed_by: Option<PublicKey>,
) -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        disk_size: geometry.disk_size,
        sector_size: geometry.sector_size,
        chunk_size: geometry.chunk_size,
        compression: geometry.compression,
        data: DataFile { file: names.data, size: data_size },
        index: IndexFile { file: names.index, blake3: hex(index.as_bytes()) },
        signed_by,
    }
}

/// What manifest and index both say, so that the digest of the index binds the manifest's numbers too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Geometry {
    disk_size: u64,
    sector_size: Option<u32>,
    chunk_size: u32,
    compression: ChunkCompression,
}
