//! Certificates of sanitization: asking the controller for them, and verifying them without it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use speediso_model::api::{List, path};
use speediso_model::certificate::machine::KnownDisk;
use speediso_model::certificate::site::{
    CertificatePolicy, CertificateView, CertificatesQuery, DiskGoneRequest, SiteKeyView,
};

use crate::args::{CertificateCommand, CertificatesArgs};
use crate::client::Client;
use crate::commands::at;
use crate::{output, resolve};

pub(crate) async fn list(client: &Client, args: CertificatesArgs, json: bool) -> Result<()> {
    let node = match &args.node {
        Some(text) => Some(resolve::node(client, text).await?.id),
        None => None,
    };
    let order = args.order.as_deref().map(|o| o.parse().with_context(|| format!("{o:?} is not an order's id")));
    let query = CertificatesQuery {
        node,
        order: order.transpose()?,
        serial: args.serial,
        from: args.from.as_deref().map(time).transpose()?,
        until: args.until.as_deref().map(time).transpose()?,
        before: args.before,
        limit: args.limit,
    };
    let found: List<CertificateView> = client.get_query(path::CERTIFICATES, &query).await?;
    output::print(json, &found, output::certificates)
}

/// A day begins at midnight UTC.
fn time(text: &str) -> Result<jiff::Timestamp> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    whole.parse().with_context(|| format!("{text:?} is neither a day (2026-11-21) nor a time (2026-11-21T12:00:00Z)"))
}

pub(crate) async fn run(client: &Client, command: CertificateCommand, json: bool) -> Result<()> {
    match command {
        CertificateCommand::Get { number, html, out } => {
            let pattern = if html { path::CERTIFICATE_PAGE } else { path::CERTIFICATE };
            save(out.as_deref(), &client.get_bytes(&at(pattern, number)).await?)
        }
        CertificateCommand::Chain { out } => save(out.as_deref(), &client.get_bytes(path::CERTIFICATE_CHAIN).await?),
        CertificateCommand::Machine { order } => {
            let order: speediso_model::id::OrderId =
                order.parse().with_context(|| format!("{order:?} is not an order's id"))?;
            let made: CertificateView = client.post(&at(path::ORDER_CERTIFICATE, order), &json!({})).await?;
            output::print(json, &made, |c| format!("certificate {}: {}", c.number, c.subject))
        }
        CertificateCommand::Keys => {
            let keys: List<SiteKeyView> = client.get(path::CERTIFICATE_KEYS).await?;
            output::print(json, &keys, output::site_keys)
        }
        CertificateCommand::RotateKey => {
            let key: SiteKeyView = client.post(path::CERTIFICATE_KEYS, &json!({})).await?;
            output::print(json, &key, |k| {
                format!("certificates are signed by {} from now on; publish it beside the old ones\n{}", k.key, k.pem)
            })
        }
        CertificateCommand::Policy { organization, location, responsible, certify_volumes } => {
            let mut policy: CertificatePolicy = client.get(path::CERTIFICATE_POLICY).await?;
            let before = policy.clone();
            policy.organization = organization.unwrap_or(policy.organization);
            policy.location = location.unwrap_or(policy.location);
            policy.responsible = responsible.unwrap_or(policy.responsible);
            policy.certify_volumes = certify_volumes.unwrap_or(policy.certify_volumes);
            if policy != before {
                policy = client.put_json(path::CERTIFICATE_POLICY, &policy).await?;
            }
            output::print(json, &policy, output::certificate_policy)
        }
        CertificateCommand::Disks { node } => {
            let node = resolve::node(client, &node).await?;
            let disks: List<KnownDisk> = client.get(&at(path::NODE_DISKS, node.id)).await?;
            output::print(json, &disks, output::known_disks)
        }
        CertificateCommand::DiskGone { node, key, why } => {
            let node = resolve::node(client, &node).await?;
            let body = DiskGoneRequest { key, why };
            let disks: List<KnownDisk> = client.post(&at(path::NODE_DISK_GONE, node.id), &body).await?;
            output::print(json, &disks, output::known_disks)
        }
    }
}

/// Every byte counts: nothing is added, not even a line feed.
fn save(out: Option<&Path>, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    match out {
        Some(file) => std::fs::write(file, bytes).with_context(|| format!("writing {}", file.display())),
        None => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush()).context("writing to standard output")
        }
    }
}

/// Notes for the certificates of an order.
pub(crate) fn notes(file: Option<&PathBuf>) -> Result<Option<speediso_model::certificate::CertificateNotes>> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let notes: speediso_model::certificate::CertificateNotes = serde_json::from_str(&text)
        .with_context(|| format!("{} does not hold notes for certificates", file.display()))?;
    if let Err(why) = notes.check() {
        bail!("{}: {why}", file.display());
    }
    Ok(Some(notes))
}
