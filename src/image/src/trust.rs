//! Whether the bytes that go by are the right ones.

use minisign_verify::{PublicKey as Minisign, Signature};
use speediso_model::image::{DigestAlgorithm, ImageDigest};

use crate::digest::Hasher;
use crate::manifest::PublicKey;

/// What is signed whole, because its signature cannot be checked as it goes by, has at most this.
const MAX_WHOLE: usize = 1 << 20;

/// What bytes must be.
#[derive(Clone)]
pub enum Expected {
    Digest(ImageDigest),
    /// Signed by an ed25519 key over all of the bytes; the signature is 128 hex digits.
    Ed25519(PublicKey, Vec<u8>),
    Minisign(Box<(Minisign, Signature)>),
    Anything,
}

/// Why they are not.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("it is {found}, and {expected} was to come")]
    Digest { found: ImageDigest, expected: ImageDigest },
    #[error("the signature is not of these bytes and by this key: {0}")]
    Signature(String),
    #[error("it has more than the {MAX_WHOLE} bytes that can be checked at once: sign it with minisign")]
    TooLong,
}

/// Why there is nothing to expect.
#[derive(Debug, thiserror::Error)]
pub enum BadSignature {
    #[error("the key is neither 64 hex digits nor a minisign public key")]
    Key,
    #[error("the signature file is none of minisign's: {0}")]
    Minisign(String),
}

impl Expected {
    /// # Errors
    /// When key or signature are not what they must look like.
    pub fn signed(key: &str, signature: &[u8]) -> Result<Self, BadSignature> {
        if let Ok(key) = key.parse() {
            return Ok(Self::Ed25519(key, signature.to_vec()));
        }
        let key = Minisign::from_base64(key).map_err(|_| BadSignature::Key)?;
        let text = str::from_utf8(signature).map_err(|e| BadSignature::Minisign(e.to_string()))?;
        let signature = Signature::decode(text).map_err(|e| BadSignature::Minisign(e.to_string()))?;
        Ok(Self::Minisign(Box::new((key, signature))))
    }

    /// Takes all of the bytes: `each` hands them on, piece by piece. Says what they are: their digest, as far as it was
    /// computed.
    ///
    /// # Errors
    /// When they are not what they must be.
    pub fn check(self, each: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Result<Option<ImageDigest>, Wrong> {
        match self {
            Self::Anything => Ok(Some(hash(DigestAlgorithm::Sha256, each))),
            Self::Digest(expected) => {
                let found = hash(expected.algorithm(), each);
                if found == expected { Ok(Some(found)) } else { Err(Wrong::Digest { found, expected }) }
            }
            Self::Ed25519(key, signature) => {
                let (mut whole, mut length) = (Vec::new(), 0);
                each(&mut |piece| {
                    length += piece.len();
                    if length <= MAX_WHOLE {
                        whole.extend_from_slice(piece);
                    }
                });
                if length > MAX_WHOLE {
                    return Err(Wrong::TooLong);
                }
                key.verify(&whole, &signature).map_err(|e| Wrong::Signature(e.to_string()))?;
                Ok(None)
            }
            Self::Minisign(signed) => {
                let (key, signature) = *signed;
                let wrong = |e: minisign_verify::Error| Wrong::Signature(e.to_string());
                let mut verifier = key.verify_stream(&signature).map_err(wrong)?;
                each(&mut |piece| verifier.update(piece));
                verifier.finalize().map_err(wrong)?;
                Ok(None)
            }
        }
    }
}

fn hash(algorithm: DigestAlgorithm, each: impl FnOnce(&mut dyn FnMut(&[u8]))) -> ImageDigest {
    let mut hasher = Hasher::new(algorithm);
    each(&mut |piece| hasher.update(piece));
    hasher.digest()
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => write!(f, "Digest({digest})"),
            Self::Ed25519(key, _) => write!(f, "Ed25519({key})"),
            Self::Minisign(_) => f.write_str("Minisign"),
            Self::Anything => f.write_str("Anything"),
        }
    }
}
