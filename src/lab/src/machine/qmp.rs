//! QEMU's monitor: one connection per command, since a machine gets a handful in its life.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::error::{Doing, LabError, Result};

const LIMIT: Duration = Duration::from_secs(20);

/// Sends one command and gives its answer; events that come between are passed over.
pub(super) fn execute(socket: &Path, machine: &str, command: &str, arguments: &Value) -> Result<Value> {
    let doing = || format!("talking to the monitor of machine {machine} at {}", socket.display());
    let stream = connect(socket).doing(doing)?;
    stream.set_read_timeout(Some(LIMIT)).doing(doing)?;
    let mut reader = BufReader::new(stream.try_clone().doing(doing)?);
    let mut writer = stream;
    let mut ask = |request: Value| -> Result<Value> {
        writeln!(writer, "{request}").doing(doing)?;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).doing(doing)? == 0 {
                // `quit` may close the door before it answers.
                return Ok(Value::Null);
            }
            let answer: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if answer.get("error").is_some() {
                return Err(LabError::Qmp {
                    machine: machine.to_owned(),
                    command: command.to_owned(),
                    answer: line.trim().to_owned(),
                });
            }
        }
    };
    ask(json!({ "execute": "qmp_capabilities" }))?;
    ask(json!({ "execute": command, "arguments": arguments }))
}

/// A machine that was just switched on makes its socket a moment later.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let end = Instant::now() + LIMIT;
    loop {
        match UnixStream::connect(socket) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}
