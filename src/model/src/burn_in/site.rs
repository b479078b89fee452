//! What the controller tells of burn-ins: a report, and where it stands among machines of the same model.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fleet::{Standing, standing};
use super::measurement::Measurement;
use super::report::BurnInReport;
use super::verdict::Worst;
use crate::id::{NodeId, RunId};

/// Of one machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BurnInView {
    pub run: RunId,
    pub node: NodeId,
    /// The machine's name.
    pub name: String,
    pub serial_number: String,
    pub maker: String,
    pub product: String,
    /// When the controller had it.
    pub stored: Timestamp,
    pub report: BurnInReport,
    /// Restarts that its order asked for afterwards, in turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reboots: Vec<RebootRound>,
    /// One for each measurement that enough other machines have too.
    #[serde(default)]
    pub compared: Vec<Compared>,
}

/// A restart, and the look at the hardware after it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RebootRound {
    /// Counts from 1.
    pub number: usize,
    /// From the agent's leave to restart until it had looked at the hardware again, by the controller's clock.
    pub seconds: Option<f64>,
    /// Outcome of the look, or the state of the order's task.
    pub outcome: String,
    /// What the look found to be other hardware than before the restart, the graver first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

impl RebootRound {
    /// It came back, and was what it had been.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.outcome == "verified" && self.changes.is_empty()
    }

    /// It did not come back as it was. What is still to come, on its way, or given up is neither good nor bad.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        !self.changes.is_empty()
            || !["verified", "queued", "granted", "running", "cancelled"].contains(&self.outcome.as_str())
    }
}

impl BurnInView {
    /// Every limit was kept, and no restart ended badly.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.report.verdict == Worst::Passed && !self.reboots.iter().any(RebootRound::is_bad)
    }
}

/// Which reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BurnInsQuery {
    /// The newest five when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A measurement among the same of other machines.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Compared {
    /// Number of the step in the report.
    pub step: usize,
    pub measurement: String,
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    pub value: f64,
    pub unit: String,
    #[serde(flatten)]
    pub standing: Standing,
    /// Those of the others, ascending; for a histogram.
    pub values: Vec<f64>,
}

/// Compares what steps of the same kind and name measured. Places are not compared by name: a disk is `sda` here and
/// `sdb` there, and every core is to be like every other one; so each machine counts once, with the median of its places.
#[must_use]
pub fn among_its_kind(report: &BurnInReport, others: &[&BurnInReport]) -> Vec<Compared> {
    let mut compared = Vec::new();
    for step in &report.steps {
        for measurement in &step.measurements {
            let of = |other: &&BurnInReport| {
                let same = other.steps.iter().find(|s| s.step == step.step && s.name == step.name)?;
                median(same.measurements.iter().filter(|m| is_same(m, measurement)).map(|m| m.value).collect())
            };
            let mut values: Vec<f64> = others.iter().filter_map(of).collect();
            values.sort_by(f64::total_cmp);
            if let Some(standing) = standing(measurement.value, &values) {
                compared.push(Compared {
                    step: step.number,
                    measurement: measurement.name.clone(),
                    place: measurement.place.clone(),
                    value: measurement.value,
                    unit: measurement.unit.clone(),
                    standing,
                    values,
                });
            }
        }
    }
    compared
}

fn is_same(one: &Measurement, other: &Measurement) -> bool {
    one.name == other.name && one.unit == other.unit
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|v| v.is_finite());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rates: &[f64], step: &str) -> BurnInReport {
        let measurements: Vec<serde_json::Value> = (0..)
            .zip(rates)
            .map(|(n, rate)| serde_json::json!({"name": "disk.read.bandwidth", "unit": "bytes/s", "value": rate, "where": format!("sd{n}")}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "version": 1, "scenario": "x", "scenario_digest": "d", "began": "2026-01-01T00:00:00Z",
            "ended": "2026-01-01T00:01:00Z", "verdict": "passed",
            "steps": [{"number": 0, "name": step, "step": "disk", "began": "2026-01-01T00:00:00Z",
                "ended": "2026-01-01T00:01:00Z", "seconds": 60.0, "verdict": {"is": "passed"}, "measurements": measurements}],
        }))
        .expect("a report")
    }

    #[test]
    fn each_machine_counts_once_and_only_the_same_work() {
        let others: Vec<BurnInReport> = (0..6).map(|n| report(&[100.0 + f64::from(n), 1.0, 900.0], "disk")).collect();
        let elsewhere = report(&[5.0], "another step");
        let refs: Vec<&BurnInReport> = others.iter().chain([&elsewhere]).collect();
        let compared = among_its_kind(&report(&[50.0, 200.0], "disk"), &refs);
        assert_eq!(compared.len(), 2);
        assert_eq!((compared[0].standing.others, compared[0].standing.percentile), (6, 0.0));
        assert_eq!((compared[1].standing.percentile, compared[1].place.as_deref()), (100.0, Some("sd1")));
        assert_eq!(compared[0].values, [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]);
        assert!(among_its_kind(&report(&[50.0], "disk"), &refs[..4]).is_empty(), "four say nothing");
    }
}
