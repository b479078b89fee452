//! Where an image is and what it must be.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// A digest over every byte of the source, as `sha256:<64 hex digits>`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ImageDigest {
    sha256: [u8; 32],
}

impl ImageDigest {
    #[must_use]
    pub fn sha256(bytes: [u8; 32]) -> Self {
        Self { sha256: bytes }
    }

    #[must_use]
    pub fn as_sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a digest of the form sha256:<64 hex digits>")]
pub struct BadDigest(String);

impl FromStr for ImageDigest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(text.to_owned());
        let digits = text.strip_prefix("sha256:").ok_or_else(bad)?;
        if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut sha256 = [0; 32];
        for (i, byte) in sha256.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self { sha256 })
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
        write!(f, "sha256:{}", crate::plan::hex(&self.sha256))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The bytes are the disk.
    None,
    Zstd,
}

/// An image as an order names it. What the bytes say of themselves must agree.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    /// `https://` or `http://`; the digest, not the way, is what the bytes are trusted by.
    pub url: String,
    /// Over the bytes as they are fetched, compressed or not.
    pub digest: ImageDigest,
    pub compression: Compression,
    /// Size of the disk image after decompression, where it is known: checked before the first write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    /// Permits a decompression window beyond 32 MiB, up to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_window: Option<Bytes>,
}

impl ImageSource {
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
    fn digests_are_strict() {
        let good = format!("sha256:{}", "0aF1".repeat(16));
        assert_eq!(good.parse::<ImageDigest>().expect("good").to_string(), good.to_lowercase());
        for bad in [
            "",
            "sha256:",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &"a".repeat(64),
            &format!("sha256:{}", "+1".repeat(32)),
        ] {
            assert!(bad.parse::<ImageDigest>().is_err(), "{bad}");
        }
    }
}
