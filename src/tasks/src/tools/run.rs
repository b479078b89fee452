//! One program, run to its end: never longer than it may, never with more of its output than one can read.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use speediso_model::fault::{Fault, FaultCode};

use crate::ctx::Cancel;

/// A large disk that discards all of itself first takes minutes.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// From being told to end until it has: a request to a disk cannot be taken back.
const GRACE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);
const MOST_OUTPUT: u64 = 64 << 10;

/// With only what is said here: no preload, no locale, nothing of the system's own configuration of LVM. Without udev
/// there is nobody who would make device nodes or say when they are made, so device mapper does it itself.
pub(super) fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs([
        ("LC_ALL", "C"),
        ("PATH", "/sbin:/usr/sbin:/bin:/usr/bin"),
        ("HOME", "/"),
        ("LVM_SYSTEM_DIR", ""),
        ("LVM_SUPPRESS_FD_WARNINGS", "1"),
        ("DM_DISABLE_UDEV", "1"),
    ]);
    command
}

pub(super) fn to_its_end(program: &str, mut command: Command, input: &[u8], cancel: &Cancel) -> Result<String, Fault> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|e| Fault::new(FaultCode::ToolMissing, format!("running {program}")).because(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why itself.
        let _ = stdin.write_all(input);
    }
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = wait(program, &mut child, cancel)?;
    let text = |output: Option<thread::JoinHandle<String>>| output.and_then(|o| o.join().ok()).unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    if status.success() {
        return Ok(stdout);
    }
    let mut fault = Fault::new(FaultCode::ToolFailed, format!("{program} ended with {status}"));
    fault.causes = [stderr, stdout].map(|text| text.trim().to_owned()).into_iter().filter(|t| !t.is_empty()).collect();
    Err(fault)
}

/// Reads all of it, so that the program never waits, and keeps the beginning.
fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        // An error here is the end as well.
        let _ = from.by_ref().take(MOST_OUTPUT).read_to_end(&mut kept);
        let _ = std::io::copy(&mut from, &mut std::io::sink());
        String::from_utf8_lossy(&kept).into_owned()
    })
}

fn wait(program: &str, child: &mut Child, cancel: &Cancel) -> Result<ExitStatus, Fault> {
    let begun = Instant::now();
    let failed = |e: std::io::Error| Fault::new(FaultCode::Io, format!("waiting for {program}")).because(e.to_string());
    let mut stopped: Option<(Instant, Fault)> = None;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return match stopped {
                Some((_, fault)) => Err(fault),
                None => Ok(status),
            };
        }
        match &stopped {
            Some((at, fault)) if at.elapsed() > GRACE => {
                // What it may still do when the disk answers, nobody can say.
                let hung = Fault::new(FaultCode::DiskHung, format!("{program} waits for a disk and cannot be ended"));
                return Err(hung.because(fault.to_string()));
            }
            Some(_) => {}
            None => {
                let late = (begun.elapsed() > LONGEST)
                    .then(|| Fault::new(FaultCode::TimedOut, format!("{program} took longer than {LONGEST:?}")));
                if let Some(fault) = cancel.check().err().or(late) {
                    child.kill().map_err(failed)?;
                    stopped = Some((Instant::now(), fault));
                }
            }
        }
        thread::sleep(POLL);
    }
}
