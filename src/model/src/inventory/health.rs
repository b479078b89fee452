//! How a disk is, as far as it tells.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What follows from the figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    /// It works, and has lost something or is worn out: keep an eye on it.
    Suspect,
    /// It says itself that it fails, or its own test failed.
    Failing,
    /// It did not answer, or says nothing that can be judged.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Verdict {
    /// Nothing is worse because it is not known.
    #[must_use]
    pub fn is_worse_than(self, before: Self) -> bool {
        match self {
            Self::Failing => before != Self::Failing,
            Self::Suspect => matches!(before, Self::Good | Self::Unknown),
            Self::Good | Self::Unknown => false,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Suspect => "suspect",
            Self::Failing => "failing",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    Passed,
    Aborted,
    Failed,
    InProgress,
    #[default]
    #[serde(other)]
    Unknown,
}

/// The newest self-test of which the disk keeps a record.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SelfTest {
    /// `short`, `extended`, `conveyance`, `selective`, or the number that the disk gives.
    pub kind: String,
    pub outcome: TestOutcome,
    /// When it ended, in hours of power. ATA and SCSI disks count these in 16 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_hours: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad_lba: Option<u64>,
}

/// SMART, NVMe's log page 2 and SCSI's log pages under one set of names. What a disk does not tell is absent.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DiskHealth {
    pub verdict: Verdict,
    /// Why it is not `good`, one figure each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The disk's own summary: SMART status, NVMe critical warnings, SCSI informational exceptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passed: Option<bool>,
    /// What it warns of, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_c: Option<i32>,
    /// Above this it warns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature_limit_c: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_on_hours: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_cycles: Option<u64>,
    /// Power that went away without a word before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsafe_shutdowns: Option<u64>,
    /// Of the life that its maker expects; more than 100 is possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage_used: Option<u8>,
    /// Of the spare blocks, in per cent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_spare: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_spare_threshold: Option<u8>,
    /// Errors that reached the host, or data that could not be corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_errors: Option<u64>,
    /// Replaced by spare ones; for SCSI the grown defects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reallocated_sectors: Option<u64>,
    /// Unreadable, and replaced when they are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_sectors: Option<u64>,
    /// Between disk and host: the cable's, most often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_errors: Option<u64>,
    /// Bytes, as the disk counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_test: Option<SelfTest>,
}

impl DiskHealth {
    /// Of a disk that should tell and does not.
    #[must_use]
    pub fn unread(why: impl Into<String>) -> Self {
        Self { reasons: vec![why.into()], ..Self::default() }
    }

    /// With the verdict that follows from the figures.
    #[must_use]
    pub fn judged(mut self) -> Self {
        let mut failing = Vec::new();
        let mut suspect = Vec::new();
        if self.passed == Some(false) {
            failing.push(if self.warnings.is_empty() {
                "the disk says that it fails".to_owned()
            } else {
                format!("the disk warns: {}", self.warnings.join(", "))
            });
        }
        if let (Some(spare), Some(least)) = (self.available_spare, self.available_spare_threshold)
            && spare < least
        {
            failing.push(format!("available_spare is {spare} %, below its threshold of {least} %"));
        }
        if let Some(test) = self.self_test.as_ref().filter(|t| t.outcome == TestOutcome::Failed) {
            let place = test.first_bad_lba.map(|lba| format!(" at LBA {lba}")).unwrap_or_default();
            failing.push(format!("its last self-test ({}) failed{place}", test.kind));
        }
        for (count, what) in [(self.pending_sectors, "pending_sectors"), (self.media_errors, "media_errors")] {
            if let Some(count) = count.filter(|n| *n > 0) {
                suspect.push(format!("{what} is {count}"));
            }
        }
        if let Some(used) = self.percentage_used.filter(|used| *used >= 100) {
            suspect.push(format!("percentage_used is {used} %"));
        }
        if let (Some(now), Some(limit)) = (self.temperature_c, self.temperature_limit_c)
            && limit > 0
            && now >= limit
        {
            suspect.push(format!("temperature_c is {now}, its limit {limit}"));
        }
        // NVMe drives warn of heat and the like without failing.
        if self.passed != Some(false) {
            suspect.extend(self.warnings.iter().cloned());
        }
        self.verdict = if !failing.is_empty() {
            Verdict::Failing
        } else if !suspect.is_empty() {
            Verdict::Suspect
        } else if self.passed.is_some() {
            Verdict::Good
        } else {
            Verdict::Unknown
        };
        self.reasons = failing.into_iter().chain(suspect).collect();
        if self.verdict == Verdict::Unknown {
            self.reasons.push("the disk gives no summary of its health".to_owned());
        }
        self
    }
}

/// A format that an NVMe namespace can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BlockFormat {
    pub index: u8,
    pub bytes: u32,
    pub metadata: u16,
    /// 0 is the best.
    pub performance: u8,
    pub in_use: bool,
}

/// A namespace of the same NVMe controller, attached or not.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NvmeNamespace {
    pub id: u32,
    pub size: crate::units::Bytes,
    /// A disk of this machine, or one that nobody can read until it is attached.
    pub attached: bool,
    /// Whether it is the disk that this stands with.
    pub this: bool,
    pub formats: Vec<BlockFormat>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_the_figures_it_follows_from() {
        let good = DiskHealth {
            passed: Some(true),
            available_spare: Some(100),
            available_spare_threshold: Some(10),
            reallocated_sectors: Some(8),
            temperature_c: Some(35),
            temperature_limit_c: Some(70),
            ..DiskHealth::default()
        };
        assert_eq!((good.clone().judged().verdict, good.clone().judged().reasons), (Verdict::Good, vec![]));
        let test =
            SelfTest { kind: "short".into(), outcome: TestOutcome::Failed, first_bad_lba: Some(7), at_hours: None };
        for (health, verdict, word) in [
            (DiskHealth { passed: Some(false), ..good.clone() }, Verdict::Failing, "says that it fails"),
            (DiskHealth { available_spare: Some(9), ..good.clone() }, Verdict::Failing, "available_spare is 9 %"),
            (DiskHealth { self_test: Some(test), ..good.clone() }, Verdict::Failing, "at LBA 7"),
            (DiskHealth { pending_sectors: Some(3), ..good.clone() }, Verdict::Suspect, "pending_sectors is 3"),
            (DiskHealth { percentage_used: Some(104), ..good.clone() }, Verdict::Suspect, "104 %"),
            (DiskHealth { temperature_c: Some(71), ..good.clone() }, Verdict::Suspect, "its limit 70"),
            (DiskHealth { warnings: vec!["it is too hot".into()], ..good.clone() }, Verdict::Suspect, "too hot"),
            (DiskHealth { passed: None, ..good.clone() }, Verdict::Unknown, "no summary"),
            (DiskHealth::default(), Verdict::Unknown, "no summary"),
        ] {
            let judged = health.judged();
            assert_eq!(judged.verdict, verdict, "{judged:?}");
            assert!(judged.reasons.iter().any(|r| r.contains(word)), "{judged:?}");
        }
        assert!(Verdict::Failing.is_worse_than(Verdict::Suspect) && Verdict::Suspect.is_worse_than(Verdict::Good));
        assert!(!Verdict::Unknown.is_worse_than(Verdict::Good) && !Verdict::Suspect.is_worse_than(Verdict::Failing));
    }
}
