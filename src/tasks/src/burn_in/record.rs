//! What is finished of a scenario, in memory that outlives the agent: one that is restarted does not do it again, and
//! begins again what was in the middle, and says so.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use speediso_model::burn_in::Scenario;

use super::engine::Ended;
use crate::ctx::TaskCtx;

const FILE: &str = "burn-in.json";

#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    scenario_digest: String,
    began: Timestamp,
    restarts: u32,
    /// By group, in order.
    finished: Vec<Vec<Ended>>,
    /// The group that was begun last, and how often.
    begun: Option<(usize, u32)>,
}

impl Record {
    /// Where an agent that died left off, if it was this work; otherwise the beginning.
    pub(super) fn take_up(scenario: &Scenario, ctx: &TaskCtx) -> Self {
        let path = ctx.roots.run.join(FILE);
        let digest = scenario.digest();
        let left: Option<Content> = ctx
            .resuming
            .then(|| serde_json::from_slice(&fs::read(&path).ok()?).ok())
            .flatten()
            .filter(|content: &Content| content.scenario_digest == digest && fits(content, scenario));
        let mut record = Self {
            path,
            content: left.unwrap_or_else(|| Content {
                scenario_digest: digest,
                began: Timestamp::now(),
                restarts: 0,
                finished: Vec::new(),
                begun: None,
            }),
        };
        if record.content.begun.is_some() {
            record.content.restarts += 1;
            ctx.reporter.notice(&format!(
                "the agent ended in the middle of this burn-in: {} of {} groups of steps are done and not repeated",
                record.content.finished.len(),
                scenario.steps.len()
            ));
        }
        record
    }

    pub(super) fn began(&self) -> Timestamp {
        self.content.began
    }

    pub(super) fn restarts(&self) -> u32 {
        self.content.restarts
    }

    pub(super) fn finished(&self, group: usize) -> Option<Vec<Ended>> {
        self.content.finished.get(group).cloned()
    }

    /// Notes it before anything of the group is done. How often it has been begun, this time included.
    pub(super) fn begin(&mut self, group: usize, ctx: &TaskCtx) -> u32 {
        let times = match self.content.begun {
            Some((n, times)) if n == group => times + 1,
            _ => 1,
        };
        self.content.begun = Some((group, times));
        self.put(ctx);
        times
    }

    pub(super) fn begun_again(&self, group: usize) -> bool {
        matches!(self.content.begun, Some((n, times)) if n == group && times > 1)
    }

    pub(super) fn end(&mut self, group: usize, ended: &[Ended], ctx: &TaskCtx) {
        debug_assert_eq!(self.content.finished.len(), group, "groups end in order");
        self.content.finished.push(ended.to_vec());
        self.put(ctx);
    }

    pub(super) fn forget(&self) {
        // One that stays is of no weight: it names its scenario, and is taken up only after an interruption.
        let _ = fs::remove_file(&self.path);
    }

    fn put(&self, ctx: &TaskCtx) {
        if let Err(error) = self.write() {
            ctx.reporter.notice(&format!(
                "what is finished cannot be kept in {}, proceeding; a restarted agent would begin anew: {error}",
                self.path.display()
            ));
        }
    }

    fn write(&self) -> io::Result<()> {
        let directory = self.path.parent().ok_or(io::ErrorKind::NotFound)?;
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let part = directory.join(format!(".{FILE}.part"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(&serde_json::to_vec(&self.content)?)?;
        fs::rename(part, &self.path)
    }
}

/// Whether every finished group has as many steps as the scenario's.
fn fits(content: &Content, scenario: &Scenario) -> bool {
    content.finished.len() <= scenario.steps.len()
        && content.finished.iter().zip(&scenario.steps).all(|(ended, entry)| ended.len() == entry.steps().len())
}
