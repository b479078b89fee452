//! The image of a larger live system: a manifest image whose chunks go into memory instead of onto a disk.
//!
//! Nothing of it is used before the signature of its manifest and the BLAKE3 of every chunk were right. What the chunks
//! make up tells itself what it is: a squashfs with the kernel modules that it needs behind it, or an archive of files.

mod squashfs;
mod unpack;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use speediso_image::manifest::{Chunk, ChunkDecoder, Index, MAX_MANIFEST_LENGTH, Manifest, ManifestError};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{ImageDigest, ImageSource};

pub use self::squashfs::{Squashfs, modules_behind};
use crate::ctx::{Meter, TaskCtx};
use crate::fetch::{FetchError, Ranges, check_whole};
use crate::write_image::{Job, job_at};

/// Requests that are fetched before their turn to be decoded.
const AHEAD: usize = 2;

/// Takes the bytes that belong there.
type Put<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Fault> + 'a;

/// What the image is to be held as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    Squashfs,
    Tar,
}

/// An image whose manifest is trusted and whose index is that manifest's.
#[derive(Debug)]
pub struct LiveImage {
    source: ImageSource,
    digest: Option<ImageDigest>,
    manifest: Manifest,
    index: Index,
    data: Ranges,
}

impl LiveImage {
    /// # Errors
    /// When it cannot be had, is not signed by the key that `source` names, or is no manifest image.
    pub fn open(source: &ImageSource, ctx: &TaskCtx) -> Result<Self, Fault> {
        let bad = |e: ManifestError| Fault::from_error(FaultCode::ImageFormat, &e).because(source.shown());
        let fetching = |e: FetchError| e.fault(source);
        let beside = Ranges::of(source, ctx);
        let json = beside.whole(MAX_MANIFEST_LENGTH as u64).map_err(fetching)?;
        let digest = check_whole(source, &json, ctx)?;
        let manifest = Manifest::parse(&json).map_err(bad)?;
        let index = beside.beside(manifest.index_name()).whole(manifest.index_size()).map_err(fetching)?;
        let index = Index::parse(index, &manifest).map_err(bad)?;
        let data = beside.beside(manifest.data_name());
        Ok(Self { source: source.clone(), digest, manifest, index, data })
    }

    /// In bytes, in memory.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.manifest.disk_size()
    }

    /// Of the manifest, unless it is its signature that was checked.
    #[must_use]
    pub fn digest(&self) -> Option<&ImageDigest> {
        self.digest.as_ref()
    }

    /// What the first chunk says.
    ///
    /// # Errors
    /// When it cannot be fetched, or is neither.
    pub fn form(&self) -> Result<Form, Fault> {
        let mut first = vec![0; self.manifest.decoded_length(0) as usize];
        if let described @ Chunk::Data { offset, length, .. } = self.index.chunk(0) {
            let mut stored = Vec::new();
            self.data.read(offset, length.into(), 0, &mut stored).map_err(|e| e.fault(&self.source))?;
            let mut decoder = decoder()?;
            self.decode(0, &described, &stored, &mut first, &mut decoder)?;
        }
        if Squashfs::is_one(&first) {
            Ok(Form::Squashfs)
        } else if first.get(257..262) == Some(b"ustar") {
            Ok(Form::Tar)
        } else {
            Err(Fault::new(
                FaultCode::ImageFormat,
                format!("{} begins neither as a squashfs nor as a tar archive", self.source.shown()),
            ))
        }
    }

    /// Brings the file to hold the image. What it holds already is not fetched again. Gives how many bytes were.
    ///
    /// # Errors
    /// When the bytes cannot be had, are not the right ones, or there is no room for them.
    pub fn hold(&self, file: &File, ctx: &TaskCtx) -> Result<u64, Fault> {
        let empty = file.metadata().is_ok_and(|m| m.len() == 0);
        file.set_len(self.size()).map_err(|e| no_room(&e))?;
        let has = |chunk: u64| !empty && self.is_in(file, chunk).unwrap_or(false);
        self.stream(ctx, &has, &mut |at, bytes| file.write_all_at(bytes, at).map_err(|e| no_room(&e)))
    }

    /// Whether the file holds the image, every byte of it.
    ///
    /// # Errors
    /// `image-digest-mismatch` when it does not.
    pub fn check(&self, file: &File) -> Result<(), Fault> {
        for chunk in 0..self.index.chunk_count() {
            let right = self.is_in(file, chunk).map_err(|e| Fault::from_error(FaultCode::Io, &e))?;
            if !right {
                let range = self.manifest.disk_range(chunk);
                return Err(Fault::new(
                    FaultCode::ImageDigestMismatch,
                    format!("bytes {} to {} of the live image changed in memory", range.start, range.end),
                )
                .because("the memory of this machine cannot be trusted: test it"));
            }
        }
        Ok(())
    }

    /// Unpacks an archive into the directory, which is empty.
    ///
    /// # Errors
    /// As [`LiveImage::hold`]; or when it is no good archive.
    pub fn unpack(&self, into: &Path, ctx: &TaskCtx) -> Result<u64, Fault> {
        let (reader, writer) = io::pipe().map_err(|e| Fault::from_error(FaultCode::Io, &e))?;
        thread::scope(|scope| {
            let unpacking = scope.spawn(move || unpack::unpack(reader, into));
            let fetched = {
                // Dropped with the block: the other side sees the end then, and not before.
                let mut writer = writer;
                self.stream(ctx, &|_| false, &mut |_, bytes| {
                    // It has a reason of its own to tell.
                    io::Write::write_all(&mut writer, bytes).map_err(|e| Fault::from_error(FaultCode::Io, &e))
                })
            };
            let panicked = |_| Err(Fault::new(FaultCode::Internal, "unpacking panicked"));
            match (unpacking.join().unwrap_or_else(panicked), fetched) {
                (Ok(()), fetched) => fetched,
                // What could not be fetched is why the archive ended.
                (Err(_), Err(fault)) if fault.code != FaultCode::Io => Err(fault),
                (Err(fault), _) => Err(fault),
            }
        })
    }

    /// All chunks in their order, each verified, but for those of which `has` says that they are there. Says how many
    /// bytes were fetched.
    fn stream(&self, ctx: &TaskCtx, has: &(dyn Fn(u64) -> bool + Sync), put: &mut Put<'_>) -> Result<u64, Fault> {
        let mut meter = Meter::new(ctx, "fetching the live system", "memory", Some(self.size()));
        let mut fetched = 0;
        thread::scope(|scope| {
            let (to_decoder, pieces) = sync_channel(AHEAD);
            scope.spawn(move || self.fetch(ctx, has, &to_decoder));
            let mut decoder = decoder()?;
            let mut out = vec![0; self.manifest.chunk_size() as usize];
            // Dropping the channel's end ends the fetching.
            for piece in pieces {
                let piece = piece?;
                fetched += piece.stored.len() as u64;
                let end = self.manifest.disk_range(piece.first + piece.count - 1).end;
                self.put_all(piece, ctx, &mut decoder, &mut out, put)?;
                meter.at(end);
            }
            ctx.cancel.check()?;
            Ok(fetched)
        })
    }

    fn fetch(&self, ctx: &TaskCtx, has: &(dyn Fn(u64) -> bool + Sync), to_decoder: &SyncSender<Result<Piece, Fault>>) {
        let mut next = 0;
        while next < self.index.chunk_count() && !ctx.cancel.is_cancelled() {
            if has(next) {
                next += 1;
                continue;
            }
            let job = job_at(&self.index, next, self.manifest.chunk_size().into());
            let piece = match job {
                Job::Zeroes { first, count } => Ok(Piece { first, count, stored: Vec::new() }),
                Job::Data { first, count } => self.read(first, count, 0).map(|stored| Piece { first, count, stored }),
            };
            let failed = piece.is_err();
            next += job.count();
            if to_decoder.send(piece).is_err() || failed {
                return;
            }
        }
    }

    /// The stored bytes of neighbours.
    fn read(&self, first: u64, count: u64, server: usize) -> Result<Vec<u8>, Fault> {
        let place = |chunk| match self.index.chunk(chunk) {
            Chunk::Data { offset, length, .. } => (offset, u64::from(length)),
            Chunk::Zero => (0, 0),
        };
        let ((begin, _), (last, length)) = (place(first), place(first + count - 1));
        let mut stored = Vec::new();
        self.data.read(begin, last + length - begin, server, &mut stored).map_err(|e| e.fault(&self.source))?;
        Ok(stored)
    }

    /// Wrong bytes are asked of the other servers before they count as the image's.
    fn put_all(
        &self,
        Piece { first, count, mut stored }: Piece,
        ctx: &TaskCtx,
        decoder: &mut ChunkDecoder,
        out: &mut [u8],
        put: &mut Put<'_>,
    ) -> Result<(), Fault> {
        let mut server = 0;
        let mut at = 0;
        for chunk in first..first + count {
            let described = self.index.chunk(chunk);
            let range = self.manifest.disk_range(chunk);
            let out = &mut out[..self.manifest.decoded_length(chunk) as usize];
            let length = match described {
                Chunk::Data { length, .. } => length as usize,
                Chunk::Zero => 0,
            };
            loop {
                let bytes = stored.get(at..at + length).unwrap_or_default();
                match self.decode(chunk, &described, bytes, out, decoder) {
                    Ok(()) => break,
                    Err(fault) if server + 1 >= self.data.servers() => return Err(fault),
                    Err(fault) => {
                        server += 1;
                        ctx.reporter.notice(&format!("{fault}; asking another server"));
                        stored = self.read(first, count, server)?;
                    }
                }
            }
            at += length;
            put(range.start, out)?;
        }
        Ok(())
    }

    fn decode(
        &self,
        chunk: u64,
        described: &Chunk,
        stored: &[u8],
        out: &mut [u8],
        decoder: &mut ChunkDecoder,
    ) -> Result<(), Fault> {
        decoder.decode(described, stored, out).map_err(|e| {
            let mut fault = Fault::from_error(FaultCode::ImageDigestMismatch, &e);
            fault.message = format!("chunk {chunk} of {} is not what its manifest names", self.source.shown());
            fault.because(e.to_string())
        })
    }

    fn is_in(&self, file: &File, chunk: u64) -> io::Result<bool> {
        let mut bytes = vec![0; self.manifest.decoded_length(chunk) as usize];
        file.read_exact_at(&mut bytes, self.manifest.disk_range(chunk).start)?;
        Ok(match self.index.chunk(chunk) {
            Chunk::Data { hash, .. } => blake3::hash(&bytes) == hash,
            Chunk::Zero => bytes.iter().all(|byte| *byte == 0),
        })
    }
}

/// Neighbours, with their stored bytes; none of zeros.
struct Piece {
    first: u64,
    count: u64,
    stored: Vec<u8>,
}

fn decoder() -> Result<ChunkDecoder, Fault> {
    ChunkDecoder::new().map_err(|e| Fault::from_error(FaultCode::Internal, &e))
}

fn no_room(error: &io::Error) -> Fault {
    Fault::new(FaultCode::LiveUnusable, "the memory for the live system is full").because(error.to_string())
}
