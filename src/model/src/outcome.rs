//! How a task ends. There are four ways and no fifth.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::plan::DiskIdentity;

/// The end of every task on a device. Ordered from best to worst, so that over several devices the maximum counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done, and seen to be done.
    Verified,
    /// Failed before the first change: the device is as it was.
    FailedUnchanged,
    /// Failed after a change: the device is not as it was.
    FailedChanged,
    /// Nobody can say. Also what an old reader makes of an outcome it does not know.
    #[serde(other)]
    Unknown,
}

impl Outcome {
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Verified
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::FailedUnchanged => "failed_unchanged",
            Self::FailedChanged => "failed_changed",
            Self::Unknown => "unknown",
        }
    }

    /// What an operator may assume about the device now.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Verified => "done, and seen to be done",
            Self::FailedUnchanged => "failed; nothing was changed",
            Self::FailedChanged => "failed; the device was changed and must not be trusted",
            Self::Unknown => "nobody can say what was done; look at the device before using it",
        }
    }
}

/// Whether a verified task had anything to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    Changed,
    AlreadySo,
}

/// What became of one device of a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceResult {
    pub identity: DiskIdentity,
    /// The kernel's name during this run, for people reading along.
    pub seen_as: String,
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// The method that was really used, in words: never a weaker one than asked without saying so.
    pub used: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Figures of this task's kind: bytes, digests, sample seed, rates.
    #[serde(default)]
    pub facts: Value,
}

/// The end of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaskResult {
    pub outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
    /// The method the task asked for.
    pub asked: String,
    /// The method that was used.
    pub used: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceResult>,
    /// What the task yields besides its outcome (an inventory, for instance).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

impl TaskResult {
    /// A task without devices that was done and seen to be done.
    #[must_use]
    pub fn verified(asked: &str, used: &str, changed: Changed) -> Self {
        Self {
            outcome: Outcome::Verified,
            changed: Some(changed),
            asked: asked.to_owned(),
            used: used.to_owned(),
            fault: None,
            devices: Vec::new(),
            output: None,
        }
    }

    /// A task that failed as a whole.
    #[must_use]
    pub fn failed(asked: &str, outcome: Outcome, fault: Fault) -> Self {
        Self {
            outcome,
            changed: None,
            asked: asked.to_owned(),
            used: "none".to_owned(),
            fault: Some(fault),
            devices: Vec::new(),
            output: None,
        }
    }

    /// The sum over several devices: the worst outcome, and its fault. No device at all is no success.
    #[must_use]
    pub fn from_devices(asked: &str, devices: Vec<DeviceResult>) -> Self {
        let Some(worst) = devices.iter().max_by_key(|d| d.outcome) else {
            return Self::failed(
                asked,
                Outcome::FailedUnchanged,
                Fault::new(crate::fault::FaultCode::NoMatchingDisk, "the task names no device"),
            );
        };
        let changed = worst.outcome.is_success().then(|| {
            if devices.iter().any(|d| d.changed == Some(Changed::Changed)) {
                Changed::Changed
            } else {
                Changed::AlreadySo
            }
        });
        let mut used: Vec<&str> = devices.iter().map(|d| d.used.as_str()).collect();
        used.dedup();
        Self {
            outcome: worst.outcome,
            changed,
            asked: asked.to_owned(),
            used: used.join("; "),
            fault: worst.fault.clone(),
            output: None,
            devices,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_device_counts() {
        assert!(Outcome::Unknown > Outcome::FailedChanged);
        assert!(Outcome::FailedChanged > Outcome::FailedUnchanged);
        assert!(Outcome::FailedUnchanged > Outcome::Verified);
        assert!(!TaskResult::from_devices("wipe", Vec::new()).outcome.is_success());
    }

    #[test]
    fn an_unknown_outcome_reads_as_unknown_never_as_success() {
        let read: Outcome = serde_json::from_str("\"verified_by_magic\"").expect("lenient");
        assert_eq!(read, Outcome::Unknown);
    }
}
