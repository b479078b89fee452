//! Pauses between tries: they grow, end at a cap, and differ from machine to machine, so that a thousand machines do
//! not come back at once.

use std::time::Duration;

use rand::Rng as _;

const FIRST: Duration = Duration::from_millis(500);
const CAP: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// Full jitter: anything between nothing and the ceiling, which doubles with each try.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.tries.min(10)).min(CAP);
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(rand::rng().random_range(0.1..=1.0))
    }

    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_at_the_cap() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..40).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= FIRST);
        assert!(pauses.iter().all(|p| *p <= CAP && *p >= FIRST / 10));
        assert!(pauses[10..].iter().any(|p| *p > CAP / 4), "late pauses are long");
    }
}
