//! The map, read ahead.

use std::io;

use super::cluster::ClusterDecoder;
use super::error::Qcow2Error;
use super::guest::read_compressed;
use super::header::Header;
use super::piece::{Kind, Piece};
use super::tables::{Order, Tables};

/// How many pieces a map may have: 32 MiB of them. A piece is a run of plain clusters, or one compressed cluster; an L2
/// table counts as three, because its hash is kept too. At clusters of 64 KiB that is 128 GiB of compressed guest data.
pub const MAX_PIECES: usize = 2 << 20;
/// What is read of a table at once.
const BLOCK: u64 = 2 << 20;

/// Random access to the source, for reading the map ahead (range requests, or a file).
///
/// Tables are asked for in the order of the file, each whole (one cluster) or in pieces of 2 MiB.
pub trait ReadAt {
    /// Fills `buffer` whole from `offset` on.
    ///
    /// # Errors
    /// When it cannot.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for std::fs::File {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }
}

/// Where every allocated cluster of the guest lies in the file, in the order of the file, and what the tables were that
/// said so.
#[derive(Debug)]
pub struct Layout {
    /// Data and tables.
    pub(super) pieces: Vec<Piece>,
    /// Of each table among the pieces, in their order.
    pub(super) hashes: Vec<blake3::Hash>,
    pub(super) header_hash: blake3::Hash,
    pub(super) file_length: u64,
    allocated: u64,
}

impl Layout {
    /// Reads the L1 table and then one L2 table at a time.
    ///
    /// # Errors
    /// When a table is not sound, parts of the image overlap, there are too many pieces, or the source fails.
    pub fn read(header: &Header, source: &mut dyn ReadAt, file_length: u64) -> Result<Self, Qcow2Error> {
        let tables = Tables { header, file_length: Some(file_length) };
        let l1 = Piece::new(header.l1_offset, 0, Kind::L1);
        if header.l1_offset + header.l1_bytes() > file_length {
            return Err(Qcow2Error::Field { field: "l1_table_offset", value: header.l1_offset });
        }

        let mut named = Vec::new();
        let l1_hash = each_block(source, header.l1_offset, header.l1_bytes(), |at, block| {
            tables.l1(at / 8, block, &mut named)?;
            within_bounds(0, named.len())
        })?;
        // Before any is read: no table is read twice, so no more is read than the file is long.
        named.sort_unstable();
        check_order(header, &named)?;

        let mut pieces = Vec::new();
        let mut hashes = Vec::with_capacity(named.len() + 1);
        for table in &named {
            hashes.push(each_block(source, table.file(), header.cluster_size, |at, block| {
                tables.l2(table.guest_cluster() + at / 8, block, &mut pieces)?;
                within_bounds(pieces.len(), named.len())
            })?);
        }
        hashes.insert(named.partition_point(|table| *table < l1), l1_hash);
        pieces.append(&mut named);
        pieces.push(l1);
        pieces.sort_unstable();
        // Tables need not stand in the order of what they map.
        pieces.dedup_by(|next, last| last.joined(*next, header.cluster_size).map(|joined| *last = joined).is_some());
        check_order(header, &pieces)?;

        let allocated = pieces.iter().map(|piece| guest_bytes(header, *piece)).sum();
        Ok(Self { pieces, hashes, header_hash: header.hash, file_length, allocated })
    }

    /// The first bytes of the guest, by random access: enough to look at a partition table before anything is written.
    /// What the stream shows later is what counts.
    ///
    /// # Errors
    /// When a cluster cannot be decoded, or the source fails.
    pub fn start(&self, header: &Header, source: &mut dyn ReadAt, start: &mut [u8]) -> Result<(), Qcow2Error> {
        start.fill(0);
        let mut decoder = ClusterDecoder::new(header.compression);
        let wanted = start.len() as u64;
        for piece in &self.pieces {
            let at = piece.guest_cluster() * header.cluster_size;
            let length = guest_bytes(header, *piece).min(wanted.saturating_sub(at));
            let range = usize::try_from(at).unwrap_or(usize::MAX)..usize::try_from(at + length).unwrap_or(usize::MAX);
            let Some(into) = start.get_mut(range).filter(|into| !into.is_empty()) else { continue };
            let Kind::Compressed { sectors } = piece.kind() else {
                source.read_at(piece.file(), into).map_err(Qcow2Error::Source)?;
                continue;
            };
            let cluster = read_compressed(header, *piece, sectors, self.file_length, source, &mut decoder)?;
            into.copy_from_slice(&cluster[..into.len()]);
        }
        Ok(())
    }

    /// Bytes of the guest that the image has data for; the rest of the disk is zero.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Length of the file that the map was read from.
    #[must_use]
    pub fn file_length(&self) -> u64 {
        self.file_length
    }
}

/// How much of the disk a piece has the data of: nothing of it lies behind the end.
pub(super) fn guest_bytes(header: &Header, piece: Piece) -> u64 {
    let clusters = match piece.kind() {
        Kind::L1 | Kind::L2 => 0,
        Kind::Data { clusters } => clusters,
        Kind::Compressed { .. } => 1,
    };
    let left = header.virtual_size - piece.guest_cluster() * header.cluster_size;
    left.min(clusters * header.cluster_size)
}

fn within_bounds(pieces: usize, tables: usize) -> Result<(), Qcow2Error> {
    if pieces + 3 * tables > MAX_PIECES { Err(Qcow2Error::TooFragmented) } else { Ok(()) }
}

fn check_order(header: &Header, pieces: &[Piece]) -> Result<(), Qcow2Error> {
    let mut order = Order::after_header(header);
    pieces.iter().try_for_each(|piece| order.follow(*piece))
}

/// Calls back with each block of a table and where in the table it starts, and returns the hash of the whole.
fn each_block(
    source: &mut dyn ReadAt,
    offset: u64,
    length: u64,
    mut then: impl FnMut(u64, &[u8]) -> Result<(), Qcow2Error>,
) -> Result<blake3::Hash, Qcow2Error> {
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; usize::try_from(length.min(BLOCK)).unwrap_or_default()];
    let mut at = 0;
    while at < length {
        let count = block.len().min(usize::try_from(length - at).unwrap_or(usize::MAX));
        let part = &mut block[..count];
        source.read_at(offset + at, part).map_err(Qcow2Error::Source)?;
        hasher.update(part);
        then(at, part)?;
        at += count as u64;
    }
    Ok(hasher.finalize())
}
