//! What both ends know and nobody else: 256 bits, given to both by whoever paired them.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac;

pub(crate) type Tag = [u8; 32];

#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// As it travels from the controller: 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        speediso_model::plan::hex(&self.0)
    }

    fn key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }

    pub(crate) fn tag(&self, what: &str, parts: &[&[u8]]) -> Tag {
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&self.key(), &text(what, parts)).as_ref());
        tag
    }

    /// In constant time.
    pub(crate) fn is_tag(&self, what: &str, parts: &[&[u8]], tag: &Tag) -> bool {
        hmac::verify(&self.key(), &text(what, parts), tag).is_ok()
    }

    /// A number for filling payloads.
    pub(crate) fn seed(&self, what: &str, parts: &[&[u8]]) -> u64 {
        let tag = self.tag(what, parts);
        tag.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

/// Lengths first, so that no two lists of parts are the same bytes.
fn text(what: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut text = b"speediso link v1\n".to_vec();
    for part in [what.as_bytes()].iter().chain(parts) {
        text.extend((part.len() as u64).to_le_bytes());
        text.extend(*part);
    }
    text
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a link's secret is 64 hexadecimal digits";
        let mut secret = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(WRONG);
        }
        for (byte, digits) in secret.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| WRONG)?;
            // `from_str_radix` would take a sign.
            *byte = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.contains('+')).ok_or(WRONG)?;
        }
        Ok(Self(secret))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_back_and_never_shown() {
        let secret = Secret::random();
        assert_eq!(secret.to_hex().parse(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret");
        for bad in ["", "00", &"0g".repeat(32), &"+1".repeat(32), &"é".repeat(32)] {
            assert!(bad.parse::<Secret>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_are_bound_to_all_of_what_they_are_for() {
        let secret = Secret::random();
        let tag = secret.tag("a", &[b"bc", b"d"]);
        assert!(secret.is_tag("a", &[b"bc", b"d"], &tag));
        for (what, parts) in [("b", [&b"bc"[..], b"d"]), ("a", [b"b", b"cd"]), ("a", [b"bc", b"e"])] {
            assert!(!secret.is_tag(what, &parts, &tag));
        }
        assert!(!Secret::random().is_tag("a", &[b"bc", b"d"], &tag));
    }
}
