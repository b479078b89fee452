//! One machine's value among those of other machines of the same model. Pure: who collects the values is not this
//! module's matter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limit::{Limit, LimitFrom};

/// Fewer say nothing about what is usual.
pub const FEWEST: usize = 5;

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// Percent of the others that are below it; of equal ones half count.
    pub percentile: f64,
    /// How many others there are.
    pub others: usize,
    pub median: f64,
    /// Median distance from the median: half of the others are nearer.
    pub spread: f64,
}

/// `None` with fewer than [`FEWEST`] others, or for what is no number.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "numbers of machines")]
pub fn standing(value: f64, others: &[f64]) -> Option<Standing> {
    let (median, spread, others) = middle(others)?;
    if !value.is_finite() {
        return None;
    }
    let below = others.iter().filter(|o| **o < value).count() as f64;
    let equal = others.iter().filter(|o| **o == value).count() as f64;
    let percentile = (below + equal / 2.0) * 100.0 / others.len() as f64;
    Some(Standing { percentile, others: others.len(), median, spread })
}

/// What a measurement should keep to in order to be like the others: within `times` the spread around the median, and
/// never nearer than `slack` of the median (0.05: 5 %), since machines may be all but equal.
#[must_use]
pub fn limit(measurement: &str, others: &[f64], times: f64, slack: f64) -> Option<Limit> {
    let (median, spread, _) = middle(others)?;
    let room = (times * spread).max(slack * median.abs());
    room.is_finite().then(|| Limit {
        measurement: measurement.to_owned(),
        place: None,
        min: Some(median - room),
        max: Some(median + room),
        from: LimitFrom::Fleet,
    })
}

fn middle(others: &[f64]) -> Option<(f64, f64, Vec<f64>)> {
    let others: Vec<f64> = others.iter().copied().filter(|o| o.is_finite()).collect();
    if others.len() < FEWEST {
        return None;
    }
    let centre = median(others.clone());
    let spread = median(others.iter().map(|o| (o - centre).abs()).collect());
    Some((centre, spread, others))
}

/// Of at least one value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slow_machine_stands_at_the_bottom() {
        let others = [100.0, 101.0, 99.0, 100.0, 102.0, 98.0];
        let slow = standing(80.0, &others).expect("enough others");
        assert_eq!((slow.percentile, slow.others, slow.median, slow.spread), (0.0, 6, 100.0, 1.0));
        assert_eq!(standing(100.0, &others).expect("enough").percentile, 50.0);
        assert_eq!(standing(200.0, &others).expect("enough").percentile, 100.0);
        assert_eq!(standing(100.0, &others[..4]), None);
        assert_eq!(standing(f64::NAN, &others), None);
        let limit = limit("memory.bandwidth.read", &others, 4.0, 0.05).expect("enough");
        assert_eq!((limit.min, limit.max), (Some(95.0), Some(105.0)));
        assert!(!limit.allows(80.0) && limit.allows(96.0));
    }

    proptest! {
        #[test]
        fn more_is_never_lower(values in prop::collection::vec(-1e9..1e9_f64, 5..40), a in -1e9..1e9_f64, b in -1e9..1e9_f64) {
            let (low, high) = (a.min(b), a.max(b));
            let at = |v| standing(v, &values).expect("enough").percentile;
            prop_assert!(at(low) <= at(high));
            prop_assert!((0.0..=100.0).contains(&at(low)));
        }
    }
}
