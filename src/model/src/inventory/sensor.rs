//! What monitoring chips measure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SensorKind {
    Temperature,
    Fan,
    Voltage,
    Current,
    Power,
    Energy,
    Humidity,
    #[default]
    #[serde(other)]
    Unknown,
}

impl SensorKind {
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Temperature => "°C",
            Self::Fan => "rpm",
            Self::Voltage => "V",
            Self::Current => "A",
            Self::Power => "W",
            Self::Energy => "J",
            Self::Humidity => "%",
            Self::Unknown => "",
        }
    }
}

/// One of the kernel's `hwmon` channels. Limits are the chip's own.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Sensor {
    /// `coretemp`, `nvme`, `nct6775`, ...
    pub chip: String,
    /// What the chip is, where the kernel says: a PCI address, a disk, `coretemp.0`.
    pub device: Option<String>,
    /// `temp1`
    pub channel: String,
    /// `Package id 0`
    pub label: Option<String>,
    pub kind: SensorKind,
    pub value: f64,
    /// °C, rpm, V, A, W, J or %.
    pub unit: String,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub critical: Option<f64>,
    pub alarm: Option<bool>,
}
