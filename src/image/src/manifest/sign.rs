//! Detached ed25519 signatures: 128 hex digits beside the file they are of, as the agent's task files have them.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use speediso_model::plan::hex;

/// Of the signature's file name.
pub const SIGNATURE_SUFFIX: &str = ".sig";

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("it is neither an ed25519 key in PKCS #8 (PEM or DER) nor a seed of 64 hex digits")]
    NotAPrivateKey,
    #[error("{0:?} is not an ed25519 public key of 64 hex digits")]
    NotAPublicKey(String),
    #[error("no ed25519 key could be made")]
    Making,
    #[error("the signature is not 128 hex digits")]
    NotASignature,
    #[error("it was not made by the key {0} over these bytes")]
    Wrong(PublicKey),
    #[error("the manifest says that it is signed by {said}, but the key is {key}")]
    Other { said: PublicKey, key: PublicKey },
}

/// What a signature is checked with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether `signature`, the text of a signature file, is of `bytes` and by this key.
    ///
    /// # Errors
    /// When it is not.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let text = str::from_utf8(signature).map_err(|_| KeyError::NotASignature)?;
        let signature: [u8; 64] = unhex(text.trim_ascii()).ok_or(KeyError::NotASignature)?;
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, &signature).map_err(|_| KeyError::Wrong(self.clone()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        unhex(text).map(Self).ok_or_else(|| KeyError::NotAPublicKey(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;
    fn try_from(text: String) -> Result<Self, KeyError> {
        // In a manifest one key has one spelling.
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(KeyError::NotAPublicKey(text.chars().take(80).collect()));
        }
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// What a signature is made with.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

impl SigningKey {
    /// # Errors
    /// When there are no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        Ed25519KeyPair::generate().map(Self).map_err(|_| KeyError::Making)
    }

    /// From the content of a key file: PKCS #8 in PEM (`openssl genpkey -algorithm ed25519`) or in DER, or the seed in
    /// hex.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn from_file(content: &[u8]) -> Result<Self, KeyError> {
        let text = content.trim_ascii();
        let seed = str::from_utf8(text).ok().and_then(unhex::<32>);
        let pair = if let Some(seed) = seed {
            Ed25519KeyPair::from_seed_unchecked(&seed)
        } else if text.starts_with(b"-----BEGIN") {
            let der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| KeyError::NotAPrivateKey)?;
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
        } else {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(content)
        };
        pair.map(Self).map_err(|_| KeyError::NotAPrivateKey)
    }

    /// PKCS #8 in DER, for a file of mode 0600.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, KeyError> {
        self.0.to_pkcs8v1().map(|der| der.as_ref().to_vec()).map_err(|_| KeyError::Making)
    }

    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// The content of a signature file.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> String {
        hex(self.0.sign(bytes).as_ref()) + "\n"
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;

    /// RFC 8032, 7.1, test 2: the message is one byte, 0x72.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    #[test]
    fn signatures_are_those_of_the_standard() {
        let key = SigningKey::from_file(format!("{SEED}\n").as_bytes()).expect("a key");
        assert_eq!(key.public().to_string(), PUBLIC);
        assert_eq!(key.sign(&[0x72]).trim(), SIGNATURE);
        key.public().verify(&[0x72], SIGNATURE.as_bytes()).expect("verifies");
        assert!(matches!(key.public().verify(&[0x73], SIGNATURE.as_bytes()), Err(KeyError::Wrong(_))));
        for bad in ["", "00", &SIGNATURE[2..], &format!("{SIGNATURE}00"), &SIGNATURE.replace('9', "+")] {
            assert!(matches!(key.public().verify(&[0x72], bad.as_bytes()), Err(KeyError::NotASignature)), "{bad}");
        }
    }

    #[test]
    fn keys_are_read_as_pem_as_der_and_as_seed() {
        // 302e020100300506032b657004220420, then the seed: RFC 8410.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIEzNCJso/5banbbDRuwRTg9bijGfNaumJNqM9u1PuKb7\n\
                   -----END PRIVATE KEY-----\n";
        let key = SigningKey::from_file(pem.as_bytes()).expect("PEM");
        assert_eq!(key.public().to_string(), PUBLIC);
        let der = key.to_pkcs8().expect("DER");
        assert_eq!(SigningKey::from_file(&der).expect("DER").public().to_string(), PUBLIC);
        let made = SigningKey::generate().expect("made");
        assert_ne!(made.public(), key.public());
        for bad in [&b""[..], b"abc", &SEED.as_bytes()[1..], &der[1..], b"-----BEGIN PRIVATE KEY-----\n"] {
            assert!(matches!(SigningKey::from_file(bad), Err(KeyError::NotAPrivateKey)), "{bad:?}");
        }
        assert!(!format!("{key:?}").contains(&SEED[..8]), "the private half is not shown");
    }
}
