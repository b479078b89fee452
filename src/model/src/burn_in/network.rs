//! What a network step takes, and what it yields.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalogue::{Known, known, none_allowed};
use super::measurement::unit;
use super::seconds::Seconds;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkRole {
    Listen,
    Connect,
}

/// Who the other end is, where the scenario does not name an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkWith {
    /// Another machine in the same step at the same time; the controller pairs them.
    #[default]
    Machine,
    /// The controller itself, where its policy allows that. Elsewhere the step is skipped.
    Controller,
}

impl LinkWith {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_machine(&self) -> bool {
        *self == Self::Machine
    }
}

/// Streams from one machine to the other, back, and both ways at once, then datagrams both ways. Four fifths of the
/// duration are for the streams.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkStep {
    #[serde(default, skip_serializing_if = "LinkWith::is_machine")]
    pub with: LinkWith,
    /// Address of the other side; whom the controller pairs it with when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<NetworkRole>,
    /// With `partner`: 64 hexadecimal digits that both sides were given, and nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// With `partner`: on which the one that listens does so; 7447 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// MAC address of the interface; the one that was booted from when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// How long to wait for a partner; 15 minutes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Seconds>,
    /// Streams at a time; 4 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<u8>,
    /// 1,000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datagrams_per_second: Option<u32>,
}

pub const DEFAULT_PORT: u16 = 7447;

pub(super) const NETWORK: &[Known] = &[
    none_allowed("network.corrupt_blocks", "blocks of streams that arrived otherwise than they were sent"),
    none_allowed("network.missing_bytes", "bytes of streams that were sent and not received, both directions together"),
    none_allowed("network.datagrams.corrupt", "datagrams that arrived otherwise than they were sent"),
    none_allowed(
        "network.new.errors",
        "errors of the interface (receive, transmit, CRC, frame, carrier) during the step",
    ),
    none_allowed("network.new.carrier_changes", "how often the link went down or up during the step"),
    known("network.new.dropped", unit::COUNT, "frames that the interface or the kernel dropped during the step"),
    known("network.link.speed", unit::BITS_PER_SECOND, "as the interface has it"),
    known("network.sent.bandwidth", unit::BITS_PER_SECOND, "streams to the partner alone"),
    known("network.received.bandwidth", unit::BITS_PER_SECOND, "streams from the partner alone"),
    known("network.both.sent.bandwidth", unit::BITS_PER_SECOND, "streams to the partner, while it sends too"),
    known("network.both.received.bandwidth", unit::BITS_PER_SECOND, "streams from the partner, while this sends too"),
    known("network.sent.loss", unit::PERCENT, "datagrams to the partner"),
    known("network.received.loss", unit::PERCENT, "datagrams from the partner"),
    known("network.sent.jitter", unit::MICROSECONDS, "of datagrams to the partner"),
    known("network.received.jitter", unit::MICROSECONDS, "of datagrams from the partner"),
    known("network.datagrams.duplicated", unit::COUNT, "both directions together"),
    known("network.datagrams.reordered", unit::COUNT, "both directions together"),
    known("network.latency.p50", unit::MICROSECONDS, "to the partner and back"),
    known("network.latency.p99", unit::MICROSECONDS, "to the partner and back"),
    known("network.latency.max", unit::MICROSECONDS, "to the partner and back"),
];

impl NetworkStep {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.partner.is_some() != self.role.is_some() || self.partner.is_some() != self.secret.is_some() {
            return Err("partner, role and secret need one another; without all of them the controller pairs".into());
        }
        if self.with == LinkWith::Controller && self.partner.is_some() {
            return Err("with: the controller is found by itself; partner, role and secret name another machine".into());
        }
        if let Some(partner) = self.partner.as_ref().filter(|p| p.parse::<IpAddr>().is_err()) {
            return Err(format!("partner: {partner:?} is not an address"));
        }
        let hex = |s: &str| s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
        if self.secret.as_deref().is_some_and(|s| !hex(s)) {
            return Err("secret: 64 hexadecimal digits".into());
        }
        if self.port.is_some() && self.partner.is_none() {
            return Err("port: whom the controller pairs choose their own".into());
        }
        if self.port == Some(0) {
            return Err("port: 1 to 65535".into());
        }
        if let Some(mac) = self.interface.as_ref().filter(|m| crate::inventory::canonical_mac(m).is_none()) {
            return Err(format!("interface: {mac:?} is not a MAC address"));
        }
        if self.wait.is_some_and(|w| w.0 == 0 || w > Seconds::MOST) {
            return Err(format!("wait: 1 s to {}", Seconds::MOST));
        }
        if matches!(self.streams, Some(0 | 65..)) {
            return Err("streams: 1 to 64".into());
        }
        if matches!(self.datagrams_per_second, Some(0 | 100_001..)) {
            return Err("datagrams_per_second: 1 to 100000".into());
        }
        Ok(())
    }

    pub(super) fn redact(&mut self) {
        if self.secret.is_some() {
            self.secret = Some("(not shown)".into());
        }
    }
}
