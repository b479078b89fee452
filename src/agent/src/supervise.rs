//! The parent of the agent: restarts it when it dies, and stops when that does not help.
//!
//! It never exits by itself and knows nothing of tasks. The agent takes up its journal when it comes back. After five
//! deaths in a minute the machine stays as it is, with a plain statement of what happened, a shell on its consoles, and ssh
//! for whoever has a key.

use std::io::Write as _;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use speediso_sys::roots::Roots;

use crate::cmdline::{self, OnFailure};
use crate::console::Supervised;
use crate::{ssh, watchdog};

const DEATHS: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);

/// When to give up.
#[derive(Debug, Default)]
struct CrashLoop {
    deaths: Vec<Instant>,
}

impl CrashLoop {
    /// Whether this death is one too many.
    fn died(&mut self, now: Instant) -> bool {
        self.deaths.retain(|at| now.duration_since(*at) < WITHIN);
        self.deaths.push(now);
        self.deaths.len() >= DEATHS
    }
}

/// What `/init` prepared: a shell for each console that is the agent's while there is one; nothing if that is forbidden.
const SHELLS: &str = "/etc/inittab.consoles";
const INITTAB: &str = "/etc/inittab";

/// Runs `speediso-agent boot` for ever, and feeds the hardware's watchdog beside it: what that is to catch is a kernel that
/// runs nothing any more, never a task that takes long.
pub fn run(consoles: &Supervised, roots: &Roots, line: &str) -> ! {
    // The last to be ended when memory runs out: without it nothing is told to anybody.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-900") {
        tracing::debug!("oom_score_adj: {error}");
    }
    if !watchdog::is_off(line) {
        watchdog::feed(roots.clone());
    }
    let mut crashes = CrashLoop::default();
    loop {
        let ended = std::env::current_exe().and_then(|exe| Command::new(exe).arg("boot").status());
        // What it left behind, a scroll region above all, must not swallow what is said now.
        consoles.give_back();
        tracing::error!("the agent ended: {}", describe(&ended));
        if crashes.died(Instant::now()) {
            give_up(&ended, line);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn describe(ended: &std::io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => status.to_string(),
        Err(error) => format!("it could not be started: {error}"),
    }
}

fn give_up(ended: &std::io::Result<ExitStatus>, line: &str) -> ! {
    let on_failure = cmdline::on_failure(line);
    tracing::error!(
        "the agent died {DEATHS} times within {} s, the last time by {}",
        WITHIN.as_secs(),
        describe(ended)
    );
    tracing::error!("nothing is restarted any more; no task is running; disks are as the last messages say");
    tracing::error!("what to do: look at /run/speediso/journal.jsonl and dmesg here, then reboot");
    if on_failure != OnFailure::Wait
        && let Err(error) = shells()
    {
        tracing::error!("the consoles get no shell: {error}");
    }
    match ssh::leave_open(line) {
        Ok(true) => tracing::error!("ssh is open for the keys that were given"),
        Ok(false) => {}
        Err(error) => tracing::error!("ssh: {error}; it is left as it was"),
    }
    if let Some((action, patience)) = on_failure.power() {
        tracing::error!("speediso.on_failure: {action:?} in {} s", patience.as_secs());
        std::thread::sleep(patience);
        let Err(fault) = speediso_tasks::perform_power(action);
        tracing::error!("{fault}");
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// The consoles are init's from now on.
fn shells() -> std::io::Result<()> {
    let lines = match std::fs::read(SHELLS) {
        Ok(lines) => lines,
        // None of them was ours, or none may have a shell.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    std::fs::OpenOptions::new().append(true).open(INITTAB)?.write_all(&lines)?;
    // Once is enough, also for the next supervisor.
    std::fs::remove_file(SHELLS)?;
    // busybox init reads its table again.
    Ok(kill(Pid::from_raw(1), Signal::SIGHUP)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_deaths_in_a_minute_are_enough() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut quick = CrashLoop::default();
        assert_eq!((0..5).map(|s| quick.died(at(s))).collect::<Vec<_>>(), [false, false, false, false, true]);
        let mut slow = CrashLoop::default();
        assert!((0..20).all(|i| !slow.died(at(i * 20))));
    }
}
