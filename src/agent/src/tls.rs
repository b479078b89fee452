//! Who the controller is: the one whose CA has a fingerprint from the command line.
//!
//! A chain is accepted only if a certificate in it has a pinned SHA-256, and then only if everything else (name,
//! validity, usage, signatures) holds with that certificate as the only root. No other root is known, and no option
//! weakens this.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::redirect;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use speediso_model::fault::{Fault, FaultCode};

/// Certificate chain and key of this boot.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// Why the last handshake was refused, for whoever sees only that it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No certificate of the chain is pinned.
    Pin,
    /// Only the time is wrong: ours or the certificate's.
    Validity,
    Other(String),
}

/// What the verifier found out.
#[derive(Debug, Default)]
pub struct Findings {
    refusal: Mutex<Option<Refusal>>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
    ca: Mutex<Option<CertificateDer<'static>>>,
}

impl Findings {
    /// Why the last handshake was refused; `None` once one was accepted.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pinned certificate that the server presented.
    #[must_use]
    pub fn ca(&self) -> Option<CertificateDer<'static>> {
        self.ca.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the last server showed, whether it was accepted or not, its own certificate first.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn shown(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
    }

    fn ended(&self, refusal: Option<Refusal>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }
}

/// How strict to be about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Checked,
    /// For the one request that asks for the time: as if it were just after the certificate began to be valid.
    Relaxed,
}

#[derive(Debug)]
struct PinnedCa {
    pins: Vec<[u8; 32]>,
    validity: Validity,
    provider: Arc<CryptoProvider>,
    findings: Arc<Findings>,
}

impl PinnedCa {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| self.pins.contains(&sha256(certificate)))
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        *self.findings.ca.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.clone().into_owned());
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let now = match self.validity {
            Validity::Checked => now,
            Validity::Relaxed => just_valid(end_entity)?,
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)?;
        verify_server_name(&parsed, server_name)
    }
}

fn just_valid(certificate: &CertificateDer<'_>) -> Result<UnixTime, rustls::Error> {
    let bad = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| bad())?;
    let begin = u64::try_from(parsed.validity().not_before.timestamp()).map_err(|_| bad())?;
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(begin + 1)))
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.findings.shown(end_entity, intermediates);
        match self.check(end_entity, intermediates, server_name, now) {
            Ok(()) => {
                self.findings.ended(None);
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => {
                self.findings.ended(Some(match &error {
                    rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Refusal::Pin,
                    rustls::Error::InvalidCertificate(
                        CertificateError::Expired
                        | CertificateError::ExpiredContext { .. }
                        | CertificateError::NotValidYet
                        | CertificateError::NotValidYetContext { .. },
                    ) => Refusal::Validity,
                    other => Refusal::Other(other.to_string()),
                }));
                Err(error)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // TLS 1.2 is never offered.
        Err(rustls::Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl PinnedCa {
    fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }
}

/// SHA-256 of a certificate's DER: what `speediso.ca=` names.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}

/// For what the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Many small requests over one connection.
    Api,
    /// Images: HTTP/1.1 carries them faster than HTTP/2 does.
    Images,
}

/// An image's server may send us on to where it is, but never out of TLS.
fn same_or_safer(attempt: redirect::Attempt<'_>) -> redirect::Action {
    const MOST: usize = 5;
    let was_safe = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MOST {
        attempt.error("more than 5 redirects")
    } else if was_safe && attempt.url().scheme() != "https" {
        attempt.error("a redirect from https to something else")
    } else {
        attempt.follow()
    }
}

/// TLS 1.3 with the pinned CAs only.
///
/// # Errors
/// When key and certificate do not fit together.
pub(crate) fn rustls_config(
    pins: &[[u8; 32]],
    identity: Option<&Identity>,
    validity: Validity,
) -> Result<(ClientConfig, Arc<Findings>), Fault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let findings = Arc::new(Findings::default());
    let verifier =
        PinnedCa { pins: pins.to_vec(), validity, provider: Arc::clone(&provider), findings: Arc::clone(&findings) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| failed(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).map_err(|e| failed(&e))?
        }
        None => builder.with_no_client_auth(),
    };
    Ok((config, findings))
}

/// An HTTP client that knows the pinned CAs only.
///
/// # Errors
/// When key and certificate do not fit together.
pub fn client(
    pins: &[[u8; 32]],
    identity: Option<&Identity>,
    validity: Validity,
    purpose: Purpose,
) -> Result<(reqwest::Client, Arc<Findings>), Fault> {
    let (config, findings) = config(pins, identity, validity, purpose)?;
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .connect_timeout(Duration::from_secs(10))
        .redirect(match purpose {
            Purpose::Api => redirect::Policy::none(),
            Purpose::Images => redirect::Policy::custom(same_or_safer),
        })
        .no_proxy();
    let builder = match purpose {
        Purpose::Api => builder.timeout(Duration::from_secs(45)),
        // An image takes as long as it takes; stalls are noticed where it is read.
        Purpose::Images => builder,
    };
    builder.build().map(|client| (client, findings)).map_err(|e| failed(&e))
}

/// The TLS side of such a client.
///
/// # Errors
/// When key and certificate do not fit together.
pub fn config(
    pins: &[[u8; 32]],
    identity: Option<&Identity>,
    validity: Validity,
    purpose: Purpose,
) -> Result<(ClientConfig, Arc<Findings>), Fault> {
    let (mut config, findings) = rustls_config(pins, identity, validity)?;
    // A preconfigured TLS set-up carries no ALPN by itself.
    config.alpn_protocols = match purpose {
        Purpose::Api => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Purpose::Images => vec![b"http/1.1".to_vec()],
    };
    Ok((config, findings))
}

fn failed(error: &dyn std::error::Error) -> Fault {
    Fault::from_error(FaultCode::Internal, error).because("setting up TLS")
}
