//! TLS between machines. Each has one certificate, made for asking the controller; among themselves they show it on both
//! sides. It must be one of the pinned CA's for a machine, and of the very machine that the controller named.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::NodeId;

use crate::tls::Identity;

/// Names of machines end so; nobody resolves them but us.
const SUFFIX: &str = ".speediso-node";

pub(super) fn name_of(node: NodeId) -> String {
    format!("{node}{SUFFIX}")
}

/// The node that a machine's certificate names. Others of the CA (the controller's, the time key's) name none.
pub(super) fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    parsed.subject().iter_common_name().next()?.as_str().ok()?.parse().ok()
}

fn failed(error: &dyn std::error::Error) -> Fault {
    Fault::from_error(FaultCode::Internal, error).because("setting up TLS with other machines")
}

/// Whether a certificate is the CA's, valid, and for a machine (its use is client authentication).
fn machines(ca: &CertificateDer<'static>) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(|e| failed(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| failed(&e))
}

pub(super) fn server(identity: &Identity, ca: &CertificateDer<'static>) -> Result<Arc<ServerConfig>, Fault> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| failed(&e))?
        .with_client_cert_verifier(machines(ca)?)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|e| failed(&e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

pub(super) fn client(identity: &Identity, ca: &CertificateDer<'static>) -> Result<ClientConfig, Fault> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| failed(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NamedMachine { machines: machines(ca)? }))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|e| failed(&e))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct NamedMachine {
    machines: Arc<dyn ClientCertVerifier>,
}

impl ServerCertVerifier for NamedMachine {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.machines.verify_client_cert(end_entity, intermediates, now)?;
        let wanted = match server_name {
            ServerName::DnsName(name) => name.as_ref().strip_suffix(SUFFIX).and_then(|node| node.parse().ok()),
            _ => None,
        };
        if wanted.is_some() && node_of(end_entity) == wanted {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName))
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
        self.machines.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.machines.supported_verify_schemes()
    }
}
