//! The management processor, as it answers the machine it manages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Bmc {
    /// `2.44`
    pub firmware: String,
    /// What else the maker counts: four bytes in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware_auxiliary: Option<String>,
    pub ipmi_version: String,
    /// As IANA numbers enterprises.
    pub manufacturer_id: u32,
    pub product_id: u16,
    pub device_id: u8,
    pub device_revision: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    pub lan: Vec<BmcLan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fru: Option<Fru>,
    pub sensors: Vec<BmcSensor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_log: Option<EventLog>,
}

/// One of its network ports.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BmcLan {
    pub channel: u8,
    pub mac: String,
    /// `static`, `dhcp`, `firmware`, `other`.
    pub source: String,
    pub address: Option<String>,
    pub netmask: Option<String>,
    pub gateway: Option<String>,
    pub vlan: Option<u16>,
    pub v6_addresses: Vec<String>,
}

/// The field replaceable unit number 0, most often the system itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Fru {
    pub chassis_part: String,
    pub chassis_serial: String,
    pub board_manufacturer: String,
    pub board_product: String,
    pub board_serial: String,
    pub board_part: String,
    pub product_manufacturer: String,
    pub product_name: String,
    pub product_part: String,
    pub product_version: String,
    pub product_serial: String,
    pub asset_tag: String,
}

/// A sensor and what it said.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BmcSensor {
    pub number: u8,
    pub name: String,
    /// `temperature`, `voltage`, `fan`, ...
    pub kind: String,
    /// `degrees C`, `RPM`, `Volts`, ...; empty for a sensor that only has states.
    pub unit: String,
    /// Absent if it has none now, or one that cannot be converted; then `unread` tells why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Bits of a sensor that has states, as it gives them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<u16>,
    pub state: SensorState,
    pub thresholds: Thresholds,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SensorState {
    Ok,
    NonCritical,
    Critical,
    NonRecoverable,
    /// It has no thresholds, or could not be read.
    #[default]
    #[serde(other)]
    Unknown,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Thresholds {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_non_recoverable: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_critical: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_non_critical: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_non_critical: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_critical: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_non_recoverable: Option<f64>,
}

/// The system event log: how full it is, and its newest entries.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EventLog {
    pub entries: u32,
    pub free_bytes: u32,
    /// Events were lost for want of room.
    pub overflow: bool,
    pub newest: Vec<LogEntry>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogEntry {
    pub record: u16,
    /// Seconds since 1970 by the BMC's clock; before its clock was set, since its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<u32>,
    /// `temperature`, `memory`, ...
    pub kind: String,
    pub sensor: u8,
    pub text: String,
    /// All 16 bytes, in hex.
    pub raw: String,
}
