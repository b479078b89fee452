//! Why an image is not read.

use std::fmt;
use std::io;

/// Which table an entry is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    L1,
    L2,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
        })
    }
}

/// What is wrong with an entry of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EntryFault {
    #[error("reserved bits are set")]
    Reserved,
    #[error("the offset is not a multiple of the cluster size")]
    Unaligned,
    #[error("the offset leads outside the file")]
    OutsideFile,
}

/// What is wrong with a compressed cluster.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClusterFault {
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it decodes to less than a cluster")]
    Short,
    #[error("it decodes to more than a cluster")]
    Long,
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    #[error("it is not a qcow2 image")]
    NotQcow2,
    #[error("qcow2 version {0} is not known, only 2 and 3 are")]
    Version(u32),
    #[error("the image needs a backing file: convert it with qemu-img convert, which includes it")]
    BackingFile,
    #[error("the image keeps its data in an external file: convert it with qemu-img convert, which includes it")]
    ExternalDataFile,
    #[error("the image is encrypted (crypt_method {0})")]
    Encrypted(u32),
    #[error("the image is marked corrupt: repair it with qemu-img check -r all")]
    MarkedCorrupt,
    #[error("the image has extended L2 entries: convert it with qemu-img convert -o extended_l2=off")]
    ExtendedL2,
    #[error("the image needs features that are not known (incompatible_features {0:#x})")]
    UnknownFeatures(u64),
    #[error("the compression type {0} is not known, only 0 (zlib) and 1 (zstd) are")]
    CompressionType(u8),
    /// A field whose value no sound image has.
    #[error("the header field {field} is {value}, which cannot be")]
    Field { field: &'static str, value: u64 },
    #[error("the virtual size is {size} bytes, and the limit is {limit}")]
    VirtualSize { size: u64, limit: u64 },
    #[error("the {table} entry {value:#018x} for the guest's byte {guest} is wrong: {fault}")]
    Entry { table: Table, guest: u64, value: u64, fault: EntryFault },
    #[error("two parts of the image overlap at byte {offset} of the file")]
    Overlap { offset: u64 },
    #[error("the image is too fragmented: convert it with qemu-img convert, or pack it")]
    TooFragmented,
    #[error(
        "the map at byte {table} of the file names byte {target}, which has gone by already: reading it needs a \
         server that serves ranges, or convert it with qemu-img convert"
    )]
    NeedsRanges { table: u64, target: u64 },
    #[error("the compressed cluster at byte {offset} of the file: {fault}")]
    Cluster { offset: u64, fault: ClusterFault },
    #[error("the image ends at byte {offset}, before all of it was there")]
    Truncated { offset: u64 },
    #[error("the image is not the one whose map was read ahead: it differs at byte {offset} of the file")]
    ChangedMeanwhile { offset: u64 },
    #[error("a buffer of {length} bytes cannot hold a cluster of {cluster_size}")]
    BufferTooSmall { length: usize, cluster_size: usize },
    #[error("reading the image has failed before")]
    FailedBefore,
    /// Not the image's: the source's own.
    #[error(transparent)]
    Source(io::Error),
}
