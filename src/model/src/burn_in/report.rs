//! What a burn-in found: the output of its task. Read leniently.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limit::Limit;
use super::measurement::Measurement;
use super::verdict::{Verdict, Worst};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BurnInReport {
    pub version: u32,
    pub scenario: String,
    /// `Scenario::digest`: which work it was, whatever its name.
    pub scenario_digest: String,
    /// By the machine's clock.
    pub began: Timestamp,
    pub ended: Timestamp,
    pub verdict: Worst,
    /// Why it is not `passed`, with the step, one per reason.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// How often the agent was restarted in the middle of it.
    #[serde(default)]
    pub restarts: u32,
    pub steps: Vec<StepReport>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StepReport {
    /// Counts from 0 through the whole scenario.
    pub number: usize,
    pub name: String,
    /// Its kind, as in the scenario: `cpu`, `memory`, ...
    pub step: String,
    pub began: Timestamp,
    pub ended: Timestamp,
    /// By the kernel's clock, which nobody sets.
    pub seconds: f64,
    pub verdict: Verdict,
    #[serde(default = "yes")]
    pub required: bool,
    /// All that were applied: the scenario's and the step's own.
    #[serde(default)]
    pub limits: Vec<Limit>,
    pub measurements: Vec<Measurement>,
    /// What could not be measured, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// What is worth knowing: places of wrong bits, lines of the kernel's log, a restart in its middle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// What a program printed, its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

fn yes() -> bool {
    true
}

impl BurnInReport {
    pub const VERSION: u32 = 1;

    /// The worst of the steps that count, and why.
    #[must_use]
    pub fn conclude(steps: &[StepReport]) -> (Worst, Vec<String>) {
        // A fault is one wherever it was found; only that nothing could be found out is excused.
        let counts = |s: &&StepReport| s.required || s.verdict.worst() == Worst::Failed;
        let worst = steps.iter().filter(counts).map(|s| s.verdict.worst()).max().unwrap_or(Worst::Inconclusive);
        let mut reasons: Vec<String> = steps
            .iter()
            .filter(counts)
            .filter(|s| s.verdict.worst() == worst && worst != Worst::Passed)
            .flat_map(|s| s.verdict.reasons().into_iter().map(move |reason| format!("{}: {reason}", s.name)))
            .collect();
        if worst == Worst::Inconclusive && reasons.is_empty() {
            reasons.push("no step came to a verdict".into());
        }
        (worst, reasons)
    }
}
