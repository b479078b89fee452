//! A number with its unit and the part of the machine it was taken at.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::series::Series;
use crate::units::Bytes;

/// Units as they are written. Commands may bring others.
pub mod unit {
    pub const COUNT: &str = "count";
    pub const PERCENT: &str = "percent";
    pub const BYTES: &str = "bytes";
    pub const BYTES_PER_SECOND: &str = "bytes/s";
    pub const PER_SECOND: &str = "1/s";
    pub const MEGAHERTZ: &str = "MHz";
    pub const CELSIUS: &str = "°C";
    pub const SECONDS: &str = "s";
    pub const MICROSECONDS: &str = "us";
    pub const VOLTS: &str = "V";
    pub const AMPERES: &str = "A";
    pub const WATTS: &str = "W";
    pub const RPM: &str = "rpm";
    pub const BITS_PER_SECOND: &str = "bit/s";
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Measurement {
    pub name: String,
    pub unit: String,
    pub value: f64,
    /// `core 3`, `node 0`, a disk's or an interface's name, a sensor.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distribution: Option<Distribution>,
    /// Along the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<DeviceMap>,
}

/// How values are spread.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Distribution {
    pub count: u64,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
    /// Percentile and value, ascending: `[99.9, 1200.0]`.
    #[serde(default)]
    pub percentiles: Vec<(f64, f64)>,
    /// Upper end of a bucket and how many are in it, ascending; at most 64.
    #[serde(default)]
    pub buckets: Vec<(f64, u64)>,
}

/// Values along a device; at most 256 regions of equal length.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DeviceMap {
    pub length: Bytes,
    /// Offset of the region, lowest value, median.
    pub regions: Vec<(Bytes, f64, f64)>,
}

impl Measurement {
    /// # Panics
    /// In development, for what is no finite number: such a value is left out by whoever measured it, and said.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: impl Into<String>, value: f64) -> Self {
        debug_assert!(value.is_finite(), "a measurement is a number");
        Self { name: name.into(), unit: unit.into(), value, ..Self::default() }
    }

    /// How often something happened.
    #[must_use]
    pub fn count(name: impl Into<String>, count: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "exact below 2^53, and beyond it one more or less is no matter")]
        Self::new(name, unit::COUNT, count as f64)
    }

    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    #[must_use]
    pub fn with_series(mut self, series: Series) -> Self {
        self.series = Some(series).filter(|s| !s.points.is_empty());
        self
    }

    /// `cpu.errors of core 3`
    #[must_use]
    pub fn described(&self) -> String {
        match &self.place {
            Some(place) => format!("{} of {place}", self.name),
            None => self.name.clone(),
        }
    }
}
