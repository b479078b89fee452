//! Who may pass for the controller: real TLS servers with every certificate but the right one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use speediso_agent::tls::{self, Purpose, Refusal, Validity, sha256};

struct Ca {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Ca { der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
}

struct Leaf {
    name: &'static str,
    from_year: i32,
    to_year: i32,
    usage: ExtendedKeyUsagePurpose,
}

const GOOD: Leaf =
    Leaf { name: "localhost", from_year: 2020, to_year: 2100, usage: ExtendedKeyUsagePurpose::ServerAuth };

/// Serves one word over TLS with a leaf of `signer`, showing `shown` as the CA.
async fn serve(
    leaf: Leaf,
    signer: &Ca,
    shown: &[u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> SocketAddr {
    let mut params = CertificateParams::new(vec![leaf.name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(leaf.from_year, 1, 1);
    params.not_after = rcgen::date_time_ymd(leaf.to_year, 1, 1);
    params.extended_key_usages = vec![leaf.usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &signer.issuer).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone(), shown.to_vec().into()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let config = axum_server::tls_rustls::RustlsConfig::from_config(Arc::new(config));
    let app = axum::Router::new().route("/", axum::routing::get(|| async { "reached" }));
    tokio::spawn(async move {
        axum_server::from_tcp_rustls(listener, config).unwrap().serve(app.into_make_service()).await.unwrap();
    });
    address
}

async fn ask(address: SocketAddr, pin: &[u8], validity: Validity) -> Result<String, Option<Refusal>> {
    let (client, findings) = tls::client(&[sha256(pin)], None, validity, Purpose::Api).unwrap();
    match client.get(format!("https://localhost:{}/", address.port())).send().await {
        Ok(response) => Ok(response.text().await.unwrap()),
        Err(_) => Err(findings.refusal()),
    }
}

const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

#[tokio::test]
async fn only_the_pinned_ca_passes() {
    let (ours, theirs) = (ca(), ca());
    let good = serve(GOOD, &ours, &ours.der, TLS13).await;
    assert_eq!(ask(good, &ours.der, Validity::Checked).await, Ok("reached".into()));
    assert_eq!(ask(good, &theirs.der, Validity::Checked).await, Err(Some(Refusal::Pin)));

    // Our CA is shown, but somebody else signed.
    let dressed_up = serve(GOOD, &theirs, &ours.der, TLS13).await;
    assert!(matches!(ask(dressed_up, &ours.der, Validity::Checked).await, Err(Some(_))));
    assert!(matches!(ask(dressed_up, &ours.der, Validity::Relaxed).await, Err(Some(_))), "time excuses no signature");
}

#[tokio::test]
async fn everything_else_is_checked_too() {
    let ours = ca();
    let name = serve(Leaf { name: "elsewhere.example", ..GOOD }, &ours, &ours.der, TLS13).await;
    assert!(matches!(ask(name, &ours.der, Validity::Checked).await, Err(Some(Refusal::Other(_)))));
    assert!(ask(name, &ours.der, Validity::Relaxed).await.is_err(), "time excuses no name");
    let usage = serve(Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..GOOD }, &ours, &ours.der, TLS13).await;
    assert!(ask(usage, &ours.der, Validity::Checked).await.is_err(), "a client's certificate is no server's");
    let old = serve(GOOD, &ours, &ours.der, &[&rustls::version::TLS12]).await;
    assert!(ask(old, &ours.der, Validity::Checked).await.is_err(), "TLS 1.2 is not spoken");
}

#[tokio::test]
async fn only_validity_is_relaxed_and_only_when_asked() {
    let ours = ca();
    for (from_year, to_year) in [(2001, 2002), (2090, 2100)] {
        let address = serve(Leaf { from_year, to_year, ..GOOD }, &ours, &ours.der, TLS13).await;
        assert_eq!(ask(address, &ours.der, Validity::Checked).await, Err(Some(Refusal::Validity)));
        assert_eq!(ask(address, &ours.der, Validity::Relaxed).await, Ok("reached".into()));
    }
}
