//! Burn-in: stress before use, as a measurement and not as a log.
//!
//! A *scenario* is data: steps with durations, parameters and limits. Each step yields *measurements*; *limits* on them
//! make its *verdict*, and nothing else does: a step that finds a wrong bit counts it, and the limit of zero decides. The
//! *report* keeps every number, so that it can be judged again, and compared with other machines, later.

mod catalogue;
mod disk;
pub mod external;
pub mod fleet;
mod judge;
mod limit;
mod measurement;
mod network;
pub mod pairing;
pub mod partner;
mod pattern;
mod report;
mod scenario;
mod seconds;
mod series;
mod shipped;
pub mod site;
mod step;
mod terms;
mod verdict;
pub mod words;

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use self::catalogue::{COMMON, Known};
pub use self::disk::{DiskSelfTest, DiskStep};
pub use self::judge::judge;
pub use self::limit::{Limit, LimitFrom};
pub use self::measurement::{DeviceMap, Distribution, Measurement, unit};
pub use self::network::{DEFAULT_PORT, LinkWith, NetworkRole, NetworkStep};
pub use self::pattern::matches;
pub use self::report::{BurnInReport, StepReport};
pub use self::scenario::{Entry, Parallel, Scenario};
pub use self::seconds::Seconds;
pub use self::series::Series;
pub use self::shipped::{SHIPPED, shipped};
pub use self::step::{CpuStep, MemoryPattern, MemoryStep, PauseStep, SensorsStep, Step, StepKind};
pub use self::terms::LinkTerms;
pub use self::verdict::{Breach, Verdict, Worst};

/// Carries a scenario out on this machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurnInTask {
    pub scenario: ScenarioChoice,
}

/// The name of a scenario that every build has, or one's own.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(untagged)]
pub enum ScenarioChoice {
    Named(String),
    Inline(Box<Scenario>),
}

impl<'de> Deserialize<'de> for ScenarioChoice {
    // By hand, so that a mistake is named: of an untagged enum one learns only that nothing fits.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Self::Named(name)),
            value => serde_json::from_value(value).map(Self::Inline).map_err(D::Error::custom),
        }
    }
}

impl fmt::Display for ScenarioChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Inline(scenario) => f.write_str(&scenario.name),
        }
    }
}

impl BurnInTask {
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { scenario: ScenarioChoice::Named(name.to_owned()) }
    }

    /// The scenario itself.
    ///
    /// # Errors
    /// When no scenario of that name is shipped.
    pub fn scenario(&self) -> Result<Cow<'_, Scenario>, String> {
        match &self.scenario {
            ScenarioChoice::Inline(scenario) => Ok(Cow::Borrowed(scenario)),
            ScenarioChoice::Named(name) => shipped(name).map(Cow::Owned).ok_or_else(|| {
                let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
                format!("scenario: there is none named {name:?}; shipped are {}", names.join(", "))
            }),
        }
    }

    /// What can be said to be wrong without looking at a machine.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.scenario()?.check()
    }

    /// Whether a step of it may lose somebody's data: by writing to disks, or by a program. Of a name that does not exist
    /// nothing is known, which is no permission.
    #[must_use]
    pub fn is_destructive(&self) -> bool {
        self.any(Step::is_destructive)
    }

    #[must_use]
    pub fn writes_disks(&self) -> bool {
        self.any(Step::writes_disks)
    }

    #[must_use]
    pub fn runs_programs(&self) -> bool {
        self.any(Step::runs_programs)
    }

    fn any(&self, what: impl Fn(&Step) -> bool) -> bool {
        self.scenario().map_or(true, |scenario| scenario.steps().any(what))
    }

    /// Hides what may be secret: the environment of commands, and what opens a port to a partner.
    pub(crate) fn redact(&mut self) {
        if let ScenarioChoice::Inline(scenario) = &mut self.scenario {
            scenario.redact();
        }
    }
}

#[cfg(test)]
mod tests;
