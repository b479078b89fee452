//! Secrets made of 256 random bits, of which only a hash is kept: one-time tokens of boot scripts, and the operators'
//! bearer token.

use rand::TryRngCore as _;
use sha2::{Digest as _, Sha256};
use speediso_model::plan::hex;

/// How long a boot script's token lives.
pub const LIFETIME_MS: i64 = 10 * 60_000;

#[derive(Debug, thiserror::Error)]
#[error("the kernel gives no random numbers")]
pub struct NoRandomness(#[source] rand::rand_core::OsError);

/// A new secret, in hex: it survives every boot loader's quoting.
///
/// # Errors
/// When the kernel gives no randomness.
pub fn new() -> Result<String, NoRandomness> {
    let mut bytes = [0u8; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(NoRandomness)?;
    Ok(hex(&bytes))
}

/// What is kept of a secret. The secrets are random, so no salt is needed; the hash is what makes a look-up by it safe
/// against timing.
#[must_use]
pub fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// Compares without telling by the time it takes how much is right.
#[must_use]
pub fn same_hash(a: &str, b: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_are_long_distinct_and_plain() {
        let (a, b) = (new().unwrap(), new().unwrap());
        assert_eq!(a.len(), 64);
        assert_ne!(a, b);
        assert!(a.bytes().all(|c| c.is_ascii_hexdigit()));
        assert!(same_hash(&hash(&a), &hash(&a)));
        assert!(!same_hash(&hash(&a), &hash(&b)));
        assert!(!same_hash(&hash(&a), ""));
    }
}
