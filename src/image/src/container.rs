//! What the first bytes of an image say it is.

use speediso_model::image::{Compression, ImageFormat};

/// Enough to recognise every format below.
pub const PROBE_LENGTH: usize = 512;

/// What bytes look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looks {
    Compressed(Compression),
    Qcow2,
    Tar,
    /// A format that is not a plain disk image, by name: it must never be written as one.
    Other(&'static str),
    /// Nothing that is known: bytes of a disk, presumably.
    Plain,
}

const COMPRESSED: [(&[u8], Compression); 5] = [
    (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
    (&[0x1f, 0x8b], Compression::Gzip),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
    (b"BZh", Compression::Bzip2),
    (&[0x04, 0x22, 0x4d, 0x18], Compression::Lz4),
];

/// The formats that people mistake for raw images, by their magic.
const OTHERS: [(&[u8], &str); 6] = [
    (b"KDMV", "VMDK"),
    (b"# Disk DescriptorFile", "VMDK descriptor"),
    (b"conectix", "VHD"),
    (b"vhdxfile", "VHDX"),
    (b"MSWIM\0\0\0", "WIM"),
    (&[0x02, 0x21, 0x4c, 0x18], "legacy lz4"),
];

/// Looks at the first [`PROBE_LENGTH`] bytes, or fewer if there are no more.
#[must_use]
pub fn looks(start: &[u8]) -> Looks {
    if start.starts_with(b"QFI\xfb") {
        return Looks::Qcow2;
    }
    // RFC 8878, 3.1.2: a skippable frame may come before the first real one.
    let skippable = start.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) && start.first().is_some_and(|b| b & 0xf0 == 0x50);
    if skippable {
        return Looks::Compressed(Compression::Zstd);
    }
    if let Some((_, compression)) = COMPRESSED.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Looks::Compressed(*compression);
    }
    // POSIX.1-2017, pax: the magic of an archive's first header.
    if start.get(257..262) == Some(b"ustar") {
        return Looks::Tar;
    }
    OTHERS.iter().find(|(magic, _)| start.starts_with(magic)).map_or(Looks::Plain, |(_, name)| Looks::Other(name))
}

/// In words.
fn name(looks: Looks) -> &'static str {
    match looks {
        Looks::Compressed(compression) => compression.name(),
        Looks::Qcow2 => "qcow2",
        Looks::Tar => "tar",
        Looks::Other(name) => name,
        Looks::Plain => "none of the formats that are known",
    }
}

/// Whether the source looks as the order says.
///
/// # Errors
/// In words, when it does not.
pub fn agree(compression: Compression, format: ImageFormat, start: &[u8]) -> Result<(), String> {
    let found = looks(start);
    match compression {
        Compression::None => agree_decoded(format, start),
        _ if found == Looks::Compressed(compression) => Ok(()),
        _ => Err(format!("the order says {}, but it is {}", compression.name(), name(found))),
    }
}

/// The same of the bytes that come out of the decoder.
///
/// # Errors
/// In words, when they are not what the order says.
pub fn agree_decoded(format: ImageFormat, start: &[u8]) -> Result<(), String> {
    match (format, looks(start)) {
        (ImageFormat::Raw, Looks::Plain)
        | (ImageFormat::Qcow2, Looks::Qcow2)
        | (ImageFormat::Tar, Looks::Tar)
        | (ImageFormat::Manifest, _) => Ok(()),
        (ImageFormat::Raw, found) => Err(format!("the order says it is a raw disk image, but it is {}", name(found))),
        (ImageFormat::Qcow2, found) => Err(format!("the order says qcow2, but it is {}", name(found))),
        (ImageFormat::Tar, found) => Err(format!("the order says tar, but it is {}", name(found))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_order_must_agree() {
        use Compression::{Bzip2, Gzip, Lz4, None, Xz, Zstd};
        let raw = ImageFormat::Raw;
        let plain = [0u8; 512];
        let of: [(Compression, &[u8]); 6] = [
            (Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0, 0]),
            (Zstd, &[0x5a, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]),
            (Gzip, &[0x1f, 0x8b, 8, 0]),
            (Xz, b"\xfd7zXZ\0\0\x04"),
            (Bzip2, b"BZh91AY"),
            (Lz4, &[0x04, 0x22, 0x4d, 0x18, 0x64]),
        ];
        assert!(agree(None, raw, &plain).is_ok());
        for (compression, start) in of {
            assert!(agree(compression, raw, start).is_ok(), "{compression:?}");
            assert!(agree(None, raw, start).is_err(), "{compression:?} must not be written as it is");
            assert!(agree(compression, raw, &plain).is_err());
            assert!(agree_decoded(raw, start).is_err(), "compressed twice");
        }
        assert!(agree(Zstd, raw, &[0x1f, 0x8b, 8]).is_err());
        let qcow2 = b"QFI\xfb\0\0\0\x03";
        assert!(agree(None, raw, qcow2).expect_err("qcow2").contains("qcow2"));
        assert!(agree(None, ImageFormat::Qcow2, qcow2).is_ok());
        assert!(agree(None, ImageFormat::Qcow2, &plain).is_err());
        assert!(agree(None, raw, b"").is_ok(), "an empty image is refused by its size, not here");
    }
}
