//! A machine without work leaves the live system after a while, so that it comes back with the newest build, or boots what
//! is installed. Never while a task runs, an order is open or somebody is there, and never after a failure: what a person
//! has to look at lies in memory.

use std::str::FromStr;
use std::time::{Duration, Instant};

use rand::Rng as _;
use speediso_model::task::PowerAction;
use speediso_sys::roots::Roots;
use speediso_sys::terminal;

use crate::engine::{Engine, LAST_LINES};
use crate::logs;
use crate::ssh::Ssh;

/// Machines that were started together must not come back together: up to a quarter more, each its own.
const JITTER: f64 = 0.25;
const LOOK: Duration = Duration::from_secs(5);
/// A year. Longer is a slip.
const LONGEST: u64 = 365 * 24 * 3600;

/// `speediso.idle_reboot=`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    Never,
    After(Duration),
}

impl FromStr for Word {
    type Err = &'static str;

    /// `off`, or a number of minutes, or one with `s`, `m` or `h` behind it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "off, or a time such as 30, 30m, 90s or 12h";
        if text == "off" {
            return Ok(Self::Never);
        }
        let digits = text.trim_end_matches(['s', 'm', 'h']);
        let seconds = match &text[digits.len()..] {
            "s" => 1,
            "" | "m" => 60,
            "h" => 3600,
            _ => return Err(FORM),
        };
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = is_number.then(|| digits.parse().ok()).flatten().ok_or(FORM)?;
        let after = number.checked_mul(seconds).filter(|s| (10..=LONGEST).contains(s)).ok_or("10 s to a year")?;
        Ok(Self::After(Duration::from_secs(after)))
    }
}

/// The command line's word is before the controller's.
pub(crate) fn after(word: Option<Word>, policy_s: Option<u64>) -> Option<Duration> {
    match word {
        Some(Word::Never) => None,
        Some(Word::After(after)) => Some(after),
        None => policy_s.filter(|s| *s > 0).map(Duration::from_secs),
    }
}

/// How long nothing has been going on.
#[derive(Debug)]
struct Quiet {
    since: Instant,
    limit: Duration,
}

impl Quiet {
    /// Whether it is time, `busy` being why not.
    fn look(&mut self, now: Instant, busy: Option<&str>) -> bool {
        if busy.is_some() {
            self.since = now;
        }
        now.duration_since(self.since) >= self.limit
    }
}

/// Waits for it, for ever if there is no such time; then restarts the machine.
pub(crate) async fn leave(after: Option<Duration>, engine: Engine, ssh: Ssh) -> std::convert::Infallible {
    let Some(after) = after else { return std::future::pending().await };
    let limit = after.mul_f64(1.0 + JITTER * rand::rng().random::<f64>());
    tracing::info!("idle: without work the machine restarts after {} min", limit.as_secs().div_ceil(60));
    let mut quiet = Quiet { since: Instant::now(), limit };
    let mut said = None;
    loop {
        tokio::time::sleep(LOOK.min(limit / 4)).await;
        let busy = busy(&engine, &ssh).await;
        if quiet.look(Instant::now(), busy) {
            break;
        }
        if said != busy {
            tracing::debug!("idle: {}", busy.unwrap_or("nothing goes on"));
            said = busy;
        }
    }
    tracing::warn!("idle: nothing was to do for {} s; restarting", limit.as_secs());
    let _ = tokio::task::spawn_blocking(|| logs::drain(LAST_LINES)).await;
    let Err(fault) = speediso_tasks::perform_power(PowerAction::Reboot);
    tracing::error!("{fault}; idle machines are not restarted any more");
    std::future::pending().await
}

/// Why the machine must stay, if it must.
async fn busy(engine: &Engine, ssh: &Ssh) -> Option<&'static str> {
    let runs = engine.runs();
    if runs.iter().any(|run| run.result.is_none()) {
        return Some("a task runs");
    }
    if engine.board().has_order() {
        return Some("an order is open");
    }
    let beside = engine.board().subscribe().borrow().beside.why_busy();
    if beside.is_some() {
        return beside;
    }
    if runs.iter().any(|run| run.result.as_ref().is_some_and(|r| !r.outcome.is_success())) {
        return Some("a task failed, which somebody has to look at");
    }
    let ssh = ssh.clone();
    let somebody = tokio::task::spawn_blocking(move || {
        // Without procfs nothing is known, and nobody is cut off.
        ssh.is_used() || terminal::somebody_is_there(&Roots::live()).unwrap_or(true)
    });
    somebody.await.unwrap_or(true).then_some("somebody is logged in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_or_refused() {
        let read = |text: &str| text.parse::<Word>().ok();
        let after = |s| Some(Word::After(Duration::from_secs(s)));
        assert_eq!(
            ["off", "30", "30m", "90s", "12h"].map(read),
            [Some(Word::Never), after(1800), after(1800), after(90), after(43_200)]
        );
        for bad in ["", "0", "9s", "-5", "30d", "s", "1e3", "30mm", "99999999999999999999", "9999h", "+30", "3 0"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_boot_entry_is_before_the_controller() {
        let minute = Duration::from_secs(60);
        assert_eq!(after(None, Some(60)), Some(minute));
        assert_eq!(after(Some(Word::Never), Some(60)), None);
        assert_eq!(after(Some(Word::After(minute)), None), Some(minute));
        assert_eq!(after(None, Some(0)), None);
    }

    #[test]
    fn whatever_goes_on_begins_the_wait_anew() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut quiet = Quiet { since: start, limit: Duration::from_secs(60) };
        assert!(!quiet.look(at(59), None));
        assert!(!quiet.look(at(61), Some("a task runs")));
        assert!(!quiet.look(at(120), None));
        assert!(quiet.look(at(121), None));
    }
}
