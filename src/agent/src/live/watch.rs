//! How the tasks of this image stand, which systemd runs: while they do, nobody restarts the machine because it seems
//! idle, and nobody comes in who was not asked to watch.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::console::board::{Beside, Board};
use crate::ssh::Ssh;

const LOOK: Duration = Duration::from_secs(2);
const PROPERTIES: &str = "--property=ActiveState,Job,Result,ExecMainExitTimestampMonotonic";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Runs,
    Failed,
    Done,
}

/// Tells the door and the consoles how they stand.
#[derive(Debug)]
pub struct TaskWatch {
    names: Vec<String>,
    board: Board,
    ssh: Ssh,
    said: bool,
}

impl TaskWatch {
    #[must_use]
    pub fn new(names: Vec<String>, board: Board, ssh: Ssh) -> Self {
        Self { names, board, ssh, said: false }
    }

    /// Looks once, and says whether any of them runs.
    pub async fn look(&mut self) -> bool {
        let stand = match look(&self.names).await {
            Ok(stand) => stand,
            Err(error) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!("systemd does not say how the tasks stand: {error}; they count as running");
                }
                Stand::Runs
            }
        };
        self.ssh.image_tasks(stand == Stand::Runs);
        self.board.beside(match stand {
            Stand::Runs => Beside::Runs("a task of this image runs"),
            Stand::Failed => Beside::Failed("a task of this image failed, which somebody has to look at"),
            Stand::Done => Beside::Nothing,
        });
        stand == Stand::Runs
    }

    /// Returns when all have ended.
    pub async fn to_the_end(mut self) {
        while self.look().await {
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn look(names: &[String]) -> std::io::Result<Stand> {
    let mut command = Command::new("systemctl");
    command.args(["show", PROPERTIES]).args(names.iter().map(|name| format!("speediso@{name}.service")));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(stand(&String::from_utf8_lossy(&output.stdout)))
}

/// A paragraph for each unit. What failed counts once nothing runs any more: the rest of a list may be on its way.
fn stand(shown: &str) -> Stand {
    let stands: Vec<Stand> = shown.split("\n\n").filter(|unit| !unit.trim().is_empty()).map(of_unit).collect();
    [Stand::Runs, Stand::Failed].into_iter().find(|stand| stands.contains(stand)).unwrap_or(Stand::Done)
}

fn of_unit(unit: &str) -> Stand {
    let property = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or("");
    let waits = !matches!(property("Job"), "" | "0");
    match property("ActiveState") {
        _ if waits => Stand::Runs,
        "failed" => Stand::Failed,
        // Never begun: the one before it failed.
        "inactive" if property("ExecMainExitTimestampMonotonic") == "0" => Stand::Failed,
        "inactive" if property("Result") == "success" => Stand::Done,
        "inactive" => Stand::Failed,
        _ => Stand::Runs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: &str = "ActiveState=inactive\nResult=success\nExecMainExitTimestampMonotonic=5000\n";
    const RUNS: &str = "Job=12\nResult=success\nActiveState=activating\nExecMainExitTimestampMonotonic=0\n";
    const WAITS: &str = "Job=13\nResult=success\nActiveState=inactive\nExecMainExitTimestampMonotonic=0\n";
    const FAILED: &str = "Result=timeout\nActiveState=failed\nExecMainExitTimestampMonotonic=9000\n";
    const NEVER: &str = "Result=success\nActiveState=inactive\nExecMainExitTimestampMonotonic=0\n";

    #[test]
    fn a_list_runs_until_the_last_has_ended() {
        for (units, expected) in [
            (&[DONE, RUNS, WAITS][..], Stand::Runs),
            (&[DONE, WAITS], Stand::Runs),
            (&[FAILED, WAITS], Stand::Runs),
            (&[DONE, FAILED, NEVER], Stand::Failed),
            (&[NEVER], Stand::Failed),
            (&[DONE, DONE], Stand::Done),
        ] {
            assert_eq!(stand(&units.join("\n")), expected, "{units:?}");
        }
    }
}
