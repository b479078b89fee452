//! Looks at what the kernel counts and says of the hardware while steps work. All steps of a group share what it sees:
//! which of them woke the error, nobody knows.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use speediso_model::burn_in::Measurement;
use speediso_sys::kernel_log::{self, KernelLog};
use speediso_sys::machine_check::{self, Counts};
use speediso_sys::roots::Roots;

use super::live::Live;
use super::work::Findings;

/// Lines of the kernel's log that a report keeps.
const KEPT: usize = 20;

pub(super) struct Guard {
    roots: Roots,
    before: Counts,
    log: Mutex<Result<KernelLog, String>>,
}

impl Guard {
    /// How often it looks.
    const EVERY: Duration = Duration::from_secs(1);

    pub(super) fn set(roots: &Roots) -> Self {
        Self {
            roots: roots.clone(),
            before: machine_check::read(roots),
            log: Mutex::new(KernelLog::from_now(roots).map_err(|e| format!("the kernel's log could not be read: {e}"))),
        }
    }

    /// Until the other end of `done` is dropped. What is new is told at once.
    pub(super) fn watch(&self, lives: &[Live<'_>], done: &Receiver<()>) -> Findings {
        let mut lines = Vec::new();
        let mut n_lines = 0;
        let mut last = self.before.clone();
        loop {
            let is_last = !matches!(done.recv_timeout(Self::EVERY), Err(RecvTimeoutError::Timeout));
            for line in self.new_errors() {
                lives.iter().take(1).for_each(|live| live.tell(&format!("the kernel reports {line}")));
                n_lines += 1;
                if lines.len() < KEPT {
                    lines.push(line);
                }
            }
            let now = machine_check::read(&self.roots);
            let new = now.since(&last);
            let hard = new.mce.unwrap_or(0) > 0 || new.controllers.values().any(|errors| errors.uncorrected > 0);
            for (what, count) in new.faults() {
                let said = format!("{count} new: {what}");
                lives.iter().take(1).for_each(|live| if hard { live.fault(&said) } else { live.tell(&said) });
            }
            last = now;
            lives.iter().for_each(Live::clock);
            if is_last {
                return self.sum_up(&last, n_lines, lines);
            }
        }
    }

    fn new_errors(&self) -> Vec<String> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = log.as_mut().map(KernelLog::new_lines).unwrap_or_default();
        lines.into_iter().filter(|line| kernel_log::is_hardware_error(line)).collect()
    }

    fn sum_up(&self, after: &Counts, n_lines: u64, lines: Vec<String>) -> Findings {
        let mut found = Findings { notices: lines, ..Findings::default() };
        match &*self.log.lock().unwrap_or_else(PoisonError::into_inner) {
            Ok(_) => found.measurements.push(Measurement::count("machine.hardware_errors", n_lines)),
            Err(why) => found.unread.push(why.clone()),
        }
        let new = after.since(&self.before);
        match new.mce {
            Some(n) => found.measurements.push(Measurement::count("machine.mce", n)),
            None => found.unread.push("machine checks: the kernel counts none here (/proc/interrupts, MCE)".into()),
        }
        if new.controllers.is_empty() {
            found.unread.push("corrected memory errors: no EDAC driver counts them on this machine".into());
        }
        for (name, controller) in &new.controllers {
            found.measurements.push(Measurement::count("edac.corrected", controller.corrected).at(name));
            found.measurements.push(Measurement::count("edac.uncorrected", controller.uncorrected).at(name));
        }
        found
    }
}
