//! What a measurement may be.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::measurement::Measurement;
use super::pattern::matches;

/// Both ends belong to what is allowed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Name of the measurement; `*` stands for any characters.
    pub measurement: String,
    /// Only where this was measured (`core 3`, `node 0`, `coretemp/*`); everywhere when absent.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    #[serde(default, skip_serializing_if = "LimitFrom::is_given")]
    pub from: LimitFrom,
}

/// Who set a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitFrom {
    /// The scenario.
    #[default]
    Given,
    /// The step's own: it holds unless the scenario has one for the same measurement.
    Default,
    /// Machines of the same model.
    Fleet,
}

impl LimitFrom {
    fn is_given(&self) -> bool {
        *self == Self::Given
    }
}

impl Limit {
    /// At most this, as a step's own limit.
    #[must_use]
    pub fn default_max(measurement: &str, max: f64) -> Self {
        Self { measurement: measurement.into(), place: None, min: None, max: Some(max), from: LimitFrom::Default }
    }

    /// Whether it speaks of this measurement.
    #[must_use]
    pub fn covers(&self, measurement: &Measurement) -> bool {
        let place = measurement.place.as_deref().unwrap_or_default();
        matches(&self.measurement, &measurement.name) && self.place.as_deref().is_none_or(|p| matches(p, place))
    }

    #[must_use]
    pub fn allows(&self, value: f64) -> bool {
        // Not the negation: what is no number is allowed by nothing.
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.measurement.is_empty() {
            return Err("measurement: the name is empty".into());
        }
        match (self.min, self.max) {
            (None, None) => Err(format!("{}: neither min nor max", self.measurement)),
            (min, max) if !min.is_none_or(f64::is_finite) || !max.is_none_or(f64::is_finite) => {
                Err(format!("{}: min and max are finite numbers", self.measurement))
            }
            (Some(min), Some(max)) if min > max => {
                Err(format!("{}: min {min} is above max {max}, which nothing can keep", self.measurement))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) => write!(f, "from {min} to {max}"),
            (Some(min), None) => write!(f, "at least {min}"),
            (None, Some(max)) => write!(f, "at most {max}"),
            (None, None) => f.write_str("anything"),
        }
    }
}
