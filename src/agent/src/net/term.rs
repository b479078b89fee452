//! How long something lent by a server is kept: a lease of DHCPv4 (RFC 2131 section 4.4.5), an address of DHCPv6 (RFC 8415
//! section 18.2).
//!
//! bound --T1--> renewing (its server) --T2--> rebinding (any server) --end--> over. A refusal leads to the end at once.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// RFC 2131 wants a minute between tries, as long as what is lent allows it.
const BETWEEN_TRIES: Duration = Duration::from_secs(60);
const LEAST_BETWEEN: Duration = Duration::from_millis(500);
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(4);

/// Counted from the grant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    renew: Instant,
    rebind: Instant,
    end: Instant,
}

/// Whom to ask now, and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    /// The server that granted it; later anybody.
    pub(super) asks_its_server: bool,
    pub(super) wait: Duration,
    /// When the next one comes.
    until: Instant,
}

/// What came of a turn.
#[derive(Debug)]
pub(super) enum Answer<T> {
    Prolonged(T),
    Refused,
    NotYet,
}

/// Why it is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    Refused,
    RanOut,
}

impl Term {
    /// What was granted just now.
    pub(super) fn from_now(renew_after: Duration, rebind_after: Duration, valid: Duration) -> Self {
        let granted = Instant::now();
        Self { renew: granted + renew_after, rebind: granted + rebind_after, end: granted + valid }
    }

    /// `None` when it is over.
    fn turn(self, now: Instant) -> Option<Turn> {
        if now >= self.end {
            return None;
        }
        let asks_its_server = now < self.rebind;
        let phase_end = if asks_its_server { self.rebind } else { self.end };
        // Half of what is left of this phase, so that tries become denser towards its end.
        let pause = ((phase_end - now) / 2).clamp(LEAST_BETWEEN, BETWEEN_TRIES);
        Some(Turn { asks_its_server, wait: ANSWER_WAIT.min(pause), until: now + pause })
    }

    /// Rests until T1, then asks until it is prolonged or over.
    pub(super) async fn prolonged<T, A>(self, mut ask: impl FnMut(Turn) -> A) -> Result<T, Ended>
    where
        A: Future<Output = Answer<T>>,
    {
        sleep_until(self.renew).await;
        while let Some(turn) = self.turn(Instant::now()) {
            match ask(turn).await {
                Answer::Prolonged(next) => return Ok(next),
                Answer::Refused => return Err(Ended::Refused),
                Answer::NotYet => sleep_until(turn.until).await,
            }
        }
        Err(Ended::RanOut)
    }
}

/// The task that keeps something lent; dropping it lets it run out.
#[derive(Debug)]
pub(super) struct Keeper(JoinHandle<()>);

impl Keeper {
    pub(super) fn of(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn tries_become_denser_and_go_from_its_server_to_anybody() {
        let term = Term::from_now(seconds(1800), seconds(3150), seconds(3600));
        let granted = term.end - seconds(3600);
        let (mut now, mut turns) = (term.renew, Vec::new());
        while let Some(turn) = term.turn(now) {
            assert_eq!(turn.asks_its_server, now < term.rebind);
            assert!(turn.wait <= ANSWER_WAIT && turn.wait <= turn.until - now);
            assert!((LEAST_BETWEEN..=BETWEEN_TRIES).contains(&(turn.until - now)), "{turn:?}");
            turns.push((now - granted, turn.asks_its_server));
            now = turn.until;
        }
        // One a minute in the long run, and the last ones half a second apart.
        assert!((30..90).contains(&turns.len()), "{} tries", turns.len());
        assert!(turns.first().is_some_and(|(at, its)| *at == seconds(1800) && *its), "{turns:?}");
        assert!(turns.last().is_some_and(|(at, its)| *at > seconds(3598) && !its), "{turns:?}");
    }

    #[tokio::test]
    async fn a_refusal_ends_it_and_silence_does_when_its_time_is_over() {
        let term = || Term::from_now(seconds(0), Duration::from_millis(100), Duration::from_millis(300));
        assert_eq!(term().prolonged(|_| async { Answer::<()>::Refused }).await, Err(Ended::Refused));
        let mut asked = 0;
        let silent = term().prolonged(|_| {
            asked += 1;
            async { Answer::<()>::NotYet }
        });
        assert_eq!(silent.await, Err(Ended::RanOut));
        assert!(asked > 0);
        let granted = term().prolonged(|turn| async move { Answer::Prolonged(turn.asks_its_server) });
        assert_eq!(granted.await, Ok(true));
    }
}
