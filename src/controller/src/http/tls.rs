//! TLS 1.3 with a client certificate where the caller has one.
//!
//! A certificate that is shown must be of our CA and valid; none at all is accepted here, and judged per route.

use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::{Accept, NoDelayAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures_util::future::BoxFuture;
use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio::net::TcpStream;
use tower::Layer as _;

use crate::ca::{self, Ca, CaError};
use crate::store::Millis;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("making the server certificate")]
    Ca(#[from] CaError),
    #[error("setting up TLS")]
    Rustls(#[from] rustls::Error),
    #[error("setting up the verification of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Who is at the other end of the connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Serial number of its certificate, which the handshake found to be ours and valid.
    pub serial: Option<String>,
}

/// A fresh server certificate for these names.
///
/// # Errors
/// When the certificate cannot be made.
pub fn server_config(ca: &Ca, names: &[String], now: Millis) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let (chain, key) = ca.server(names, now)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Hands the peer's certificate to the handlers.
#[derive(Clone, Debug)]
pub struct PeerAcceptor {
    tls: RustlsAcceptor<NoDelayAcceptor>,
}

impl PeerAcceptor {
    #[must_use]
    pub fn new(config: RustlsConfig) -> Self {
        Self { tls: RustlsAcceptor::new(config).acceptor(NoDelayAcceptor::new()) }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for PeerAcceptor {
    type Stream = <RustlsAcceptor<NoDelayAcceptor> as Accept<TcpStream, S>>::Stream;
    type Service = AddExtension<S, Peer>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let handshake = self.tls.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = handshake.await?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let peer = Peer { serial: certificate.and_then(ca::serial_of) };
            Ok((stream, Extension(peer).layer(service)))
        })
    }
}
