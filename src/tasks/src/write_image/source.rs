//! An image's bytes, fetched, hashed and decoded, whose beginning is what the order says.

use std::io::{self, Cursor, Read};

use speediso_image::container::{self, PROBE_LENGTH};
use speediso_image::decode::{DecodeError, announced_size, decoder};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::{Compression, ImageSource};

use crate::ctx::TaskCtx;
use crate::fetch::{self, FetchError, Hashed};

pub(super) struct Source {
    pub(super) decoded: Box<dyn Read + Send>,
    pub(super) hashed: Hashed,
    /// Of what is decoded, as far as server, compression or order tell.
    pub(super) total: Option<u64>,
}

impl Source {
    pub(super) fn open(image: &ImageSource, ctx: &TaskCtx) -> Result<Self, Fault> {
        let (mut fetched, hashed) = fetch::open(image, ctx)?;
        let length = fetched.length;
        let mut start = Vec::new();
        (&mut fetched).take(PROBE_LENGTH as u64).read_to_end(&mut start).map_err(|e| source_fault(&e, image))?;
        container::agree(image.compression, image.format, &start).map_err(|what| disagree(image, &what))?;
        let total = match image.compression {
            Compression::None => length,
            _ => announced_size(image.compression, &start),
        };
        let source = Cursor::new(start).chain(fetched);
        let decoded = decoder(image.compression, image.max_window, source).map_err(|e| source_fault(&e, image))?;
        Ok(Self { decoded, hashed, total })
    }
}

pub(super) fn disagree(image: &ImageSource, what: &str) -> Fault {
    Fault::new(FaultCode::ImageFormat, format!("{}: {what}", image.shown()))
}

/// Fills the buffer or reaches the end.
pub(super) fn read_full(source: &mut (dyn Read + Send), buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match source.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// The fault for an error that came out of the decoding reader.
pub(super) fn source_fault(error: &io::Error, image: &ImageSource) -> Fault {
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
