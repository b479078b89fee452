//! What there is to know at a glance, kept in one place: those who learn something put it here, the consoles look.

use std::sync::Arc;

use speediso_model::event::{EventKind, Progress};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::RunId;
use speediso_model::outcome::Outcome;
use tokio::sync::watch;

/// How the machine stands with whoever gives it work.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Standing {
    /// There is no controller in this boot.
    #[default]
    Alone,
    Seeking,
    Pending {
        code: String,
    },
    Enrolled {
        name: String,
    },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShownFault {
    pub code: String,
    /// With the code, which says so itself.
    pub text: String,
    pub advice: String,
    /// Of the task that failed by it.
    pub outcome: Option<&'static str>,
    /// It goes away by itself once this works.
    pub concerns: Concerns,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concerns {
    Network,
    Controller,
    #[default]
    Work,
}

/// What goes on beside the tasks of the engine, for whoever must not disturb it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Beside {
    #[default]
    Nothing,
    Runs(&'static str),
    Failed(&'static str),
}

impl Beside {
    #[must_use]
    pub fn why_busy(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Runs(why) | Self::Failed(why) => Some(why),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub product: String,
    pub serial: String,
    pub build: String,
    /// Where documentation of faults is.
    pub docs: String,
    pub host: Option<String>,
    /// `192.0.2.17/24 on ens3 52:54:00:12:34:56`.
    pub address: Option<String>,
    /// The neighbour by LLDP, once one was heard.
    pub switch_port: Option<String>,
    pub controller: Option<String>,
    pub standing: Standing,
    /// `9f8e7d6c, task 2 of 5`.
    pub order: Option<String>,
    pub run: Option<(RunId, String)>,
    pub step: Option<String>,
    pub progress: Vec<Progress>,
    /// How the last task ended.
    pub last: Option<String>,
    pub fault: Option<ShownFault>,
    pub beside: Beside,
}

#[derive(Clone, Debug, Default)]
pub struct Board(Arc<watch::Sender<Status>>);

impl Board {
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    /// The run that is going on.
    #[must_use]
    pub fn run(&self) -> Option<String> {
        self.0.borrow().run.as_ref().map(|(run, _)| run.to_string())
    }

    /// Anything that is told once.
    pub fn set(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// There is an address; what was wrong with the network is not any more.
    pub fn addressed(&self, host: Option<&str>, address: String) {
        self.set(|status| {
            status.host = host.map(str::to_owned).or(status.host.take());
            status.address = Some(address);
            status.forget(Concerns::Network);
        });
    }

    pub fn seeking(&self, controller: &str) {
        self.set(|status| {
            status.controller = Some(controller.to_owned());
            status.standing = Standing::Seeking;
        });
    }

    pub fn pending(&self, code: &str) {
        self.set(|status| {
            status.standing = Standing::Pending { code: code.to_owned() };
            status.forget(Concerns::Controller);
        });
    }

    pub fn enrolled(&self, name: &str) {
        self.set(|status| {
            status.standing = Standing::Enrolled { name: name.to_owned() };
            status.forget(Concerns::Controller);
        });
    }

    /// The controller answers again.
    pub fn heard(&self) {
        self.set(|status| status.forget(Concerns::Controller));
    }

    /// Trouble with the controller that is tried again and so is no event of its own.
    pub fn troubled(&self, fault: &Fault) {
        self.set(|status| status.fault = Some(shown(fault, None)));
    }

    pub fn granted(&self, order: &str, index: u32, of: u32) {
        let short: String = order.chars().take(8).collect();
        self.set(|status| status.order = Some(format!("{short}, task {} of {of}", index + 1)));
    }

    #[must_use]
    pub fn has_order(&self) -> bool {
        self.0.borrow().order.is_some()
    }

    pub fn beside(&self, beside: Beside) {
        self.set(|status| status.beside = beside);
    }

    pub fn idle(&self) {
        self.set(|status| status.order = None);
    }

    pub fn progress(&self, progress: Vec<Progress>) {
        self.set(|status| status.progress = progress);
    }

    /// What the engine tells everybody.
    pub fn note(&self, run: Option<RunId>, kind: &EventKind) {
        self.set(|status| match kind {
            EventKind::Registered { task } => {
                status.run = run.map(|run| (run, task.kind().to_owned()));
                status.step = None;
                // What is under way is news; what went wrong before it is history, and in the log.
                status.forget(Concerns::Work);
            }
            EventKind::StepBegan { step } => status.step = Some(step.clone()),
            EventKind::Ended { result } => {
                let kind = status.run.take().map_or_else(|| "task".to_owned(), |(_, kind)| kind);
                // What was used says whether it was a dry run: a plan is no wipe.
                let used = if result.fault.is_none() { format!(", {}", result.used) } else { String::new() };
                status.last = Some(format!("{kind}: {}{used}", result.outcome.name()));
                status.step = None;
                status.progress.clear();
                if let Some(fault) = &result.fault {
                    status.fault = Some(shown(fault, Some(result.outcome)));
                }
            }
            EventKind::Trouble { fault } => status.fault = Some(shown(fault, None)),
            _ => {}
        });
    }
}

impl Status {
    fn forget(&mut self, concerns: Concerns) {
        if self.fault.as_ref().is_some_and(|f| f.concerns == concerns) {
            self.fault = None;
        }
    }
}

fn shown(fault: &Fault, outcome: Option<Outcome>) -> ShownFault {
    let concerns = match fault.code {
        FaultCode::NoLink | FaultCode::NoDhcp => Concerns::Network,
        FaultCode::ControllerUnreachable
        | FaultCode::TlsFailed
        | FaultCode::TlsPinMismatch
        | FaultCode::ClockWrong
        | FaultCode::NotApproved => Concerns::Controller,
        _ => Concerns::Work,
    };
    ShownFault {
        code: fault.code.name().to_owned(),
        text: crate::secrets::hide(&fault.to_string()),
        advice: fault.advice.clone(),
        outcome: outcome.map(Outcome::name),
        concerns,
    }
}

#[cfg(test)]
mod tests {
    use speediso_model::outcome::TaskResult;
    use speediso_model::task::{InventoryTask, Task};

    use super::*;

    #[test]
    fn a_fault_stays_until_what_it_concerns_works() {
        let board = Board::default();
        let seen = board.subscribe();
        let code = || seen.borrow().fault.as_ref().map(|f| f.code.clone());
        board.note(None, &EventKind::Trouble { fault: Fault::new(FaultCode::NoDhcp, "no server") });
        board.enrolled("web1");
        assert_eq!(code().as_deref(), Some("no-dhcp"));
        board.addressed(None, "192.0.2.1/24".into());
        assert_eq!(code(), None);

        let run = RunId::random();
        board.note(Some(run), &EventKind::Registered { task: Task::Inventory(InventoryTask::default()) });
        assert_eq!(board.run(), Some(run.to_string()));
        let fault = Fault::new(FaultCode::DiskIo, "sda");
        let result = TaskResult::failed("wipe", Outcome::FailedChanged, fault);
        board.note(Some(run), &EventKind::Ended { result });
        board.heard();
        board.addressed(None, "192.0.2.2/24".into());
        assert_eq!(code().as_deref(), Some("disk-io"));
        assert_eq!(seen.borrow().fault.as_ref().and_then(|f| f.outcome), Some("failed_changed"));
        board.note(Some(run), &EventKind::Registered { task: Task::Inventory(InventoryTask::default()) });
        assert_eq!(code(), None);
    }
}
