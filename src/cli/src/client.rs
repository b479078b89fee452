//! The controller's API over HTTPS: one CA, one bearer token.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::{Method, Response, StatusCode, Upgraded};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use speediso_model::api::ErrorBody;
use speediso_model::fault::Fault;
use speediso_model::ssh::TUNNEL_PROTOCOL;

use crate::args::Args;

/// Longer than the controller waits for the agent.
const STREAM_ANSWER: Duration = Duration::from_secs(45);

/// The controller answered, and the answer is no.
#[derive(Debug)]
pub(crate) struct Declined {
    pub(crate) fault: Fault,
}

impl std::fmt::Display for Declined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.fault.message)
    }
}

impl std::error::Error for Declined {}

/// No answer: it may be down, restarting, or not be there.
#[derive(Debug)]
pub(crate) struct Unreachable {
    pub(crate) url: String,
    pub(crate) source: reqwest::Error,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the controller at {} cannot be reached", self.url)
    }
}

impl std::error::Error for Unreachable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    /// HTTP/1.1 only, the one that becomes a stream.
    streams: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    pub(crate) fn from_args(args: &Args) -> Result<Self> {
        let base = args.controller.as_deref().context("which controller? give --controller or SPEEDISO_CONTROLLER")?;
        if !base.starts_with("https://") {
            bail!("the controller's URL must begin with https://, not {base:?}");
        }
        let ca = args.ca_file.as_deref().context("give the controller's CA with --ca-file or SPEEDISO_CA_FILE")?;
        let token = args.token_file.as_deref().context("give the token with --token-file or SPEEDISO_TOKEN_FILE")?;
        let token = std::fs::read_to_string(token).with_context(|| format!("reading {}", token.display()))?;
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            bail!("the token file does not hold a token");
        }
        let streams = http_client(ca, &[b"http/1.1"], None)?;
        let http = http_client(ca, &[b"h2", b"http/1.1"], Some(Duration::from_secs(30)))?;
        Ok(Self { http, streams, base: base.trim_end_matches('/').to_owned(), token: token.to_owned() })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.json(self.request(Method::GET, path)).await
    }

    /// For long polls: waits as long as the server may.
    pub(crate) async fn get_query<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T> {
        self.json(self.request(Method::GET, path).query(query).timeout(Duration::from_secs(60))).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put_json<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(self.request(Method::PUT, path).json(body)).await
    }

    /// What is not JSON for us to read: a document as it was signed, or a long export.
    pub(crate) async fn get_bytes(&self, path: &str) -> Result<Vec<u8>> {
        let request = self.request(Method::GET, path).timeout(Duration::from_secs(3600));
        let bytes = self.send(request).await?.bytes().await.map_err(|source| self.unreachable(source))?;
        Ok(bytes.to_vec())
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// A streamed upload takes as long as it takes.
    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: reqwest::Body, length: u64) -> Result<T> {
        let request = self
            .request(Method::PUT, path)
            .header(reqwest::header::CONTENT_LENGTH, length)
            .timeout(Duration::from_secs(24 * 3600))
            .body(body);
        self.json(request).await
    }

    /// A request that becomes a stream of bytes to whoever is behind the path.
    pub(crate) async fn stream(&self, path: &str) -> Result<Upgraded> {
        let request = self
            .streams
            .get(format!("{}{path}", self.base))
            .bearer_auth(&self.token)
            .header(reqwest::header::CONNECTION, "upgrade")
            .header(reqwest::header::UPGRADE, TUNNEL_PROTOCOL);
        let answer = tokio::time::timeout(STREAM_ANSWER, request.send())
            .await
            .map_err(|_| anyhow!("the controller does not answer"))?
            .map_err(|source| self.unreachable(source))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return answer.upgrade().await.context("the connection became no stream");
        }
        Err(self.declined(answer).await)
    }

    /// The controller's host, without port.
    pub(crate) fn host(&self) -> Option<String> {
        let url = reqwest::Url::parse(&self.base).ok()?;
        Some(url.host_str()?.trim_matches(['[', ']']).to_owned())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    async fn json<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        let bytes = self.send(request).await?.bytes().await.map_err(|source| self.unreachable(source))?;
        serde_json::from_slice(&bytes).context("reading the controller's answer; do the versions match?")
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|source| self.unreachable(source))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.declined(response).await)
    }

    async fn declined(&self, response: Response) -> anyhow::Error {
        let status = response.status();
        let bytes = response.bytes().await.unwrap_or_default();
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => Declined { fault: body.error }.into(),
            Err(_) if status.is_server_error() => anyhow!("the controller answered {status}"),
            Err(_) => anyhow!("{} answered {status}; is it a Speediso controller?", self.base),
        }
    }

    fn unreachable(&self, source: reqwest::Error) -> anyhow::Error {
        Unreachable { url: self.base.clone(), source }.into()
    }
}

fn http_client(ca: &Path, protocols: &[&[u8]], limit: Option<Duration>) -> Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca).with_context(|| format!("reading {}", ca.display()))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("reading {}", ca.display()))?;
        roots.add(certificate).with_context(|| format!("{} is not a CA certificate", ca.display()))?;
    }
    if roots.is_empty() {
        bail!("{} holds no certificate", ca.display());
    }
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("setting up TLS 1.3")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A preconfigured TLS set-up carries no ALPN by itself.
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let builder = reqwest::Client::builder();
    let builder = limit.into_iter().fold(builder, reqwest::ClientBuilder::timeout);
    builder
        .tls_backend_preconfigured(tls)
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .context("setting up the HTTP client")
}
