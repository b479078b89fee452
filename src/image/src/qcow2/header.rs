//! The header, and everything that it alone is enough to refuse for.

use super::error::Qcow2Error;

/// As much of the start of the file as [`Header::parse`] wants.
pub const HEADER_PROBE: usize = 4096;
/// The largest disk that an image may be of.
pub const MAX_VIRTUAL_SIZE: u64 = 64 << 40;

const MAGIC: &[u8] = b"QFI\xfb";
/// What qemu allows an L1 table to take.
const MAX_L1_BYTES: u64 = 32 << 20;
/// Length of a header of version 2, and the least that one of version 3 may have.
const LENGTH_V2: u64 = 72;
const LENGTH_V3: u64 = 104;
/// File offsets have 56 bits everywhere in the format.
pub(super) const MAX_OFFSET: u64 = 1 << 56;

mod incompatible {
    /// Reference counts may be wrong. They do not matter for reading.
    pub(super) const DIRTY: u64 = 1;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const DATA_FILE: u64 = 1 << 2;
    pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
}

/// How compressed clusters are compressed, if there are any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterCompression {
    /// Deflate without zlib's header.
    Zlib,
    Zstd,
}

/// What the header says that matters for reading.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub version: u32,
    /// Size of the disk in bytes; not always a multiple of anything.
    pub virtual_size: u64,
    /// 512 bytes to 2 MiB, a power of two.
    pub cluster_size: u64,
    pub compression: ClusterCompression,
    /// Internal snapshots are not read, and allowed.
    pub snapshots: u32,
    pub l1_offset: u64,
    /// Number of entries that the table has. There may be more than the disk needs: states of virtual machines lie
    /// behind the end of the disk.
    pub l1_entries: u64,
    /// How much of the file's start the header is, without its extensions, and its hash.
    pub(super) length: u64,
    pub(super) hash: blake3::Hash,
}

/// Big-endian numbers at fixed places.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Qcow2Error> {
        let rest = self.0.get(at..).unwrap_or_default();
        rest.first_chunk().copied().ok_or(Qcow2Error::Truncated { offset: self.0.len() as u64 })
    }

    fn u8(&self, at: usize) -> Result<u8, Qcow2Error> {
        self.array(at).map(u8::from_be_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, Qcow2Error> {
        self.array(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, Qcow2Error> {
        self.array(at).map(u64::from_be_bytes)
    }
}

impl Header {
    /// From the first [`HEADER_PROBE`] bytes of the file, or all of it if it is shorter.
    ///
    /// # Errors
    /// When it is not an image that can be read from this one file, or no field could have the value it has.
    pub fn parse(start: &[u8]) -> Result<Self, Qcow2Error> {
        if !start.starts_with(MAGIC) {
            return Err(Qcow2Error::NotQcow2);
        }
        let fields = Fields(start);
        let version = fields.u32(4)?;
        if !matches!(version, 2 | 3) {
            return Err(Qcow2Error::Version(version));
        }
        if fields.u64(8)? != 0 || fields.u32(16)? != 0 {
            return Err(Qcow2Error::BackingFile);
        }
        let crypt_method = fields.u32(32)?;
        if crypt_method != 0 {
            return Err(Qcow2Error::Encrypted(crypt_method));
        }
        let cluster_bits = fields.u32(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(wrong("cluster_bits", cluster_bits));
        }
        let cluster_size = 1 << cluster_bits;
        let (length, compression) = match version {
            2 => (LENGTH_V2, ClusterCompression::Zlib),
            _ => later_fields(&fields, cluster_size)?,
        };
        let covered = usize::try_from(length).ok().and_then(|length| start.get(..length));
        let hash = blake3::hash(covered.ok_or(Qcow2Error::Truncated { offset: start.len() as u64 })?);
        let header = Self {
            version,
            virtual_size: fields.u64(24)?,
            cluster_size,
            compression,
            snapshots: fields.u32(60)?,
            l1_offset: fields.u64(40)?,
            l1_entries: fields.u32(36)?.into(),
            length,
            hash,
        };
        header.check_l1()?;
        Ok(header)
    }

    /// Refuses a disk that is larger than the caller has use for.
    ///
    /// # Errors
    /// When it is.
    pub fn within(self, limit: u64) -> Result<Self, Qcow2Error> {
        if self.virtual_size > limit {
            return Err(Qcow2Error::VirtualSize { size: self.virtual_size, limit });
        }
        Ok(self)
    }

    fn check_l1(&self) -> Result<(), Qcow2Error> {
        if self.virtual_size == 0 {
            return Err(wrong("size", 0u32));
        }
        if self.virtual_size > MAX_VIRTUAL_SIZE {
            return Err(Qcow2Error::VirtualSize { size: self.virtual_size, limit: MAX_VIRTUAL_SIZE });
        }
        if self.l1_entries < self.l1_entries_needed() || self.l1_bytes() > MAX_L1_BYTES {
            return Err(wrong("l1_size", self.l1_entries));
        }
        let sound = self.l1_offset.is_multiple_of(self.cluster_size)
            && (self.cluster_size..MAX_OFFSET - MAX_L1_BYTES).contains(&self.l1_offset);
        if sound { Ok(()) } else { Err(wrong("l1_table_offset", self.l1_offset)) }
    }

    pub(super) fn cluster_bits(&self) -> u32 {
        self.cluster_size.ilog2()
    }

    pub(super) fn l1_bytes(&self) -> u64 {
        self.l1_entries * 8
    }

    /// Clusters of the guest that one L2 table maps; entries have eight bytes.
    pub(super) fn clusters_per_table(&self) -> u64 {
        self.cluster_size / 8
    }

    /// Clusters of the guest, the last one perhaps cut.
    pub(super) fn guest_clusters(&self) -> u64 {
        self.virtual_size.div_ceil(self.cluster_size)
    }

    pub(super) fn l1_entries_needed(&self) -> u64 {
        self.guest_clusters().div_ceil(self.clusters_per_table())
    }
}

/// What version 3 added: the length of the header, and what the image needs of its reader.
fn later_fields(fields: &Fields<'_>, cluster_size: u64) -> Result<(u64, ClusterCompression), Qcow2Error> {
    let features = fields.u64(72)?;
    if features & incompatible::CORRUPT != 0 {
        return Err(Qcow2Error::MarkedCorrupt);
    }
    if features & incompatible::DATA_FILE != 0 {
        return Err(Qcow2Error::ExternalDataFile);
    }
    if features & incompatible::EXTENDED_L2 != 0 {
        return Err(Qcow2Error::ExtendedL2);
    }
    let unknown = features & !(incompatible::DIRTY | incompatible::COMPRESSION_TYPE);
    if unknown != 0 {
        return Err(Qcow2Error::UnknownFeatures(unknown));
    }
    let refcount_order = fields.u32(96)?;
    if refcount_order > 6 {
        return Err(wrong("refcount_order", refcount_order));
    }
    let length = u64::from(fields.u32(100)?);
    // Fields that are not known yet may follow; those that matter come with an incompatible feature.
    let longest = cluster_size.min(HEADER_PROBE as u64);
    if !length.is_multiple_of(8) || !(LENGTH_V3..=longest).contains(&length) {
        return Err(wrong("header_length", length));
    }
    let kind = if length > LENGTH_V3 { fields.u8(104)? } else { 0 };
    // The feature says that the type is not the one it was before there were types.
    let compression = match (kind, features & incompatible::COMPRESSION_TYPE != 0) {
        (0, false) => ClusterCompression::Zlib,
        (1, true) => ClusterCompression::Zstd,
        (kind @ (0 | 1), _) => return Err(wrong("compression_type", kind)),
        (kind, _) => return Err(Qcow2Error::CompressionType(kind)),
    };
    Ok((length, compression))
}

fn wrong(field: &'static str, value: impl Into<u64>) -> Qcow2Error {
    Qcow2Error::Field { field, value: value.into() }
}
