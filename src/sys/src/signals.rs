//! Which signals a program begins with.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::SigSet;

/// Has the program begin with no signal blocked.
///
/// A mask goes with a process through fork and exec (signal(7)): below somebody who reads `SIGTERM` from a descriptor, nothing
/// could be ended by it.
pub fn none_blocked(command: &mut Command) -> &mut Command {
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are allowed: it makes
    // one system call and allocates nothing.
    unsafe { command.pre_exec(|| Ok(SigSet::empty().thread_set_mask()?)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    use nix::sys::signal::Signal;

    #[test]
    fn a_program_below_one_that_blocks_a_signal_can_be_ended_by_it() {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.thread_block().expect("blocked in this thread");
        let ends_itself = || {
            let mut command = Command::new("sh");
            command.args(["-c", "kill -TERM $$"]);
            command
        };
        let heir = ends_itself().status().expect("sh");
        let free = none_blocked(&mut ends_itself()).status().expect("sh");
        set.thread_unblock().expect("unblocked");
        assert_eq!((heir.signal(), free.signal()), (None, Some(Signal::SIGTERM as i32)));
    }
}
