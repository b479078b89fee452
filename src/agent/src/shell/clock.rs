//! How long a session may last, by the kernel's clock since the machine started: the other one may be set meanwhile.

use std::time::{Duration, Instant};

use speediso_sys::clock::uptime_ms;

#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(Instant);

impl Limit {
    /// So long at most, and no longer than until this uptime, if one is given.
    pub(super) fn new(longest: Duration, until_ms: Option<u64>) -> Self {
        let by_key = until_ms.map(|until| Duration::from_millis(until.saturating_sub(uptime_ms())));
        Self(Instant::now() + by_key.map_or(longest, |left| left.min(longest)))
    }

    pub(super) fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_one_counts() {
        let long = Duration::from_secs(1000);
        assert!(Limit::new(long, None).left() > Duration::from_secs(900));
        assert!(Limit::new(long, Some(0)).left().is_zero());
        assert!(Limit::new(long, Some(uptime_ms() + 60_000)).left() <= Duration::from_secs(60));
    }
}
