//! `speediso verify-certificate`: the public key, the file, and nothing else. No controller is asked, no network used.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use speediso_model::certificate::words::{method_name, verification_name};
use speediso_model::certificate::{Chain, Document, Medium, NotACertificate, SiteKey, Subject, document};

use crate::args::VerifyCertificateArgs;
use crate::output;

/// Exit codes, as the help has them.
const VALID: u8 = 0;
const INVALID: u8 = 1;
/// `sysexits.h`: EX_NOINPUT.
const UNREADABLE: u8 = 66;

/// A chain of a million certificates of ordinary size; more is no file to be read by accident.
const LARGEST_CHAIN: u64 = 8 << 30;

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    /// What was verified, or why it is not valid.
    findings: Vec<String>,
}

/// Why there is no verdict of "valid".
#[derive(Debug)]
enum Refused {
    Unreadable(anyhow::Error),
    Invalid(String),
}

type Checked<T> = std::result::Result<T, Refused>;

pub(crate) fn verify(args: &VerifyCertificateArgs, json: bool) -> Result<u8> {
    let (report, code) = match check(args) {
        Ok(report) => (report, VALID),
        Err(refused) => {
            let (text, code) = match refused {
                Refused::Unreadable(error) => (format!("{error:#}"), UNREADABLE),
                Refused::Invalid(why) => (why, INVALID),
            };
            (Report { valid: false, number: None, subject: None, document: None, findings: vec![text] }, code)
        }
    };
    output::print(json, &report, |r| people(r, &args.file, code))?;
    Ok(code)
}

fn people(report: &Report, file: &Path, code: u8) -> String {
    let verdict = match code {
        VALID => "VALID",
        UNREADABLE => "UNREADABLE",
        _ => "NOT VALID",
    };
    let mut text = format!("{}: {verdict}", file.display());
    for finding in &report.findings {
        text.push_str("\n  ");
        text.push_str(&output::printable(finding));
    }
    text
}

fn check(args: &VerifyCertificateArgs) -> Checked<Report> {
    let keys = args.keys.iter().map(|k| read_key(k)).collect::<Result<Vec<_>>>().map_err(Refused::Unreadable)?;
    // One byte more than a certificate can have, so that a longer file is seen to be one.
    let limit = u64::try_from(document::LARGEST).unwrap_or(u64::MAX) + 1;
    let bytes = read(&args.file, limit).map_err(Refused::Unreadable)?;
    let document = open(&bytes, &keys).map_err(|e| refused(&e, &args.file.display().to_string()))?;
    let mut findings = said(&document);
    if let Some(file) = &args.chain {
        let chain = read(file, LARGEST_CHAIN).map_err(Refused::Unreadable)?;
        let length = in_chain(&document, &chain, &keys)?;
        findings.push(format!(
            "the chain has {length} certificates from the first on, each signed and none removed, moved or put in; this is number {}",
            document.statement().number
        ));
    }
    Ok(Report {
        valid: true,
        number: Some(document.statement().number),
        subject: Some(document.statement().subject.describe()),
        document: Some(document.digest().to_string()),
        findings,
    })
}

fn open(bytes: &[u8], keys: &[SiteKey]) -> std::result::Result<Document, NotACertificate> {
    Document::open(
        bytes,
        |key| keys.contains(key),
        |key, signed, signature| UnparsedPublicKey::new(&ED25519, key.0).verify(signed, signature).is_ok(),
    )
}

fn refused(error: &NotACertificate, what: &str) -> Refused {
    let mut text = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        text = format!("{text}: {cause}");
    }
    if error.is_foreign() { Refused::Unreadable(anyhow!("{what}: {text}")) } else { Refused::Invalid(text) }
}

/// Reads all of a chain, and finds the document in its place. A line that is no certificate breaks it.
fn in_chain(document: &Document, bytes: &[u8], keys: &[SiteKey]) -> Checked<u64> {
    let mut chain = Chain::default();
    let mut found = false;
    for (n, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let broken = |why: &dyn std::fmt::Display| Refused::Invalid(format!("line {} of the chain: {why}", n + 1));
        let link = open(line, keys).map_err(|e| broken(&e))?;
        chain.push(&link).map_err(|e| broken(&e))?;
        found |= link.digest() == document.digest();
    }
    if !found {
        let number = document.statement().number;
        return Err(Refused::Invalid(if chain.len() < number {
            format!("the chain ends at {} and the certificate is number {number}: take a newer one", chain.len())
        } else {
            format!("the certificate is signed, and another stands in its place (number {number}) in the chain")
        }));
    }
    Ok(chain.len())
}

/// What the document says, in the words of who has to act on it.
fn said(document: &Document) -> Vec<String> {
    let statement = document.statement();
    let issuer = &statement.issuer;
    let mut lines = vec![
        format!("signed by the key {}", document.key()),
        format!(
            "certificate {} of {}, issued {}",
            statement.number,
            or_unnamed(&issuer.organization),
            statement.issued
        ),
        statement.subject.describe(),
    ];
    match &statement.subject {
        Subject::Device(device) => {
            let s = &device.sanitization;
            lines.push(format!("{} reached by {}", s.reached.name(), method_name(s.method)));
            lines.push(format!("verification: {}", verification_name(device.verification.kind)));
            if let Medium::Volume { of } = &device.device.medium {
                lines.push(format!("ATTENTION: a volume of {of}; this is no statement about any physical medium"));
            }
        }
        Subject::Machine(machine) => {
            lines.push(format!("{} reached on each of its devices:", machine.reached.name()));
            for device in &machine.devices {
                lines.push(format!(
                    "  certificate {}: {} serial {}, {} by {}; sha256 {}",
                    device.number,
                    device.model,
                    device.serial,
                    device.reached.name(),
                    method_name(device.method),
                    device.document
                ));
            }
            lines.extend(machine.left_out.iter().map(|l| format!("  left out: {l}")));
        }
    }
    lines.push(format!("sha256 of the document: {}", document.digest()));
    lines
}

fn or_unnamed(text: &str) -> &str {
    if text.is_empty() { "a site without a name" } else { text }
}

fn read(file: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reading = || format!("reading {}", file.display());
    std::fs::File::open(file).and_then(|f| f.take(limit).read_to_end(&mut bytes)).with_context(reading)?;
    if bytes.is_empty() {
        return Err(anyhow!("{} is empty", file.display()));
    }
    Ok(bytes)
}

/// 64 hex digits, or a file with them or with a public key in PEM.
fn read_key(text: &str) -> Result<SiteKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    let content = std::fs::read(text)
        .with_context(|| format!("{text:?} is neither a public key of 64 hex digits nor a file with one"))?;
    let trimmed = content.trim_ascii();
    if let Some(key) = str::from_utf8(trimmed).ok().and_then(|t| t.parse().ok()) {
        return Ok(key);
    }
    SubjectPublicKeyInfoDer::from_pem_slice(trimmed)
        .ok()
        .and_then(|der| SiteKey::from_spki(&der))
        .with_context(|| format!("{text} holds no ed25519 public key, neither in PEM nor as 64 hex digits"))
}
