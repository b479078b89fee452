//! Whether a machine may ask: the controller says so, for one image and a minute.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use speediso_model::id::NodeId;
use speediso_model::share::Permit;

/// Why a machine may not ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NotPermitted {
    #[error("no permit, or none of that form")]
    Missing,
    #[error("the permit has ended")]
    Ended,
    #[error("the permit is not the controller's for this machine and image")]
    Invalid,
}

/// `now_ms` is the controller's time, as is the permit's.
pub(super) fn check(
    header: Option<&str>,
    manifest: &str,
    asker: NodeId,
    permit_key: &str,
    now_ms: i64,
) -> Result<(), NotPermitted> {
    let permit = header.and_then(Permit::from_header).ok_or(NotPermitted::Missing)?;
    if permit.until_ms <= now_ms {
        return Err(NotPermitted::Ended);
    }
    let key = BASE64.decode(permit_key).map_err(|_| NotPermitted::Invalid)?;
    let signature = BASE64.decode(&permit.signature).map_err(|_| NotPermitted::Invalid)?;
    let text = Permit::signed_text(manifest, asker, permit.until_ms);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
        .verify(text.as_bytes(), &signature)
        .map_err(|_| NotPermitted::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

    #[test]
    fn a_permit_is_for_one_machine_one_image_and_a_while() {
        let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let public = |key: &KeyPair| BASE64.encode(key.der_bytes());
        let (node, manifest) = (NodeId::random(), "ab".repeat(32));
        let signed = |key: &KeyPair, until_ms| {
            let signature = key.sign(Permit::signed_text(&manifest, node, until_ms).as_bytes()).expect("signed");
            Permit { until_ms, signature: BASE64.encode(signature) }
        };
        let permit = signed(&key, 1000);
        let header = permit.header();
        let asked = |header: &str, manifest: &str, node, now| check(Some(header), manifest, node, &public(&key), now);
        assert_eq!(asked(&header, &manifest, node, 999), Ok(()));
        assert_eq!(asked(&header, &manifest, node, 1000), Err(NotPermitted::Ended));
        assert_eq!(asked(&header, &manifest, NodeId::random(), 999), Err(NotPermitted::Invalid));
        assert_eq!(asked(&header, &"cd".repeat(32), node, 999), Err(NotPermitted::Invalid));
        let longer = Permit { until_ms: 5000, ..permit };
        assert_eq!(asked(&longer.header(), &manifest, node, 999), Err(NotPermitted::Invalid));
        assert_eq!(asked(&signed(&other, 1000).header(), &manifest, node, 999), Err(NotPermitted::Invalid));
        assert_eq!(asked("1000.!", &manifest, node, 999), Err(NotPermitted::Invalid));
        assert_eq!(check(None, &manifest, node, &public(&key), 0), Err(NotPermitted::Missing));
    }
}
