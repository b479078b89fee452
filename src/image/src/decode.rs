//! From the source's bytes to the disk's bytes.
//!
//! Decoders are driven to the end of the *source*, not to the end of the first thing that decodes: data after the last
//! frame is an error, and so is a frame that stops early. A peer once skipped its signature check because its decoder
//! had stopped reading before the end.

use std::io::{self, BufRead, BufReader, Read};

use speediso_model::image::Compression;
use speediso_model::units::{Bytes, MIB};
use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};
use zstd::zstd_safe::DParameter;

/// What a task may use without naming it.
pub const DEFAULT_MAX_WINDOW: Bytes = Bytes(32 * MIB);

/// Why decoding stopped.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the compressed data ends in the middle of a frame")]
    Truncated,
    #[error("there is data after the last frame")]
    TrailingData,
    #[error("decompression needs a window of more than {0}")]
    WindowTooLarge(Bytes),
    #[error("the compressed data is damaged: {0}")]
    Damaged(String),
}

impl DecodeError {
    /// The error that a reader carries, if it is one of these.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

fn failed(error: DecodeError) -> io::Error {
    io::Error::other(error)
}

/// The decoded stream.
///
/// # Errors
/// When a decoder cannot be set up. The reader's own errors carry a [`DecodeError`] where decoding is to blame.
pub fn decoder<'a>(
    compression: Compression,
    max_window: Option<Bytes>,
    source: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    match compression {
        Compression::None => Ok(Box::new(source)),
        Compression::Zstd => Ok(Box::new(ZstdFrames::new(source, max_window.unwrap_or(DEFAULT_MAX_WINDOW))?)),
    }
}

/// Size of the decoded content as far as the first bytes tell, for refusing early. zstd says it of its first frame
/// only; a single-frame image (the common case) is then known whole.
#[must_use]
pub fn announced_size(compression: Compression, start: &[u8]) -> Option<u64> {
    match compression {
        Compression::None => None,
        Compression::Zstd => zstd::zstd_safe::get_frame_content_size(start).ok().flatten(),
    }
}

/// Any number of zstd frames, one after the other, and nothing else.
struct ZstdFrames<R> {
    source: BufReader<R>,
    decoder: Decoder<'static>,
    max_window: Bytes,
    inside_frame: bool,
    frames: u64,
}

impl<R: Read> ZstdFrames<R> {
    fn new(source: R, max_window: Bytes) -> io::Result<Self> {
        // Logarithm rounded down: a limit that is no power of two permits the next smaller one.
        let log = max_window.0.max(1).ilog2().clamp(10, 31);
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(log))?;
        Ok(Self {
            source: BufReader::with_capacity(1 << 20, source),
            decoder,
            max_window,
            inside_frame: false,
            frames: 0,
        })
    }
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let input = self.source.fill_buf()?;
            if input.is_empty() && !self.inside_frame {
                // An empty source is no image; the digest of nothing must not pass for one.
                return if self.frames == 0 { Err(failed(DecodeError::Truncated)) } else { Ok(0) };
            }
            let at_end = input.is_empty();
            let mut input = InBuffer::around(input);
            let mut output = OutBuffer::around(buffer);
            let first = self.frames > 0 && !self.inside_frame;
            let hint = self.decoder.run(&mut input, &mut output).map_err(|e| {
                let text = e.to_string();
                failed(if text.contains("too much memory") {
                    DecodeError::WindowTooLarge(self.max_window)
                } else if first && text.contains("Unknown frame descriptor") {
                    DecodeError::TrailingData
                } else {
                    DecodeError::Damaged(text)
                })
            })?;
            let (consumed, produced) = (input.pos(), output.pos());
            self.source.consume(consumed);
            self.inside_frame = hint != 0;
            if hint == 0 {
                self.frames += 1;
                self.decoder.reinit()?;
            }
            if produced > 0 {
                return Ok(produced);
            }
            if at_end && consumed == 0 && hint != 0 {
                return Err(failed(DecodeError::Truncated));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], window: Option<Bytes>) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decoder(Compression::Zstd, window, bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn compress(data: &[u8]) -> Vec<u8> {
        zstd::encode_all(data, 3).expect("memory")
    }

    fn kind(result: io::Result<Vec<u8>>) -> String {
        format!("{:?}", DecodeError::of(&result.expect_err("must fail")).expect("a decoding error"))
    }

    #[test]
    fn frames_follow_one_another_and_nothing_else_does() {
        let mut two = compress(b"hello ");
        two.extend(compress(b"world"));
        assert_eq!(decode(&two, None).expect("two frames"), b"hello world");

        let mut trailing = compress(b"hello");
        trailing.extend_from_slice(b"garbage after the end");
        assert_eq!(kind(decode(&trailing, None)), "TrailingData");
        // Zeros after the end are data too: padding is not part of the format.
        let mut padded = compress(b"hello");
        padded.extend_from_slice(&[0; 64]);
        assert_eq!(kind(decode(&padded, None)), "TrailingData");
    }

    #[test]
    fn every_truncation_is_noticed() {
        let data: Vec<u8> = (0..20_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let whole = compress(&data);
        for cut in [0, 1, 3, 4, 7, 100, whole.len() / 2, whole.len() - 1] {
            assert!(decode(&whole[..cut], None).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_window_beyond_the_limit_needs_permission() {
        let data = vec![7u8; 3 << 20];
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("encoder");
        encoder.window_log(27).expect("128 MiB");
        // Without a content size the frame header must name the window itself.
        encoder.include_contentsize(false).expect("set");
        io::Write::write_all(&mut encoder, &data).expect("memory");
        let wide = encoder.finish().expect("finished");
        assert!(kind(decode(&wide, None)).starts_with("WindowTooLarge"));
        assert_eq!(decode(&wide, Some(Bytes(128 * MIB))).expect("permitted").len(), data.len());
    }

    #[test]
    fn the_size_is_known_beforehand_where_it_is_said() {
        let frame = zstd::bulk::compress(&[1; 5000], 3).expect("memory");
        assert_eq!(announced_size(Compression::Zstd, &frame), Some(5000));
        assert_eq!(announced_size(Compression::None, &frame), None);
        assert_eq!(announced_size(Compression::Zstd, b""), None);
    }

    proptest! {
        #[test]
        fn a_flipped_byte_never_passes_with_its_checksum(data in prop::collection::vec(any::<u8>(), 1..2000), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut encoder = zstd::Encoder::new(Vec::new(), 3).expect("encoder");
            encoder.include_checksum(true).expect("set");
            io::Write::write_all(&mut encoder, &data).expect("memory");
            let mut bytes = encoder.finish().expect("finished");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // Reserved bits of the header may change nothing; the content may not differ unnoticed.
            if let Ok(decoded) = decode(&bytes, None) {
                prop_assert_eq!(decoded, data);
            }
        }

        #[test]
        fn garbage_ends_in_an_error_not_in_a_panic(data in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = decode(&data, None);
        }
    }
}
