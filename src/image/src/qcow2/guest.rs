//! The disk in its own order, from a source with random access.

use std::io::{self, Read};

use super::cluster::ClusterDecoder;
use super::error::Qcow2Error;
use super::header::Header;
use super::layout::{Layout, ReadAt, guest_bytes};
use super::piece::{Kind, Piece};

/// Reads the disk that an image is of from its first byte to its last. Errors are [`Qcow2Error`]s inside of
/// [`io::Error`]s.
#[derive(Debug)]
pub struct GuestReader<S> {
    source: S,
    header: Header,
    /// Data only, in the order of the disk.
    pieces: std::iter::Peekable<std::vec::IntoIter<Piece>>,
    file_length: u64,
    decoder: ClusterDecoder,
    /// Of the piece that is being read, if it is compressed.
    cluster: Vec<u8>,
    at: u64,
}

impl<S: ReadAt> GuestReader<S> {
    /// # Errors
    /// As [`Layout::read`].
    pub fn new(header: Header, mut source: S, file_length: u64) -> Result<Self, Qcow2Error> {
        let Layout { mut pieces, .. } = Layout::read(&header, &mut source, file_length)?;
        pieces.retain(|piece| guest_bytes(&header, *piece) > 0);
        pieces.sort_unstable_by_key(|piece| piece.guest_cluster());
        let decoder = ClusterDecoder::new(header.compression);
        let pieces = pieces.into_iter().peekable();
        Ok(Self { source, header, pieces, file_length, decoder, cluster: Vec::new(), at: 0 })
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Qcow2Error> {
        let piece = self.pieces.peek().copied();
        let start = piece.map_or(self.header.virtual_size, |piece| piece.guest_cluster() * self.header.cluster_size);
        let room = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if self.at < start {
            let count = room(start - self.at);
            buffer[..count].fill(0);
            self.at += count as u64;
            return Ok(count);
        }
        let Some(piece) = piece else { return Ok(0) };
        let (skip, length) = (self.at - start, guest_bytes(&self.header, piece));
        let count = room(length - skip);
        match piece.kind() {
            Kind::Compressed { sectors } => {
                if skip == 0 {
                    let source = &mut self.source;
                    self.cluster =
                        read_compressed(&self.header, piece, sectors, self.file_length, source, &mut self.decoder)?;
                }
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                buffer[..count].copy_from_slice(&self.cluster[skip..skip + count]);
            }
            _ => self.source.read_at(piece.file() + skip, &mut buffer[..count]).map_err(Qcow2Error::Source)?,
        }
        self.at += count as u64;
        if skip + count as u64 == length {
            self.pieces.next();
        }
        Ok(count)
    }
}

impl<S: ReadAt> Read for GuestReader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_some(buffer).map_err(|e| match e {
            Qcow2Error::Source(e) => e,
            other => io::Error::other(other),
        })
    }
}

/// One compressed cluster, decoded.
pub(super) fn read_compressed(
    header: &Header,
    piece: Piece,
    sectors: u64,
    file_length: u64,
    source: &mut dyn ReadAt,
    decoder: &mut ClusterDecoder,
) -> Result<Vec<u8>, Qcow2Error> {
    let length = piece.sectors_end(sectors).min(file_length) - piece.file();
    let mut stored = vec![0; usize::try_from(length).unwrap_or_default()];
    source.read_at(piece.file(), &mut stored).map_err(Qcow2Error::Source)?;
    let mut cluster = vec![0; usize::try_from(header.cluster_size).unwrap_or_default()];
    let failed = |fault| Qcow2Error::Cluster { offset: piece.file(), fault };
    decoder.decode(&stored, &mut cluster).map_err(failed)?;
    Ok(cluster)
}
