//! A child process of the laboratory: started with its output in a log, recorded so that a later run can end it, and
//! ended when dropped. Processes are ended by their own id and never by name.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{Doing, LabError, Result};
use crate::log::Log;
use crate::tool::line_of;

/// A process id together with the time the kernel started it, so that a number used again is never mistaken for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub(crate) started: u64,
}

impl Identity {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold spaces: count fields after the last parenthesis, where field 3 begins.
        let (_, rest) = stat.rsplit_once(')')?;
        let started = rest.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    pub(crate) fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends a process of an earlier run: asked first, then forced.
    pub(crate) fn end(self, grace: Duration) {
        for (signal, patience) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_secs(5))] {
            if !self.alive() {
                return;
            }
            // It may end between the look and the call; that is what was wanted.
            let _ = kill(Pid::from_raw(self.pid), signal);
            let end = Instant::now() + patience;
            while self.alive() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// A running child with a log of its own.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    log: Log,
    /// Where in the log its own words begin.
    begins: usize,
    grace: Duration,
    released: bool,
}

impl Process {
    /// Starts `command` with both outputs appended to `log` and nothing on standard input.
    pub(crate) fn start(name: &str, mut command: Command, log: Log) -> Result<Self> {
        let path = log.path();
        // What stands there was said by the one before it.
        let begins = log.mark();
        let out = File::options()
            .create(true)
            .append(true)
            .open(path)
            .doing(|| format!("opening the log {}", path.display()))?;
        let err = out.try_clone().doing(|| format!("opening the log {}", path.display()))?;
        let line = line_of(&command);
        let child =
            command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().doing(|| format!("starting `{line}`"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            ended: None,
            log,
            begins,
            grace: Duration::from_secs(5),
            released: false,
        })
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("process ids of Linux fit an i32")
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // An error here means that somebody else reaped the child: it is gone, how is unknown.
            self.ended = self.child.try_wait().unwrap_or(Some(ExitStatus::from_raw(0)));
        }
        self.ended
    }

    /// Waits for a line in the process's own log.
    pub fn wait_for(&mut self, what: &str, limit: Duration) -> Result<String> {
        let (name, log) = (self.name.clone(), self.log.clone());
        log.wait_for(&name, self.begins, what, limit, || self.ended()).map(|found| found.line)
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= end {
                return Err(LabError::StillRuns {
                    who: self.name.clone(),
                    limit,
                    log: self.log.keep(),
                    tail: self.log.tail(),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a signal; a process that has ended already is no error.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill(Pid::from_raw(self.pid()), signal);
        }
    }

    /// Ends it: asked first, forced after a grace period. Returns when it is gone.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        if self.wait_quietly(self.grace) {
            return;
        }
        self.kill();
    }

    /// `kill -9`, as a crash would look from outside.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_quietly(Duration::from_secs(5));
    }

    /// Leaves it running when this value is dropped.
    pub(crate) fn leave_running(&mut self) {
        self.released = true;
    }

    fn wait_quietly(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.ended().is_none() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.released {
            self.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_told_from_another_with_the_same_number() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.alive());
        assert!(!Identity { started: me.started + 1, ..me }.alive());
    }

    #[test]
    fn dropping_ends_the_process_and_its_output_is_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::at(&dir.path().join("x.log"));
        let mut command = Command::new("sh");
        command.args(["-c", "echo here I am; exec sleep 600"]);
        let mut process = Process::start("x", command, log).unwrap();
        let line = process.wait_for("here", Duration::from_secs(10)).unwrap();
        assert_eq!(line, "here I am");
        let identity = Identity::of(process.pid()).unwrap();
        drop(process);
        assert!(!identity.alive());
    }

    #[test]
    fn waiting_ends_early_when_the_process_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo last words; exit 7"]);
        let mut process = Process::start("x", command, Log::at(&dir.path().join("x.log"))).unwrap();
        let began = Instant::now();
        let error = process.wait_for("never", Duration::from_secs(60)).unwrap_err().to_string();
        assert!(began.elapsed() < Duration::from_secs(30));
        assert!(error.contains("exit status: 7") && error.contains("last words"), "{error}");
    }
}
