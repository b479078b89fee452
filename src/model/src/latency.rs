//! How long requests took: a histogram whose buckets grow with what they hold, so that microseconds and minutes fit into
//! a few kilobytes and every percentile is right within three percent.

use std::time::Duration;

use crate::burn_in::Distribution;

/// Each power of two is divided into so many buckets.
const PARTS: u64 = 32;
const PARTS_BITS: u32 = 5;
/// Every number of nanoseconds that 64 bits hold.
const BUCKETS: usize = (64 - 5 + 1) * 32;

/// Counts of durations.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    counts: Vec<u64>,
    total: u64,
    sum_ns: u128,
    min_ns: u64,
    max_ns: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, sum_ns: 0, min_ns: u64::MAX, max_ns: 0 }
    }
}

/// The bucket of a value: what is below 32 ns has one each, then 32 for every power of two.
fn bucket(ns: u64) -> usize {
    let high = ns.max(1).ilog2();
    let index = if high < PARTS_BITS {
        ns
    } else {
        let shift = high - PARTS_BITS;
        u64::from(shift) * PARTS + (ns >> shift)
    };
    usize::try_from(index).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let index = bucket as u64;
    if index < 2 * PARTS {
        return index;
    }
    let shift = index / PARTS - 1;
    let first = (index % PARTS + PARTS) << shift;
    first + ((1 << shift) - 1)
}

impl LatencyHistogram {
    pub fn record(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.sum_ns += u128::from(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.sum_ns += other.sum_ns;
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The longest, exactly.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (self.total > 0).then(|| Duration::from_nanos(self.max_ns))
    }

    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.sum_ns.checked_div(u128::from(self.total))?;
        Some(Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX)))
    }

    /// The time in which so many of a hundred requests were answered; never less than the truth, and at most 1/32 more.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        if self.total == 0 {
            return None;
        }
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among counts far below 2^52; what is out of range is clamped"
        )]
        let rank = ((self.total as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_nanos(upper(index).min(self.max_ns)));
            }
        }
        self.max()
    }

    /// In microseconds, as a measurement has it.
    #[must_use]
    pub fn distribution(&self) -> Option<Distribution> {
        const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];
        const BUCKETS: usize = 64;
        let us = |took: Duration| (took.as_secs_f64() * 1e7).round() / 10.0;
        Some(Distribution {
            count: self.total,
            min: us(Duration::from_nanos(self.min_ns)),
            mean: us(self.mean()?),
            max: us(self.max()?),
            percentiles: PERCENTILES.iter().filter_map(|p| Some((*p, us(self.percentile(*p)?)))).collect(),
            buckets: self.classes(BUCKETS).into_iter().map(|(upper, count)| (us(upper), count)).collect(),
        })
    }

    /// What there is to draw: up to so many classes in order, each the largest duration in it and how many it has. Classes
    /// are of equal width on a logarithmic scale.
    #[must_use]
    pub fn classes(&self, most: usize) -> Vec<(Duration, u64)> {
        let first = self.counts.iter().position(|count| *count > 0);
        let last = self.counts.iter().rposition(|count| *count > 0);
        let (Some(first), Some(last)) = (first, last) else { return Vec::new() };
        let width = (last - first + 1).div_ceil(most.max(1));
        let classes = self.counts[first..=last].chunks(width).enumerate();
        classes
            .map(|(n, counts)| {
                let end = (first + n * width + counts.len() - 1).min(last);
                (Duration::from_nanos(upper(end).min(self.max_ns)), counts.iter().sum())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "small numbers of a test"
    )]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(upper(index)), index, "its own largest");
            assert_eq!(bucket(upper(index) + 1), index + 1, "the next one begins there");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(upper(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn nothing_has_no_percentiles() {
        let empty = LatencyHistogram::default();
        assert!(empty.percentile(50.0).is_none() && empty.max().is_none() && empty.mean().is_none());
        assert!(empty.classes(10).is_empty());
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_list(mut times in prop::collection::vec(0u64..1 << 40, 1..400), percent in 0.0f64..=100.0) {
            let mut histogram = LatencyHistogram::default();
            let (mut halves, mut other) = (LatencyHistogram::default(), LatencyHistogram::default());
            for (n, ns) in times.iter().enumerate() {
                histogram.record(Duration::from_nanos(*ns));
                if n % 2 == 0 { &mut halves } else { &mut other }.record(Duration::from_nanos(*ns));
            }
            halves.merge(&other);
            times.sort_unstable();
            let rank = ((times.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, times.len());
            let exact = times[rank - 1];
            let found = histogram.percentile(percent).map_or(0, |d| d.as_nanos() as u64);
            prop_assert!(found >= exact && found - exact <= exact / 32, "{found} for {exact}");
            prop_assert_eq!(halves.percentile(percent), histogram.percentile(percent));
            prop_assert_eq!(histogram.max().map(|d| d.as_nanos() as u64), times.last().copied());
            let classes = histogram.classes(20);
            prop_assert!(classes.len() <= 20 && classes.is_sorted_by_key(|(upper, _)| *upper));
            prop_assert_eq!(classes.iter().map(|(_, n)| n).sum::<u64>(), times.len() as u64);
        }
    }
}
