//! qcow2 images, written in the order of the file as it goes by.
//!
//! Where the server sends ranges the map is read ahead, so that all of it is checked before the first write; the stream,
//! which is what is hashed, must show the same map. Elsewhere the map is learnt as it goes by.

use std::io::{self, Cursor, Read};

use serde_json::json;
use speediso_image::container;
use speediso_image::qcow2::{Extents, HEADER_PROBE, Header, Layout, Qcow2Error, ReadAt};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{Compression, ImageSource};

use super::source::{Source, disagree, read_full, source_fault};
use super::target::Target;
use super::writer::{Gone, WriteError, Writer, write_behind};
use super::{Body, trusted};
use crate::ctx::{Meter, TaskCtx};
use crate::fetch::{FetchError, Hashed, Ranges};

/// What is made to read as zeroes by one command.
const ZEROES: u64 = 64 << 20;
/// Of the guest, looked at for a partition table: 128 entries behind two sectors of 4096 bytes.
const TABLE: usize = 32 << 10;

type Stream = Box<dyn Read + Send>;

/// A qcow2 image that can be written; nothing was yet.
pub(super) struct Qcow2 {
    extents: Extents<Stream>,
    hashed: Hashed,
    virtual_size: u64,
    /// Of the file.
    length: Option<u64>,
    /// What the image has data for, if the map was read ahead.
    allocated: Option<u64>,
    /// The start of the disk, likewise.
    head: Option<Vec<u8>>,
}

impl Qcow2 {
    pub(super) fn open(image: &ImageSource, target: &Target<'_>, ctx: &TaskCtx) -> Result<Self, Fault> {
        let Source { mut decoded, hashed, total: length } = Source::open(image, ctx)?;
        let mut start = vec![0; HEADER_PROBE];
        let got = read_full(&mut decoded, &mut start).map_err(|e| source_fault(&e, image))?;
        start.truncate(got);
        container::agree_decoded(image.format, &start).map_err(|what| disagree(image, &what))?;
        let header = Header::parse(&start).map_err(|e| fault(&e, image))?;
        let virtual_size = header.virtual_size;
        target.check_size(virtual_size)?;
        let sector = target.sector_size();
        if !header.cluster_size.is_multiple_of(sector) {
            return Err(Fault::new(
                FaultCode::SectorSizeMismatch,
                format!("the image has clusters of {} bytes, the disk sectors of {sector}", header.cluster_size),
            ));
        }
        let stream: Stream = Box::new(Cursor::new(start).chain(decoded));
        let layout = match length {
            Some(length) if image.compression == Compression::None => read_ahead(image, &header, length, ctx)?,
            _ => None,
        };
        let allocated = layout.as_ref().map(|(layout, _)| layout.allocated());
        let (layout, head) = layout.unzip();
        let extents = match layout {
            Some(layout) => Extents::with_layout(stream, header, layout, length),
            None => Extents::in_stream_order(stream, header),
        };
        Ok(Self { extents, hashed, virtual_size, length, allocated, head })
    }

    pub(super) fn head(&self) -> Option<&[u8]> {
        self.head.as_deref()
    }

    pub(super) fn write(mut self, image: &ImageSource, target: &Target<'_>, ctx: &TaskCtx) -> Result<Body, Fault> {
        let place = target.place();
        let mut meter = Meter::new(ctx, "writing", place.name(), self.length);
        write_behind(target, |writer| fill(&mut self.extents, image, writer, &mut meter, ctx))
            .map_err(|e| e.fault(image, target))?;
        let holes = self
            .extents
            .into_holes()
            .ok_or_else(|| Fault::new(FaultCode::Internal, "the image was not read to its end"))?;
        let sum = self.hashed.sum(image)?;
        let mut zeroed = 0;
        for hole in holes {
            zeroed += hole.end - hole.start;
            let end = hole.end.next_multiple_of(target.sector_size()).min(place.size());
            let mut at = hole.start;
            while at < end {
                ctx.cancel.check()?;
                let next = end.min(at + ZEROES);
                target.zero(at, next).map_err(|e| target.fault(&e))?;
                at = next;
            }
        }
        let map = if self.allocated.is_some() { "read ahead" } else { "learnt from the stream" };
        Ok(Body {
            size: self.virtual_size,
            method: format!("qcow2, map {map}, {}", trusted(image)),
            facts: json!({
                "source_bytes": sum.length,
                "digest": sum.digest,
                "connections_lost": sum.resumed,
                "zero_bytes": zeroed,
            }),
        })
    }
}

/// The map, unless the server sends no parts of files.
fn read_ahead(
    image: &ImageSource,
    header: &Header,
    length: u64,
    ctx: &TaskCtx,
) -> Result<Option<(Layout, Vec<u8>)>, Fault> {
    let mut server = Server { ranges: Ranges::of(image, ctx), bytes: Vec::new() };
    let layout = match Layout::read(header, &mut server, length) {
        Ok(layout) => layout,
        Err(Qcow2Error::Source(error)) if matches!(FetchError::of(&error), Some(FetchError::NoRanges)) => {
            ctx.reporter.notice("the server sends no parts of files: the image's map is learnt as it goes by");
            return Ok(None);
        }
        Err(error) => return Err(fault(&error, image)),
    };
    let mut head = vec![0; TABLE];
    layout.start(header, &mut server, &mut head).map_err(|e| fault(&e, image))?;
    Ok(Some((layout, head)))
}

struct Server {
    ranges: Ranges,
    bytes: Vec<u8>,
}

impl ReadAt for Server {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.ranges.read(offset, buffer.len() as u64, 0, &mut self.bytes).map_err(io::Error::other)?;
        buffer.copy_from_slice(&self.bytes);
        Ok(())
    }
}

fn fill(
    extents: &mut Extents<Stream>,
    image: &ImageSource,
    writer: &Writer,
    meter: &mut Meter<'_>,
    ctx: &TaskCtx,
) -> Result<Result<(), Gone>, WriteError> {
    loop {
        ctx.cancel.check().map_err(WriteError::Refused)?;
        let Ok(mut buffer) = writer.buffer() else { return Ok(Err(Gone)) };
        match extents.next(&mut buffer) {
            Ok(None) => return Ok(Ok(())),
            Ok(Some(extent)) => {
                if writer.write(extent.guest, buffer, extent.length).is_err() {
                    return Ok(Err(Gone));
                }
                meter.at(extents.position());
            }
            Err(Qcow2Error::Source(error)) => return Err(WriteError::Source(error)),
            Err(error) => return Err(WriteError::Refused(fault(&error, image))),
        }
    }
}

fn fault(error: &Qcow2Error, image: &ImageSource) -> Fault {
    let code = match error {
        Qcow2Error::Source(error) => return source_fault(error, image),
        Qcow2Error::Truncated { .. } => FaultCode::ImageTruncated,
        Qcow2Error::ChangedMeanwhile { .. } => FaultCode::ImageChanged,
        Qcow2Error::VirtualSize { .. } => FaultCode::ImageTooLarge,
        Qcow2Error::BufferTooSmall { .. } | Qcow2Error::FailedBefore => FaultCode::Internal,
        _ => FaultCode::ImageFormat,
    };
    Fault::new(code, format!("{}: {error}", image.shown()))
}
