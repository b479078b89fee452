//! From the bytes of a disk to a manifest image.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use super::chunk::{ChunkEncoder, Packed};
use super::index::{self, Entry};
use super::inorder::{Pool, in_order, threads, threads_within};
use super::{
    ChunkCompression, DEFAULT_CHUNK_SIZE, DEFAULT_NAME, Geometry, MANIFEST_NAME, MAX_CHUNK_SIZE, Names,
    SIGNATURE_SUFFIX, SigningKey, StoreError, check_geometry, make,
};
use crate::gptgeometry;

/// What may be chosen.
#[derive(Debug, Default)]
pub struct PackOptions<'a> {
    /// None: 1 MiB, and more for disks over 256 GiB, so that the index stays at 11 MiB.
    pub chunk_size: Option<u32>,
    /// Of zstd. None: nothing is compressed.
    pub level: Option<i32>,
    pub key: Option<&'a SigningKey>,
    /// What the data and the index are called, before `.bin` and `.idx`; `chunks` if not given. Several images in one
    /// place need different names.
    pub name: Option<&'a str>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct PackSummary {
    pub disk_size: u64,
    pub chunk_size: u32,
    pub chunks: u64,
    /// Of `manifest.json`: an order names the image by it.
    pub manifest_sha256: speediso_model::image::ImageDigest,
    pub data_size: u64,
}

/// Packs the disk whose bytes `source` gives in their order into `out`, a directory that is made or is empty. The same
/// bytes and options give the same files, with one version of zstd.
///
/// `disk_size` is what the source must have; without it, the disk ends where the source does. `progress` is told the
/// bytes that were read so far.
///
/// The manifest appears last and whole: a directory without one is no image. After an error nothing is left behind.
///
/// # Errors
/// When the source, the target or a size is not right.
pub fn pack(
    source: &mut dyn Read,
    disk_size: Option<u64>,
    options: &PackOptions<'_>,
    out: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<PackSummary, StoreError> {
    let chunk_size = options.chunk_size.unwrap_or_else(|| suitable_chunk_size(disk_size));
    // Before the first byte is read. Of a disk of unknown size the rest is said at its end.
    check_geometry(disk_size.unwrap_or(512), None, chunk_size).map_err(StoreError::Unpackable)?;
    let names = Names::new(options.name.unwrap_or(DEFAULT_NAME)).map_err(StoreError::Unpackable)?;
    let mut target = Target::begin(out)?;
    let mut disk = Disk { source, chunk_size, expected: disk_size, read: 0, sector_size: None, ended: false };
    let data = target.path(&names.data);
    let file = File::create_new(&data).map_err(StoreError::io("creating", &data))?;
    // Compressed chunks may be small; large ones go past the buffer.
    let mut store = Store::new(BufWriter::with_capacity(1 << 20, file), |e| StoreError::io("writing", &data)(e));
    // Three items at most, and a compressed one beside the one at work.
    store.fill(threads(4 * chunk_size as usize), options.level, |buffer| {
        let chunk = disk.next(buffer)?;
        progress(disk.read);
        Ok(chunk.map(Cut::Bytes))
    })?;
    let geometry = geometry(disk.read, disk.sector_size, chunk_size, options);
    check_geometry(geometry.disk_size, geometry.sector_size, chunk_size).map_err(StoreError::Unpackable)?;
    let (file, contents) = store.finish();
    let file = file.into_inner().map_err(io::IntoInnerError::into_error);
    file.and_then(|file| file.sync_all()).map_err(StoreError::io("writing", &data))?;
    let files = contents.name(geometry, names, options.key)?;
    target.write(&files.index_name, &files.index)?;
    if let Some(key) = options.key {
        target.write(&format!("{MANIFEST_NAME}{SIGNATURE_SUFFIX}"), key.sign(&files.manifest).as_bytes())?;
    }
    target.finish(&files.manifest)?;
    Ok(files.summary)
}

/// A disk that says itself where it holds nothing.
pub trait PackSource {
    /// In bytes.
    fn size(&self) -> u64;

    /// Fills `chunk` with the disk's bytes from `offset` on. `false`: all of them are to be zero, `chunk` is not used.
    ///
    /// # Errors
    /// Ends the packing.
    fn read(&mut self, offset: u64, chunk: &mut [u8]) -> io::Result<bool>;
}

/// What belongs beside the data once all of it was written.
#[derive(Clone, Debug)]
pub struct PackedFiles {
    pub index_name: String,
    pub index: Vec<u8>,
    /// The bytes of `manifest.json`.
    pub manifest: Vec<u8>,
    pub summary: PackSummary,
}

/// Packs a disk without a directory: the data goes to `data` as it is made, index and manifest are given back. Nothing
/// is flushed or finished here; `options.key` is not used.
///
/// # Errors
/// [`StoreError::Source`] when the disk cannot be read, [`StoreError::Sink`] when `data` takes no more.
pub fn pack_to(
    source: &mut dyn PackSource,
    sector_size: Option<u32>,
    options: &PackOptions<'_>,
    data: &mut (dyn Write + Send),
    progress: &mut dyn FnMut(u64),
) -> Result<PackedFiles, StoreError> {
    /// It runs on machines that may have no more than 256 MiB.
    const MEMORY: usize = 64 << 20;
    let size = source.size();
    let chunk_size = options.chunk_size.unwrap_or_else(|| suitable_chunk_size(Some(size)));
    check_geometry(size, sector_size, chunk_size).map_err(StoreError::Unpackable)?;
    let names = Names::new(options.name.unwrap_or(DEFAULT_NAME)).map_err(StoreError::Unpackable)?;
    let mut store = Store::new(data, |source| StoreError::Sink { source });
    let mut at = 0;
    store.fill(threads_within(MEMORY, 4 * chunk_size as usize), options.level, |mut buffer| {
        let length = (size - at).min(chunk_size.into());
        if length == 0 {
            return Ok(None);
        }
        buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
        let found = source.read(at, &mut buffer).map_err(|source| StoreError::Source { at, source })?;
        at += length;
        progress(at);
        Ok(Some(if found { Cut::Bytes(buffer) } else { Cut::Zero }))
    })?;
    let (_, contents) = store.finish();
    contents.name(geometry(size, sector_size, chunk_size, options), names, None)
}

fn geometry(disk_size: u64, sector_size: Option<u32>, chunk_size: u32, options: &PackOptions<'_>) -> Geometry {
    let compression = if options.level.is_some() { ChunkCompression::Zstd } else { ChunkCompression::None };
    Geometry { disk_size, sector_size, chunk_size, compression }
}

fn suitable_chunk_size(disk_size: Option<u64>) -> u32 {
    const CHUNKS: u64 = 1 << 18;
    let mut size = DEFAULT_CHUNK_SIZE;
    while size < MAX_CHUNK_SIZE && disk_size.is_some_and(|disk| disk / u64::from(size) > CHUNKS) {
        size *= 2;
    }
    size
}

/// Cuts the source into chunks.
struct Disk<'a> {
    source: &'a mut dyn Read,
    chunk_size: u32,
    expected: Option<u64>,
    read: u64,
    sector_size: Option<u32>,
    ended: bool,
}

impl Disk<'_> {
    fn next(&mut self, mut chunk: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let size = self.chunk_size as usize;
        chunk.resize(size, 0);
        let mut filled = 0;
        while filled < size {
            match self.source.read(&mut chunk[filled..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(StoreError::Source { at: self.read + filled as u64, source }),
            }
        }
        chunk.truncate(filled);
        if self.read == 0 {
            self.sector_size = gptgeometry::sector_size(&chunk);
        }
        self.read += filled as u64;
        match self.expected {
            Some(expected) if self.read > expected => return Err(StoreError::SourceLong { expected }),
            Some(expected) if self.ended && self.read < expected => {
                return Err(StoreError::SourceShort { found: self.read, expected });
            }
            // A disk of unknown size is refused when it grows too large, not after hours at its end.
            _ => check_geometry(self.read.max(512).next_multiple_of(512), None, self.chunk_size)
                .map_err(StoreError::Unpackable)?,
        }
        Ok((filled > 0).then_some(chunk))
    }
}

/// A piece of the disk, before it is packed.
enum Cut {
    Zero,
    Bytes(Vec<u8>),
}

/// The data file and the index in the making.
struct Store<W, E> {
    data: W,
    failed: E,
    size: u64,
    entries: Vec<u8>,
    /// The first chunk with each hash, by the hash's first half: 24 bytes a chunk. Two hashes that share it cost a
    /// chunk stored twice, nothing more.
    known: HashMap<u128, u32>,
}

impl<W: Write + Send, E: Fn(io::Error) -> StoreError + Send> Store<W, E> {
    fn new(data: W, failed: E) -> Self {
        Self { data, failed, size: 0, entries: Vec::new(), known: HashMap::new() }
    }

    /// Packs what `feed` gives, which is handed a buffer to use again, until there is no more.
    fn fill(
        &mut self,
        threads: NonZero<usize>,
        level: Option<i32>,
        mut feed: impl FnMut(Vec<u8>) -> Result<Option<Cut>, StoreError>,
    ) -> Result<(), StoreError> {
        let pool = Pool::default();
        in_order(
            threads,
            || feed(pool.take()),
            || {
                let mut encoder = ChunkEncoder::new(level).map_err(StoreError::Zstd)?;
                let pool = &pool;
                Ok(move |cut| {
                    let Cut::Bytes(chunk) = cut else { return Ok(Packed::Zero) };
                    let (packed, spare) = encoder.encode(chunk, pool.take());
                    pool.give(spare);
                    Ok(packed)
                })
            },
            |packed| {
                if let Some(buffer) = self.add(packed)? {
                    pool.give(buffer);
                }
                Ok(())
            },
        )
    }

    /// Gives back the buffer, if there is one.
    fn add(&mut self, packed: Packed) -> Result<Option<Vec<u8>>, StoreError> {
        let Packed::Data { hash, stored } = packed else {
            Entry::default().write(&mut self.entries);
            return Ok(None);
        };
        if let Some(known) = self.known(&hash) {
            known.write(&mut self.entries);
            return Ok(Some(stored));
        }
        let length = u32::try_from(stored.len()).unwrap_or(MAX_CHUNK_SIZE);
        self.data.write_all(&stored).map_err(&self.failed)?;
        let number = self.entries.len() / index::ENTRY_LENGTH;
        self.known.entry(first_half(&hash)).or_insert_with(|| u32::try_from(number).unwrap_or(u32::MAX));
        Entry { offset: self.size, length, hash: *hash.as_bytes() }.write(&mut self.entries);
        self.size += u64::from(length);
        Ok(Some(stored))
    }

    fn known(&self, hash: &blake3::Hash) -> Option<Entry> {
        let number = *self.known.get(&first_half(hash))?;
        let entry = Entry::read(self.entries.as_chunks().0.get(number as usize)?);
        (entry.hash == *hash.as_bytes()).then_some(entry)
    }

    fn finish(self) -> (W, Contents) {
        (self.data, Contents { entries: self.entries, data_size: self.size })
    }
}

/// What there is to say of a data file that was written.
struct Contents {
    entries: Vec<u8>,
    data_size: u64,
}

impl Contents {
    fn name(self, geometry: Geometry, names: Names, key: Option<&SigningKey>) -> Result<PackedFiles, StoreError> {
        let mut index = index::header(geometry, self.data_size).to_vec();
        index.extend_from_slice(&self.entries);
        let index_name = names.index.clone();
        let manifest = make(geometry, names, self.data_size, blake3::hash(&index), key.map(SigningKey::public));
        let json = manifest.to_json().map_err(StoreError::Unpackable)?;
        let mut hash = crate::digest::Hasher::new(speediso_model::image::DigestAlgorithm::Sha256);
        hash.update(&json);
        let summary = PackSummary {
            disk_size: geometry.disk_size,
            chunk_size: geometry.chunk_size,
            chunks: manifest.chunk_count(),
            manifest_sha256: hash.digest(),
            data_size: self.data_size,
        };
        Ok(PackedFiles { index_name, index, manifest: json, summary })
    }
}

fn first_half(hash: &blake3::Hash) -> u128 {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_le_bytes(half)
}

/// The directory in the making; takes itself away again unless it is finished.
struct Target {
    directory: PathBuf,
    made: bool,
    files: Vec<PathBuf>,
}

impl Target {
    fn begin(directory: &Path) -> Result<Self, StoreError> {
        let made = match fs::create_dir(directory) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(StoreError::io("making the directory", directory)(e)),
        };
        let full = !made && {
            let entries = fs::read_dir(directory);
            entries.map_or_else(
                |e| if e.kind() == io::ErrorKind::NotADirectory { Ok(true) } else { Err(e) },
                |mut entries| Ok(entries.next().is_some()),
            )
        }
        .map_err(StoreError::io("reading the directory", directory))?;
        if full {
            return Err(StoreError::NotEmpty { path: directory.to_owned() });
        }
        Ok(Self { directory: directory.to_owned(), made, files: Vec::new() })
    }

    /// Of a file that goes with the rest if this is not finished.
    fn path(&mut self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        self.files.push(path.clone());
        path
    }

    fn write(&mut self, name: &str, content: &[u8]) -> Result<PathBuf, StoreError> {
        let path = self.path(name);
        File::create_new(&path)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .map_err(StoreError::io("writing", &path))?;
        Ok(path)
    }

    fn finish(mut self, manifest: &[u8]) -> Result<(), StoreError> {
        let unfinished = self.write(&format!("{MANIFEST_NAME}.new"), manifest)?;
        // What it names is on the medium before it is.
        sync_directory(&self.directory)?;
        let path = self.path(MANIFEST_NAME);
        fs::rename(&unfinished, &path).map_err(StoreError::io("renaming to", &path))?;
        sync_directory(&self.directory)?;
        if self.made
            && let Some(parent) = self.directory.parent().filter(|parent| !parent.as_os_str().is_empty())
        {
            sync_directory(parent)?;
        }
        self.files.clear();
        self.made = false;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Best effort: the error that led here is the one to tell.
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        if self.made {
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(StoreError::io("syncing", path))
}
