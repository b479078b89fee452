//! What the agent knows inside of the live flavour: that it is there, and which tasks the image brings.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::logs::FROM_JOURNAL;

/// The builder puts it there.
const MARK: &str = "/usr/lib/speediso/live.json";
/// Programs of the site's own; systemd runs them (`systemd/speediso@.service`).
const TASKS: &str = "/usr/lib/speediso/tasks";
/// Between two attempts to follow the journal.
const AGAIN: Duration = Duration::from_secs(5);

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

/// Brings what these tasks print, and how systemd says they end, into the log, and so onto every console; for ever.
pub async fn follow_tasks(names: Vec<String>) {
    loop {
        if let Err(error) = follow(&names).await {
            tracing::warn!("the output of the tasks cannot be followed: {error}; see journalctl");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow(names: &[String]) -> std::io::Result<()> {
    let mut command = Command::new("journalctl");
    // Everything of this boot, also what was said before we came.
    command.args(["--quiet", "--boot", "--follow", "--lines=all", "--output=cat"]);
    command.args(names.iter().map(|name| format!("--unit=speediso@{name}.service")));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        tracing::info!(target: FROM_JOURNAL, "task: {line}");
    }
    child.wait().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

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
