//! A scenario: steps one after the other, some of them side by side.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::step::{Step, StepKind};
use crate::plan::hex;

/// The version of the format.
const VERSION: u32 = 1;
const MOST_STEPS: usize = 256;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// 1
    pub version: u32,
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Ends all of it at the first limit that is broken by something found, such as a wrong bit. Otherwise it goes on,
    /// and tells everything at its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop_on_first_fault: bool,
    pub steps: Vec<Entry>,
}

/// A step, or several side by side.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(untagged)]
pub enum Entry {
    Parallel(Parallel),
    One(Box<Step>),
}

/// Steps that begin together. The next begins when all of them have ended.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parallel {
    pub parallel: Vec<Step>,
}

impl<'de> Deserialize<'de> for Entry {
    // By hand, so that a mistake is named: of an untagged enum one learns only that nothing fits.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.get("parallel").is_some() {
            serde_json::from_value(value).map(Self::Parallel).map_err(D::Error::custom)
        } else {
            serde_json::from_value(value).map(|step| Self::One(Box::new(step))).map_err(D::Error::custom)
        }
    }
}

impl Entry {
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        match self {
            Self::Parallel(group) => &group.parallel,
            Self::One(step) => std::slice::from_ref(step),
        }
    }
}

impl Scenario {
    /// # Errors
    /// What is wrong with the text, with the place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    /// All steps, in order; a step's place in it is its number in the report.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flat_map(Entry::steps)
    }

    /// How long it takes if no step ends early, in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        let longest = |entry: &Entry| entry.steps().iter().map(|s| u64::from(s.duration.0)).max().unwrap_or(0);
        self.steps.iter().map(longest).sum()
    }

    /// Which scenario it is, whatever its name: two with one digest are the same work.
    #[must_use]
    pub fn digest(&self) -> String {
        // Fields are written in the order of their declaration and maps are sorted, so the text is the same every time.
        serde_json::to_vec(self).map(|text| hex(&Sha256::digest(text))).unwrap_or_default()
    }

    /// # Errors
    /// Whatever can be said to be wrong without a machine, with the step.
    pub fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("scenario: version {} is not {VERSION}, the one that is understood", self.version));
        }
        if self.name.is_empty() || self.name.chars().count() > 64 || self.name.chars().any(char::is_control) {
            return Err("scenario: name: 1 to 64 printable characters".into());
        }
        if let Some(i) = self.steps.iter().position(|entry| entry.steps().is_empty()) {
            return Err(format!("steps[{i}]: parallel: no step"));
        }
        let n = self.steps().count();
        if n == 0 || n > MOST_STEPS {
            return Err(format!("scenario: {n} steps, which is not 1 to {MOST_STEPS}"));
        }
        for (i, entry) in self.steps.iter().enumerate() {
            let steps = entry.steps();
            for step in steps {
                step.check().map_err(|what| format!("steps[{i}] ({}): {what}", step.title()))?;
            }
            // Both would take nearly all of what is free.
            if steps.iter().filter(|s| matches!(&s.kind, StepKind::Memory(m) if m.size.is_none())).count() > 1 {
                return Err(format!("steps[{i}]: two memory steps side by side need a size each"));
            }
        }
        Ok(())
    }

    pub(super) fn redact(&mut self) {
        let steps = self.steps.iter_mut().flat_map(|entry| match entry {
            Entry::Parallel(group) => group.parallel.iter_mut(),
            Entry::One(step) => std::slice::from_mut(&mut **step).iter_mut(),
        });
        for step in steps {
            match &mut step.kind {
                StepKind::Command(command) => {
                    for value in command.environment.values_mut() {
                        *value = format!("({} bytes, not shown)", value.len());
                    }
                }
                StepKind::Network(network) => network.redact(),
                _ => {}
            }
        }
    }
}
