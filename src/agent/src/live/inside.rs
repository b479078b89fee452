//! What the agent knows inside of the live flavour: that it is there, and which tasks the image brings.

use std::borrow::Cow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::logs::FROM_JOURNAL;
use crate::state::StateDir;

/// The builder puts it there.
const MARK: &str = "/usr/lib/speediso/live.json";
/// Programs of the site's own; systemd runs them (`systemd/speediso@.service`).
const TASKS: &str = "/usr/lib/speediso/tasks";
/// Between two attempts to follow the journal.
const AGAIN: Duration = Duration::from_secs(5);
/// In the state: up to where the journal was brought.
const BROUGHT: &str = "tasks.cursor";

#[must_use]
pub fn is_inside() -> bool {
    Path::new(MARK).exists()
}

/// Names of the tasks that this system brings, by which `SPEEDISO=` starts them. None in the ramdisk.
#[must_use]
pub fn own_tasks() -> Vec<String> {
    tasks_in(Path::new(TASKS))
}

fn tasks_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Brings what these tasks print, and how systemd says they end, into the log, and so onto every console; for ever. The
/// state remembers how far it is: what the agent before us brought is not said again, as if the task ran again.
pub async fn follow_tasks(names: Vec<String>, state: StateDir) {
    loop {
        if let Err(error) = follow(&names, &state).await {
            tracing::warn!("the output of the tasks cannot be followed: {error}; see journalctl");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow(names: &[String], state: &StateDir) -> std::io::Result<()> {
    let mut command = Command::new("journalctl");
    // Everything of this boot, also what was said before we came.
    command.args(["--quiet", "--boot", "--follow", "--lines=all", "--all", "--output=json", "--output-fields=MESSAGE"]);
    if let Some(brought) = state.get(BROUGHT)? {
        command.arg(format!("--after-cursor={}", String::from_utf8_lossy(&brought)));
    }
    command.args(names.iter().map(|name| format!("--unit=speediso@{name}.service")));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        let Ok(entry) = serde_json::from_str::<Entry>(&line) else { continue };
        for said in entry.text().lines() {
            tracing::info!(target: FROM_JOURNAL, "task: {said}");
        }
        // A task that prints a lot is not slowed down by every line of it.
        if lines.get_ref().buffer().is_empty() {
            state.put(BROUGHT, entry.cursor.as_bytes())?;
        }
    }
    child.wait().await.map(drop)
}

/// One of `journalctl --output=json`.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "MESSAGE", default)]
    message: Message,
}

/// What is no text comes as its bytes.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
    #[default]
    None,
}

impl Entry {
    fn text(&self) -> Cow<'_, str> {
        match &self.message {
            Message::Text(text) => Cow::Borrowed(text),
            Message::Bytes(bytes) => String::from_utf8_lossy(bytes),
            Message::None => Cow::Borrowed(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_journal_are_read() {
        let said = |line: &str| {
            let entry: Entry = serde_json::from_str(line).expect("an entry");
            (entry.text().into_owned(), entry.cursor)
        };
        let line = r#"{"__CURSOR":"s=a;i=1","MESSAGE":"first: ended","__MONOTONIC_TIMESTAMP":"7"}"#;
        assert_eq!(said(line), ("first: ended".into(), "s=a;i=1".into()));
        assert_eq!(said(r#"{"__CURSOR":"b","MESSAGE":[255,65]}"#).0, "\u{fffd}A");
        assert_eq!(said(r#"{"__CURSOR":"c","MESSAGE":null}"#).0, "");
        assert_eq!(said(r#"{"__CURSOR":"d"}"#).0, "");
    }

    #[test]
    fn what_can_be_run_is_a_task() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, mode) in [("lininstall", 0o755), ("README", 0o644), ("check", 0o700)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        }
        std::fs::create_dir(dir.path().join("lib")).expect("made");
        assert_eq!(tasks_in(dir.path()), ["check", "lininstall"]);
        assert!(tasks_in(&dir.path().join("none")).is_empty());
    }
}
