//! Certificates of sanitization: what a site says, under its signature, of a device that was wiped.
//!
//! A certificate is made of the report of a run and of what the controller recorded of it, by [`judge`], which refuses
//! whatever a certificate must not be given for. [`document`] turns it into the one line of bytes that is signed and
//! chained, and reads such lines strictly; `docs/certificates.md` says how others verify them with openssl alone.
//!
//! The types here are a published format: of version 1 no field is added, removed or renamed. They hold no fractions, so
//! that a value has one spelling.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::BuildInfo;
use crate::id::{Epoch, NodeId, OrderId, RunId};
use crate::plan::PlanDigest;
use crate::units::Bytes;
use crate::wipe::{AreaKind, VerificationKind, WipeLevel, WipeMethod};

pub mod chain;
pub mod document;
pub mod judge;
pub mod machine;
pub mod medium;
#[cfg(test)]
pub(crate) mod samples;
pub mod site;
pub mod words;

pub use chain::{BrokenChain, Chain};
pub use document::{Digest, Document, NotACertificate, SiteKey};
pub use judge::{Evidence, Refusal, judge};
pub use medium::Medium;

/// What the signature is of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// So that what this key signed cannot be taken for anything else.
    pub format: Format,
    /// Counts up by one from 1, over all certificates of the site.
    pub number: u64,
    /// SHA-256, in hex, of the whole document with the number before; 64 zeros for the first.
    pub previous: Digest,
    /// By the clock of the controller's store.
    pub issued: Timestamp,
    pub issuer: Issuer,
    pub subject: Subject,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    #[serde(rename = "speediso certificate of sanitization, version 1")]
    V1,
}

/// Who says it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    pub organization: String,
    /// Where the site is.
    pub location: String,
    /// The person who answers for the site's certificates.
    pub responsible: String,
    /// `speediso-controller 0.1.0`.
    pub program: String,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant, reason = "one per certificate")]
pub enum Subject {
    Device(DeviceCertificate),
    Machine(MachineCertificate),
}

/// One device, one run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceCertificate {
    pub device: Device,
    /// Where it was when it was sanitized.
    pub machine: Machine,
    pub sanitization: Sanitization,
    pub verification: Verification,
    /// Commands and what the device answered, raw and in words.
    pub device_log: Vec<DeviceAnswer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_before: Option<Health>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_after: Option<Health>,
    pub work: Work,
    /// What people said; nothing of it was checked.
    pub notes: DeviceNotes,
    /// What this certificate does not say, in words.
    pub remarks: Vec<String>,
}

/// Every device that was recorded in one machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineCertificate {
    pub machine: Machine,
    pub order: OrderId,
    pub ordered_by: String,
    /// The lowest level of its devices.
    pub reached: WipeLevel,
    pub devices: Vec<CertifiedDevice>,
    /// Devices that this is no statement about, each with the reason.
    pub left_out: Vec<String>,
    pub notes: DeviceNotes,
    pub remarks: Vec<String>,
}

/// A device by its own certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertifiedDevice {
    /// Number of its certificate.
    pub number: u64,
    /// SHA-256 of that document, in hex.
    pub document: Digest,
    pub model: String,
    pub serial: String,
    pub size: Bytes,
    pub reached: WipeLevel,
    pub method: WipeMethod,
    pub medium: Medium,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// As the device tells it; SATA drives tell none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    pub model: String,
    pub serial: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    pub firmware: String,
    pub size: Bytes,
    /// Logical, in bytes.
    pub sector_size: u32,
    /// `solid-state drive, NVMe`.
    pub media_type: String,
    pub medium: Medium,
    /// The kernel's name during the run, for people reading the log along with this.
    pub seen_as: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub node: NodeId,
    pub name: String,
    pub manufacturer: String,
    pub product: String,
    pub serial: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    pub chassis_serial: String,
    pub asset_tag: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sanitization {
    pub asked: WipeLevel,
    pub reached: WipeLevel,
    pub method: WipeMethod,
    /// Every pass or command, in order.
    pub steps: Vec<String>,
    /// Everything of the device that can hold data.
    pub areas: Vec<Area>,
    /// What the method does not reach, in words.
    pub not_covered: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Area {
    pub kind: AreaKind,
    pub name: String,
    pub size: Bytes,
    pub covered: bool,
    pub how: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    pub kind: VerificationKind,
    /// Read back from the medium and compared.
    pub bytes: Bytes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern_seed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canaries: Option<Canaries>,
    pub in_words: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    pub percent: u8,
    pub seed: String,
    pub unit: Bytes,
    pub units: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Canaries {
    pub seed: String,
    pub planted: u64,
    pub found_after: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceAnswer {
    pub command: String,
    pub raw: String,
    pub meaning: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_on_hours: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reallocated: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage_used: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_errors: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<i32>,
}

/// By whose word, with which tool, and when it was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Work {
    pub order: OrderId,
    pub ordered_by: String,
    pub ordered: Timestamp,
    /// Place of the task in the order, from 0.
    pub task: u32,
    pub run: RunId,
    pub epoch: Epoch,
    /// Of the plan whose start the controller recorded.
    pub plan: PlanDigest,
    /// When it recorded the start, by the store's clock.
    pub permitted: Timestamp,
    /// By the machine's clock.
    pub begun: Timestamp,
    pub ended: Timestamp,
    /// By the machine's monotonic clock.
    pub duration_ms: u64,
    /// The ramdisk that did it.
    pub tool: BuildInfo,
}

/// What whoever gives an order may add for the certificates that come of it. It is repeated there; nothing of it can be
/// checked.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateNotes {
    /// Classification of the data before, and of the medium after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidentiality_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidentiality_after: Option<String>,
    /// Where the device goes: reuse here, sale, recycling, destruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Name and title of the person who validates the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validated_by: Option<String>,
    /// Ticket, contract, customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Property numbers of devices, by their serial numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub property_numbers: BTreeMap<String, String>,
}

/// The same on a certificate, with the one property number that belongs there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceNotes {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub property_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidentiality_before: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidentiality_after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validated_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

impl CertificateNotes {
    const LONGEST: usize = 500;

    /// # Errors
    /// When a text is empty, has control characters or is too long to be printed.
    pub fn check(&self) -> Result<(), String> {
        let texts = [
            ("confidentiality_before", &self.confidentiality_before),
            ("confidentiality_after", &self.confidentiality_after),
            ("destination", &self.destination),
            ("validated_by", &self.validated_by),
            ("reference", &self.reference),
        ];
        for (name, text) in texts {
            text.as_ref().map_or(Ok(()), |t| check_text(name, t))?;
        }
        self.property_numbers.iter().try_for_each(|(serial, number)| {
            check_text("property_numbers", serial)?;
            check_text("property_numbers", number)
        })
    }

    /// For the device with this serial number.
    #[must_use]
    pub fn of_device(&self, serial: &str) -> DeviceNotes {
        DeviceNotes { property_number: self.property_numbers.get(serial.trim()).cloned(), ..self.of_machine() }
    }

    #[must_use]
    pub fn of_machine(&self) -> DeviceNotes {
        DeviceNotes {
            property_number: None,
            confidentiality_before: self.confidentiality_before.clone(),
            confidentiality_after: self.confidentiality_after.clone(),
            destination: self.destination.clone(),
            validated_by: self.validated_by.clone(),
            reference: self.reference.clone(),
        }
    }
}

/// # Errors
/// When the text is empty, has control characters or is longer than a form has room for.
pub fn check_text(name: &str, text: &str) -> Result<(), String> {
    if text.trim().is_empty() || text.chars().count() > CertificateNotes::LONGEST || text.chars().any(char::is_control)
    {
        return Err(format!("{name}: not 1 to {} printable characters", CertificateNotes::LONGEST));
    }
    Ok(())
}

impl Subject {
    #[must_use]
    pub fn machine(&self) -> &Machine {
        match self {
            Self::Device(d) => &d.machine,
            Self::Machine(m) => &m.machine,
        }
    }

    #[must_use]
    pub fn reached(&self) -> WipeLevel {
        match self {
            Self::Device(d) => d.sanitization.reached,
            Self::Machine(m) => m.reached,
        }
    }

    /// In one line.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Device(DeviceCertificate { device, machine, .. }) => {
                format!("{} serial {} ({}) in {}", device.model, or_none(&device.serial), device.size, machine.name)
            }
            Self::Machine(m) => {
                let n = m.devices.len();
                format!("machine {} serial {} with {n} devices", m.machine.name, or_none(&m.machine.serial))
            }
        }
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
