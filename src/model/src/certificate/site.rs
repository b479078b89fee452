//! What a site decides about its certificates, and how they are listed.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check_text;
use super::document::Digest;
use crate::id::{NodeId, OrderId, RunId};
use crate::wipe::{WipeLevel, WipeMethod};

/// Holds for certificates from then on; those that are there stay as they are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CertificatePolicy {
    pub organization: String,
    pub location: String,
    /// Name and title of the person who answers for them.
    pub responsible: String,
    /// Volumes of hardware RAIDs, virtual disks and the like get certificates too, which say that they are no statement
    /// about a physical medium.
    pub certify_volumes: bool,
}

impl CertificatePolicy {
    /// # Errors
    /// When a text cannot be printed.
    pub fn check(&self) -> Result<(), String> {
        for (name, text) in
            [("organization", &self.organization), ("location", &self.location), ("responsible", &self.responsible)]
        {
            if !text.is_empty() {
                check_text(name, text)?;
            }
        }
        Ok(())
    }
}

/// Newest first.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CertificatesQuery {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// Of a device, or of a machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Issued then or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Issued earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// With a lower number: the next part of a long list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CertificateKind {
    Device,
    Machine,
}

/// A certificate in a list.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CertificateView {
    pub number: u64,
    /// SHA-256 of the document, in hex.
    pub document: Digest,
    pub issued: Timestamp,
    pub kind: CertificateKind,
    pub node: NodeId,
    pub node_name: String,
    pub order: OrderId,
    /// Absent for a machine.
    #[serde(default)]
    pub run: Option<RunId>,
    /// In one line.
    pub subject: String,
    pub serial: String,
    pub reached: WipeLevel,
    /// Absent for a machine.
    #[serde(default)]
    pub method: Option<WipeMethod>,
    /// Of the site, in hex: what it is verified with.
    pub key: String,
}

/// A key that certificates of this site are, or were, signed with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SiteKeyView {
    /// ed25519, 64 hex digits.
    pub key: String,
    /// The same as `openssl` reads it.
    pub pem: String,
    pub since: Timestamp,
    /// When another took its place; the one without signs now.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// A person's word for a disk that was recorded and is not there any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskGoneRequest {
    /// As the list of the machine's disks has it.
    pub key: String,
    /// Where it is. It stands on the machine's certificate.
    pub why: String,
}
