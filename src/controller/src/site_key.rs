//! The key that a site signs its certificates of sanitization with.
//!
//! Made at the first start and kept in the store, so that every replica signs with the same. It is read anew for each
//! signature: a rotation in one replica holds in all of them. Old public keys are kept for ever, old private ones are
//! overwritten.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use speediso_model::certificate::site::SiteKeyView;
use speediso_model::certificate::{Document, NotACertificate, SiteKey, Statement};

use crate::store::{Store, StoreError, Transaction};

/// Among the store's secrets: PKCS #8.
const SECRET: &str = "certificate-key";

#[derive(Debug, thiserror::Error)]
pub enum SiteKeyError {
    #[error("making the site's key")]
    Make,
    #[error("the site's key in the store is missing or malformed")]
    Malformed,
    #[error("reading the site's key from the store")]
    Store(#[from] StoreError),
}

pub struct SiteSigner(Ed25519KeyPair);

impl std::fmt::Debug for SiteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SiteSigner(of {})", self.public())
    }
}

impl SiteSigner {
    /// Makes the key if the store has none.
    ///
    /// # Errors
    /// When the store fails or there are no random numbers.
    pub async fn ensure(store: &dyn Store) -> Result<SiteKey, SiteKeyError> {
        // Two replicas starting at once must not make two: the writing transaction admits one.
        let mut tx = store.write().await?;
        if tx.secret(SECRET).await?.is_none() {
            Self::rotate(&mut *tx).await?;
        }
        let key = Self::current(&mut *tx).await?.public();
        tx.commit().await?;
        Ok(key)
    }

    /// # Errors
    /// When the store fails or holds none.
    pub async fn current(tx: &mut dyn Transaction) -> Result<Self, SiteKeyError> {
        let pkcs8 = tx.secret(SECRET).await?.ok_or(SiteKeyError::Malformed)?;
        Ed25519KeyPair::from_pkcs8(&pkcs8).map(Self).map_err(|_| SiteKeyError::Malformed)
    }

    /// From now on another key signs.
    ///
    /// # Errors
    /// When the store fails or there are no random numbers.
    pub async fn rotate(tx: &mut dyn Transaction) -> Result<SiteKeyView, SiteKeyError> {
        let now = jiff::Timestamp::from_millisecond(tx.now()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let pair = Ed25519KeyPair::generate().map_err(|_| SiteKeyError::Make)?;
        // With the public half, so that a damaged store is noticed when it is read.
        let pkcs8 = pair.to_pkcs8().map_err(|_| SiteKeyError::Make)?;
        for mut old in tx.site_keys().await?.into_iter().filter(|k| k.until.is_none()) {
            old.until = Some(now);
            tx.put_site_key(&old).await?;
        }
        tx.put_secret(SECRET, pkcs8.as_ref()).await?;
        let key = Self(pair).public();
        let view = SiteKeyView { key: key.to_string(), pem: pem(&key), since: now, until: None };
        tx.put_site_key(&view).await?;
        Ok(view)
    }

    #[must_use]
    pub fn public(&self) -> SiteKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        SiteKey(bytes)
    }

    /// # Errors
    /// When the statement is too long for a certificate.
    pub fn seal(&self, statement: Statement) -> Result<Document, NotACertificate> {
        Document::seal(statement, self.public(), |bytes| {
            let mut signature = [0; 64];
            signature.copy_from_slice(self.0.sign(bytes).as_ref());
            signature
        })
    }
}

/// Whether these bytes were signed by this key.
#[must_use]
pub fn is_signed(key: &SiteKey, bytes: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(bytes, signature).is_ok()
}

/// As `openssl pkey -pubin` reads it.
fn pem(key: &SiteKey) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(key.spki()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::store::SqliteStore;

    #[tokio::test]
    async fn one_key_for_all_replicas_until_it_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("db")).await.unwrap();
        let first = SiteSigner::ensure(&store).await.unwrap();
        assert_eq!(SiteSigner::ensure(&store).await.unwrap(), first, "the second replica");
        let mut tx = store.write().await.unwrap();
        let second = SiteSigner::rotate(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(SiteSigner::ensure(&store).await.unwrap().to_string(), second.key);
        let keys = store.read().await.unwrap().site_keys().await.unwrap();
        let mut by_key: Vec<_> = keys.iter().map(|k| (k.key.clone(), k.until.is_some())).collect();
        by_key.sort();
        let mut expected = vec![(first.to_string(), true), (second.key.clone(), false)];
        expected.sort();
        assert_eq!(by_key, expected);
        // openssl's own form of it, 12 bytes and the key: RFC 8410, 4.
        let der = BASE64.decode(second.pem.lines().nth(1).unwrap()).unwrap();
        assert_eq!(SiteKey::from_spki(&der).unwrap().to_string(), second.key);
    }
}
