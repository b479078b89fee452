//! A certificate as bytes: one line of JSON, of which every byte counts.
//!
//! ```text
//! {"statement":{...},"key":"<64 hex digits>","signature":"<128 hex digits>"}
//! ```
//!
//! The signature (ed25519) is of the bytes of the statement as they stand there, from `{` to `}`. The document ends with
//! one line feed, and the next certificate of the site carries the SHA-256 of all of it. A statement has exactly one
//! spelling: what is read is written again and compared, so an unknown field, another order or a blank is no certificate,
//! whoever signed it.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Statement;
use crate::plan::hex;

/// No honest report is as long; one that is would not be readable on paper either.
pub const LARGEST: usize = 1 << 20;

const BEFORE_STATEMENT: &str = "{\"statement\":";
const BEFORE_KEY: &str = ",\"key\":\"";
const BEFORE_SIGNATURE: &str = "\",\"signature\":\"";
const END: &str = "\"}\n";

/// SHA-256 of a whole document, in hex.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
    /// What the first certificate of a site names as the one before.
    #[must_use]
    pub fn none() -> Self {
        Self("0".repeat(64))
    }

    #[must_use]
    pub fn of(document: &[u8]) -> Self {
        Self(hex(&Sha256::digest(document)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The public half of a site's key: 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SiteKey(pub [u8; 32]);

/// What `openssl` wants in front of the 32 bytes: SubjectPublicKeyInfo of an ed25519 key (RFC 8410, 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl SiteKey {
    /// SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        [&SPKI[..], &self.0].concat()
    }

    /// From SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteKey({self})")
    }
}

impl FromStr for SiteKey {
    type Err = NotACertificate;
    fn from_str(text: &str) -> Result<Self, NotACertificate> {
        unhex(text).map(Self).ok_or(NotACertificate::Key)
    }
}

/// Why bytes are no certificate.
#[derive(Debug, thiserror::Error)]
pub enum NotACertificate {
    #[error("it is longer than {LARGEST} bytes")]
    TooLong,
    #[error("it does not have the form of a certificate: one line with statement, key and signature")]
    Form,
    #[error("the public key is not 64 hex digits in lower case")]
    Key,
    #[error("it is signed by the key {0}, which is none of those trusted")]
    Untrusted(SiteKey),
    #[error("the signature is not of these bytes by the key {0}: something was changed")]
    Signature(SiteKey),
    #[error("the statement is not one of this version")]
    Statement(#[source] serde_json::Error),
    #[error("the statement is not spelt as a certificate's is; the key was used for something else")]
    Spelling,
}

impl NotACertificate {
    /// Whether it does not even look like one, so that nothing can be said about who changed what.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Form | Self::TooLong | Self::Key)
    }
}

/// A certificate whose signature was seen to be right.
#[derive(Clone, PartialEq, Debug)]
pub struct Document {
    statement: Statement,
    key: SiteKey,
    digest: Digest,
    text: String,
}

impl Document {
    /// What a statement is signed as.
    ///
    /// # Panics
    /// Never: a statement has string keys and whole numbers only.
    #[must_use]
    pub fn signed_bytes(statement: &Statement) -> Vec<u8> {
        serde_json::to_vec(statement).expect("string keys and whole numbers always serialise")
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// When it would be longer than a certificate may be.
    pub fn seal(
        statement: Statement,
        key: SiteKey,
        sign: impl FnOnce(&[u8]) -> [u8; 64],
    ) -> Result<Self, NotACertificate> {
        let signed = Self::signed_bytes(&statement);
        let signature = hex(&sign(&signed));
        let signed = String::from_utf8(signed).map_err(|_| NotACertificate::Spelling)?;
        let text = format!("{BEFORE_STATEMENT}{signed}{BEFORE_KEY}{key}{BEFORE_SIGNATURE}{signature}{END}");
        if text.len() > LARGEST {
            return Err(NotACertificate::TooLong);
        }
        Ok(Self { digest: Digest::of(text.as_bytes()), statement, key, text })
    }

    /// Reads a document and has its signature checked; there is no other way to get at what one says. Nothing is parsed
    /// before the signature is right.
    ///
    /// # Errors
    /// When it is not, to the last byte, a certificate by a trusted key.
    pub fn open(
        bytes: &[u8],
        is_trusted: impl FnOnce(&SiteKey) -> bool,
        is_signed: impl FnOnce(&SiteKey, &[u8], &[u8; 64]) -> bool,
    ) -> Result<Self, NotACertificate> {
        if bytes.len() > LARGEST {
            return Err(NotACertificate::TooLong);
        }
        let text = str::from_utf8(bytes).map_err(|_| NotACertificate::Form)?;
        let (signed, key, signature) = parts(text).ok_or(NotACertificate::Form)?;
        if !is_trusted(&key) {
            return Err(NotACertificate::Untrusted(key));
        }
        if !is_signed(&key, signed.as_bytes(), &signature) {
            return Err(NotACertificate::Signature(key));
        }
        let statement: Statement = serde_json::from_str(signed).map_err(NotACertificate::Statement)?;
        if Self::signed_bytes(&statement) != signed.as_bytes() {
            return Err(NotACertificate::Spelling);
        }
        Ok(Self { statement, key, digest: Digest::of(bytes), text: text.to_owned() })
    }

    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    #[must_use]
    pub fn key(&self) -> SiteKey {
        self.key
    }

    /// The whole document, its line feed included.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// Statement, key and signature. The tail has a fixed length, so nothing in the statement can be taken for it.
fn parts(text: &str) -> Option<(&str, SiteKey, [u8; 64])> {
    let rest = text.strip_prefix(BEFORE_STATEMENT)?.strip_suffix(END)?;
    let (rest, signature) = rest.split_at_checked(rest.len().checked_sub(128)?)?;
    let rest = rest.strip_suffix(BEFORE_SIGNATURE)?;
    let (rest, key) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
    let signed = rest.strip_suffix(BEFORE_KEY)?;
    // One line: what follows a line feed is another document.
    (!signed.contains('\n')).then_some(())?;
    Some((signed, SiteKey(unhex(key)?), unhex(signature)?))
}

/// Lower case only: one value, one spelling.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::samples::{KEY, is_signed, seal, statement};
    use proptest::prelude::*;

    fn open(bytes: &[u8]) -> Result<Document, NotACertificate> {
        Document::open(bytes, |k| *k == KEY, is_signed)
    }

    #[test]
    fn a_document_is_one_line_with_the_statement_in_it() {
        let sealed = seal(statement(1, Digest::none()));
        assert_eq!(sealed.text().lines().count(), 1);
        assert!(sealed.text().ends_with("\"}\n"));
        let read = open(sealed.text().as_bytes()).expect("its own text");
        assert_eq!(read, sealed);
        assert_eq!(sealed.digest(), &Digest::of(sealed.text().as_bytes()));
        insta::assert_snapshot!(sealed.text());
    }

    #[test]
    fn no_bit_of_a_document_can_be_another() {
        let text = seal(statement(1, Digest::none())).text().as_bytes().to_vec();
        for i in 0..text.len() * 8 {
            let mut flipped = text.clone();
            flipped[i / 8] ^= 1 << (i % 8);
            assert!(open(&flipped).is_err(), "bit {} of byte {}", i % 8, i / 8);
        }
        for cut in 0..text.len() {
            assert!(open(&text[..cut]).is_err(), "cut at {cut}");
        }
        assert!(open(&[&text[..], b"\n"].concat()).is_err(), "a line more");
        assert!(open(&[b" ", &text[..]].concat()).is_err(), "a blank in front");
        assert!(open(&[&text[..], &text[..]].concat()).is_err(), "twice");
    }

    /// Even with the right key: what a version does not have is not in a certificate of that version.
    #[test]
    fn only_one_spelling_is_a_certificate() {
        let good = String::from_utf8(Document::signed_bytes(&statement(1, Digest::none()))).expect("text");
        for (from, to) in [
            ("{\"format\"", "{\"extra\":1,\"format\""),
            ("\"device\":{\"device\":{", "\"device\":{\"device\":{\"extra\":1,"),
            ("\"number\":1", "\"number\":1.0"),
            ("\"number\":1", "\"number\": 1"),
            ("\"number\":1", "\"number\":1,\"number\":1"),
            ("version 1", "version 2"),
            ("Samsung", "\\u0053amsung"),
            ("\"asked\":\"clear\"", "\"asked\":\"shredded\""),
            ("\"issued\":\"2026-11-21T12:00:00Z\"", "\"issued\":\"2026-11-21T12:00:00.0Z\""),
        ] {
            assert!(good.contains(from), "{from}");
            let signed = good.replacen(from, to, 1);
            let signature = hex(&crate::certificate::samples::sign(signed.as_bytes()));
            let text = format!("{BEFORE_STATEMENT}{signed}{BEFORE_KEY}{KEY}{BEFORE_SIGNATURE}{signature}{END}");
            let error = open(text.as_bytes()).expect_err(to);
            assert!(matches!(error, NotACertificate::Statement(_) | NotACertificate::Spelling), "{to}: {error}");
        }
    }

    #[test]
    fn a_key_is_trusted_by_name_and_nothing_is_parsed_before() {
        let sealed = seal(statement(1, Digest::none()));
        let other = Document::open(sealed.text().as_bytes(), |_| false, |_, _, _| panic!("not asked for"));
        assert!(matches!(other, Err(NotACertificate::Untrusted(key)) if key == KEY));
        let unsigned = Document::open(sealed.text().as_bytes(), |_| true, |_, _, _| false);
        assert!(matches!(unsigned, Err(NotACertificate::Signature(_))));
        assert!("00".parse::<SiteKey>().is_err() && KEY.to_string().to_uppercase().parse::<SiteKey>().is_err());
        assert_eq!(KEY.to_string().parse::<SiteKey>().expect("its own text"), KEY);
        assert_eq!(SiteKey::from_spki(&KEY.spki()), Some(KEY));
        assert_eq!(SiteKey::from_spki(&KEY.spki()[1..]), None);
    }

    proptest! {
        /// Whatever a device says of itself, quotes and line feeds included, is signed and read back as it is.
        #[test]
        fn any_text_survives(model in "\\PC{0,40}", raw in any::<String>()) {
            let mut statement = statement(7, Digest::none());
            let crate::certificate::Subject::Device(device) = &mut statement.subject else { unreachable!() };
            device.device.model = model;
            device.device_log[0].raw = raw;
            let sealed = seal(statement.clone());
            let read = open(sealed.text().as_bytes()).expect("its own text");
            prop_assert_eq!(read.statement(), &statement);
        }
    }
}
