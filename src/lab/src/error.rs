//! What can go wrong in the laboratory, with everything needed to see why.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

pub type Result<T> = std::result::Result<T, LabError>;

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("{what} is missing: install it with `apt-get install {package}`")]
    Missing { what: String, package: &'static str },

    #[error("{path} is not there: build it with `make ramdisk`")]
    NotBuilt { path: PathBuf },

    #[error("a laboratory makes a network namespace and tap devices of its own, which takes root: run it with sudo")]
    NotRoot,

    #[error("{doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },

    #[error("rendering a configuration")]
    Render(#[from] speediso_model::small_site::NotPlain),

    #[error("entering network namespace {namespace}")]
    Enter {
        namespace: String,
        #[source]
        source: nix::Error,
    },

    #[error("`{command}` ended with {status}\n{output}")]
    Tool { command: String, status: ExitStatus, output: String },

    #[error("{who}: nothing like {what:?} within {limit:?}; the log is kept at {log}, its tail:\n{tail}")]
    Silence { who: String, what: String, limit: Duration, log: PathBuf, tail: String },

    #[error("{who} ended with {status} while {waiting}; the log is kept at {log}, its tail:\n{tail}")]
    Ended { who: String, status: ExitStatus, waiting: String, log: PathBuf, tail: String },

    #[error("{who} still runs after {limit:?}; the log is kept at {log}, its tail:\n{tail}")]
    StillRuns { who: String, limit: Duration, log: PathBuf, tail: String },

    #[error("machine {machine}: QMP command {command:?}: {answer}")]
    Qmp { machine: String, command: String, answer: String },

    #[error("`{command}` answered what cannot be used: {why}\n{answer}")]
    Answer { command: String, why: String, answer: String },

    #[error("{what} did not come about within {limit:?}; last seen: {last}")]
    NotReached { what: String, limit: Duration, last: String },

    #[error("machine {machine}: {wrong}")]
    Spec { machine: String, wrong: String },
}

/// Says what was being done when an I/O error came.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::Io { doing: what(), source })
    }
}
