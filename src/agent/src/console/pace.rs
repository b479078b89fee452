//! How much a serial line may be given: never more than it carries, so that what is shown is what is, not what was.

use std::time::{Duration, Instant};

/// Of a line's capacity that the head may take while lines of the log wait too.
const SHARE_OF_HEAD: u32 = 4;

#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second; `None` for a screen, which takes anything at once.
    rate: Option<u32>,
    /// Until what was given is through.
    busy_until: Instant,
    /// Not before then another head.
    next_head: Instant,
}

impl Pace {
    #[must_use]
    pub(super) fn new(rate: Option<u32>, now: Instant) -> Self {
        Self { rate, busy_until: now, next_head: now }
    }

    fn time_for(&self, bytes: usize) -> Duration {
        match self.rate {
            Some(rate) => Duration::from_secs_f64(bytes as f64 / f64::from(rate.max(1))),
            None => Duration::ZERO,
        }
    }

    /// When something may be given again.
    #[must_use]
    pub(super) fn free_at(&self) -> Instant {
        self.busy_until
    }

    #[must_use]
    pub(super) fn head_at(&self) -> Instant {
        self.next_head.max(self.busy_until)
    }

    /// As many bytes of lines as half a second takes.
    #[must_use]
    pub(super) fn portion(&self) -> usize {
        self.rate.map_or(8192, |rate| usize::try_from(rate / 2).unwrap_or(usize::MAX).max(160))
    }

    pub(super) fn gave(&mut self, bytes: usize, of_head: usize, now: Instant) {
        self.busy_until = self.busy_until.max(now) + self.time_for(bytes);
        if of_head > 0 {
            let least = if self.rate.is_some() { Duration::from_secs(1) } else { Duration::from_millis(100) };
            self.next_head = now + least.max(self.time_for(of_head) * SHARE_OF_HEAD);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flood of lines and a head that changes all the time, for a minute: the line is never given more than it
    /// carries, and the head comes through at its share.
    #[test]
    fn a_slow_line_never_falls_behind() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(960), start);
        let (mut now, mut given, mut heads) = (start, 0usize, 0usize);
        while now < start + Duration::from_secs(60) {
            now = now.max(pace.free_at());
            let head = if now >= pace.head_at() { 120 } else { 0 };
            let bytes = pace.portion() + head;
            pace.gave(bytes, head, now);
            given += bytes;
            heads += head;
            assert!(pace.free_at() <= now + Duration::from_secs(1), "a second of it waits at most");
        }
        assert!((56_000..60_000).contains(&given), "{given} bytes in a minute");
        assert!(heads >= 120 * 40, "{heads} bytes of heads");
        let screen = Pace::new(None, start);
        assert_eq!(screen.free_at(), start);
    }
}
