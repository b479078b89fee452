//! The parent's side: start the child, wait within limits, believe only what reads as an answer.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::{CHILD_ARGUMENT, Signature};

/// Far more than a disk full of signatures takes in JSON.
const ANSWER_LIMIT: u64 = 256 * 1024;
const POLL: Duration = Duration::from_millis(5);
/// A killed process that does not end within this is stuck in the kernel, waiting for the disk.
const AFTER_KILL: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("opening {} for probing", device.display())]
    Open { device: PathBuf, source: io::Error },
    #[error("starting {} as the probing child", exe.display())]
    Start { exe: PathBuf, source: io::Error },
    #[error("waiting for the probing child")]
    Wait(#[source] io::Error),
    #[error("the probing child did not end within {} s and was killed: the disk is slow or stuck", .0.as_secs())]
    Deadline(Duration),
    #[error("the probing child failed ({status}){}{said}", if said.is_empty() { "" } else { ": " })]
    Failed { status: ExitStatus, said: String },
    #[error("the probing child's answer is not one")]
    Answer(#[source] serde_json::Error),
}

/// Probes an open disk in a child of the program `exe`.
///
/// # Errors
/// When the child cannot be started, fails, gives no answer, or takes longer than `deadline`.
pub fn probe_file_in_child(exe: &Path, disk: File, deadline: Duration) -> Result<Vec<Signature>, ProbeError> {
    let mut child = Command::new(exe)
        .arg(CHILD_ARGUMENT)
        .env_clear()
        .stdin(disk)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| ProbeError::Start { exe: exe.to_path_buf(), source })?;
    // Read beside waiting, or a child with much to say would block on a full pipe.
    let answer = collect(child.stdout.take());
    let complaint = collect(child.stderr.take());
    let Some(status) = wait(&mut child, deadline).map_err(ProbeError::Wait)? else {
        abandon(child);
        return Err(ProbeError::Deadline(deadline));
    };
    let answer = answer.recv().unwrap_or_default();
    if !status.success() {
        let said = String::from_utf8_lossy(&complaint.recv().unwrap_or_default()).trim().to_owned();
        return Err(ProbeError::Failed { status, said });
    }
    serde_json::from_slice(&answer).map_err(ProbeError::Answer)
}

/// Reads a pipe to its end, or to the limit, after which the writer gets EPIPE.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is still worth having: it is the child's complaint.
            let _ = pipe.take(ANSWER_LIMIT).read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// `None` if it is still running at the deadline.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
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

/// Kills the child. One that is stuck in the kernel is left to a thread that reaps it whenever the disk lets go, so
/// that a dead disk costs its own probe and nothing else.
fn abandon(mut child: Child) {
    // It may have ended by itself just now; then there is nothing to kill.
    let _ = child.kill();
    if !matches!(wait(&mut child, AFTER_KILL), Ok(Some(_))) {
        thread::spawn(move || child.wait());
    }
}
