//! One thing in the file that matters, in 16 bytes: there may be two million of them.

use std::fmt;

use super::SECTOR;

/// What a piece is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    L1,
    L2,
    /// Plain clusters, one after the other in the file and in the guest.
    Data {
        clusters: u64,
    },
    /// One cluster in so many sectors, the first and the last of which it may share with its neighbours.
    Compressed {
        sectors: u64,
    },
}

/// A piece and the first of the guest's clusters that it holds or maps. Ordered by the place in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    file: u64,
    /// 40 bits of the guest's cluster (64 TiB need 37), two of the kind, 22 of its count.
    rest: u64,
}

const COUNT_BITS: u32 = 22;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;

impl Piece {
    pub(super) fn new(file: u64, guest_cluster: u64, kind: Kind) -> Self {
        let (kind, count) = match kind {
            Kind::L1 => (0, 0),
            Kind::L2 => (1, 0),
            Kind::Data { clusters } => (2, clusters),
            Kind::Compressed { sectors } => (3, sectors),
        };
        debug_assert!(count <= MAX_COUNT && guest_cluster < 1 << 40);
        Self { file, rest: guest_cluster << (COUNT_BITS + 2) | kind << COUNT_BITS | count }
    }

    pub(super) fn file(self) -> u64 {
        self.file
    }

    pub(super) fn guest_cluster(self) -> u64 {
        self.rest >> (COUNT_BITS + 2)
    }

    pub(super) fn kind(self) -> Kind {
        let count = self.rest & MAX_COUNT;
        match self.rest >> COUNT_BITS & 3 {
            0 => Kind::L1,
            1 => Kind::L2,
            2 => Kind::Data { clusters: count },
            _ => Kind::Compressed { sectors: count },
        }
    }

    /// This piece and `next` as one, if they are plain data and `next` goes on where this ends.
    pub(super) fn joined(self, next: Self, cluster_size: u64) -> Option<Self> {
        let (Kind::Data { clusters }, Kind::Data { clusters: more }) = (self.kind(), next.kind()) else {
            return None;
        };
        let goes_on = next.guest_cluster() == self.guest_cluster() + clusters
            && next.file == self.file + clusters * cluster_size
            && clusters + more <= MAX_COUNT;
        goes_on.then(|| Self { file: self.file, rest: self.rest + more })
    }

    /// Where the sectors of a compressed cluster end.
    pub(super) fn sectors_end(self, sectors: u64) -> u64 {
        (self.file / SECTOR + sectors) * SECTOR
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} for cluster {}", self.kind(), self.file, self.guest_cluster())
    }
}

/// Appends, joining what goes on where the last piece ended.
pub(super) fn push(pieces: &mut Vec<Piece>, piece: Piece, cluster_size: u64) {
    match pieces.last_mut().map(|last| (last.joined(piece, cluster_size), last)) {
        Some((Some(joined), last)) => *last = joined,
        _ => pieces.push(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_keeps_what_it_is_given() {
        assert_eq!(size_of::<Piece>(), 16);
        let kinds =
            [Kind::L1, Kind::L2, Kind::Data { clusters: MAX_COUNT }, Kind::Compressed { sectors: (1 << 13) + 1 }];
        for kind in kinds {
            let piece = Piece::new((1 << 56) - 1, (1 << 37) - 1, kind);
            assert_eq!((piece.file(), piece.guest_cluster(), piece.kind()), ((1 << 56) - 1, (1 << 37) - 1, kind));
        }
    }

    #[test]
    fn only_what_goes_on_in_file_and_guest_is_joined() {
        let one = |file, guest| Piece::new(file, guest, Kind::Data { clusters: 1 });
        let mut pieces = Vec::new();
        for piece in [one(512, 7), one(1024, 8), one(1536, 10), one(4096, 11), one(4608, 12)] {
            push(&mut pieces, piece, 512);
        }
        let two = |file, guest| Piece::new(file, guest, Kind::Data { clusters: 2 });
        assert_eq!(pieces, [two(512, 7), one(1536, 10), two(4096, 11)]);
        let full = Piece::new(0, 0, Kind::Data { clusters: MAX_COUNT });
        assert_eq!(full.joined(one(MAX_COUNT * 512, MAX_COUNT), 512), None, "the count would not fit");
    }
}
