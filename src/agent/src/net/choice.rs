//! Which of several interfaces to take, by how far each of them got.

use std::time::Duration;

use tokio::time::Instant;

use super::resolver::Family;
use super::v6::Gained;
use super::{Tried, dhcp};

/// How much later than another the interface of BOOTIF may be.
const HEAD_START: Duration = Duration::from_secs(3);
/// After the first address, for one over which the controller is reached.
const SETTLE: Duration = Duration::from_secs(10);
/// For IPv4 to come too where IPv6 came first: most sites' images are still on IPv4.
const OTHER_PROTOCOL: Duration = Duration::from_secs(4);

/// What an interface was given.
#[derive(Debug)]
pub(super) enum Held {
    V4(Box<dhcp::Obtained>),
    V6(Box<Gained>),
}

/// How far an interface is.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) v4: Progress,
    pub(super) v6: Progress,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) held: Option<Held>,
    pub(super) reached: Option<Instant>,
    pub(super) is_over: bool,
    pub(super) why: Option<Tried>,
}

impl Lane {
    pub(super) fn of(&mut self, family: Family) -> &mut Progress {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// When it was known to be good enough.
    pub(super) fn reached(&self, waits_for_v4: bool) -> Option<Instant> {
        let six = self.v6.reached.filter(|at| !waits_for_v4 || self.v4.is_over || at.elapsed() >= OTHER_PROTOCOL);
        match (self.v4.reached, six) {
            (Some(four), Some(six)) => Some(four.min(six)),
            (four, six) => four.or(six),
        }
    }

    pub(super) fn is_granted(&self) -> bool {
        self.v4.held.is_some() || self.v6.held.is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.v4.is_over && self.v6.is_over
    }
}

/// One who runs, as far as the choice needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) is_granted: bool,
    /// How long ago it reached what was to be reached.
    pub(super) reached_for: Option<Duration>,
    pub(super) is_over: bool,
}

/// Which one to take, if it is time. Pure.
pub(super) fn decide(runners: &[Standing], preferred: Option<usize>, first_grant: Option<Duration>) -> Option<usize> {
    let favourite = preferred.and_then(|p| runners.get(p).map(|standing| (p, standing)));
    if let Some((p, standing)) = favourite
        && standing.reached_for.is_some()
    {
        return Some(p);
    }
    let quickest = runners.iter().enumerate().filter_map(|(i, s)| Some((s.reached_for?, i))).max();
    if let Some((ago, quickest)) = quickest
        && (favourite.is_none_or(|(_, standing)| standing.is_over) || ago >= HEAD_START)
    {
        return Some(quickest);
    }
    let is_late = first_grant.is_some_and(|ago| ago >= SETTLE);
    if quickest.is_none() && (is_late || runners.iter().all(|standing| standing.is_over)) {
        let granted = || runners.iter().position(|standing| standing.is_granted);
        return favourite.filter(|(_, standing)| standing.is_granted).map(|(p, _)| p).or_else(granted);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITING: Standing = Standing { is_granted: false, reached_for: None, is_over: false };
    const OVER: Standing = Standing { is_over: true, ..WAITING };
    /// An address, and no way to the controller.
    const STUCK: Standing = Standing { is_granted: true, reached_for: None, is_over: true };

    fn reached(ms: u64) -> Standing {
        Standing { is_granted: true, reached_for: Some(Duration::from_millis(ms)), is_over: true }
    }

    #[test]
    fn the_first_that_reaches_the_controller_is_taken() {
        let first = Some(Duration::from_secs(1));
        assert_eq!(decide(&[WAITING, WAITING], None, None), None);
        assert_eq!(decide(&[STUCK, WAITING], None, first), None, "an address alone is not the goal");
        assert_eq!(decide(&[STUCK, reached(10)], None, first), Some(1));
        assert_eq!(decide(&[reached(10), reached(20)], None, first), Some(1), "that one was there earlier");
    }

    #[test]
    fn the_interface_of_the_boot_has_a_head_start_and_no_more() {
        let first = Some(Duration::from_secs(1));
        assert_eq!(decide(&[WAITING, reached(10)], Some(0), first), None);
        assert_eq!(decide(&[reached(0), reached(900)], Some(0), first), Some(0));
        assert_eq!(decide(&[WAITING, reached(3000)], Some(0), first), Some(1));
        assert_eq!(decide(&[OVER, reached(10)], Some(0), first), Some(1), "nothing more is to be expected of it");
    }

    #[test]
    fn without_a_way_to_the_controller_some_address_is_taken_in_the_end() {
        let late = Some(SETTLE);
        assert_eq!(decide(&[WAITING, STUCK], None, Some(Duration::from_secs(1))), None);
        assert_eq!(decide(&[WAITING, STUCK], None, late), Some(1));
        assert_eq!(decide(&[STUCK, STUCK], Some(1), late), Some(1), "the boot's own rather than any");
        assert_eq!(decide(&[OVER, STUCK], Some(0), Some(Duration::ZERO)), Some(1), "there is nothing to wait for");
        assert_eq!(decide(&[OVER, OVER], None, None), None);
    }
}
