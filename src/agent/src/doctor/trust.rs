//! Who answers: the certificates that a server shows, against the pin. Nothing is said to it but the handshake.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::json;
use speediso_model::network::{Check, CheckKind, Verdict};
use speediso_model::plan::hex;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::span;
use crate::tls::{self, Findings, Purpose, Refusal, Validity, sha256};

const LIMIT: Duration = Duration::from_secs(4);

/// The check, and whether the other end is the controller, whatever the clock says about its certificate.
pub(super) async fn handshake(host: &str, pins: &[[u8; 32]], stream: TcpStream) -> (Check, bool) {
    let failed = |text: String| Check::new(CheckKind::Tls, host, Verdict::Failed, text);
    let (config, findings) = match tls::config(pins, None, Validity::Checked, Purpose::Api) {
        Ok(made) => made,
        Err(fault) => return (failed(fault.to_string()), false),
    };
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        return (failed(format!("{:?} is no name that a certificate can have", host)), false);
    };
    let begun = Instant::now();
    let ended = timeout(LIMIT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await;
    let shown = Shown::of(&findings, pins);
    let told = |check: Check| {
        check
            .fact("took_ms", span::ms(begun.elapsed()))
            .fact("chain", &shown.0)
            .fact("pins", pins.iter().map(|pin| format!("sha256:{}", hex(pin))).collect::<Vec<_>>())
    };
    match ended {
        Err(_) => {
            let text = format!("the handshake did not end in {} s", LIMIT.as_secs());
            (
                told(
                    failed(text).do_this("look at path-mtu: certificates are the first large packets of a connection"),
                ),
                false,
            )
        }
        Ok(Ok(_)) => {
            let text = format!("pinned, {} (TLS 1.3, {} ms)", shown.validity(), span::ms(begun.elapsed()));
            (told(Check { verdict: Verdict::Ok, text, ..failed(String::new()) }), true)
        }
        Ok(Err(_)) if pins.is_empty() => {
            let text = format!("no pin to compare with; it shows {}", shown.fingerprints());
            let check = Check { verdict: Verdict::Warning, text, ..failed(String::new()) };
            (told(check.do_this("compare with ca.pem of the controller, then give it by --ca")), false)
        }
        Ok(Err(error)) => match findings.refusal() {
            Some(Refusal::Pin) => {
                let text = format!("no certificate shown is pinned: it shows {}", shown.fingerprints());
                (
                    told(
                        failed(text).do_this(
                            "compare with speediso.ca= (or --ca); if that is right, somebody stands in between",
                        ),
                    ),
                    false,
                )
            }
            Some(Refusal::Validity) => {
                let text = format!("{}; this machine's clock says {}", shown.validity(), span::now());
                (
                    told(
                        failed(text)
                            .do_this("set the clock; the agent does it by itself, by the controller's signed time"),
                    ),
                    true,
                )
            }
            Some(Refusal::Other(why)) => (
                told(failed(format!("pinned, but refused: {why}")).do_this("make the controller's certificate anew")),
                false,
            ),
            None => (
                told(
                    failed(format!("the handshake broke: {error}"))
                        .do_this("is this port the controller's? it speaks TLS 1.3 only"),
                ),
                false,
            ),
        },
    }
}

/// What a server showed, as data.
struct Shown(Vec<serde_json::Value>);

impl Shown {
    fn of(findings: &Findings, pins: &[[u8; 32]]) -> Self {
        let certificates = findings.chain();
        Self(
            certificates
                .iter()
                .map(|der| {
                    let digest = sha256(der);
                    let mut shown = json!({ "sha256": hex(&digest), "pinned": pins.contains(&digest) });
                    if let Ok((_, parsed)) = x509_parser::parse_x509_certificate(der) {
                        shown["subject"] = span::plain(&parsed.subject().to_string()).into();
                        shown["issuer"] = span::plain(&parsed.issuer().to_string()).into();
                        shown["not_before"] = span::date(parsed.validity().not_before.timestamp()).into();
                        shown["not_after"] = span::date(parsed.validity().not_after.timestamp()).into();
                    }
                    shown
                })
                .collect(),
        )
    }

    fn text(&self, index: usize, key: &str) -> &str {
        self.0.get(index).and_then(|c| c[key].as_str()).unwrap_or("?")
    }

    fn validity(&self) -> String {
        format!("certificate valid {} to {}", self.text(0, "not_before"), self.text(0, "not_after"))
    }

    /// Of the CA, which is the last of them; a server that shows only itself shows no CA.
    fn fingerprints(&self) -> String {
        match self.0.len() {
            0 => "no certificate".to_owned(),
            1 => format!("only its own certificate, {}, and no CA", self.text(0, "subject")),
            n => format!("{} sha256:{}", self.text(n - 1, "subject"), self.text(n - 1, "sha256")),
        }
    }
}
