//! xz, on several cores where the file has several blocks and memory allows it.

use std::io::{self, BufRead as _, BufReader, Read};

use liblzma::stream::{Action, Error, MtStreamBuilder, Status, Stream};
use speediso_model::units::{Bytes, MIB};

use super::{DecodeError, SOURCE_BUFFER, failed};

/// What all threads together may take. `xz -T0` makes blocks of 24 MiB by default, of which only one fits; with
/// `--block-size=4MiB` or 8 MiB every core has work.
const MEMORY: u64 = 44 * MIB;
/// What decoding takes besides the window.
const BESIDES: u64 = MIB;
const MAX_THREADS: usize = 8;
/// "The .xz file format", 2.1.1.1.
const MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// Any number of streams, and nothing else but the padding that the format allows between them.
pub(super) struct XzStreams<R> {
    source: BufReader<R>,
    window: Bytes,
    stream: Option<Stream>,
    count: u64,
    padding: u64,
}

impl<R: Read> XzStreams<R> {
    pub(super) fn new(source: R, window: Bytes) -> io::Result<Self> {
        let source = BufReader::with_capacity(SOURCE_BUFFER, source);
        Ok(Self { source, window, stream: Some(open(window)?), count: 0, padding: 0 })
    }

    /// Goes to the next stream. `false` at the end.
    fn between(&mut self) -> io::Result<bool> {
        loop {
            let start = self.source.fill_buf()?;
            let zeroes = start.iter().take_while(|b| **b == 0).count();
            if start.is_empty() || zeroes < start.len() {
                self.padding += zeroes as u64;
                if !self.padding.is_multiple_of(4) {
                    return Err(failed(DecodeError::TrailingData));
                }
                let rest = &start[zeroes..];
                let seen = rest.len().min(MAGIC.len());
                if rest[..seen] != MAGIC[..seen] {
                    return Err(failed(DecodeError::TrailingData));
                }
                let more = !rest.is_empty();
                self.source.consume(zeroes);
                self.padding = 0;
                if more {
                    self.stream = Some(open(self.window)?);
                }
                return Ok(more);
            }
            self.padding += zeroes as u64;
            self.source.consume(zeroes);
        }
    }

    fn fault(&self, error: &Error) -> io::Error {
        failed(match error {
            Error::MemLimit => DecodeError::WindowTooLarge(self.window),
            other => DecodeError::Damaged(other.to_string()),
        })
    }
}

fn open(window: Bytes) -> io::Result<Stream> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    MtStreamBuilder::new()
        .threads(u32::try_from(threads).unwrap_or(1))
        .memlimit_threading(MEMORY.max(window.0 + BESIDES))
        .memlimit_stop(window.0 + BESIDES)
        .decoder()
        .map_err(io::Error::from)
}

impl<R: Read> Read for XzStreams<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(stream) = &mut self.stream else {
                if self.between()? {
                    continue;
                }
                return Ok(0);
            };
            let input = self.source.fill_buf()?;
            let at_end = input.is_empty();
            let (read, written) = (stream.total_in(), stream.total_out());
            let status = stream.process(input, buffer, if at_end { Action::Finish } else { Action::Run });
            let consumed = usize::try_from(stream.total_in() - read).unwrap_or(0);
            let produced = usize::try_from(stream.total_out() - written).unwrap_or(0);
            self.source.consume(consumed);
            match status {
                Ok(Status::StreamEnd) => {
                    self.count += 1;
                    self.stream = None;
                }
                Ok(_) if produced == 0 && consumed == 0 && at_end => return Err(failed(DecodeError::Truncated)),
                Ok(_) => {}
                Err(error) => return Err(self.fault(&error)),
            }
            if produced > 0 {
                return Ok(produced);
            }
        }
    }
}
