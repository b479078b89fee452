//! Entries of the L1 and L2 tables, and the rule that nothing in the file is used twice.

use super::SECTOR;
use super::error::{EntryFault, Qcow2Error, Table};
use super::header::{Header, MAX_OFFSET};
use super::piece::{Kind, Piece, push};

/// Bits of an offset in both tables; the lowest nine are below any cluster size.
const OFFSET: u64 = (MAX_OFFSET - 1) & !0x1ff;
/// "Referred to once": it matters to writers only.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Reads as zero, whatever the offset says. Version 3.
const ZERO: u64 = 1;

/// Reads tables for one image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tables<'a> {
    pub(super) header: &'a Header,
    pub(super) file_length: Option<u64>,
}

impl Tables<'_> {
    /// The L2 tables that a part of the L1 table names, from the entry `first` on. What lies behind the end of the
    /// disk is of no concern.
    pub(super) fn l1(&self, first: u64, part: &[u8], found: &mut Vec<Piece>) -> Result<(), Qcow2Error> {
        for (index, value) in (first..self.header.l1_entries_needed()).zip(entries(part)) {
            let guest_cluster = index * self.header.clusters_per_table();
            if value & !(COPIED | OFFSET) != 0 {
                return Err(self.wrong(Table::L1, guest_cluster, value, EntryFault::Reserved));
            }
            let offset = value & OFFSET;
            if offset != 0 {
                self.cluster_at(offset, self.header.cluster_size)
                    .map_err(|fault| self.wrong(Table::L1, guest_cluster, value, fault))?;
                found.push(Piece::new(offset, guest_cluster, Kind::L2));
            }
        }
        Ok(())
    }

    /// The data that a part of an L2 table maps, from the guest's cluster `first` on, joined where it can be.
    pub(super) fn l2(&self, first: u64, part: &[u8], found: &mut Vec<Piece>) -> Result<(), Qcow2Error> {
        for (guest_cluster, value) in (first..self.header.guest_clusters()).zip(entries(part)) {
            let piece = if value & COMPRESSED == 0 {
                self.plain(guest_cluster, value)
            } else {
                self.compressed(guest_cluster, value).map(Some)
            };
            match piece {
                Ok(None) => {}
                Ok(Some(piece)) => push(found, piece, self.header.cluster_size),
                Err(fault) => return Err(self.wrong(Table::L2, guest_cluster, value, fault)),
            }
        }
        Ok(())
    }

    fn plain(&self, guest_cluster: u64, value: u64) -> Result<Option<Piece>, EntryFault> {
        let zero = if self.header.version >= 3 { ZERO } else { 0 };
        if value & !(COPIED | OFFSET | zero) != 0 {
            return Err(EntryFault::Reserved);
        }
        let offset = value & OFFSET;
        if value & zero != 0 || offset == 0 {
            return Ok(None);
        }
        let left = self.header.virtual_size - guest_cluster * self.header.cluster_size;
        self.cluster_at(offset, left.min(self.header.cluster_size))?;
        Ok(Some(Piece::new(offset, guest_cluster, Kind::Data { clusters: 1 })))
    }

    /// The larger the cluster, the more of the entry's bits count sectors, and the fewer are left for the offset; it
    /// never has more than 56.
    fn compressed(&self, guest_cluster: u64, value: u64) -> Result<Piece, EntryFault> {
        let count_at = 62 - (self.header.cluster_bits() - 8);
        let low = value & ((1 << count_at) - 1);
        let offset = low & (MAX_OFFSET - 1);
        if value & COPIED != 0 || low != offset {
            return Err(EntryFault::Reserved);
        }
        let sectors = ((value & !COMPRESSED) >> count_at) + 1;
        let piece = Piece::new(offset, guest_cluster, Kind::Compressed { sectors });
        // A file need not be padded to its last sector; whether the cluster is whole shows when it is decoded.
        let inside = self
            .file_length
            .is_none_or(|length| offset < length && piece.sectors_end(sectors) <= length.next_multiple_of(SECTOR));
        if inside { Ok(piece) } else { Err(EntryFault::OutsideFile) }
    }

    fn cluster_at(&self, offset: u64, length: u64) -> Result<(), EntryFault> {
        if !offset.is_multiple_of(self.header.cluster_size) {
            return Err(EntryFault::Unaligned);
        }
        if self.file_length.is_some_and(|file| offset + length > file) {
            return Err(EntryFault::OutsideFile);
        }
        Ok(())
    }

    fn wrong(&self, table: Table, guest_cluster: u64, value: u64, fault: EntryFault) -> Qcow2Error {
        Qcow2Error::Entry { table, guest: guest_cluster * self.header.cluster_size, value, fault }
    }
}

fn entries(part: &[u8]) -> impl Iterator<Item = u64> {
    part.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry))
}

/// Follows the pieces in the order of the file and refuses what overlaps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    cluster_size: u64,
    l1_bytes: u64,
    /// End of the piece before.
    end: u64,
    /// Where the compressed piece before starts, if it was one.
    compressed: Option<u64>,
}

impl Order {
    /// The header has the first cluster for itself.
    pub(super) fn after_header(header: &Header) -> Self {
        Self {
            cluster_size: header.cluster_size,
            l1_bytes: header.l1_bytes(),
            end: header.cluster_size,
            compressed: None,
        }
    }

    pub(super) fn follow(&mut self, piece: Piece) -> Result<(), Qcow2Error> {
        let start = piece.file();
        let (end, compressed) = match piece.kind() {
            Kind::L1 => (start + self.l1_bytes, None),
            Kind::L2 => (start + self.cluster_size, None),
            Kind::Data { clusters } => (start + clusters * self.cluster_size, None),
            Kind::Compressed { sectors } => (piece.sectors_end(sectors), Some(start)),
        };
        // A compressed cluster ends somewhere in its last sector, and the next one may start right there.
        let free = match (self.compressed, compressed) {
            (Some(before), Some(_)) => start > before && start >= self.end - SECTOR,
            _ => start >= self.end,
        };
        if !free {
            return Err(Qcow2Error::Overlap { offset: start });
        }
        (self.end, self.compressed) = (end, compressed);
        Ok(())
    }
}
