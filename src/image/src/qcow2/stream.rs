//! From the file's bytes, as they go by, to pieces of the guest.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Read;
use std::ops::Range;

use super::SECTOR;
use super::cluster::ClusterDecoder;
use super::error::Qcow2Error;
use super::header::Header;
use super::input::Input;
use super::layout::{Layout, MAX_PIECES, guest_bytes};
use super::piece::{Kind, Piece, push};
use super::tables::{Order, Tables};

/// What is taken of a table at once.
const TABLE_BLOCK: usize = 64 << 10;

/// A piece of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where it belongs, in bytes; a multiple of the cluster size, or where the extent before ended.
    pub guest: u64,
    /// How much of the buffer it fills.
    pub length: usize,
}

impl Extent {
    fn end(self) -> u64 {
        self.guest + self.length as u64
    }
}

/// What is known of the map.
#[derive(Debug)]
enum Map {
    /// All of it, in the order of the file.
    Ahead { pieces: Vec<Piece>, next: usize, hashes: std::vec::IntoIter<blake3::Hash> },
    /// What the tables have named that have gone by: what is still to come, and what has gone by itself.
    Learnt { to_come: BinaryHeap<Reverse<Piece>>, gone: Vec<Piece> },
}

impl Map {
    fn next(&mut self, cluster_size: u64) -> Option<Piece> {
        match self {
            Self::Ahead { pieces, next, .. } => {
                *next += 1;
                pieces.get(*next - 1).copied()
            }
            Self::Learnt { to_come, gone } => {
                let Reverse(piece) = to_come.pop()?;
                push(gone, piece, cluster_size);
                Some(piece)
            }
        }
    }

    /// Everything that was handed out.
    fn into_pieces(self) -> Vec<Piece> {
        match self {
            Self::Ahead { pieces, .. } => pieces,
            Self::Learnt { gone, .. } => gone,
        }
    }
}

/// Where reading is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Header,
    Pieces,
    Ended,
    Failed,
}

/// Turns the sequential stream of the file into extents of the guest.
///
/// Everything that is never returned is zero in the guest. That holds only once [`Extents::next`] has returned `None`:
/// then the source has been read to its end, every piece has been there, and the tables were those of the map.
#[derive(Debug)]
pub struct Extents<R> {
    input: Input<R>,
    header: Header,
    cluster_size: usize,
    /// As it was when the map was read, and as the sender of the stream says it is.
    file_lengths: [Option<u64>; 2],
    /// Of the header that the map was read with.
    header_hash: blake3::Hash,
    map: Map,
    order: Order,
    /// The piece that is next, and how much of its data has been returned.
    current: Option<(Piece, u64)>,
    decoder: ClusterDecoder,
    stage: Stage,
}

impl<R: Read> Extents<R> {
    /// With the map read ahead. `source` starts with the first byte of the file; `file_length` is what its sender says,
    /// if it says anything.
    pub fn with_layout(source: R, header: Header, layout: Layout, file_length: Option<u64>) -> Self {
        let Layout { pieces, hashes, header_hash, file_length: was, .. } = layout;
        let map = Map::Ahead { pieces, next: 0, hashes: hashes.into_iter() };
        Self { file_lengths: [Some(was), file_length], header_hash, ..Self::new(source, header, map) }
    }

    /// Without a map read ahead: the tables are taken as they go by, for as long as nothing lies behind what has gone by
    /// already. `source` starts with the first byte of the file.
    pub fn in_stream_order(source: R, header: Header) -> Self {
        let l1 = Piece::new(header.l1_offset, 0, Kind::L1);
        Self::new(source, header, Map::Learnt { to_come: BinaryHeap::from([Reverse(l1)]), gone: Vec::new() })
    }

    fn new(source: R, header: Header, map: Map) -> Self {
        // Clusters have two megabytes at most.
        let cluster_size = usize::try_from(header.cluster_size).unwrap_or(usize::MAX);
        Self {
            // A compressed cluster may claim twice its size, and a sector for not being aligned.
            input: Input::new(source, 2 * cluster_size + 512),
            cluster_size,
            file_lengths: [None; 2],
            header_hash: header.hash,
            map,
            order: Order::after_header(&header),
            current: None,
            decoder: ClusterDecoder::new(header.compression),
            stage: Stage::Header,
            header,
        }
    }

    /// Puts the next data of the guest into `buffer`, which holds at least one cluster, and says where they belong. What
    /// is next to each other in the file and in the guest comes together, as much as the buffer holds. `None` once the
    /// whole source has been read to its end.
    ///
    /// # Errors
    /// When the image is not sound, is not the one whose map was read, or the source fails. There is no going on then,
    /// and nothing that was returned before counts.
    pub fn next(&mut self, buffer: &mut [u8]) -> Result<Option<Extent>, Qcow2Error> {
        if buffer.len() < self.cluster_size {
            return Err(Qcow2Error::BufferTooSmall { length: buffer.len(), cluster_size: self.cluster_size });
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Failed);
        let extent = match stage {
            Stage::Header => {
                self.header()?;
                self.extent(buffer)?
            }
            Stage::Pieces => self.extent(buffer)?,
            Stage::Ended => None,
            Stage::Failed => return Err(Qcow2Error::FailedBefore),
        };
        if extent.is_none() && stage != Stage::Ended {
            self.end()?;
        }
        self.stage = if extent.is_some() { Stage::Pieces } else { Stage::Ended };
        Ok(extent)
    }

    /// How much of the file has gone by.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.input.position()
    }

    /// What of the disk was never handed out and therefore is zero, in the disk's order. `None` before the end.
    #[must_use]
    pub fn into_holes(self) -> Option<impl Iterator<Item = Range<u64>>> {
        if self.stage != Stage::Ended {
            return None;
        }
        let header = self.header;
        let mut pieces = self.map.into_pieces();
        pieces.retain(|piece| guest_bytes(&header, *piece) > 0);
        pieces.sort_unstable_by_key(|piece| piece.guest_cluster());
        let size = header.virtual_size;
        let mut data = pieces.into_iter().map(move |piece| {
            let start = piece.guest_cluster() * header.cluster_size;
            start..start + guest_bytes(&header, piece)
        });
        let mut at = 0;
        Some(std::iter::from_fn(move || {
            while at < size {
                let next = data.next().unwrap_or(size..size);
                let hole = at..next.start;
                at = next.end;
                if !hole.is_empty() {
                    return Some(hole);
                }
            }
            None
        }))
    }

    fn header(&mut self) -> Result<(), Qcow2Error> {
        if let [Some(was), Some(is)] = self.file_lengths
            && was != is
        {
            return Err(Qcow2Error::ChangedMeanwhile { offset: was.min(is) });
        }
        let length = usize::try_from(self.header.length).unwrap_or(usize::MAX);
        let start = self.input.look(length)?;
        if start.len() < length {
            return Err(Qcow2Error::Truncated { offset: start.len() as u64 });
        }
        let hash = blake3::hash(start);
        if hash == self.header.hash && hash == self.header_hash {
            Ok(())
        } else {
            Err(Qcow2Error::ChangedMeanwhile { offset: 0 })
        }
    }

    fn end(&mut self) -> Result<(), Qcow2Error> {
        let offset = self.input.drain()?;
        match self.file_lengths.iter().flatten().next() {
            Some(length) if offset < *length => Err(Qcow2Error::Truncated { offset }),
            Some(length) if offset > *length => Err(Qcow2Error::ChangedMeanwhile { offset: *length }),
            _ => Ok(()),
        }
    }

    /// The next piece that is not all returned yet.
    fn piece(&mut self) -> Result<Option<(Piece, u64)>, Qcow2Error> {
        if self.current.is_none()
            && let Some(piece) = self.map.next(self.header.cluster_size)
        {
            self.order.follow(piece)?;
            self.input.skip_to(piece.file())?;
            self.current = Some((piece, 0));
        }
        Ok(self.current)
    }

    fn extent(&mut self, buffer: &mut [u8]) -> Result<Option<Extent>, Qcow2Error> {
        let mut extent: Option<Extent> = None;
        while let Some((piece, returned)) = self.piece()? {
            if matches!(piece.kind(), Kind::L1 | Kind::L2) {
                self.table(piece)?;
                self.current = None;
                continue;
            }
            let guest = piece.guest_cluster() * self.header.cluster_size + returned;
            if extent.is_some_and(|extent| extent.end() != guest) {
                break;
            }
            let filled = extent.map_or(0, |extent| extent.length);
            let room = &mut buffer[filled..];
            let left = guest_bytes(&self.header, piece) - returned;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX);
            let count = match piece.kind() {
                Kind::Compressed { .. } if room.len() < self.cluster_size => break,
                Kind::Compressed { sectors } => {
                    self.compressed(piece, sectors, &mut room[..self.cluster_size])?;
                    wanted
                }
                _ => {
                    let count = wanted.min(room.len());
                    self.input.fill(&mut room[..count])?;
                    count
                }
            };
            let returned = returned + count as u64;
            self.current = (count < wanted).then_some((piece, returned));
            extent = Some(Extent { guest: extent.map_or(guest, |extent| extent.guest), length: filled + count });
            if filled + count == buffer.len() {
                break;
            }
        }
        Ok(extent)
    }

    /// Only looks: the next cluster may start in the last sector of this one.
    fn compressed(&mut self, piece: Piece, sectors: u64, cluster: &mut [u8]) -> Result<(), Qcow2Error> {
        let length = piece.sectors_end(sectors) - piece.file();
        let input = self.input.look(usize::try_from(length).unwrap_or(usize::MAX))?;
        // The file may end within the last sector.
        if input.len() as u64 + SECTOR <= length {
            return Err(Qcow2Error::Truncated { offset: piece.file() + input.len() as u64 });
        }
        self.decoder.decode(input, cluster).map_err(|fault| Qcow2Error::Cluster { offset: piece.file(), fault })
    }

    /// Reads a table: to be compared with the one that the map was read from, or to be learnt.
    fn table(&mut self, piece: Piece) -> Result<(), Qcow2Error> {
        let length = if piece.kind() == Kind::L1 { self.header.l1_bytes() } else { self.header.cluster_size };
        let tables = Tables { header: &self.header, file_length: None };
        let mut hasher = blake3::Hasher::new();
        let mut block = [0; TABLE_BLOCK];
        let mut found = Vec::new();
        let mut at = 0;
        while at < length {
            let count = usize::try_from(length - at).unwrap_or(usize::MAX).min(TABLE_BLOCK);
            let part = &mut block[..count];
            self.input.fill(part)?;
            let index = at / 8;
            at += count as u64;
            match &mut self.map {
                Map::Ahead { .. } => {
                    hasher.update(part);
                }
                Map::Learnt { to_come, gone } => {
                    match piece.kind() {
                        Kind::L1 => tables.l1(index, part, &mut found)?,
                        _ => tables.l2(piece.guest_cluster() + index, part, &mut found)?,
                    }
                    ahead(&self.header, piece, piece.file() + length, &found)?;
                    to_come.extend(found.drain(..).map(Reverse));
                    if to_come.len() + gone.len() > MAX_PIECES {
                        return Err(Qcow2Error::TooFragmented);
                    }
                }
            }
        }
        if let Map::Ahead { hashes, .. } = &mut self.map
            && hashes.next() != Some(hasher.finalize())
        {
            return Err(Qcow2Error::ChangedMeanwhile { offset: piece.file() });
        }
        Ok(())
    }
}

/// That nothing which a table names has gone by with it.
fn ahead(header: &Header, table: Piece, end: u64, found: &[Piece]) -> Result<(), Qcow2Error> {
    match found.iter().map(|piece| piece.file()).min() {
        Some(target) if target < header.cluster_size || (table.file()..end).contains(&target) => {
            Err(Qcow2Error::Overlap { offset: target })
        }
        Some(target) if target < end => Err(Qcow2Error::NeedsRanges { table: table.file(), target }),
        _ => Ok(()),
    }
}
