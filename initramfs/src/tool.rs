//! External programs: run to the end, with everything they said in the error.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Output};

/// A program that could not be run, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error("starting {program}, which is in the Debian package {package}")]
    Start {
        program: String,
        package: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("running `{command}`: {status}\n{stderr}")]
    Failed { command: String, status: std::process::ExitStatus, stderr: String },
    #[error("running `{command}`: its output is not text")]
    NotText { command: String },
}

/// Runs `command` (found in `package`) and gives what it printed.
pub fn run(command: &mut Command, package: &'static str) -> Result<String, ToolError> {
    let shown = shown(command);
    let output = finish(command, package, &shown)?;
    String::from_utf8(output.stdout).map_err(|_| ToolError::NotText { command: shown })
}

fn finish(command: &mut Command, package: &'static str, shown: &str) -> Result<Output, ToolError> {
    let output = command.env("LC_ALL", "C.UTF-8").output().map_err(|source| ToolError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        package,
        source,
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(ToolError::Failed {
        command: shown.to_owned(),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim_end().to_owned(),
    })
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}
