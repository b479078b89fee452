//! The file as it goes by.

use std::io::{ErrorKind, Read};

use super::error::Qcow2Error;

/// What is read at once where the bytes do not go straight to where they belong.
const BLOCK: usize = 256 << 10;

/// A source with a place in it, and as much of a look ahead as a compressed cluster needs.
#[derive(Debug)]
pub(super) struct Input<R> {
    source: R,
    buffer: Box<[u8]>,
    /// The part of the buffer that has been read and not yet taken.
    start: usize,
    end: usize,
    /// Where `start` is in the file.
    position: u64,
}

impl<R: Read> Input<R> {
    /// `longest_look` is the most that [`Self::look`] is asked for.
    pub(super) fn new(source: R, longest_look: usize) -> Self {
        Self { source, buffer: vec![0; longest_look.max(BLOCK)].into(), start: 0, end: 0, position: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Reads once; 0 is the end of the source.
    fn read(source: &mut R, into: &mut [u8]) -> Result<usize, Qcow2Error> {
        loop {
            match source.read(into) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => return other.map_err(Qcow2Error::Source),
            }
        }
    }

    fn take(&mut self, count: usize) {
        self.start += count;
        self.position += count as u64;
    }

    /// The next `length` bytes, which stay; fewer at the end of the source.
    pub(super) fn look(&mut self, length: usize) -> Result<&[u8], Qcow2Error> {
        if self.buffer.len() - self.start < length {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end - self.start < length {
            match Self::read(&mut self.source, &mut self.buffer[self.end..])? {
                0 => break,
                count => self.end += count,
            }
        }
        let there = (self.end - self.start).min(length);
        Ok(&self.buffer[self.start..self.start + there])
    }

    /// Fills `into` whole; beyond what has been looked at the bytes go there directly.
    pub(super) fn fill(&mut self, into: &mut [u8]) -> Result<(), Qcow2Error> {
        let ready = (self.end - self.start).min(into.len());
        into[..ready].copy_from_slice(&self.buffer[self.start..self.start + ready]);
        self.take(ready);
        let mut filled = ready;
        while filled < into.len() {
            match Self::read(&mut self.source, &mut into[filled..])? {
                0 => return Err(Qcow2Error::Truncated { offset: self.position }),
                count => {
                    filled += count;
                    self.position += count as u64;
                }
            }
        }
        Ok(())
    }

    /// Lets everything before `offset` go by. It reads no further than that, so that data behind it are not copied
    /// twice.
    pub(super) fn skip_to(&mut self, offset: u64) -> Result<(), Qcow2Error> {
        while self.position < offset {
            if self.pass(offset - self.position)? == 0 {
                return Err(Qcow2Error::Truncated { offset: self.position });
            }
        }
        Ok(())
    }

    /// Lets everything go by and tells how long the file was.
    pub(super) fn drain(&mut self) -> Result<u64, Qcow2Error> {
        while self.pass(u64::MAX)? > 0 {}
        Ok(self.position)
    }

    fn pass(&mut self, most: u64) -> Result<usize, Qcow2Error> {
        if self.start == self.end {
            let room = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
            self.start = 0;
            self.end = 0;
            self.end = Self::read(&mut self.source, &mut self.buffer[..room])?;
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.end - self.start);
        self.take(count);
        Ok(count)
    }
}
