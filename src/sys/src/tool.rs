//! Tools of others: called by an argument list, never through a shell, in an empty environment, with an end to waiting;
//! and when one fails, everything it said is told.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use speediso_model::fault::{Fault, FaultCode};

use crate::process::{abandon, collect, wait};

const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// Far more than any of these tools says.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// A tool that is there.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
    environment: Vec<(&'static str, &'static str)>,
}

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("starting {command}")]
    Start { command: String, source: io::Error },
    #[error("waiting for {command}")]
    Wait { command: String, source: io::Error },
    #[error("{command} failed ({status}){}", said(stdout, stderr))]
    Failed { command: String, status: ExitStatus, stdout: String, stderr: String },
    /// Nobody knows what it has done.
    #[error("{command} did not end within {} s and was {}", .after.as_secs(), if *.stuck { "left where it hangs in the kernel" } else { "killed" })]
    Deadline { command: String, after: Duration, stuck: bool },
}

fn said(stdout: &str, stderr: &str) -> String {
    [stderr, stdout].iter().filter(|text| !text.is_empty()).map(|text| format!(": {text}")).collect()
}

impl ToolError {
    /// Whether it may go on doing something, or has left something half done.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Wait { .. })
    }

    #[must_use]
    pub fn fault(&self) -> Fault {
        let code = match self {
            Self::Start { .. } => FaultCode::ToolMissing,
            Self::Deadline { .. } => FaultCode::TimedOut,
            Self::Failed { .. } | Self::Wait { .. } => FaultCode::ToolFailed,
        };
        Fault::from_error(code, self)
    }
}

/// What a tool that succeeded said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
}

impl Tool {
    /// # Errors
    /// `tool-missing` when no directory for programs has it.
    pub fn find(name: &str) -> Result<Self, Fault> {
        let is_program =
            |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        let path = PATH.split(':').map(|dir| PathBuf::from(dir).join(name)).find(is_program).ok_or_else(|| {
            Fault::new(FaultCode::ToolMissing, format!("the live system does not have {name}, which the task needs"))
        })?;
        Ok(Self { path, environment: Vec::new() })
    }

    /// A variable of its environment, which is otherwise empty but for `PATH` and `LC_ALL`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, ends with another status than 0, or does not end in time. Then it is killed; what it
    /// asked the kernel for may still be going on.
    pub fn run(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        deadline: Duration,
    ) -> Result<Said, ToolError> {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let command = self.shown(&args);
        let mut child = Command::new(&self.path)
            .args(&args)
            .env_clear()
            .env("PATH", PATH)
            // What it says is read.
            .env("LC_ALL", "C")
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ToolError::Start { command: command.clone(), source })?;
        let stdout = collect(child.stdout.take(), OUTPUT_LIMIT);
        let stderr = collect(child.stderr.take(), OUTPUT_LIMIT);
        let Some(status) =
            wait(&mut child, deadline).map_err(|source| ToolError::Wait { command: command.clone(), source })?
        else {
            return Err(ToolError::Deadline { command, after: deadline, stuck: !abandon(child) });
        };
        // A child of the tool's own may hold the pipes for longer than the tool lived.
        let text = |pipe: std::sync::mpsc::Receiver<Vec<u8>>| {
            let bytes = pipe.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).trim().to_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        if status.success() {
            Ok(Said { stdout, stderr })
        } else {
            Err(ToolError::Failed { command, status, stdout, stderr })
        }
    }

    fn shown(&self, args: &[OsString]) -> String {
        let name = self.path.file_name().unwrap_or_default();
        std::iter::once(name).chain(args.iter().map(OsString::as_os_str)).fold(String::new(), |mut text, word| {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&word.to_string_lossy());
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn sh(script: &str, deadline: Duration) -> Result<Said, ToolError> {
        Tool::find("sh").expect("every system has it").with("TOLD", "yes").run(["-c", script], deadline)
    }

    #[test]
    fn its_environment_is_empty_and_its_output_whole() {
        let said = sh("echo $TOLD $LC_ALL $HOME; echo aside >&2", SOON).expect("it succeeds");
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("yes C", "aside"));
    }

    #[test]
    fn a_failure_tells_everything() {
        let error = sh("echo part; echo because >&2; exit 3", SOON).expect_err("it fails");
        let text = error.fault().to_string();
        for word in ["sh -c", "exit status: 3", "part", "because", "tool-failed"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
        assert!(!error.is_unknown());
    }

    #[test]
    fn one_that_does_not_end_is_killed_and_nobody_knows() {
        let error = sh("exec sleep 60", Duration::from_millis(200)).expect_err("it is killed");
        assert!(error.is_unknown() && matches!(error, ToolError::Deadline { stuck: false, .. }), "{error}");
        assert_eq!(error.fault().code, FaultCode::TimedOut);
    }

    #[test]
    fn a_tool_that_is_not_there_is_said_at_once() {
        assert_eq!(Tool::find("no-such-tool").expect_err("missing").code, FaultCode::ToolMissing);
    }
}
