//! Where an image is and what it must be.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::trust::{Checksums, Signature};
use crate::units::Bytes;

/// How a digest is computed. MD5 and SHA-1 are not among them: either can be made to fit another image.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DigestAlgorithm {
    Sha256,
    Sha512,
    Blake3,
}

impl DigestAlgorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha512, Self::Blake3];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }

    /// Of its digests, in bytes.
    #[must_use]
    pub fn length(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A digest over every byte of the source, as `sha256:<64 hex digits>`, `sha512:<128>` or `blake3:<64>`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ImageDigest {
    algorithm: DigestAlgorithm,
    bytes: Vec<u8>,
}

impl ImageDigest {
    #[must_use]
    pub fn sha256(bytes: [u8; 32]) -> Self {
        Self { algorithm: DigestAlgorithm::Sha256, bytes: bytes.to_vec() }
    }

    #[must_use]
    pub fn sha512(bytes: [u8; 64]) -> Self {
        Self { algorithm: DigestAlgorithm::Sha512, bytes: bytes.to_vec() }
    }

    #[must_use]
    pub fn blake3(bytes: [u8; 32]) -> Self {
        Self { algorithm: DigestAlgorithm::Blake3, bytes: bytes.to_vec() }
    }

    #[must_use]
    pub fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// The 32 bytes, if it is a SHA-256.
    #[must_use]
    pub fn as_sha256(&self) -> Option<[u8; 32]> {
        (self.algorithm == DigestAlgorithm::Sha256).then(|| self.bytes.as_slice().try_into().ok()).flatten()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a digest of the form sha256:<64 hex digits>, sha512:<128> or blake3:<64>")]
pub struct BadDigest(String);

impl FromStr for ImageDigest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(text.to_owned());
        let (name, digits) = text.split_once(':').ok_or_else(bad)?;
        let algorithm = DigestAlgorithm::ALL.into_iter().find(|a| a.name() == name).ok_or_else(bad)?;
        if digits.len() != 2 * algorithm.length() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let byte = |i: usize| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| bad());
        Ok(Self { algorithm, bytes: (0..algorithm.length()).map(byte).collect::<Result<_, _>>()? })
    }
}

impl TryFrom<String> for ImageDigest {
    type Error = BadDigest;
    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<ImageDigest> for String {
    fn from(digest: ImageDigest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), crate::plan::hex(&self.bytes))
    }
}

/// How the source is compressed. Several members, frames or streams may follow one another; nothing else may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The bytes are the image.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    Xz,
    Bzip2,
    /// The frame format, not the legacy one.
    Lz4,
}

impl Compression {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
        }
    }

    /// By the ending of a file's name; the content must agree.
    #[must_use]
    pub fn by_name(name: &str) -> Self {
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        match () {
            () if ends(&[".gz", ".gzip", ".tgz"]) => Self::Gzip,
            () if ends(&[".zst", ".zstd"]) => Self::Zstd,
            () if ends(&[".xz"]) => Self::Xz,
            () if ends(&[".bz2"]) => Self::Bzip2,
            () if ends(&[".lz4"]) => Self::Lz4,
            () => Self::None,
        }
    }
}

/// What the decompressed bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// The disk, byte for byte.
    #[default]
    Raw,
    /// QEMU's format, version 2 or 3, without backing or data file.
    Qcow2,
    /// Ours: a manifest whose chunks are fetched, verified and written one by one (docs/image-manifest.md). The digest is
    /// the manifest's, which covers all of them.
    Manifest,
    /// Files, to be unpacked into a new file system of a partition.
    Tar,
}

impl ImageFormat {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Manifest => "manifest",
            Self::Tar => "tar",
        }
    }

    /// By the ending of a file's name, before that of its compression; the content must agree.
    #[must_use]
    pub fn by_name(name: &str) -> Self {
        let plain = match Compression::by_name(name) {
            Compression::None => name,
            _ => name.rsplit_once('.').map_or(name, |(plain, _)| plain),
        };
        match () {
            () if plain.ends_with(".qcow2") => Self::Qcow2,
            () if plain.ends_with(".json") => Self::Manifest,
            () if plain.ends_with(".tar") || name.ends_with(".tgz") => Self::Tar,
            () => Self::Raw,
        }
    }

    fn is_raw(&self) -> bool {
        *self == Self::Raw
    }
}

/// An image as an order names it. What the bytes say of themselves must agree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// `https://` or `http://`; the digest, not the way, is what the bytes are trusted by.
    pub url: String,
    /// The same bytes elsewhere, tried in turn when a server fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Over the bytes as they are fetched, compressed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<ImageDigest>,
    /// Instead of a digest: where it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksums: Option<Checksums>,
    /// Instead of a digest: whose signature the image has (for a manifest image: the manifest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
    /// Instead of a digest: `true` takes whatever the server sends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_unverified: bool,
    #[serde(default, skip_serializing_if = "ImageFormat::is_raw")]
    pub format: ImageFormat,
    pub compression: Compression,
    /// Size of the disk image after decompression, where it is known: checked before the first write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Permits a decompression window beyond 32 MiB, up to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_window: Option<Bytes>,
}

impl ImageSource {
    /// Takes away what may be secret in its addresses.
    pub fn redact(&mut self) {
        fn of_signature(signature: &mut Option<Signature>) -> Option<&mut String> {
            signature.as_mut().and_then(|s| s.url.as_mut())
        }
        let checksums = self.checksums.iter_mut();
        let checksums = checksums.flat_map(|c| std::iter::once(&mut c.url).chain(of_signature(&mut c.signature)));
        let own = std::iter::once(&mut self.url).chain(&mut self.mirrors).chain(of_signature(&mut self.signature));
        for url in own.chain(checksums) {
            *url = shown_url(url);
        }
    }

    /// Where it is, as it may be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        shown_url(&self.url)
    }
}

/// A URL without what may be secret in it: user, password and query.
#[must_use]
pub fn shown_url(url: &str) -> String {
    let address = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_keeps_no_secret() {
        assert_eq!(shown_url("https://me:pass@host:8443/a/b.zst?sig=abc#x"), "https://host:8443/a/b.zst");
        assert_eq!(shown_url("http://host?token=abc"), "http://host");
        assert_eq!(shown_url("https://host/a@b"), "https://host/a@b");
    }

    #[test]
    fn names_tell_format_and_compression() {
        use Compression as C;
        use ImageFormat as F;
        for (name, format, compression) in [
            ("http://host/disk.raw", F::Raw, C::None),
            ("disk.img.zst", F::Raw, C::Zstd),
            ("disk.qcow2", F::Qcow2, C::None),
            ("disk.qcow2.gz", F::Qcow2, C::Gzip),
            ("http://host/web/manifest.json", F::Manifest, C::None),
            ("disk", F::Raw, C::None),
        ] {
            assert_eq!((F::by_name(name), C::by_name(name)), (format, compression), "{name}");
        }
    }

    #[test]
    fn digests_are_strict() {
        let good = format!("sha256:{}", "0aF1".repeat(16));
        assert_eq!(good.parse::<ImageDigest>().expect("good").to_string(), good.to_lowercase());
        for good in [format!("sha512:{}", "0a".repeat(64)), format!("blake3:{}", "0a".repeat(32))] {
            assert_eq!(good.parse::<ImageDigest>().expect("good").to_string(), good);
        }
        for bad in [
            "",
            "sha256:",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &"a".repeat(64),
            &format!("sha256:{}", "+1".repeat(32)),
            &format!("sha512:{}", "0a".repeat(32)),
            &format!("sha1:{}", "0a".repeat(20)),
        ] {
            assert!(bad.parse::<ImageDigest>().is_err(), "{bad}");
        }
    }
}
