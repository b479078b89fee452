//! The controller's own certificate authority.
//!
//! Made at the first start and kept in the store, so that every replica has the same. It signs three things: the
//! controller's server certificate, the time key's certificate, and one client certificate for each boot of a machine.
//! Beside it is a key for permits to share, which needs no certificate: the agents learn it from us.
//! Of a certificate request only the public key is taken: name, usage and validity are set here.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, SigningKey as _, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use speediso_model::api::{TimeAnswer, approval_code};
use speediso_model::id::NodeId;
use speediso_model::plan::hex;
use speediso_model::share::Permit;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use crate::store::record::KeyDigest;
use crate::store::{Millis, Store, StoreError};
use crate::token;

const YEAR: Millis = 365 * 24 * 3600 * 1000;
const DAY: Millis = 24 * 3600 * 1000;

/// A machine's certificate is for one boot; it is renewed while that lives.
const CLIENT_LIFE: Millis = DAY;
const SERVER_LIFE: Millis = 90 * DAY;
/// Replicas' clocks differ a little.
const SLACK: Millis = 5 * 60_000;

const KEY: &str = "ca-key";
const CERTIFICATE: &str = "ca-certificate";
const TIME_KEY: &str = "time-key";
const TIME_CERTIFICATE: &str = "time-certificate";
const SHARE_KEY: &str = "share-key";

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("making a key or certificate")]
    Make(#[from] rcgen::Error),
    #[error("reading the certificate authority from the store")]
    Store(#[from] StoreError),
    #[error("the certificate authority in the store is malformed: {0}")]
    Malformed(&'static str),
    #[error("making a serial number")]
    Random(#[from] token::NoRandomness),
}

/// A certificate request that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    #[error("the certificate request is not PEM of the type CERTIFICATE REQUEST")]
    Pem,
    #[error("the certificate request is not PKCS #10")]
    Form,
    #[error("the certificate request is not signed by its own key")]
    Signature,
    #[error("the certificate request's key is of a kind that is not taken; use ECDSA P-256")]
    Key(#[source] rcgen::Error),
}

/// The public key of a certificate request that proved to hold the private one.
pub struct AgentKey {
    spki: SubjectPublicKeyInfo,
    pub digest: KeyDigest,
    /// By which a person matches it with the machine's console.
    pub code: String,
}

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentKey").field("digest", &self.digest).field("code", &self.code).finish_non_exhaustive()
    }
}

impl AgentKey {
    /// # Errors
    /// When the request is malformed, or not signed by the key it carries.
    pub fn from_csr(pem: &str) -> Result<Self, BadRequest> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| BadRequest::Pem)?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err(BadRequest::Pem);
        }
        let (rest, csr) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| BadRequest::Form)?;
        if !rest.is_empty() {
            return Err(BadRequest::Form);
        }
        csr.verify_signature().map_err(|_| BadRequest::Signature)?;
        let der = csr.certification_request_info.subject_pki.raw;
        let spki = SubjectPublicKeyInfo::from_der(der).map_err(BadRequest::Key)?;
        let sha256: [u8; 32] = Sha256::digest(der).into();
        Ok(Self { spki, digest: hex(&sha256), code: approval_code(&sha256) })
    }
}

/// A client certificate and the serial number under which its session is found.
#[derive(Debug)]
pub struct Issued {
    /// The chain, CA included.
    pub pem: String,
    pub serial: String,
}

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    time_key: KeyPair,
    time_certificate: Vec<u8>,
    /// Signs what lets a machine ask its peers, and nothing else.
    share_key: KeyPair,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Ca {
    /// The one in the store; made if there is none.
    ///
    /// # Errors
    /// When the store fails or what is in it cannot be used.
    pub async fn from_store(store: &dyn Store) -> Result<Self, CaError> {
        // Two replicas starting at once must not make two: the writing transaction admits one.
        let mut tx = store.write().await?;
        if tx.secret(KEY).await?.is_none() {
            let now = tx.now();
            let (key, certificate) = new_ca(now)?;
            let issuer = Issuer::from_ca_cert_der(&certificate, &key)?;
            let time_key = KeyPair::generate()?;
            let time_certificate = time_params(now)?.signed_by(&time_key, &issuer)?;
            tx.put_secret(KEY, key.serialized_der()).await?;
            tx.put_secret(CERTIFICATE, &certificate).await?;
            tx.put_secret(TIME_KEY, time_key.serialized_der()).await?;
            tx.put_secret(TIME_CERTIFICATE, time_certificate.der()).await?;
        }
        if tx.secret(SHARE_KEY).await?.is_none() {
            tx.put_secret(SHARE_KEY, KeyPair::generate()?.serialized_der()).await?;
        }
        let mut parts = Vec::new();
        for name in [KEY, CERTIFICATE, TIME_KEY, TIME_CERTIFICATE, SHARE_KEY] {
            parts.push(tx.secret(name).await?.ok_or(CaError::Malformed("a part is missing"))?);
        }
        tx.commit().await?;
        let [key, certificate, time_key, time_certificate, share_key] =
            <[Vec<u8>; 5]>::try_from(parts).map_err(|_| CaError::Malformed("a part is missing"))?;
        let certificate = CertificateDer::from(certificate);
        let issuer = Issuer::from_ca_cert_der(&certificate, read_key(key)?)?;
        let (time_key, share_key) = (read_key(time_key)?, read_key(share_key)?);
        Ok(Self { issuer, certificate, time_key, time_certificate, share_key })
    }

    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.certificate)
    }

    /// SHA-256 over the certificate's DER, in hex: the pin on kernel command lines.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(&self.certificate))
    }

    /// A server certificate with its chain (the CA's certificate included, for the agents' pin) and its key.
    ///
    /// # Errors
    /// When a name is not one, or signing fails.
    pub fn server(
        &self,
        names: &[String],
        now: Millis,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "speediso controller");
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now - DAY, now + SERVER_LIFE);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Ok((chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }

    /// A certificate for one boot of this node.
    ///
    /// # Errors
    /// When signing fails.
    pub fn client(&self, key: &AgentKey, node: NodeId, now: Millis) -> Result<Issued, CaError> {
        let secret = token::new()?;
        // At most 20 bytes, positive and not zero (RFC 5280, 4.1.2.2): 16 bytes with a fixed first digit.
        let serial = format!("5{}", &secret[1..32]);
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(unhex(&serial)));
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, now - SLACK, now + CLIENT_LIFE);
        let certificate = params.signed_by(&key.spki, &self.issuer)?;
        Ok(Issued { pem: format!("{}{}", certificate.pem(), self.pem()), serial })
    }

    /// This node may ask its peers for chunks of this image until then.
    ///
    /// # Errors
    /// When signing fails.
    pub fn permit(&self, manifest: &str, node: NodeId, until_ms: Millis) -> Result<Permit, CaError> {
        let signature = self.share_key.sign(Permit::signed_text(manifest, node, until_ms).as_bytes())?;
        Ok(Permit { until_ms, signature: BASE64.encode(signature) })
    }

    /// By which agents judge permits.
    #[must_use]
    pub fn permit_key(&self) -> String {
        BASE64.encode(self.share_key.public_key_raw())
    }

    /// The controller's time, signed over the caller's nonce.
    ///
    /// # Errors
    /// When signing fails.
    pub fn time(&self, nonce: String, now: Millis) -> Result<TimeAnswer, CaError> {
        let signature = self.time_key.sign(TimeAnswer::signed_text(&nonce, now).as_bytes())?;
        Ok(TimeAnswer {
            unix_ms: now,
            nonce,
            signature: BASE64.encode(signature),
            certificate: BASE64.encode(&self.time_certificate),
        })
    }
}

/// The serial number of a certificate in DER, as `Issued` has it.
#[must_use]
pub fn serial_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
    Some(hex(certificate.raw_serial()))
}

fn new_ca(now: Millis) -> Result<(KeyPair, CertificateDer<'static>), CaError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("speediso CA {}", &token::new()?[..8]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now - DAY, now + 10 * YEAR);
    let certificate = params.self_signed(&key)?;
    Ok((key, certificate.der().clone()))
}

fn time_params(now: Millis) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "speediso time");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Neither server nor client: it can sign the time and nothing else.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::TimeStamping];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now - DAY, now + 10 * YEAR - DAY);
    Ok(params)
}

fn valid(params: &mut CertificateParams, from: Millis, to: Millis) {
    let at = |ms: Millis| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(ms / 1000).unwrap_or(0));
    params.not_before = at(from);
    params.not_after = at(to);
}

fn read_key(der: Vec<u8>) -> Result<KeyPair, CaError> {
    let der = PrivateKeyDer::try_from(der).map_err(CaError::Malformed)?;
    Ok(KeyPair::try_from(&der)?)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = BASE64.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        // base64 is ASCII
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).filter_map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()).collect()
}
