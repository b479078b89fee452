//! What the limits say of a step, and of a whole burn-in.

use std::cmp::Ordering;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limit::{Limit, LimitFrom};
use super::measurement::Measurement;

/// Of one step.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Verdict {
    /// Every limit was kept.
    Passed,
    /// These limits were not.
    Failed { by: Vec<Breach> },
    /// Nobody can say, for these reasons. Never a pass.
    Inconclusive { because: Vec<String> },
    /// Nothing of it was done, for a reason that lies outside of this machine. Never a pass.
    Skipped { because: Vec<String> },
    /// From a newer writer.
    #[serde(other)]
    Unknown,
}

/// A limit and the value that it does not allow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Breach {
    pub limit: Limit,
    pub measurement: String,
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    pub value: f64,
    pub unit: String,
}

/// Of several steps the worst counts: passed, inconclusive, failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Worst {
    Passed,
    Failed,
    /// Also what an old reader makes of a word it does not know.
    #[serde(other)]
    Inconclusive,
}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> Ordering {
        let badness = |worst: &Self| match worst {
            Self::Passed => 0,
            Self::Inconclusive => 1,
            Self::Failed => 2,
        };
        badness(self).cmp(&badness(other))
    }
}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Verdict {
    #[must_use]
    pub fn worst(&self) -> Worst {
        match self {
            Self::Passed => Worst::Passed,
            Self::Failed { .. } => Worst::Failed,
            Self::Inconclusive { .. } | Self::Skipped { .. } | Self::Unknown => Worst::Inconclusive,
        }
    }

    /// For people. What was skipped counts as what could not be judged, and is told apart from it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Skipped { .. } => "skipped",
            other => other.worst().name(),
        }
    }

    /// In words, one per reason; none for a pass.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        match self {
            Self::Passed => Vec::new(),
            Self::Failed { by } => by.iter().map(Breach::to_string).collect(),
            Self::Inconclusive { because } | Self::Skipped { because } => because.clone(),
            Self::Unknown => vec!["the verdict is of a kind that this version does not know".into()],
        }
    }
}

impl Worst {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Inconclusive => "inconclusive",
            Self::Failed => "failed",
        }
    }
}

impl Breach {
    #[must_use]
    pub fn of(limit: &Limit, measurement: &Measurement) -> Self {
        Self {
            limit: limit.clone(),
            measurement: measurement.name.clone(),
            place: measurement.place.clone(),
            value: measurement.value,
            unit: measurement.unit.clone(),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.measurement)?;
        if let Some(place) = &self.place {
            write!(f, " of {place}")?;
        }
        let from = match self.limit.from {
            LimitFrom::Given => "",
            LimitFrom::Default => ", by default",
            LimitFrom::Fleet => ", as other machines of this model are",
        };
        write!(f, " is {} {} ({} allowed{from})", self.value, self.unit, self.limit)
    }
}
