//! A program with all that it starts: run within limits, and ended as a whole.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::process::collect;

const POLL: Duration = Duration::from_millis(10);
/// Between being asked to end and being killed.
const GRACE: Duration = Duration::from_secs(2);
/// A killed process that does not end within this is stuck in the kernel.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// How it ended, and what it printed: the beginning of each.
#[derive(Clone, Debug)]
pub struct Ended {
    /// `None` if it was ended by us.
    pub status: Option<ExitStatus>,
    /// Killed, and still there: it hangs in the kernel.
    pub stuck: bool,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub after: Duration,
}

/// Runs `command` in a process group of its own, without standard input, until it ends or `is_over` says so. Then the
/// whole group is asked to end, and killed if it does not. What the program leaves behind when it ends by itself is
/// killed too.
///
/// # Errors
/// When it cannot be started or waited for.
pub fn run(mut command: Command, output: u64, is_over: impl Fn() -> bool) -> io::Result<Ended> {
    let begun = Instant::now();
    let mut child =
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // The group has the number of its leader, which stays taken until the leader is waited for.
    let group = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let stdout = collect(child.stdout.take(), output);
    let stderr = collect(child.stderr.take(), output);
    let waited = wait(&mut child, group, &is_over);
    let after = begun.elapsed();
    let (status, stuck) = match waited {
        Ok(ended) => ended,
        Err(error) => {
            signal(group, Signal::SIGKILL);
            return Err(error);
        }
    };
    // Somebody outside of the group may hold the pipes for longer than anybody in it lives.
    let text = |pipe: &Receiver<Vec<u8>>| pipe.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    Ok(Ended { status, stuck, stdout: text(&stdout), stderr: text(&stderr), after })
}

fn wait(child: &mut Child, group: Pid, is_over: &impl Fn() -> bool) -> io::Result<(Option<ExitStatus>, bool)> {
    loop {
        if has_ended(child)? {
            // While the leader is not reaped the number is the group's: nobody else is hit.
            signal(group, Signal::SIGKILL);
            return Ok((Some(child.wait()?), false));
        }
        if is_over() {
            break;
        }
        thread::sleep(POLL);
    }
    for (how, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, AFTER_KILL)] {
        signal(group, how);
        let asked = Instant::now();
        while asked.elapsed() < patience {
            if has_ended(child)? {
                signal(group, Signal::SIGKILL);
                child.wait()?;
                return Ok((None, false));
            }
            thread::sleep(POLL);
        }
    }
    Ok((None, true))
}

/// Without reaping it.
fn has_ended(child: &Child) -> io::Result<bool> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    Ok(waitid(Id::Pid(pid), flags)? != WaitStatus::StillAlive)
}

fn signal(group: Pid, signal: Signal) {
    // All of them may have ended just now: there is nobody to tell then.
    let _ = killpg(group, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_ends_says_how() {
        let ended = run(sh("echo out; echo err >&2; exit 3"), 1000, || false).expect("it runs");
        assert_eq!(ended.status.and_then(|s| s.code()), Some(3));
        assert_eq!((ended.stdout.as_slice(), ended.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    }

    #[test]
    fn what_it_started_ends_with_it() {
        // The grandchild holds the pipe and ignores the polite signal.
        let begun = Instant::now();
        let script = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait";
        let ended = run(sh(script), 1000, || begun.elapsed() > Duration::from_millis(300)).expect("it runs");
        assert!(ended.status.is_none() && !ended.stuck);
        let pid = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
        let gone = (0..200).any(|_| {
            thread::sleep(POLL);
            // An orphan is reaped by whoever is init here, which may take its time: a zombie does nothing any more.
            std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
        });
        assert!(gone, "{pid} lives on");
    }

    #[test]
    fn output_is_bounded() {
        let ended = run(sh("while :; do echo 0123456789; done"), 100, || false).expect("it runs");
        assert_eq!(ended.stdout.len(), 100);
        assert!(!ended.status.expect("the pipe's end ended it").success());
    }
}
