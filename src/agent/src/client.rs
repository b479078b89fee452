//! The controller's API as the agent uses it: every answer is a value or a fault that says who must act.

use std::sync::Arc;

use reqwest::{Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use speediso_model::api::{ErrorBody, TimeAnswer, TimeQuery, path};
use speediso_model::fault::{Fault, FaultCode};

use crate::tls::{self, Findings, Identity, Purpose, Refusal, Validity};

/// Larger answers are not ours.
const MAX_ANSWER: usize = 4 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    findings: Arc<Findings>,
    base: String,
    pins: Vec<[u8; 32]>,
}

impl Client {
    pub(crate) fn new(base: &str, pins: &[[u8; 32]], identity: Option<&Identity>) -> Result<Self, Fault> {
        let (http, findings) = tls::client(pins, identity, Validity::Checked, Purpose::Api)?;
        Ok(Self { http, findings, base: base.to_owned(), pins: pins.to_vec() })
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Fault> {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Fault> {
        self.answer(self.request(method, path).json(body)).await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, Fault> {
        self.answer(self.request(Method::GET, path).query(query)).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Fault> {
        let mut response = request.send().await.map_err(|e| self.no_answer(&e))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.no_answer(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(Fault::new(FaultCode::ProtocolError, format!("{} answers without end", self.base)));
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| {
                Fault::new(
                    FaultCode::ProtocolError,
                    format!("{} answered {status} with something unexpected", self.base),
                )
                .because(e.to_string())
            });
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(body.error),
            Err(_) if status.is_server_error() => {
                Err(Fault::new(FaultCode::ControllerUnreachable, format!("{} answered {status}", self.base)))
            }
            Err(_) => Err(Fault::new(FaultCode::ProtocolError, format!("{} answered {status}", self.base))),
        }
    }

    /// What stands behind a request that got no answer.
    fn no_answer(&self, error: &reqwest::Error) -> Fault {
        let mut fault = Fault::from_error(FaultCode::ControllerUnreachable, error);
        fault.message = format!("no answer from {}", self.base);
        if !error.is_connect() {
            return fault;
        }
        match self.findings.refusal() {
            Some(Refusal::Pin) => Fault::new(
                FaultCode::TlsPinMismatch,
                format!("{} does not show the CA that speediso.ca= names", self.base),
            ),
            Some(Refusal::Validity) => Fault::new(
                FaultCode::ClockWrong,
                format!("the certificate of {} is not valid at this machine's time", self.base),
            ),
            Some(Refusal::Other(why)) => {
                Fault::new(FaultCode::TlsFailed, format!("TLS with {}", self.base)).because(why)
            }
            None => fault,
        }
    }

    /// Asks for the time with validity relaxed and everything else checked, and returns milliseconds since 1970.
    pub(crate) async fn signed_time(&self) -> Result<i64, Fault> {
        let (http, findings) = tls::client(&self.pins, None, Validity::Relaxed, Purpose::Api)?;
        let relaxed = Self { http, findings, base: self.base.clone(), pins: self.pins.clone() };
        let nonce = uuid::Uuid::new_v4().simple().to_string() + &uuid::Uuid::new_v4().simple().to_string();
        let answer: TimeAnswer = relaxed.get(path::TIME, &TimeQuery { nonce: nonce.clone() }).await?;
        let ca = relaxed
            .findings
            .ca()
            .ok_or_else(|| Fault::new(FaultCode::ClockWrong, "the controller showed no CA with its time"))?;
        verify_time(&answer, &nonce, &ca)
    }
}

fn verify_time(answer: &TimeAnswer, nonce: &str, ca: &[u8]) -> Result<i64, Fault> {
    use base64::Engine as _;
    let bad = |why: &str| Fault::new(FaultCode::ClockWrong, format!("the controller's time is not trusted: {why}"));
    if answer.nonce != nonce {
        return Err(bad("it answers another question"));
    }
    let decode =
        |text: &str| base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| bad("it is not base64"));
    let certificate = decode(&answer.certificate)?;
    let (_, ca) = x509_parser::parse_x509_certificate(ca).map_err(|_| bad("the CA cannot be read"))?;
    let (_, time) =
        x509_parser::parse_x509_certificate(&certificate).map_err(|_| bad("its certificate cannot be read"))?;
    time.verify_signature(Some(ca.public_key())).map_err(|_| bad("its certificate is not the CA's"))?;
    // Any certificate of this CA must not do: an agent's own would let it set its neighbours' clocks.
    let name = time.subject().iter_common_name().next().and_then(|n| n.as_str().ok());
    if name != Some("speediso time") {
        return Err(bad("its certificate is for something else"));
    }
    let text = TimeAnswer::signed_text(&answer.nonce, answer.unix_ms);
    aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
        time.public_key().subject_public_key.data.as_ref(),
    )
    .verify(text.as_bytes(), &decode(&answer.signature)?)
    .map_err(|_| bad("the signature is wrong"))?;
    Ok(answer.unix_ms)
}
