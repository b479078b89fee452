//! qcow2, versions 2 and 3, read once from front to back and never stored.
//!
//! The file goes by as one stream, and its clusters are handed out in the order of the *file*; the caller puts each
//! where it belongs in the guest. What says where that is, the L1 table and the L2 tables that it names, is either read
//! ahead by random access ([`Layout`]), or learnt as it goes by, which works for as long as every table stands before
//! what it maps: so it is in what `qemu-img convert` writes.
//!
//! Everything here is untrusted. Offsets are checked before they are followed, nothing may be mapped twice or overlap
//! anything else (so there are no cycles, and no more is decoded than the file is long or the disk is large), a
//! compressed cluster must decode to one cluster exactly, and what is kept of the map is bounded. A map that was read
//! ahead counts only once the stream has shown the very same tables.
//!
//! Reference counts, snapshots, bitmaps and header extensions do not matter for reading the active layer and are not
//! looked at. A *guest* offset is one on the disk that the image is of, a *file* offset one in the image.

mod cluster;
mod error;
mod guest;
mod header;
mod input;
mod layout;
mod piece;
mod stream;
mod tables;

pub use self::error::{ClusterFault, EntryFault, Qcow2Error, Table};
pub use self::guest::GuestReader;
pub use self::header::{ClusterCompression, HEADER_PROBE, Header, MAX_VIRTUAL_SIZE};
pub use self::layout::{Layout, MAX_PIECES, ReadAt};
pub use self::stream::{Extent, Extents};

/// What compressed clusters are counted in, whatever the guest's or the medium's sectors are.
const SECTOR: u64 = 512;
