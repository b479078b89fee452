//! The parent's side: start the child, wait within limits, believe only what reads as an answer.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{CHILD_ARGUMENT, Signature, Survey};
use crate::process::{abandon, collect, wait};

/// Far more than a disk full of signatures takes in JSON.
const ANSWER_LIMIT: u64 = 256 * 1024;

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
    let signatures = survey_in_child(exe, disk, deadline)?.signatures;
    Ok(signatures.into_iter().filter(|signature| !signature.is_trace()).collect())
}

/// Surveys an open disk in a child of the program `exe`.
///
/// # Errors
/// When the child cannot be started, fails, gives no answer, or takes longer than `deadline`.
pub fn survey_in_child(exe: &Path, disk: File, deadline: Duration) -> Result<Survey, ProbeError> {
    answer_of_child(exe, &[CHILD_ARGUMENT], disk, deadline)
}

/// What a confined child of the program `exe` says of the disk on its standard input.
///
/// # Errors
/// When the child cannot be started, fails, gives no answer, or takes longer than `deadline`.
pub(crate) fn answer_of_child<T: DeserializeOwned>(
    exe: &Path,
    arguments: &[&str],
    disk: File,
    deadline: Duration,
) -> Result<T, ProbeError> {
    let mut child = Command::new(exe)
        .args(arguments)
        .env_clear()
        .stdin(disk)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| ProbeError::Start { exe: exe.to_path_buf(), source })?;
    let answer = collect(child.stdout.take(), ANSWER_LIMIT);
    let complaint = collect(child.stderr.take(), ANSWER_LIMIT);
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
