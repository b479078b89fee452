//! What makes the bytes of an image the right ones.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::image::{ImageDigest, ImageFormat, ImageSource, shown_url};

/// A file of digests, as `sha256sum` or `sha512sum` writes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checksums {
    /// `https://`, or with a signature `http://` too.
    pub url: String,
    /// What the image is called in it: the last part of the image's URL, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Of the file of digests. Without it, its server is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A detached signature.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The public key: ed25519 as 64 hex digits, or as minisign prints it (`RW...`).
    pub key: String,
    /// Where the signature is. If not given, beside what it is of: `.sig` for a key in hex, `.minisig` for minisign's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl Signature {
    #[must_use]
    pub fn is_minisign(&self) -> bool {
        self.key.starts_with("RW")
    }

    /// Where it is for the file at `url`.
    #[must_use]
    pub fn url_for(&self, url: &str) -> String {
        let beside = || {
            let ending = if self.is_minisign() { ".minisig" } else { ".sig" };
            let (path, query) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
            format!("{path}{ending}{query}")
        };
        self.url.clone().unwrap_or_else(beside)
    }

    fn check(&self) -> Result<(), String> {
        let hex = self.key.len() == 64 && self.key.bytes().all(|b| b.is_ascii_hexdigit());
        let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
        let minisign = self.is_minisign() && self.key.len() == 56 && self.key.bytes().all(base64);
        if !hex && !minisign {
            return Err("signature.key: neither 64 hex digits nor a minisign public key".into());
        }
        match &self.url {
            Some(url) if !is_http(url) => Err(format!("signature.url: {url:?} is not an http or https URL")),
            _ => Ok(()),
        }
    }
}

/// The one thing that an image is trusted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust<'a> {
    Digest(&'a ImageDigest),
    Checksums(&'a Checksums),
    Signature(&'a Signature),
    /// Whatever the server sends; the order says so in words.
    Anything,
}

impl fmt::Display for Trust<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => write!(f, "{digest}"),
            Self::Checksums(Checksums { url, signature: None, .. }) => {
                write!(f, "with the digest in {}", shown_url(url))
            }
            Self::Checksums(Checksums { url, signature: Some(signature), .. }) => {
                write!(f, "with the digest in {}, signed by {}", shown_url(url), signature.key)
            }
            Self::Signature(signature) => write!(f, "signed by {}", signature.key),
            Self::Anything => f.write_str("unverified, whatever the server sends"),
        }
    }
}

impl ImageSource {
    /// # Errors
    /// In words, when it is none or not one.
    pub fn trust(&self) -> Result<Trust<'_>, String> {
        match (&self.digest, &self.checksums, &self.signature, self.accept_unverified) {
            (Some(digest), None, None, false) => Ok(Trust::Digest(digest)),
            (None, Some(checksums), None, false) => Ok(Trust::Checksums(checksums)),
            (None, None, Some(signature), false) => Ok(Trust::Signature(signature)),
            (None, None, None, true) => Ok(Trust::Anything),
            (None, None, None, false) => {
                Err("image.digest is missing (or checksums, or signature, or accept_unverified: true)".into())
            }
            _ => Err("image: only one of digest, checksums, signature and accept_unverified can be what counts".into()),
        }
    }

    /// What it is trusted by, to be shown.
    #[must_use]
    pub fn trust_shown(&self) -> String {
        self.trust().map_or_else(|wrong| wrong, |trust| trust.to_string())
    }

    pub(crate) fn check_trust(&self) -> Result<(), String> {
        match self.trust()? {
            Trust::Digest(_) | Trust::Anything => Ok(()),
            Trust::Checksums(checksums) => {
                let url = &checksums.url;
                match &checksums.signature {
                    Some(signature) if is_http(url) => signature.check(),
                    None if url.starts_with("https://") => Ok(()),
                    None if is_http(url) => {
                        Err("checksums.url: over http anybody can write what is in it; use https or a signature".into())
                    }
                    _ => Err(format!("checksums.url: {url:?} is not an http or https URL")),
                }
            }
            Trust::Signature(signature) => {
                signature.check()?;
                if self.format == ImageFormat::Manifest || signature.is_minisign() {
                    return Ok(());
                }
                Err("signature.key: an ed25519 signature of a whole image cannot be checked as it goes by; sign it with \
                     minisign, or sign a file of digests"
                    .into())
            }
        }
    }
}

fn is_http(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://"))
        && url.len() <= 2048
        && !url.chars().any(|c| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Task;

    fn validate(image: &str) -> Result<(), String> {
        let task = format!(
            r#"{{"task":"write_image","device":{{"serial":"x"}},"image":{{"url":"https://i/x","compression":"none",{image}}}}}"#
        );
        serde_json::from_str::<Task>(&task).map_err(|e| e.to_string())?.validate().map_err(|f| f.message)
    }

    #[test]
    fn exactly_one_thing_is_trusted() {
        let digest = format!(r#""digest":"sha256:{}""#, "0a".repeat(32));
        let hex = format!(r#"{{"key":"{}"}}"#, "0a".repeat(32));
        let minisign = r#"{"key":"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"}"#;
        for good in [
            digest.clone(),
            r#""checksums":{"url":"https://i/SHA256SUMS"}"#.into(),
            format!(r#""checksums":{{"url":"http://i/SHA256SUMS","signature":{hex}}}"#),
            format!(r#""signature":{minisign}"#),
            format!(r#""format":"manifest","signature":{hex}"#),
            r#""accept_unverified":true"#.into(),
        ] {
            validate(&good).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for (bad, why) in [
            (r#""mirrors":[]"#.to_owned(), "digest is missing"),
            (r#""accept_unverified":false"#.into(), "digest is missing"),
            (format!(r#"{digest},"accept_unverified":true"#), "only one of"),
            (format!(r#"{digest},"signature":{minisign}"#), "only one of"),
            (r#""checksums":{"url":"http://i/SHA256SUMS"}"#.into(), "use https or a signature"),
            (r#""checksums":{"url":"file:///etc/passwd"}"#.into(), "not an http"),
            (format!(r#""signature":{hex}"#), "cannot be checked as it goes by"),
            (r#""signature":{"key":"RWshort"}"#.into(), "signature.key"),
            (r#""signature":{"key":"abc"}"#.into(), "signature.key"),
        ] {
            let found = validate(&bad).expect_err(&bad);
            assert!(found.contains(why), "{bad}: {found}");
        }
    }

    #[test]
    fn a_signature_is_beside_what_it_is_of() {
        let of = |key: &str| Signature { key: key.into(), url: None };
        assert_eq!(of("00").url_for("https://h/a?k=v"), "https://h/a.sig?k=v");
        assert_eq!(of("RWQ").url_for("https://h/a"), "https://h/a.minisig");
        let elsewhere = Signature { key: "00".into(), url: Some("https://x/y".into()) };
        assert_eq!(elsewhere.url_for("https://h/a"), "https://x/y");
    }
}
