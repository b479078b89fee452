//! Images that come as one stream: raw, compressed or not.
//!
//! Four threads, each with bounded buffers: the runtime fetches, one hashes the source, this one decodes, a fourth
//! writes.

use std::io::Read;
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use speediso_image::container::{self, PROBE_LENGTH};
use speediso_image::decode::{DecodeError, announced_size, decoder};
use speediso_image::gptgeometry;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{Compression, ImageSource};
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::{ClaimedDisk, DiskError};

use super::target::{CHUNK, Target};
use super::{Body, check_sector_size, too_large};
use crate::ctx::{Meter, TaskCtx};
use crate::fetch::{self, FetchError, Hashed};
use crate::gptedit::EDGE;

/// One being filled, one being written, one to smooth the difference.
const BUFFERS: usize = 3;

/// An image whose beginning was fetched and found good; nothing was written yet.
pub(super) struct Stream {
    decoded: Box<dyn Read + Send>,
    hashed: Hashed,
    /// The first MiB of the disk, decoded.
    head: AlignedBuffer,
    total: Option<u64>,
}

impl Stream {
    pub(super) fn open(image: &ImageSource, disk: &ClaimedDisk, ctx: &TaskCtx) -> Result<Self, Fault> {
        let (mut fetched, hashed) = fetch::open(image, ctx)?;
        let length = fetched.length;
        let mut start = Vec::new();
        (&mut fetched).take(PROBE_LENGTH as u64).read_to_end(&mut start).map_err(|e| source_fault(&e, image))?;
        let disagree = |what| Fault::new(FaultCode::ImageFormat, format!("{}: {what}", image.shown()));
        container::agree(image.compression, image.format, &start).map_err(disagree)?;

        let total = match image.compression {
            Compression::None => length,
            _ => announced_size(image.compression, &start).or(image.size.map(|s| s.0)),
        };
        if let Some(total) = total.filter(|total| *total > disk.size()) {
            return Err(too_large(total, disk.size(), disk.name()));
        }
        let source = std::io::Cursor::new(start).chain(fetched);
        let mut decoded = decoder(image.compression, image.max_window, source).map_err(|e| source_fault(&e, image))?;
        let mut head = AlignedBuffer::zeroed(usize::try_from(EDGE).unwrap_or(1 << 20));
        let got = read_full(&mut decoded, &mut head).map_err(|e| source_fault(&e, image))?;
        if (got as u64) < EDGE {
            return Err(disagree(format!("it holds {got} bytes: that is no disk image")));
        }
        container::agree_decoded(image.format, &head[..PROBE_LENGTH]).map_err(disagree)?;
        check_sector_size(gptgeometry::sector_size(&head), disk)?;
        Ok(Self { decoded, hashed, head, total })
    }

    pub(super) fn write(mut self, image: &ImageSource, target: &Target<'_>, ctx: &TaskCtx) -> Result<Body, Fault> {
        target.put(0, &self.head).map_err(|e| target.disk().fault(&e))?;
        let size = copy(&mut self.decoded, self.total, target, ctx).map_err(|e| match e {
            WriteError::Source(error) => source_fault(&error, image),
            WriteError::Disk(error) => target.disk().fault(&error),
            WriteError::Refused(fault) => fault,
        })?;
        // The decoder's own end is the source's end, or it would have said so.
        drop(self.decoded);
        let sum = self.hashed.sum()?;
        if sum.digest != image.digest {
            return Err(Fault::new(
                FaultCode::ImageDigestMismatch,
                format!("{} is {}, the order names {}", image.shown(), sum.digest, image.digest),
            ));
        }
        let facts: Value = json!({"source_bytes": sum.length, "digest": sum.digest, "connections_lost": sum.resumed});
        Ok(Body { size, method: "streamed, digest of the whole source checked".into(), facts })
    }
}

/// Why writing stopped.
enum WriteError {
    Source(std::io::Error),
    Disk(DiskError),
    Refused(Fault),
}

struct Filled {
    buffer: AlignedBuffer,
    offset: u64,
    length: usize,
}

/// Writes what `source` yields from the second MiB on. Returns the size of the image.
fn copy(
    source: &mut (dyn Read + Send),
    total: Option<u64>,
    target: &Target<'_>,
    ctx: &TaskCtx,
) -> Result<u64, WriteError> {
    thread::scope(|scope| {
        let (full, to_write) = mpsc::sync_channel::<Filled>(BUFFERS);
        let (done, empty) = mpsc::channel::<AlignedBuffer>();
        for _ in 0..BUFFERS {
            // The receiver is in this function: it cannot be gone.
            let _ = done.send(AlignedBuffer::zeroed(CHUNK));
        }
        let writer = scope.spawn(move || {
            for Filled { buffer, offset, length } in to_write {
                target.put(offset, &buffer[..length])?;
                // The filling side may have ended already; then nobody needs the buffer.
                let _ = done.send(buffer);
            }
            Ok(())
        });
        let filled = fill(source, total, target.disk(), ctx, &full, &empty);
        drop(full);
        writer
            .join()
            .map_err(|_| WriteError::Refused(Fault::new(FaultCode::Internal, "the writing thread panicked")))?
            .map_err(WriteError::Disk)?;
        filled
    })
}

fn fill(
    source: &mut (dyn Read + Send),
    total: Option<u64>,
    disk: &ClaimedDisk,
    ctx: &TaskCtx,
    full: &mpsc::SyncSender<Filled>,
    empty: &mpsc::Receiver<AlignedBuffer>,
) -> Result<u64, WriteError> {
    let mut meter = Meter::new(ctx, "writing", disk.name(), total);
    let mut offset = EDGE;
    let sector = usize::try_from(disk.sector_size()).unwrap_or(CHUNK);
    while offset < disk.size() {
        ctx.cancel.check().map_err(WriteError::Refused)?;
        // The writer ended early: its own error is the one that counts.
        let Ok(mut buffer) = empty.recv() else { return Ok(offset) };
        let room = usize::try_from(disk.size() - offset).unwrap_or(usize::MAX).min(CHUNK);
        let got = read_full(source, &mut buffer[..room]).map_err(WriteError::Source)?;
        if got > 0 {
            // An image may end within a sector; the sector is filled with zeroes.
            let length = got.next_multiple_of(sector).min(room);
            buffer[got..length].fill(0);
            if full.send(Filled { buffer, offset, length }).is_err() {
                return Ok(offset);
            }
            offset += got as u64;
            meter.at(offset);
        }
        if got < room {
            return Ok(offset);
        }
    }
    if source.read(&mut [0]).map_err(WriteError::Source)? > 0 {
        return Err(WriteError::Refused(too_large(offset + 1, disk.size(), disk.name())));
    }
    Ok(offset)
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

/// The fault for an error that came out of the decoding reader.
pub(super) fn source_fault(error: &std::io::Error, image: &ImageSource) -> Fault {
    if let Some(fetch) = FetchError::of(error) {
        return fetch.fault(image);
    }
    let code = match DecodeError::of(error) {
        Some(DecodeError::Truncated) => FaultCode::ImageTruncated,
        Some(DecodeError::TrailingData) => FaultCode::ImageTrailingData,
        Some(DecodeError::WindowTooLarge(_)) => FaultCode::ImageWindow,
        Some(DecodeError::Damaged(_)) => FaultCode::ImageFormat,
        Some(DecodeError::Source(_)) | None => FaultCode::Io,
    };
    Fault::new(code, format!("reading {}: {error}", image.shown()))
}
