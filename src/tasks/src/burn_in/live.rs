//! What a working step knows of the world: how long it has, who stops it, and whom it tells.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use speediso_model::burn_in::Step;
use speediso_model::plan::PlannedDevice;

use crate::ctx::{Cancel, ProgressUpdate, TaskCtx};

/// Ends all steps of a group early, once: for a fault, where the scenario asks so.
#[derive(Debug, Default)]
pub(super) struct Stop(Mutex<Option<String>>);

impl Stop {
    pub(super) fn because(&self, reason: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.to_owned());
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Of a step: how many faults are told at once. The report has all that it keeps.
const TOLD: usize = 8;

pub(crate) struct Live<'a> {
    pub(crate) ctx: &'a TaskCtx,
    pub(crate) step: &'a Step,
    /// The disks of the plan whose start was permitted: no step writes to any other.
    pub(crate) permitted: &'a [PlannedDevice],
    began: Instant,
    stop: &'a Stop,
    stops: bool,
    told: AtomicUsize,
    /// When a live number was told last.
    sampled: Mutex<Vec<(String, Instant)>>,
}

impl<'a> Live<'a> {
    const POLL: Duration = Duration::from_millis(50);
    const SAMPLE_EVERY: Duration = Duration::from_secs(1);

    pub(super) fn new(
        ctx: &'a TaskCtx,
        step: &'a Step,
        permitted: &'a [PlannedDevice],
        stop: &'a Stop,
        stop_on_first_fault: bool,
    ) -> Self {
        Self {
            ctx,
            step,
            permitted,
            began: Instant::now(),
            stop,
            stops: stop_on_first_fault,
            told: AtomicUsize::new(0),
            sampled: Mutex::default(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    pub(crate) fn cancel(&self) -> &Cancel {
        &self.ctx.cancel
    }

    /// Time is up, or something ends the step before.
    pub(crate) fn is_over(&self) -> bool {
        self.elapsed() >= self.step.duration.duration() || self.cut_short().is_some()
    }

    /// Why it ends before its time, if it does.
    pub(crate) fn cut_short(&self) -> Option<String> {
        if self.cancel().is_cancelled() {
            return Some("it was cancelled".into());
        }
        self.stop.reason()
    }

    /// Sleeps. `false` once the step is over.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(Self::POLL));
        }
        false
    }

    /// Does work that knows only how to be cancelled: whatever cuts the step short cancels it.
    pub(crate) fn following<T>(&self, work: impl FnOnce(&TaskCtx) -> T) -> T {
        let ctx = TaskCtx { cancel: Cancel::default(), ..self.ctx.clone() };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if self.cut_short().is_some() {
                        return ctx.cancel.cancel();
                    }
                    thread::sleep(Self::POLL);
                }
            });
            let result = catch_unwind(AssertUnwindSafe(|| work(&ctx)));
            // Also when it panicked: the scope waits for whoever watches.
            done.store(true, Ordering::Relaxed);
            result.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Something is broken: told at once, and the end of all if the scenario says so.
    pub(crate) fn fault(&self, what: &str) {
        self.tell(what);
        if self.stops {
            self.stop.because(&format!("a fault was found in {}", self.step.title()));
        }
    }

    /// Something that a limit may allow: told at once, judged at the end.
    pub(super) fn tell(&self, what: &str) {
        let title = self.step.title();
        match self.told.fetch_add(1, Ordering::Relaxed) {
            n if n < TOLD => self.ctx.reporter.notice(&format!("{title}: {what}")),
            TOLD => self.ctx.reporter.notice(&format!("{title}: more faults; the report has them")),
            _ => {}
        }
    }

    /// A number as it is now, at most once a second.
    pub(crate) fn sample(&self, name: &str, value: f64, unit: &'static str) {
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        match sampled.iter_mut().find(|(n, _)| n == name) {
            Some((_, at)) if at.elapsed() < Self::SAMPLE_EVERY => return,
            Some((_, at)) => *at = Instant::now(),
            None => sampled.push((name.to_owned(), Instant::now())),
        }
        drop(sampled);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "for people; a negative one shows as 0"
        )]
        let current = value.max(0.0) as u64;
        self.ctx.reporter.progress(ProgressUpdate {
            stage: "burning in",
            device: Some(format!("{}: {name}", self.step.title())),
            current,
            total: None,
            unit,
            rate: 0.0,
        });
    }

    /// How much of its time has passed.
    pub(super) fn clock(&self) {
        self.ctx.reporter.progress(ProgressUpdate {
            stage: "burning in",
            device: Some(self.step.title().to_owned()),
            current: self.elapsed().as_secs().min(self.step.duration.0.into()),
            total: Some(self.step.duration.0.into()),
            unit: "seconds",
            rate: 1.0,
        });
    }
}
