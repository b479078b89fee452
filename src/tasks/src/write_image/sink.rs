//! The disk's side of a write: everything between the first and the last MiB, written by a thread of its own and read
//! back afterwards.

use std::io::Read;
use std::sync::mpsc;
use std::thread;

use rand::seq::index::sample;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::ImageSource;
use speediso_model::task::ReadBack;
use speediso_model::units::Bytes;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::{ClaimedDisk, DiskError};

use super::{source_fault, too_large};
use crate::ctx::{Meter, TaskCtx};
use crate::gptedit::{EDGE, Edges};
use crate::single::OnDisk as _;

/// Large enough that a disk works at its full rate with two in flight, small enough to be read twice without notice.
const CHUNK: usize = 4 << 20;
/// One being filled, one being written, two to smooth the difference.
const BUFFERS: usize = 4;

/// What was written between the edges.
pub(super) struct Written {
    /// Bytes of the image after its first MiB, those held back at the end of the disk included.
    pub(super) length: u64,
    chunks: Vec<WrittenChunk>,
}

struct WrittenChunk {
    offset: u64,
    length: usize,
    hash: blake3::Hash,
}

/// Why writing stopped.
pub(super) enum WriteError {
    Source(std::io::Error),
    Disk(DiskError),
    TooLarge { at_least: u64 },
    Refused(Fault),
}

impl WriteError {
    pub(super) fn into_fault(self, image: &ImageSource, disk: &ClaimedDisk) -> Fault {
        match self {
            Self::Source(error) => source_fault(&error, image),
            Self::Disk(error) => disk.fault(&error),
            Self::TooLarge { at_least } => too_large(at_least, disk.size(), disk.name()),
            Self::Refused(fault) => fault,
        }
    }
}

struct Filled {
    buffer: AlignedBuffer,
    offset: u64,
    length: usize,
}

/// Writes what `source` yields from the second MiB on. What falls into the last MiB of the disk goes to `edges`.
pub(super) fn write_middle(
    source: &mut (dyn Read + Send),
    edges: &mut Edges,
    total: Option<u64>,
    disk: &ClaimedDisk,
    ctx: &TaskCtx,
) -> Result<Written, WriteError> {
    thread::scope(|scope| {
        let (full, to_write) = mpsc::sync_channel::<Filled>(BUFFERS);
        let (done, empty) = mpsc::channel::<AlignedBuffer>();
        for _ in 0..BUFFERS {
            // The receiver is in this function: it cannot be gone.
            let _ = done.send(AlignedBuffer::zeroed(CHUNK));
        }
        let writer = scope.spawn(move || write_chunks(disk, &to_write, &done));
        let filled = fill_chunks(source, edges, total, disk, ctx, &full, &empty);
        drop(full);
        let chunks = writer
            .join()
            .map_err(|_| WriteError::Refused(Fault::new(FaultCode::Internal, "the writing thread panicked")))?
            .map_err(WriteError::Disk)?;
        Ok(Written { length: filled?, chunks })
    })
}

fn write_chunks(
    disk: &ClaimedDisk,
    to_write: &mpsc::Receiver<Filled>,
    done: &mpsc::Sender<AlignedBuffer>,
) -> Result<Vec<WrittenChunk>, DiskError> {
    let mut chunks = Vec::new();
    for Filled { buffer, offset, length } in to_write {
        disk.write_at(offset, &buffer[..length])?;
        chunks.push(WrittenChunk { offset, length, hash: blake3::hash(&buffer[..length]) });
        // The filling side may have ended already; then nobody needs the buffer.
        let _ = done.send(buffer);
    }
    Ok(chunks)
}

/// Returns the number of bytes of the source.
fn fill_chunks(
    source: &mut (dyn Read + Send),
    edges: &mut Edges,
    total: Option<u64>,
    disk: &ClaimedDisk,
    ctx: &TaskCtx,
    full: &mpsc::SyncSender<Filled>,
    empty: &mpsc::Receiver<AlignedBuffer>,
) -> Result<u64, WriteError> {
    let mut meter = Meter::new(ctx, "writing", disk.name(), total);
    let tail_at = edges.tail_at();
    let mut offset = EDGE;
    while offset < tail_at {
        ctx.cancel.check().map_err(WriteError::Refused)?;
        // The writer ended early: its own error is the one that counts.
        let Ok(mut buffer) = empty.recv() else { return Ok(offset - EDGE) };
        let room = usize::try_from(tail_at - offset).unwrap_or(usize::MAX).min(CHUNK);
        let got = read_full(source, &mut buffer[..room]).map_err(WriteError::Source)?;
        if got > 0 {
            // An image may end within a sector; the sector is filled with zeroes.
            let sector = usize::try_from(disk.sector_size()).unwrap_or(CHUNK);
            let length = got.next_multiple_of(sector).min(room);
            buffer[got..length].fill(0);
            if full.send(Filled { buffer, offset, length }).is_err() {
                return Ok(offset - EDGE);
            }
            offset += got as u64;
            meter.at(offset);
        }
        if got < room {
            return Ok(offset - EDGE);
        }
    }
    let got = read_full(source, &mut edges.tail).map_err(WriteError::Source)?;
    let length = tail_at + got as u64;
    if got == edges.tail.len() && source.read(&mut [0]).map_err(WriteError::Source)? > 0 {
        return Err(WriteError::TooLarge { at_least: length + 1 });
    }
    meter.at(length);
    Ok(length - EDGE)
}

/// Fills the buffer or reaches the end.
fn read_full(source: &mut (dyn Read + Send), buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match source.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

pub(super) struct ReadBackDone {
    pub(super) method: String,
    pub(super) facts: Value,
}

/// Reads what was written from the medium again.
pub(super) fn read_back(
    written: &Written,
    mode: ReadBack,
    disk: &ClaimedDisk,
    ctx: &TaskCtx,
) -> Result<ReadBackDone, Fault> {
    let n = written.chunks.len();
    let (chosen, seed): (Vec<usize>, Option<u64>) = match mode {
        ReadBack::None => {
            return Ok(ReadBackDone {
                method: "not read back but for start and end (as ordered)".into(),
                facts: json!({"mode": "none"}),
            });
        }
        ReadBack::Full => ((0..n).collect(), None),
        ReadBack::Sample => {
            let seed: u64 = rand::rng().random();
            let mut chosen = sample(&mut StdRng::seed_from_u64(seed), n, n.div_ceil(16)).into_vec();
            chosen.extend([0, n.saturating_sub(1)]);
            chosen.sort_unstable();
            chosen.dedup();
            chosen.retain(|i| *i < n);
            (chosen, Some(seed))
        }
    };
    ctx.reporter.step_began("read back");
    let total: u64 = chosen.iter().map(|i| written.chunks[*i].length as u64).sum();
    let mut meter = Meter::new(ctx, "reading back", disk.name(), Some(total));
    let mut buffer = AlignedBuffer::zeroed(CHUNK);
    let mut read = 0;
    for chunk in chosen.iter().map(|i| &written.chunks[*i]) {
        ctx.cancel.check()?;
        let bytes = &mut buffer[..chunk.length];
        disk.read_at(chunk.offset, bytes).on(disk)?;
        if blake3::hash(bytes) != chunk.hash {
            return Err(Fault::new(
                FaultCode::ReadBackMismatch,
                format!(
                    "{} returns something else than was written between bytes {} and {}",
                    disk.name(),
                    chunk.offset,
                    chunk.offset + chunk.length as u64
                ),
            ));
        }
        read += chunk.length as u64;
        meter.at(read);
    }
    ctx.reporter.step_ended("read back", &format!("{} compared", Bytes(read)));
    Ok(ReadBackDone {
        method: match seed {
            None => "read back whole from the medium".into(),
            Some(_) => format!("{} of {} read back from the medium", Bytes(read), Bytes(written.length)),
        },
        facts: json!({"mode": if seed.is_some() { "sample" } else { "full" }, "bytes": read, "seed": seed}),
    })
}
