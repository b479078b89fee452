//! A value over time, of bounded size however long the step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// At most [`Series::MOST`] points. Neighbours are joined when there are more, and each point keeps the lowest and the
/// highest of what it stands for, so that a peak of one second is seen in a plot of a week.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Seconds since the step began, lowest, highest.
    pub points: Vec<(f64, f64, f64)>,
    /// How many samples a point stands for. The last may stand for fewer.
    #[serde(default = "one")]
    pub samples_per_point: u32,
    /// How many of them the last point has.
    #[serde(skip)]
    in_last: u32,
}

fn one() -> u32 {
    1
}

impl Series {
    pub const MOST: usize = 300;

    /// Takes a sample; what is no number is not taken.
    pub fn push(&mut self, seconds: f64, value: f64) {
        if !value.is_finite() || !seconds.is_finite() {
            return;
        }
        self.samples_per_point = self.samples_per_point.max(1);
        if let Some(last) = self.points.last_mut()
            && self.in_last < self.samples_per_point
        {
            (last.1, last.2) = (last.1.min(value), last.2.max(value));
            self.in_last += 1;
            return;
        }
        if self.points.len() == Self::MOST {
            self.points = self
                .points
                .chunks(2)
                .map(|pair| pair.iter().fold(pair[0], |(t, low, high), p| (t, low.min(p.1), high.max(p.2))))
                .collect();
            self.samples_per_point = self.samples_per_point.saturating_mul(2);
        }
        self.points.push((seconds, value, value));
        self.in_last = 1;
    }

    #[must_use]
    pub fn lowest(&self) -> Option<f64> {
        self.points.iter().map(|p| p.1).min_by(f64::total_cmp)
    }

    #[must_use]
    pub fn highest(&self) -> Option<f64> {
        self.points.iter().map(|p| p.2).max_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_peak_is_lost_and_nothing_grows(n in 0_u32..5000, peak in 0_u32..5000) {
            let mut series = Series::default();
            for i in 0..n {
                series.push(f64::from(i), if i == peak { 1e6 } else { f64::from(i % 7) });
            }
            prop_assert!(series.points.len() <= Series::MOST);
            prop_assert!(series.points.is_sorted_by(|a, b| a.0 < b.0));
            prop_assert_eq!(series.highest() == Some(1e6), peak < n);
            prop_assert_eq!(series.lowest().is_some(), n > 0);
            let stands_for = u64::from(series.samples_per_point) * series.points.len() as u64;
            prop_assert!(stands_for >= u64::from(n));
        }
    }

    #[test]
    fn what_is_no_number_is_not_taken() {
        let mut series = Series::default();
        series.push(0.0, f64::NAN);
        series.push(1.0, f64::INFINITY);
        assert!(series.points.is_empty());
    }
}
