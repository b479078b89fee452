//! From the source's bytes to the image's bytes.
//!
//! Decoders are driven to the end of the *source*, not to the end of the first thing that decodes: data after the last
//! frame is an error, and so is a frame that stops early. A peer once skipped its signature check because its decoder
//! had stopped reading before the end.

mod members;
mod xz;
mod zstd;

use std::io::{self, Read};

use speediso_model::image::Compression;
use speediso_model::units::{Bytes, MIB};

/// What a task may use without naming it.
pub const DEFAULT_MAX_WINDOW: Bytes = Bytes(32 * MIB);
/// How much of the source a decoder takes at once.
const SOURCE_BUFFER: usize = 1 << 18;

/// Why decoding stopped.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the compressed data ends in the middle")]
    Truncated,
    #[error("there is data after the end of the compressed data")]
    TrailingData,
    #[error("decompression needs a window of more than {0}")]
    WindowTooLarge(Bytes),
    #[error("the compressed data is damaged: {0}")]
    Damaged(String),
    /// Not the decoder's: the source's own.
    #[error(transparent)]
    Source(io::Error),
}

impl DecodeError {
    /// The error that a reader carries, if it is one of these.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The source's own error, wherever it is.
    #[must_use]
    pub fn source_of(error: &io::Error) -> &io::Error {
        match Self::of(error) {
            Some(Self::Source(inner)) => inner,
            _ => error,
        }
    }
}

fn failed(error: DecodeError) -> io::Error {
    io::Error::other(error)
}

/// Keeps what goes wrong in the source apart from what goes wrong in the decoder.
#[derive(Debug)]
struct Source<R>(R);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::Interrupted => e,
            _ => failed(DecodeError::Source(e)),
        })
    }
}

/// The decoded stream.
///
/// # Errors
/// When a decoder cannot be set up. The reader's own errors carry a [`DecodeError`].
pub fn decoder<'a>(
    compression: Compression,
    max_window: Option<Bytes>,
    source: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let window = max_window.unwrap_or(DEFAULT_MAX_WINDOW);
    let source = Source(source);
    Ok(match compression {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(members::gzip(source)),
        Compression::Bzip2 => Box::new(members::bzip2(source)),
        Compression::Lz4 => Box::new(members::lz4(source)),
        Compression::Zstd => Box::new(zstd::ZstdFrames::new(source, window)?),
        Compression::Xz => Box::new(xz::XzStreams::new(source, window)?),
    })
}

/// Size of the decoded content as far as the first bytes tell, for refusing early. zstd says it of its first frame
/// only; a single-frame image (the common case) is then known whole.
#[must_use]
pub fn announced_size(compression: Compression, start: &[u8]) -> Option<u64> {
    match compression {
        Compression::Zstd => ::zstd::zstd_safe::get_frame_content_size(start).ok().flatten(),
        Compression::None | Compression::Gzip | Compression::Xz | Compression::Bzip2 | Compression::Lz4 => None,
    }
}

#[cfg(test)]
mod tests;
