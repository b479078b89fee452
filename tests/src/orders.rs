//! Task files carried out one after the other in a live system, each by `speediso-agent run`.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use speediso_model::outcome::TaskResult;

use crate::LiveSsh;

/// A live system that does what it is told over ssh.
#[derive(Debug)]
pub struct Orders<'a> {
    pub ssh: &'a LiveSsh,
    /// The machine's serial number, which every order names.
    pub machine: &'a str,
}

impl Orders<'_> {
    /// Carries tasks out, and gives what became of each.
    pub fn run(&self, tasks: &[Value], limit: Duration) -> Result<Vec<TaskResult>> {
        let said = self.ssh.run(&self.command(tasks, "--json"), limit)?;
        results(&said)
    }

    /// The plan of a task, as a person sees it in the log.
    pub fn plan(&self, task: &Value, limit: Duration) -> Result<String> {
        self.ssh.run(&self.command(std::slice::from_ref(task), "--dry-run"), limit)
    }

    fn command(&self, tasks: &[Value], how: &str) -> String {
        let file = json!({
            "version": 1,
            "machine": self.machine,
            "expires": "2100-01-01T00:00:00Z",
            "order": "88888888-8888-4888-8888-888888888888",
            "tasks": tasks,
        });
        // Its exit status tells of the tasks; what failed here is the login.
        format!(
            "d=$(mktemp -d); cat >$d/tasks.json <<'END'\n{file}\nEND\nspeediso-agent run {how} --arm {} --state-dir $d/state --tasks \
             $d/tasks.json 2>$d/err </dev/null; cat $d/err; true",
            self.machine
        )
    }
}

/// The results among what was said.
fn results(said: &str) -> Result<Vec<TaskResult>> {
    let read = |line: &str| serde_json::from_str(line).with_context(|| format!("no result: {line}"));
    let results: Vec<TaskResult> =
        said.lines().filter(|line| line.starts_with('{')).map(read).collect::<Result<_>>()?;
    anyhow::ensure!(!results.is_empty(), "it said no result: {said}");
    Ok(results)
}
