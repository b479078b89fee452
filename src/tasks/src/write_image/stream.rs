//! Images that come as one stream: raw, compressed or not.
//!
//! Four threads, each with bounded buffers: the runtime fetches, one hashes the source, this one decodes, a fourth
//! writes.

use std::io::Read;

use serde_json::{Value, json};
use speediso_image::container::{self, PROBE_LENGTH};
use speediso_model::fault::Fault;
use speediso_model::image::ImageSource;
use speediso_sys::buffer::AlignedBuffer;

use super::source::{Source, disagree, read_full, source_fault};
use super::target::{CHUNK, Target};
use super::writer::{Gone, WriteError, Writer, write_behind};
use super::{Body, too_large, trusted};
use crate::ctx::{Meter, TaskCtx};
use crate::fetch::Hashed;
use crate::gptedit::EDGE;
use crate::place::Place;

/// An image whose beginning was fetched and found good; nothing was written yet.
pub(super) struct Stream {
    decoded: Box<dyn Read + Send>,
    hashed: Hashed,
    /// The first MiB of the disk, decoded.
    head: AlignedBuffer,
    total: Option<u64>,
}

impl Stream {
    pub(super) fn open(image: &ImageSource, target: &Target<'_>, ctx: &TaskCtx) -> Result<Self, Fault> {
        let Source { mut decoded, hashed, total } = Source::open(image, ctx)?;
        let total = total.or(image.size.map(|s| s.0));
        target.check_size(total.unwrap_or(0))?;
        let mut head = AlignedBuffer::zeroed(usize::try_from(EDGE).unwrap_or(1 << 20));
        let got = read_full(&mut decoded, &mut head).map_err(|e| source_fault(&e, image))?;
        if (got as u64) < EDGE {
            return Err(disagree(image, &format!("it holds {got} bytes: that is no image of a disk or partition")));
        }
        container::agree_decoded(image.format, &head[..PROBE_LENGTH]).map_err(|what| disagree(image, &what))?;
        Ok(Self { decoded, hashed, head, total })
    }

    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn write(mut self, image: &ImageSource, target: &Target<'_>, ctx: &TaskCtx) -> Result<Body, Fault> {
        target.put(0, &self.head).map_err(|e| target.fault(&e))?;
        let size = write_behind(target, |writer| fill(&mut self.decoded, self.total, target.place(), ctx, writer))
            .map_err(|e| e.fault(image, target))?;
        // The decoder's own end is the source's end, or it would have said so.
        drop(self.decoded);
        let sum = self.hashed.sum(image)?;
        let facts: Value = json!({"source_bytes": sum.length, "digest": sum.digest, "connections_lost": sum.resumed});
        Ok(Body { size, method: format!("streamed, {}", trusted(image)), facts })
    }
}

/// Writes what `source` yields from the second MiB on. Returns the size of the image.
fn fill(
    source: &mut (dyn Read + Send),
    total: Option<u64>,
    place: Place<'_>,
    ctx: &TaskCtx,
    writer: &Writer,
) -> Result<Result<u64, Gone>, WriteError> {
    let mut meter = Meter::new(ctx, "writing", place.name(), total);
    let mut offset = EDGE;
    while offset < place.size() {
        ctx.cancel.check().map_err(WriteError::Refused)?;
        let Ok(mut buffer) = writer.buffer() else { return Ok(Err(Gone)) };
        let room = usize::try_from(place.size() - offset).unwrap_or(usize::MAX).min(CHUNK);
        let got = read_full(source, &mut buffer[..room]).map_err(WriteError::Source)?;
        if got > 0 {
            if writer.write(offset, buffer, got).is_err() {
                return Ok(Err(Gone));
            }
            offset += got as u64;
            meter.at(offset);
        }
        if got < room {
            return Ok(Ok(offset));
        }
    }
    if source.read(&mut [0]).map_err(WriteError::Source)? > 0 {
        return Err(WriteError::Refused(too_large(offset + 1, place.size(), place.name())));
    }
    Ok(Ok(offset))
}
