//! Free space as runs of bytes, in the order of the disk, in bounded memory.

use std::ops::Range;

/// 16 MiB of runs. A filesystem that has more is badly fragmented, or lies.
const MOST: usize = 1 << 20;

/// Runs of bytes that are known to be free. They neither overlap nor touch, and lie in the order of the disk.
///
/// When there are too many, the shortest are forgotten: what is forgotten counts as used.
#[derive(Clone, Debug, Default)]
pub struct FreeMap {
    runs: Vec<Range<u64>>,
    /// Shorter ones are not kept.
    least: u64,
}

impl FreeMap {
    #[must_use]
    pub fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// What of `range` is free.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        let runs = self.runs.get(first..).unwrap_or_default().iter();
        runs.take_while(move |run| run.start < range.end)
            .map(move |run| run.start.max(range.start)..run.end.min(range.end))
    }

    /// Whether all of it is free.
    #[must_use]
    pub fn covers(&self, range: &Range<u64>) -> bool {
        self.within(range.clone()).next().is_some_and(|free| free == *range)
    }

    /// Whether any of it is free.
    #[must_use]
    pub fn touches(&self, range: &Range<u64>) -> bool {
        self.within(range.clone()).next().is_some()
    }

    /// Adds a run behind all others; one that is not behind them is refused, since its author contradicts himself.
    #[must_use]
    pub(super) fn push(&mut self, run: Range<u64>) -> bool {
        let end = self.runs.last().map_or(0, |last| last.end);
        if run.start < end || run.start > run.end {
            return false;
        }
        match self.runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ if run.end - run.start < self.least || run.is_empty() => {}
            _ => self.runs.push(run),
        }
        if self.runs.len() > MOST {
            self.forget();
        }
        true
    }

    pub(super) fn append(&mut self, other: &Self, offset: u64) {
        self.least = self.least.max(other.least);
        for run in &other.runs {
            // Partitions lie in the order of the disk and do not overlap.
            let _ = self.push(run.start + offset..run.end + offset);
        }
    }

    fn forget(&mut self) {
        self.least = self.least.max(2048);
        while self.runs.len() > MOST / 2 {
            self.least *= 2;
            self.runs.retain(|run| run.end - run.start >= self.least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(runs: &[Range<u64>]) -> FreeMap {
        let mut map = FreeMap::default();
        for run in runs {
            assert!(map.push(run.clone()), "{run:?}");
        }
        map
    }

    #[test]
    fn runs_that_touch_are_one() {
        let map = map(&[0..10, 10..20, 30..40, 40..40]);
        assert_eq!(map.runs(), [0..20, 30..40]);
        assert_eq!(map.total(), 30);
        assert!(map.covers(&(5..20)) && !map.covers(&(5..21)) && !map.covers(&(19..31)));
        assert!(map.touches(&(19..25)) && !map.touches(&(20..30)));
        assert_eq!(map.within(5..35).collect::<Vec<_>>(), [5..20, 30..35]);
        assert_eq!(map.within(20..30).count(), 0);
    }

    #[test]
    fn what_goes_back_is_refused() {
        let mut map = map(&[10..20, 40..50]);
        assert!(!map.push(5..8) && !map.push(49..60));
        assert_eq!(map.runs().len(), 2);
    }

    #[test]
    fn memory_is_bounded_and_the_short_ones_are_lost_first() {
        let mut map = FreeMap::default();
        let mut at = 0;
        for n in 0..3 * MOST as u64 {
            let length = if n % 1000 == 0 { 1 << 20 } else { 4096 };
            assert!(map.push(at..at + length));
            at += length + 4096;
        }
        assert!(map.runs().len() <= MOST);
        let long = map.runs().iter().filter(|run| run.end - run.start == 1 << 20).count();
        assert_eq!(long, (3 * MOST).div_ceil(1000));
    }
}
