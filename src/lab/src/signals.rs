//! Ctrl-C in the middle of a demo: what was started is ended all the same. A signal would otherwise end the program
//! without dropping anything, and only the next run would clean up.

use nix::sys::signal::{SigSet, Signal};

use crate::record;

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
        eprintln!("\n{signal}: ending what was started");
        let me = std::process::id();
        for run in record::runs().iter().filter(|run| run.is_of(me)) {
            run.end();
        }
        std::process::exit(130);
    });
}
