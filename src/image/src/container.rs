//! What the first bytes of an image say it is.

use speediso_model::image::Compression;

/// Enough to recognise every format below.
pub const PROBE_LENGTH: usize = 512;

/// What bytes look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looks {
    Zstd,
    /// A format that is not a plain disk image, by name: it must never be written as one.
    Other(&'static str),
    /// Nothing that is known: bytes of a disk, presumably.
    Plain,
}

/// The formats that people mistake for raw images, by their magic.
const KNOWN: [(usize, &[u8], &str); 10] = [
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK descriptor"),
    (0, b"conectix", "VHD"),
    (0, b"vhdxfile", "VHDX"),
    (0, &[0x1f, 0x8b], "gzip"),
    (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (0, b"BZh", "bzip2"),
    (0, &[0x04, 0x22, 0x4d, 0x18], "lz4"),
    (257, b"ustar", "tar"),
];

/// Looks at the first [`PROBE_LENGTH`] bytes, or fewer if there are no more.
#[must_use]
pub fn looks(start: &[u8]) -> Looks {
    // RFC 8878: a frame, or a skippable frame before it.
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || (start.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) && start.first().is_some_and(|b| b & 0xf0 == 0x50))
    {
        return Looks::Zstd;
    }
    KNOWN
        .iter()
        .find(|(at, magic, _)| start.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
        .map_or(Looks::Plain, |(_, _, name)| Looks::Other(name))
}

/// Whether what the bytes look like is what the order says.
///
/// # Errors
/// In words, when it is not.
pub fn agree(declared: Compression, start: &[u8]) -> Result<(), String> {
    match (declared, looks(start)) {
        (Compression::Zstd, Looks::Zstd) | (Compression::None, Looks::Plain) => Ok(()),
        (Compression::None, Looks::Zstd) => Err("the order says it is not compressed, but it is zstd".into()),
        (Compression::None, Looks::Other(what)) => {
            Err(format!("the order says it is a raw disk image, but it is {what}, which this version does not read"))
        }
        (Compression::Zstd, Looks::Other(what)) => Err(format!("the order says zstd, but it is {what}")),
        (Compression::Zstd, Looks::Plain) => Err("the order says zstd, but it is not".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_order_must_agree() {
        let plain = [0u8; 512];
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0, 0];
        let skippable = [0x5a, 0x2a, 0x4d, 0x18, 0, 0, 0, 0];
        assert!(agree(Compression::None, &plain).is_ok());
        assert!(agree(Compression::Zstd, &zstd).is_ok());
        assert!(agree(Compression::Zstd, &skippable).is_ok());
        assert!(agree(Compression::None, &zstd).is_err());
        assert!(agree(Compression::Zstd, &plain).is_err());
        assert!(agree(Compression::None, b"QFI\xfb\0\0\0\x03").expect_err("qcow2").contains("qcow2"));
        assert!(agree(Compression::None, &[0x1f, 0x8b, 8]).is_err());
        assert!(agree(Compression::None, b"").is_ok(), "an empty image is refused by its size, not here");
    }
}
