//! Formats whose files are members one after the other: gzip, bzip2, lz4.

use std::io::{self, BufRead, BufReader, Read};

use super::{DecodeError, SOURCE_BUFFER, failed};

/// Remembers that the source was asked for more than it had: a member that then just stops was cut short, whatever its
/// decoder makes of it.
#[derive(Debug)]
pub(super) struct Tap<R> {
    source: BufReader<R>,
    ended: bool,
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.ended |= n == 0 && !buffer.is_empty();
        Ok(n)
    }
}

impl<R: Read> BufRead for Tap<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.source.fill_buf()?;
        self.ended |= buffer.is_empty();
        Ok(buffer)
    }

    fn consume(&mut self, amount: usize) {
        self.source.consume(amount);
    }
}

/// A decoder of one member.
pub(super) trait Member: Read + Sized {
    type Source: Read;
    const MAGIC: &'static [u8];

    fn open(source: Tap<Self::Source>) -> Self;
    fn close(self) -> Tap<Self::Source>;
}

impl<R: Read> Member for flate2::bufread::GzDecoder<Tap<R>> {
    type Source = R;
    const MAGIC: &'static [u8] = &[0x1f, 0x8b];

    fn open(source: Tap<R>) -> Self {
        Self::new(source)
    }

    fn close(self) -> Tap<R> {
        self.into_inner()
    }
}

impl<R: Read> Member for bzip2::bufread::BzDecoder<Tap<R>> {
    type Source = R;
    const MAGIC: &'static [u8] = b"BZh";

    fn open(source: Tap<R>) -> Self {
        Self::new(source)
    }

    fn close(self) -> Tap<R> {
        self.into_inner()
    }
}

impl<R: Read> Member for lz4_flex::frame::FrameDecoder<Tap<R>> {
    type Source = R;
    const MAGIC: &'static [u8] = &[0x04, 0x22, 0x4d, 0x18];

    fn open(source: Tap<R>) -> Self {
        Self::new(source)
    }

    fn close(self) -> Tap<R> {
        self.into_inner()
    }
}

enum State<M: Member> {
    Between(Tap<M::Source>),
    Inside(M),
    /// After an error.
    Over,
}

/// Any number of members, and nothing else.
pub(super) struct Members<M: Member> {
    state: State<M>,
    count: u64,
}

fn members<M: Member>(source: M::Source) -> Members<M> {
    let source = Tap { source: BufReader::with_capacity(SOURCE_BUFFER, source), ended: false };
    Members { state: State::Between(source), count: 0 }
}

pub(super) fn gzip<R: Read>(source: R) -> impl Read + use<R> {
    members::<flate2::bufread::GzDecoder<Tap<R>>>(source)
}

pub(super) fn bzip2<R: Read>(source: R) -> impl Read + use<R> {
    members::<bzip2::bufread::BzDecoder<Tap<R>>>(source)
}

pub(super) fn lz4<R: Read>(source: R) -> impl Read + use<R> {
    members::<lz4_flex::frame::FrameDecoder<Tap<R>>>(source)
}

impl<M: Member> Read for Members<M> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Between(mut source) => {
                    let start = source.fill_buf()?;
                    if start.is_empty() {
                        self.state = State::Between(source);
                        // An empty source is no image; the digest of nothing must not pass for one.
                        return if self.count == 0 { Err(failed(DecodeError::Truncated)) } else { Ok(0) };
                    }
                    // The rest of a magic that is cut here is looked at by the decoder.
                    let seen = start.len().min(M::MAGIC.len());
                    if self.count > 0 && start[..seen] != M::MAGIC[..seen] {
                        return Err(failed(DecodeError::TrailingData));
                    }
                    self.state = State::Inside(M::open(source));
                }
                State::Inside(mut member) => match member.read(buffer) {
                    Ok(0) => {
                        let source = member.close();
                        if source.ended {
                            return Err(failed(DecodeError::Truncated));
                        }
                        self.count += 1;
                        self.state = State::Between(source);
                    }
                    Ok(n) => {
                        self.state = State::Inside(member);
                        return Ok(n);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => self.state = State::Inside(member),
                    Err(e) if DecodeError::of(&e).is_some() => return Err(e),
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(failed(DecodeError::Truncated)),
                    Err(e) => return Err(failed(DecodeError::Damaged(e.to_string()))),
                },
                State::Over => return Err(failed(DecodeError::Damaged("it was damaged before".into()))),
            }
        }
    }
}
