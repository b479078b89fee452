//! The index: a header that repeats the manifest's numbers, then 44 bytes a chunk.
//!
//! It is kept as it came, 11 MiB for 256 GiB in chunks of 1 MiB, and an entry is decoded when it is asked for.

use super::{ChunkCompression, Geometry, Manifest, ManifestError, VERSION};

pub const HEADER_LENGTH: usize = 64;
pub(super) const ENTRY_LENGTH: usize = 44;
const MAGIC: [u8; 8] = *b"SPDISOIX";

/// What there is to know of one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// Every byte is zero; nothing is stored. The disk must *read* as zero there.
    Zero,
    Data {
        /// In the data file.
        offset: u64,
        /// In the data file. Never more than the chunk has on the disk.
        length: u32,
        /// Of the bytes on the disk.
        hash: blake3::Hash,
        stored: Stored,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stored {
    Raw,
    /// One frame.
    Zstd,
}

/// Sums over all chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    pub chunks: u64,
    pub zero_chunks: u64,
    /// Chunks whose stored bytes an earlier chunk has brought already.
    pub shared_chunks: u64,
    /// Bytes of the disk.
    pub zero_bytes: u64,
    /// Bytes of the disk in chunks that are not declared zero.
    pub used_bytes: u64,
}

/// The index of one manifest, every entry of which is possible.
#[derive(Clone, Debug)]
pub struct Index {
    bytes: Vec<u8>,
    geometry: Geometry,
    totals: Totals,
}

impl Index {
    /// Takes the bytes of the index file.
    ///
    /// # Errors
    /// When they are not the ones that the manifest names, or not possible.
    pub fn parse(bytes: Vec<u8>, manifest: &Manifest) -> Result<Self, ManifestError> {
        let expected = manifest.index_size();
        if u64::try_from(bytes.len()) != Ok(expected) {
            return Err(ManifestError::IndexLength { found: bytes.len(), expected });
        }
        let digest = blake3::hash(&bytes);
        if manifest.index_digest() != Some(digest) {
            return Err(ManifestError::IndexDigest { found: digest.to_string() });
        }
        check_header(&bytes, manifest)?;
        let mut index = Self { bytes, geometry: manifest.geometry(), totals: Totals::default() };
        index.totals = index.check_entries(manifest)?;
        Ok(index)
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        self.totals.chunks
    }

    /// # Panics
    /// When there is no such chunk.
    #[must_use]
    pub fn chunk(&self, number: u64) -> Chunk {
        let entry = usize::try_from(number).ok().and_then(|n| self.entries().get(n));
        let entry = entry.unwrap_or_else(|| panic!("chunk {number} of {}", self.totals.chunks));
        Entry::read(entry).chunk(self.decoded_length(number))
    }

    pub fn chunks(&self) -> impl Iterator<Item = Chunk> {
        (0..self.totals.chunks).map(|number| self.chunk(number))
    }

    fn entries(&self) -> &[[u8; ENTRY_LENGTH]] {
        self.bytes.get(HEADER_LENGTH..).unwrap_or_default().as_chunks().0
    }

    fn decoded_length(&self, chunk: u64) -> u32 {
        let Geometry { disk_size, chunk_size, .. } = self.geometry;
        let left = disk_size - chunk * u64::from(chunk_size);
        u32::try_from(left).map_or(chunk_size, |left| left.min(chunk_size))
    }

    /// The data file is exactly the stored chunks in the order of their first use, without gaps: nothing hides in it,
    /// and a reader that begins at the front never has to go back but for what it has had before.
    fn check_entries(&self, manifest: &Manifest) -> Result<Totals, ManifestError> {
        let mut totals = Totals::default();
        let mut end = 0;
        for (entry, number) in self.entries().iter().zip(0u64..) {
            let entry = Entry::read(entry);
            let bad = |why| Err(ManifestError::Entry { chunk: number, why });
            let decoded = self.decoded_length(number);
            totals.chunks += 1;
            if entry.length == 0 {
                if entry.offset != 0 || entry.hash != [0; 32] {
                    return bad("a chunk of zeros has neither place nor hash");
                }
                totals.zero_chunks += 1;
                totals.zero_bytes += u64::from(decoded);
                continue;
            }
            if entry.length > decoded {
                return bad("it is stored in more bytes than it has");
            }
            if self.geometry.compression == ChunkCompression::None && entry.length != decoded {
                return bad("it is compressed, and the manifest says that none is");
            }
            let Some(stop) = entry.offset.checked_add(entry.length.into()) else {
                return bad("it ends beyond every file");
            };
            if stop > manifest.data_size() {
                return bad("it ends beyond the data");
            }
            if entry.offset == end {
                end = stop;
            } else if stop <= end {
                totals.shared_chunks += 1;
            } else {
                return bad("there is a gap before it, or half of it is an earlier one's");
            }
            totals.used_bytes += u64::from(decoded);
        }
        if end != manifest.data_size() {
            return Err(ManifestError::IndexHeader("end of the data"));
        }
        Ok(totals)
    }
}

fn check_header(bytes: &[u8], manifest: &Manifest) -> Result<(), ManifestError> {
    let expected = header(manifest.geometry(), manifest.data_size());
    let fields = [
        (0..8, "kind of file"),
        (8..12, "version"),
        (12..16, "chunk size"),
        (16..24, "disk size"),
        (24..32, "data size"),
        (32..36, "sector size"),
        (36..40, "compression"),
        (40..64, "bytes that must be zero"),
    ];
    match fields.into_iter().find(|(range, _)| bytes.get(range.clone()) != expected.get(range.clone())) {
        Some((_, what)) => Err(ManifestError::IndexHeader(what)),
        None => Ok(()),
    }
}

pub(super) fn header(geometry: Geometry, data_size: u64) -> [u8; HEADER_LENGTH] {
    let compression = match geometry.compression {
        ChunkCompression::None => 0u32,
        ChunkCompression::Zstd => 1,
    };
    let mut header = [0; HEADER_LENGTH];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&geometry.chunk_size.to_le_bytes());
    header[16..24].copy_from_slice(&geometry.disk_size.to_le_bytes());
    header[24..32].copy_from_slice(&data_size.to_le_bytes());
    header[32..36].copy_from_slice(&geometry.sector_size.unwrap_or(0).to_le_bytes());
    header[36..40].copy_from_slice(&compression.to_le_bytes());
    header
}

/// As it stands in the file. Zeros are a chunk of zeros.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) hash: [u8; 32],
}

impl Entry {
    pub(super) fn read(bytes: &[u8; ENTRY_LENGTH]) -> Self {
        let mut entry = Self::default();
        let (mut offset, mut length) = ([0; 8], [0; 4]);
        offset.copy_from_slice(&bytes[..8]);
        length.copy_from_slice(&bytes[8..12]);
        entry.hash.copy_from_slice(&bytes[12..]);
        Self { offset: u64::from_le_bytes(offset), length: u32::from_le_bytes(length), ..entry }
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.offset.to_le_bytes());
        to.extend_from_slice(&self.length.to_le_bytes());
        to.extend_from_slice(&self.hash);
    }

    fn chunk(&self, decoded_length: u32) -> Chunk {
        if self.length == 0 {
            return Chunk::Zero;
        }
        Chunk::Data {
            offset: self.offset,
            length: self.length,
            hash: blake3::Hash::from_bytes(self.hash),
            // Only what shrinks is compressed, so the length tells.
            stored: if self.length == decoded_length { Stored::Raw } else { Stored::Zstd },
        }
    }
}

/// Lower case only: one digest has one spelling.
pub(super) fn parse_digest(digits: &str) -> Option<blake3::Hash> {
    let canonical = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| blake3::Hash::from_hex(digits).ok()).flatten()
}
