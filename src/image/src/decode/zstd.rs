//! zstd, RFC 8878.

use std::io::{self, BufRead as _, BufReader, Read};

use speediso_model::units::Bytes;
use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};
use zstd::zstd_safe::DParameter;

use super::{DecodeError, SOURCE_BUFFER, failed};

/// Any number of zstd frames, one after the other, and nothing else.
pub(super) struct ZstdFrames<R> {
    source: BufReader<R>,
    decoder: Decoder<'static>,
    max_window: Bytes,
    inside_frame: bool,
    frames: u64,
}

impl<R: Read> ZstdFrames<R> {
    pub(super) fn new(source: R, max_window: Bytes) -> io::Result<Self> {
        // Logarithm rounded down: a limit that is no power of two permits the next smaller one.
        let log = max_window.0.max(1).ilog2().clamp(10, 31);
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(log))?;
        Ok(Self {
            source: BufReader::with_capacity(SOURCE_BUFFER, source),
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
