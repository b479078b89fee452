//! Waiting for a child process within limits, whatever it does.

use std::io::{self, Read};
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);
/// A killed process that does not end within this is stuck in the kernel, waiting for a device.
const AFTER_KILL: Duration = Duration::from_millis(500);

/// Reads a pipe beside waiting, or a child with much to say would block on it: to its end, or to the limit, after which
/// the writer gets EPIPE.
pub(crate) fn collect(pipe: Option<impl Read + Send + 'static>, limit: u64) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is still worth having: it is the child's complaint.
            let _ = pipe.take(limit).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// `None` if it is still running at the deadline.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// Kills the child. One that is stuck in the kernel is left to a thread that reaps it whenever the device lets go, so
/// that a dead device costs its own child and nothing else. Whether it has ended.
pub(crate) fn abandon(mut child: Child) -> bool {
    // It may have ended by itself just now; then there is nothing to kill.
    let _ = child.kill();
    let has_ended = matches!(wait(&mut child, AFTER_KILL), Ok(Some(_)));
    if !has_ended {
        thread::spawn(move || child.wait());
    }
    has_ended
}

/// What `read` says, or nothing if it has not said it in time. It may hang in the kernel: then its thread is left there.
pub fn within<T: Send + 'static>(limit: Duration, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(read());
    });
    receiver.recv_timeout(limit).ok()
}
