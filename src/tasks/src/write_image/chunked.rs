//! Images that are chunks: fetched, verified and written one by one, on all cores, from several servers.
//!
//! Nothing is written before its BLAKE3 is right, so a server that has other bytes costs one request and nothing else.
//! Where the disk holds the right bytes already (`mode: delta`, or a write that was cut short), nothing is fetched.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::json;
use speediso_image::manifest::{Chunk, ChunkDecoder, Index, MAX_MANIFEST_LENGTH, Manifest, ManifestError};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::NodeId;
use speediso_model::image::{ImageDigest, ImageSource};
use speediso_model::task::WriteMode;
use speediso_model::trust::Trust;
use speediso_sys::buffer::AlignedBuffer;

use super::Body;
use super::leg::Leg;
use super::target::Target;
use crate::ctx::{Meter, TaskCtx};
use crate::fetch::{FetchError, Ranges, check_whole};
use crate::place::Place;
use crate::share::{Handed, Image, Layout, PeerError, Swarm};

/// Of neighbouring chunks in one request. Each worker holds this much, and one chunk decoded.
const REQUEST: u64 = 2 << 20;
/// For all workers together: whatever the machine's cores and the image's chunks are, 64 MiB are enough for the agent.
const MEMORY: u64 = 24 << 20;
/// Declared zeroes that are made so by one command.
const ZEROES: u64 = 64 << 20;
const MOST_WORKERS: usize = 8;
/// More than a partition table takes on 4096-byte sectors.
const HEAD: u64 = 32 << 10;

/// A manifest image that can be written; nothing was yet.
pub(super) struct Chunked {
    /// Of the manifest, unless it is signed.
    digest: Option<ImageDigest>,
    json: Vec<u8>,
    manifest: Arc<Manifest>,
    index: Arc<Index>,
    data: Ranges,
}

impl Chunked {
    pub(super) fn open(image: &ImageSource, target: &Target<'_>, ctx: &TaskCtx) -> Result<Self, Fault> {
        let bad = |e: ManifestError| Fault::from_error(FaultCode::ImageFormat, &e).because(image.shown());
        let fetching = |e: FetchError| e.fault(image);
        let beside = Ranges::of(image, ctx);
        let json = beside.whole(MAX_MANIFEST_LENGTH as u64).map_err(fetching)?;
        let digest = check_whole(image, &json, ctx)?;
        let manifest = Manifest::parse(&json).map_err(bad)?;
        target.check_size(manifest.disk_size())?;
        target.check_sector_size(manifest.sector_size())?;
        let index = beside.beside(manifest.index_name()).whole(manifest.index_size()).map_err(fetching)?;
        let index = Index::parse(index, &manifest).map_err(bad)?;
        let data = beside.beside(manifest.data_name());
        // A server without ranges is found out before the first write, not after it.
        if manifest.data_size() > 0 {
            data.read(0, 1, 0, &mut Vec::new()).map_err(fetching)?;
        }
        Ok(Self { digest, json, manifest: Arc::new(manifest), index: Arc::new(index), data })
    }

    /// The first MiB of the disk, or less: only as many chunks as that takes.
    pub(super) fn head(&self, image: &ImageSource) -> Result<Vec<u8>, Fault> {
        let (mut head, mut stored) = (Vec::new(), Vec::new());
        let mut decoder = ChunkDecoder::new().map_err(|e| Fault::from_error(FaultCode::Internal, &e))?;
        let mut chunk = 0;
        while chunk < self.index.chunk_count() && (head.len() as u64) < HEAD {
            let range = self.manifest.disk_range(chunk);
            let begin = head.len();
            head.resize(begin + usize::try_from(range.end - range.start).unwrap_or(0), 0);
            if let described @ Chunk::Data { offset, length, .. } = self.index.chunk(chunk) {
                self.data.read(offset, u64::from(length), 0, &mut stored).map_err(|e| e.fault(image))?;
                decoder.decode(&described, &stored, &mut head[begin..]).map_err(|e| {
                    Fault::from_error(FaultCode::ImageDigestMismatch, &e)
                        .because(format!("chunk {chunk} of {} is not what its manifest names", image.shown()))
                })?;
            }
            chunk += 1;
        }
        Ok(head)
    }

    /// Twice the cores, since half of them wait for the network or the disk.
    fn workers(&self) -> usize {
        let chunk = u64::from(self.manifest.chunk_size());
        let room = usize::try_from(MEMORY / (REQUEST.max(chunk) + chunk)).unwrap_or(1);
        thread::available_parallelism().map_or(2, usize::from).saturating_mul(2).min(MOST_WORKERS).min(room).max(1)
    }

    /// Joins the machines that write the same image.
    fn swarm(&self, url: &str, target: &Target<'_>, ctx: &TaskCtx) -> Option<Arc<Swarm>> {
        let (index, chunk_size) = (&self.index, u64::from(self.manifest.chunk_size()));
        let layout = Layout::of(index, &self.manifest, |first| job_at(index, first, chunk_size).count());
        let (manifest, index) = (Arc::clone(&self.manifest), Arc::clone(index));
        let image = Image { json: &self.json, manifest, index, url, layout, workers: self.workers() };
        // Others get what this machine reads back from the disk, which must be the image's from its first byte on.
        let whole = target.single().map(Leg::place).filter(Place::is_whole)?;
        Swarm::join(image, whole.disk(), ctx)
    }

    pub(super) fn write(
        self,
        image: &ImageSource,
        mode: WriteMode,
        share: bool,
        target: &Target<'_>,
        ctx: &TaskCtx,
    ) -> Result<Body, Fault> {
        let size = self.manifest.disk_size();
        let ordered = mode;
        // What an interrupted run has written counts as far as it is right, which its chunks' hashes tell.
        let mode = if ctx.resuming && target.single().is_some() { WriteMode::Delta } else { mode };
        let meter = Mutex::new(Meter::new(ctx, "writing", target.place().name(), Some(size)));
        let work = Work {
            chunked: &self,
            image,
            mode,
            target,
            ctx,
            meter,
            next: Mutex::new(0),
            failed: AtomicBool::new(false),
            done: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            from_peers: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            swarm: share.then(|| self.swarm(&image.url, target, ctx)).flatten(),
        };
        let workers = self.workers();
        let results: Vec<Result<(), Fault>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..workers)
                .map(|n| {
                    let work = &work;
                    scope.spawn(move || work.run(n))
                })
                .collect();
            let panicked = || Err(Fault::new(FaultCode::Internal, "a writing thread panicked"));
            workers.into_iter().map(|w| w.join().unwrap_or_else(|_| panicked())).collect()
        });
        results.into_iter().collect::<Result<(), Fault>>()?;
        let done = work.done.load(Ordering::Relaxed);
        if done != size {
            return Err(Fault::new(FaultCode::Internal, format!("{done} of {size} bytes were handed out")));
        }
        let totals = self.index.totals();
        Ok(Body {
            size,
            method: match (ordered, image.trust()) {
                (_, Ok(Trust::Anything)) => "each chunk as its manifest says, which was NOT verified (as ordered)",
                (WriteMode::Full, _) if ctx.resuming => {
                    "taken up, each chunk verified, those that were missing written"
                }
                (WriteMode::Full, _) => "each chunk verified before it was written",
                (WriteMode::Delta, _) => "each chunk verified, those that differed written",
            }
            .into(),
            facts: json!({
                "digest": self.digest,
                "chunks": totals.chunks,
                "zero_bytes": totals.zero_bytes,
                "source_bytes": work.fetched.load(Ordering::Relaxed),
                "peer_bytes": work.from_peers.load(Ordering::Relaxed),
                "kept_bytes": work.kept.load(Ordering::Relaxed),
            }),
        })
    }
}

/// What one worker does at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Job {
    /// Neighbours on the disk, all of them zeroes.
    Zeroes { first: u64, count: u64 },
    /// Neighbours on the disk and in the data.
    Data { first: u64, count: u64 },
}

impl Job {
    pub(crate) fn count(self) -> u64 {
        match self {
            Self::Zeroes { count, .. } | Self::Data { count, .. } => count,
        }
    }
}

/// The job that begins with this chunk.
pub(crate) fn job_at(index: &Index, first: u64, chunk_size: u64) -> Job {
    let follows = |at: u64| (at < index.chunk_count()).then(|| index.chunk(at));
    match index.chunk(first) {
        Chunk::Zero => {
            let most = (ZEROES / chunk_size).max(1);
            let count = (1..most).find(|n| follows(first + n) != Some(Chunk::Zero)).unwrap_or(most);
            Job::Zeroes { first, count }
        }
        Chunk::Data { offset, length, .. } => {
            let (begin, mut end, mut count) = (offset, offset + u64::from(length), 1);
            while let Some(Chunk::Data { offset, length, .. }) = follows(first + count)
                && offset == end
                && end + u64::from(length) - begin <= REQUEST
                && (count + 1) * chunk_size <= REQUEST.max(chunk_size)
            {
                end += u64::from(length);
                count += 1;
            }
            Job::Data { first, count }
        }
    }
}

/// What a job was given, and by whom.
#[derive(Default)]
struct Got {
    /// Who is to be asked instead of the image's server.
    peer: Option<NodeId>,
    /// Stored bytes from the image's server.
    stored: u64,
    /// The peer did not give, from this chunk on.
    failed: Option<(u64, PeerError)>,
}

struct Work<'a> {
    chunked: &'a Chunked,
    image: &'a ImageSource,
    mode: WriteMode,
    target: &'a Target<'a>,
    ctx: &'a TaskCtx,
    meter: Mutex<Meter<'a>>,
    next: Mutex<u64>,
    failed: AtomicBool,
    done: AtomicU64,
    fetched: AtomicU64,
    /// Of the disk, not of what is stored.
    from_peers: AtomicU64,
    kept: AtomicU64,
    /// Others that write the same image.
    swarm: Option<Arc<Swarm>>,
}

impl Work<'_> {
    fn run(&self, worker: usize) -> Result<(), Fault> {
        let result = self.jobs(worker);
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn jobs(&self, worker: usize) -> Result<(), Fault> {
        let chunk_size = usize::try_from(self.chunked.manifest.chunk_size()).unwrap_or(usize::MAX);
        let mut buffer = AlignedBuffer::zeroed(chunk_size);
        let mut stored = Vec::new();
        let mut decoder = ChunkDecoder::new().map_err(|e| Fault::from_error(FaultCode::Internal, &e))?;
        while let Some((job, handed)) = self.take() {
            // Another worker's error is the one that counts.
            if self.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.ctx.cancel.check()?;
            let mut got = Got::default();
            match job {
                Job::Zeroes { first, count } => self.zeroes(first, count, &mut buffer)?,
                Job::Data { first, count } => {
                    got.peer = handed.as_ref().and_then(Handed::peer);
                    self.data(first, count, worker, &mut got, &mut stored, &mut decoder, &mut buffer)?;
                }
            }
            if let (Some(swarm), Some(handed)) = (&self.swarm, handed) {
                match got.failed {
                    None => swarm.done(&handed, got.stored),
                    Some((left, error)) => {
                        self.say(&handed, &error);
                        swarm.failed(&handed, left, &error);
                    }
                }
            }
        }
        self.ctx.cancel.check()
    }

    fn say(&self, handed: &Handed, error: &PeerError) {
        if let (PeerError::Wrong { .. }, Some(peer)) = (error, handed.peer()) {
            self.ctx.reporter.notice(&format!("machine {peer} was asked for chunks: {error}; not asking it again"));
        }
    }

    /// The next job, and who is to be asked if it is handed out among several machines.
    fn take(&self) -> Option<(Job, Option<Handed>)> {
        if let Some(swarm) = &self.swarm {
            let handed = swarm.next(&|| self.failed.load(Ordering::Relaxed) || self.ctx.cancel.is_cancelled())?;
            let (first, count) = (handed.run.first, handed.run.count);
            let job = if handed.zero { Job::Zeroes { first, count } } else { Job::Data { first, count } };
            return Some((job, Some(handed)));
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if *next >= self.chunked.index.chunk_count() {
            return None;
        }
        let job = job_at(&self.chunked.index, *next, u64::from(self.chunked.manifest.chunk_size()));
        *next += job.count();
        Some((job, None))
    }

    fn zeroes(&self, first: u64, count: u64, buffer: &mut AlignedBuffer) -> Result<(), Fault> {
        let (start, end) = (self.disk_range(first).start, self.disk_range(first + count - 1).end);
        match self.present().filter(|leg| leg.is_plain(start, end)) {
            Some(leg) if self.all_zero(leg.place(), start, end, buffer)? => {
                self.kept.fetch_add(end - start, Ordering::Relaxed);
                self.target.expect_zeroes(leg, start, end);
            }
            _ => self.target.zero(start, end).map_err(|e| self.target.fault(&e))?,
        }
        self.advance(end - start);
        Ok(())
    }

    /// The disk whose content counts, if any does.
    fn present(&self) -> Option<&Leg<'_>> {
        self.target.single().filter(|_| self.mode == WriteMode::Delta)
    }

    fn all_zero(&self, place: Place<'_>, start: u64, end: u64, buffer: &mut AlignedBuffer) -> Result<bool, Fault> {
        let mut at = start;
        while at < end {
            let n = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            place.read_at(at, &mut buffer[..n]).map_err(|e| self.target.fault(&e))?;
            if buffer[..n].iter().any(|b| *b != 0) {
                return Ok(false);
            }
            at += n as u64;
        }
        Ok(true)
    }

    #[allow(clippy::too_many_arguments, reason = "what a worker has, lent")]
    fn data(
        &self,
        first: u64,
        count: u64,
        worker: usize,
        got: &mut Got,
        stored: &mut Vec<u8>,
        decoder: &mut ChunkDecoder,
        buffer: &mut AlignedBuffer,
    ) -> Result<(), Fault> {
        let (mut at, end) = (first, first + count);
        while at < end {
            if self.mode == WriteMode::Delta && self.is_there(at, buffer)? {
                at += 1;
                continue;
            }
            // In full mode all of them; in delta mode one, since its neighbour may be there.
            let until = if self.mode == WriteMode::Delta { at + 1 } else { end };
            if let (Some(peer), Some(swarm)) = (got.peer, &self.swarm) {
                if let Err(error) = self.take_from_peer(swarm, peer, at..until, stored, buffer)? {
                    got.failed = Some((at, error));
                    return Ok(());
                }
            } else {
                got.stored += self.fetch(at, until, worker, stored, decoder, buffer)?;
            }
            at = until;
        }
        Ok(())
    }

    /// Whether the disk holds the chunk. What is held back at the start and end of the disk never counts as there.
    fn is_there(&self, chunk: u64, buffer: &mut AlignedBuffer) -> Result<bool, Fault> {
        let Chunk::Data { hash, .. } = self.chunked.index.chunk(chunk) else { return Ok(false) };
        let range = self.disk_range(chunk);
        let Some(leg) = self.present().filter(|leg| leg.is_plain(range.start, range.end)) else { return Ok(false) };
        let bytes = &mut buffer[..usize::try_from(range.end - range.start).unwrap_or(0)];
        leg.place().read_at(range.start, bytes).map_err(|e| self.target.fault(&e))?;
        if blake3::hash(bytes) != hash {
            return Ok(false);
        }
        self.target.expect_hash(leg, range.start, bytes.len(), hash);
        self.kept.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.advance(bytes.len() as u64);
        Ok(true)
    }

    /// Chunks from another machine, none of which is written before all of them are right.
    fn take_from_peer(
        &self,
        swarm: &Swarm,
        peer: NodeId,
        chunks: std::ops::Range<u64>,
        bytes: &mut Vec<u8>,
        buffer: &mut AlignedBuffer,
    ) -> Result<Result<(), PeerError>, Fault> {
        let start = self.disk_range(chunks.start).start;
        let length = usize::try_from(self.disk_range(chunks.end - 1).end - start).unwrap_or(usize::MAX);
        if let Err(error) = swarm.get(peer, chunks.clone(), length, bytes) {
            return Ok(Err(error));
        }
        let place = |chunk: u64| {
            let range = self.disk_range(chunk);
            let from = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
            (range.start, from(range.start)..from(range.end))
        };
        for chunk in chunks.clone() {
            let right = match self.chunked.index.chunk(chunk) {
                Chunk::Data { hash, .. } => bytes.get(place(chunk).1).is_some_and(|b| blake3::hash(b) == hash),
                Chunk::Zero => false,
            };
            if !right {
                return Ok(Err(PeerError::Wrong { chunk }));
            }
        }
        for chunk in chunks {
            let Chunk::Data { hash, .. } = self.chunked.index.chunk(chunk) else { continue };
            let (at, within) = place(chunk);
            let out = &mut buffer[..within.len()];
            out.copy_from_slice(&bytes[within]);
            self.target.put_hashed(at, out, hash).map_err(|e| self.target.fault(&e))?;
            self.advance(out.len() as u64);
            self.from_peers.fetch_add(out.len() as u64, Ordering::Relaxed);
        }
        Ok(Ok(()))
    }

    /// Chunks that follow one another in the data, from a server that has the right bytes. Says how much was fetched.
    fn fetch(
        &self,
        first: u64,
        end: u64,
        worker: usize,
        stored: &mut Vec<u8>,
        decoder: &mut ChunkDecoder,
        buffer: &mut AlignedBuffer,
    ) -> Result<u64, Fault> {
        let index = &self.chunked.index;
        let place = |chunk| match index.chunk(chunk) {
            Chunk::Data { offset, length, .. } => (offset, u64::from(length)),
            Chunk::Zero => (0, 0),
        };
        let ((begin, _), (last, length)) = (place(first), place(end - 1));
        let total = last + length - begin;
        let servers = self.chunked.data.servers();
        let (mut next, mut got) = (first, 0);
        for attempt in 0..servers {
            self.chunked.data.read(begin, total, worker + attempt, stored).map_err(|e| e.fault(self.image))?;
            self.fetched.fetch_add(total, Ordering::Relaxed);
            got += total;
            match self.decode_and_put(&mut next, end, begin, stored, decoder, buffer) {
                Err(fault) if fault.code == FaultCode::ImageDigestMismatch && attempt + 1 < servers => {
                    self.ctx.reporter.notice(&format!("{fault}; asking another server"));
                }
                ended => return ended.map(|()| got),
            }
        }
        Ok(got)
    }

    fn decode_and_put(
        &self,
        next: &mut u64,
        end: u64,
        begin: u64,
        stored: &[u8],
        decoder: &mut ChunkDecoder,
        buffer: &mut AlignedBuffer,
    ) -> Result<(), Fault> {
        while *next < end {
            let chunk = self.chunked.index.chunk(*next);
            let Chunk::Data { offset, length, hash, .. } = chunk else { return Ok(()) };
            let range = self.disk_range(*next);
            let at = usize::try_from(offset - begin).unwrap_or(usize::MAX);
            let bytes = stored.get(at..at + length as usize).unwrap_or_default();
            let out = &mut buffer[..usize::try_from(range.end - range.start).unwrap_or(0)];
            decoder.decode(&chunk, bytes, out).map_err(|e| {
                let mut fault = Fault::from_error(FaultCode::ImageDigestMismatch, &e);
                fault.message = format!("chunk {next} of {} is not what its manifest names", self.image.shown());
                fault.because(e.to_string())
            })?;
            self.target.put_hashed(range.start, out, hash).map_err(|e| self.target.fault(&e))?;
            self.advance(out.len() as u64);
            *next += 1;
        }
        Ok(())
    }

    fn disk_range(&self, chunk: u64) -> std::ops::Range<u64> {
        self.chunked.manifest.disk_range(chunk)
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).at(done);
    }
}
