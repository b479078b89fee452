//! Ctrl-C in the middle of a demo: what was started is ended all the same. A signal would otherwise end the program
//! without dropping anything, and only the next run would clean up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{SigSet, Signal};

use crate::record;

static ENDING: AtomicBool = AtomicBool::new(false);
static MAKING: Mutex<()> = Mutex::new(());

/// Held while something is made and written down, so that a signal finds it in the record or not made at all. Once a
/// signal has come nobody gets it any more.
pub(crate) fn making() -> MutexGuard<'static, ()> {
    MAKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends this process's laboratories, then the process, when SIGINT or SIGTERM comes.
///
/// Call it first in `main`: threads made before would still take the signal in the usual way. Programs started later
/// are not affected, since the standard library gives each an empty mask.
pub fn end_on_signal() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    if signals.thread_block().is_err() {
        // Then a signal ends the program at once, and the next run cleans up.
        return;
    }
    std::thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        ENDING.store(true, Ordering::Relaxed);
        eprintln!("\n{signal}: ending what was started");
        let _nothing_more = making();
        let me = std::process::id();
        for run in record::runs().iter().filter(|run| run.is_of(me)) {
            run.end();
        }
        std::process::exit(130);
    });
}

/// Leaves the last word to a signal that has come: what fails from then on fails because of it.
pub fn leave_to_signal() {
    while ENDING.load(Ordering::Relaxed) {
        // Until the thread above ends the process.
        std::thread::park();
    }
}
