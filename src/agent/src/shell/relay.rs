//! Passes bytes between the ssh server and what was started, and to the recording.
//!
//! A thread each for what goes in, what comes out, signals, and the end of the program; the first of them that has
//! something to say decides. Threads that are still blocked at the end go with the process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use speediso_sys::pty::{self, Pty, Settings};
use speediso_sys::signals::none_blocked;
use speediso_sys::terminal;

use super::clock::Limit;
use crate::ssh::recordings::Recording;

const PIECE: usize = 64 << 10;
/// Something in the background may hold a program's output open after its end. Once that was silent for so long, nothing
/// more is waited for; long, because a busy machine may keep our own threads waiting too.
const QUIET: Duration = Duration::from_secs(2);
/// For what was hung up to end by itself.
const GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// As a shell counts it.
    Status(i32),
    TimeIsOver,
    /// Somebody ended the access.
    Told,
    /// The other end is gone.
    Left,
}

enum Said {
    Exited(ExitStatus),
    Signal(Signal),
    Gone,
}

fn status_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255)
}

/// One way that bytes go, as seen from outside of its thread.
#[derive(Debug, Default)]
struct Way {
    moved: AtomicU64,
    /// Has taken something and not passed it on yet.
    busy: AtomicBool,
    ended: AtomicBool,
}

/// Copies to the end. The reader says its end as EOF or, of a terminal, as EIO.
fn copy(mut from: impl Read, mut to: impl Write, way: &Way, recording: Option<&Recording>) {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(n @ 1..) => {
                way.busy.store(true, Ordering::SeqCst);
                if let Some(recording) = recording {
                    recording.shown(&piece[..n]);
                }
                let passed = to.write_all(&piece[..n]).and_then(|()| to.flush());
                way.moved.fetch_add(n as u64, Ordering::SeqCst);
                way.busy.store(false, Ordering::SeqCst);
                if passed.is_err() {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break,
        }
    }
    way.ended.store(true, Ordering::SeqCst);
}

/// Waits until nothing more comes: each way has ended, or is idle for a while. One that waits for its reader is not idle.
fn drain(ways: &[Arc<Way>], quiet: Duration, limit: &Limit) {
    let moved = || ways.iter().map(|w| w.moved.load(Ordering::SeqCst)).sum::<u64>();
    let busy = || ways.iter().any(|w| w.busy.load(Ordering::SeqCst));
    let (mut last, mut since) = (moved(), Instant::now());
    while !ways.iter().all(|w| w.ended.load(Ordering::SeqCst)) && !limit.left().is_zero() {
        thread::sleep(Duration::from_millis(5));
        if busy() || moved() != last {
            (last, since) = (moved(), Instant::now());
        } else if since.elapsed() >= quiet {
            return;
        }
    }
}

/// Signals arrive at one thread instead of ending the process. To be called before any other thread is there.
fn signals(say: &Sender<Said>) -> io::Result<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGWINCH] {
        set.add(signal);
    }
    set.thread_block()?;
    // Nothing of the session inherits it: lvm complains of what it finds open.
    let file = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?;
    let say = say.clone();
    thread::spawn(move || {
        while let Ok(Some(arrived)) = file.read_signal() {
            let number = i32::try_from(arrived.ssi_signo).unwrap_or(0);
            if Signal::try_from(number).is_ok_and(|signal| say.send(Said::Signal(signal)).is_err()) {
                return;
            }
        }
    });
    Ok(())
}

fn reap(mut child: Child, say: Sender<Said>) {
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = say.send(Said::Exited(status));
        }
    });
}

/// Until it is decided how this ends. `resized` is called when the other end's window changed.
fn decide(said: &Receiver<Said>, limit: &Limit, resized: impl Fn()) -> Ended {
    loop {
        match said.recv_timeout(limit.left()) {
            Ok(Said::Exited(status)) => return Ended::Status(status_of(status)),
            Ok(Said::Signal(Signal::SIGWINCH)) => resized(),
            Ok(Said::Signal(_)) => return Ended::Told,
            Ok(Said::Gone) => return Ended::Left,
            Err(RecvTimeoutError::Timeout) => return Ended::TimeIsOver,
            Err(RecvTimeoutError::Disconnected) => return Ended::Left,
        }
    }
}

/// Ends what did not end by itself.
fn hang_up(group: Pid, said: &Receiver<Said>) {
    for signal in [Signal::SIGHUP, Signal::SIGKILL] {
        // Gone meanwhile is gone.
        let _ = killpg(group, signal);
        let end = Instant::now() + GRACE;
        while let Ok(said) = said.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if matches!(said, Said::Exited(_)) {
                return;
            }
        }
    }
}

fn group_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
}

/// A program with a terminal, which is a second one behind that of the ssh server.
pub(super) fn terminal(
    outer: &File,
    command: &mut Command,
    recording: Option<&Recording>,
    limit: &Limit,
) -> io::Result<Ended> {
    let (say, said) = mpsc::channel();
    signals(&say)?;
    let settings = Settings::of(outer)?;
    let (inner, child) = Pty::like(outer)?.spawn(none_blocked(command))?;
    terminal::set_raw(outer)?;
    let group = group_of(&child);
    reap(child, say.clone());

    let (from, to) = (outer.try_clone()?, inner.try_clone()?);
    thread::spawn(move || {
        copy(from, to, &Way::default(), None);
        let _ = say.send(Said::Gone);
    });
    let way = Arc::new(Way::default());
    let (from, to) = (inner.try_clone()?, File::from(io::stdout().as_fd().try_clone_to_owned()?));
    thread::spawn({
        let (way, recording) = (Arc::clone(&way), recording.cloned());
        move || copy(from, to, &way, recording.as_ref())
    });

    let ended = decide(&said, limit, || {
        if let Some(size) = terminal::size(outer) {
            let _ = pty::set_size(&inner, size);
            if let Some(recording) = recording {
                recording.resized(size);
            }
        }
    });
    match ended {
        Ended::Status(_) => drain(&[way], QUIET, limit),
        _ => hang_up(group, &said),
    }
    // The terminal may have gone with the connection.
    let _ = settings.give_back(outer);
    Ok(ended)
}

/// A program without one: its input is the ssh server's, its output passes by here.
pub(super) fn pipes(command: &mut Command, recording: Option<&Recording>, limit: &Limit) -> io::Result<Ended> {
    use std::os::unix::process::CommandExt as _;
    let (say, said) = mpsc::channel();
    signals(&say)?;
    let mut child = none_blocked(command)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let group = group_of(&child);
    let mut ways = Vec::new();
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let err = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let mut pass = |from: Option<Box<dyn Read + Send>>, to: File| {
        let way = Arc::new(Way::default());
        ways.push(Arc::clone(&way));
        let recording = recording.cloned();
        thread::spawn(move || match from {
            // Dropping the pipe's end lets a program whose reader is gone learn of it.
            Some(from) => copy(from, to, &way, recording.as_ref()),
            None => way.ended.store(true, Ordering::SeqCst),
        });
    };
    pass(child.stdout.take().map(|p| Box::new(p) as Box<dyn Read + Send>), out);
    pass(child.stderr.take().map(|p| Box::new(p) as Box<dyn Read + Send>), err);
    reap(child, say);
    let ended = decide(&said, limit, || {});
    match ended {
        Ended::Status(_) => drain(&ways, QUIET, limit),
        _ => hang_up(group, &said),
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_a_shells() {
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(status_of(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(status_of(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn nothing_is_lost_to_a_slow_reader() {
        struct Slow(u64);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                thread::sleep(Duration::from_millis(300));
                self.0 += bytes.len() as u64;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let way = Arc::new(Way::default());
        let copied = thread::spawn({
            let way = Arc::clone(&way);
            move || {
                let mut slow = Slow(0);
                copy(reader, &mut slow, &way, None);
                slow.0
            }
        });
        writer.write_all(&[7; 50_000]).expect("fits into the pipe");
        while way.moved.load(Ordering::SeqCst) == 0 && !way.busy.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        // The program has ended, something in the background holds its output open.
        drain(&[Arc::clone(&way)], Duration::from_millis(100), &Limit::new(Duration::from_secs(60), None));
        assert_eq!(way.moved.load(Ordering::SeqCst), 50_000);
        drop(writer);
        assert_eq!(copied.join().expect("no panic"), 50_000);
    }
}
