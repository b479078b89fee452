//! How fast a disk is along its length. A slow region is a finding.

use std::time::Instant;

use crate::single::mib_per_second;

/// Into how many parts a disk is divided.
pub(super) const PARTS: u64 = 32;

/// Takes the time in which each part was written. What is told comes nearly in order.
#[derive(Debug)]
pub(super) struct SpeedProfile {
    part: u64,
    since: Instant,
    bytes: u64,
    pub(super) mib_per_second: Vec<f64>,
}

impl SpeedProfile {
    pub(super) fn of(bytes: u64) -> Self {
        Self { part: bytes.div_ceil(PARTS).max(1), since: Instant::now(), bytes: 0, mib_per_second: Vec::new() }
    }

    pub(super) fn add(&mut self, bytes: u64, is_last: bool) {
        self.bytes += bytes;
        if self.bytes >= self.part || is_last {
            self.mib_per_second.push(mib_per_second(self.bytes, self.since.elapsed()));
            (self.since, self.bytes) = (Instant::now(), 0);
        }
    }
}

/// Parts that took more than three times the median.
pub(super) fn slow_parts(profile: &[f64]) -> Vec<usize> {
    let mut sorted = profile.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(median) = sorted.get(sorted.len() / 2) else { return Vec::new() };
    profile.iter().enumerate().filter(|(_, rate)| **rate * 3.0 < *median).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_region_is_a_finding() {
        assert!(slow_parts(&[]).is_empty());
        assert!(slow_parts(&[100.0, 90.0, 110.0]).is_empty());
        assert_eq!(slow_parts(&[100.0, 20.0, 110.0, 105.0]), [1]);
    }

    #[test]
    fn every_byte_belongs_to_a_part() {
        let mut profile = SpeedProfile::of(1000);
        (1..=100).for_each(|n| profile.add(10, n == 100));
        assert!((25..=32).contains(&profile.mib_per_second.len()), "{profile:?}");
    }
}
