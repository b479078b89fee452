//! How fast a disk is along its length: a slow region is a finding, long before anything fails in it.

use std::time::{Duration, Instant};

/// Regions of a map, at most.
pub(super) const REGIONS: u64 = 256;
/// Parts of a region whose rates give its minimum and its median.
const PARTS: u64 = 4;

/// One region of the disk.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Bytes per second of the slowest of its parts, and of the one in the middle.
    pub(super) slowest: f64,
    pub(super) median: f64,
}

/// Takes what was moved, piece by piece, in nearly the order of the disk.
#[derive(Debug)]
pub(super) struct SpeedMap {
    begin: u64,
    region: u64,
    part: u64,
    since: Instant,
    bytes: u64,
    place: u64,
    rates: Vec<f64>,
    regions: Vec<Region>,
}

impl SpeedMap {
    /// Of `length` bytes from `begin`, moved in pieces of `chunk`: no part is smaller than a piece.
    pub(super) fn new(begin: u64, length: u64, chunk: u64) -> Self {
        let part = length.div_ceil(REGIONS * PARTS).max(1).next_multiple_of(chunk);
        Self {
            begin,
            region: part * PARTS,
            part,
            since: Instant::now(),
            bytes: 0,
            place: begin,
            rates: Vec::new(),
            regions: Vec::new(),
        }
    }

    /// So many bytes more were moved by `now`.
    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        if self.bytes >= self.part {
            self.end_part(now);
        }
    }

    fn end_part(&mut self, now: Instant) {
        self.rates.push(rate(self.bytes, now.saturating_duration_since(self.since)));
        self.place += self.bytes;
        (self.since, self.bytes) = (now, 0);
        if self.place - self.region_begin() >= self.region {
            self.end_region();
        }
    }

    fn region_begin(&self) -> u64 {
        self.regions.last().map_or(self.begin, |last| last.offset + last.length)
    }

    fn end_region(&mut self) {
        let offset = self.region_begin();
        let mut rates = std::mem::take(&mut self.rates);
        rates.sort_by(f64::total_cmp);
        if let Some(slowest) = rates.first() {
            let median = rates[rates.len() / 2];
            self.regions.push(Region { offset, length: self.place - offset, slowest: *slowest, median });
        }
    }

    /// The regions in order. What is left over at the end belongs to the last one.
    pub(super) fn finish(mut self, now: Instant) -> Vec<Region> {
        if self.bytes > 0 {
            self.end_part(now);
        }
        if !self.rates.is_empty() {
            self.end_region();
        }
        self.regions
    }
}

/// Those whose median is below a third of the median of all. A disk that turns is half as fast at its inner end as at its
/// outer one, which is no finding.
pub(super) fn slow(regions: &[Region]) -> Vec<Region> {
    let mut rates: Vec<f64> = regions.iter().map(|r| r.median).collect();
    rates.sort_by(f64::total_cmp);
    let Some(median) = rates.get(rates.len() / 2) else { return Vec::new() };
    regions.iter().filter(|r| r.median * 3.0 < *median).copied().collect()
}

/// Bytes per second.
pub(super) fn rate(bytes: u64, elapsed: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a rate for people and limits")]
    let rate = bytes as f64 / elapsed.as_secs_f64().max(1e-6);
    rate.round()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slow_stretch_is_named_by_its_place() {
        let begin = Instant::now();
        let mut map = SpeedMap { since: begin, ..SpeedMap::new(0, 1 << 30, 1 << 20) };
        let mut now = begin;
        for n in 0..1024u64 {
            // A quarter of the speed from 512 MiB to 576 MiB.
            now += Duration::from_millis(if (512..576).contains(&n) { 40 } else { 10 });
            map.moved(1 << 20, now);
        }
        let regions = map.finish(now);
        assert_eq!(regions.len(), 256);
        let found = slow(&regions);
        assert_eq!(found.len(), 16);
        assert_eq!((found[0].offset, found[0].length), (512 << 20, 4 << 20));
        assert!((found[0].median - 26.2e6).abs() < 0.1e6 && found[0].slowest <= found[0].median, "{found:?}");
        assert!(slow(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn every_byte_belongs_to_one_region(length in 1u64..1 << 34, chunk in prop::sample::select(vec![4096u64, 1 << 16, 1 << 19])) {
            let begin = Instant::now();
            let mut map = SpeedMap::new(4096, length, chunk);
            let mut left = length;
            // Larger than a piece, so that the test is quick: what counts is what arrives.
            let step = chunk.max(length / 3000);
            while left > 0 {
                let bytes = left.min(step);
                map.moved(bytes, begin + Duration::from_millis(1));
                left -= bytes;
            }
            let regions = map.finish(begin + Duration::from_millis(2));
            prop_assert!(!regions.is_empty() && regions.len() <= 256);
            let mut at = 4096;
            for region in &regions {
                prop_assert_eq!(region.offset, at);
                at += region.length;
            }
            prop_assert_eq!(at, 4096 + length);
        }
    }
}
