//! Orders and the states of their tasks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::certificate::CertificateNotes;
use crate::hints::SkipList;
use crate::id::{Epoch, NodeId, OrderId, RunId};
use crate::outcome::{Outcome, TaskResult};
use crate::plan::PlanDigest;
use crate::task::Task;

/// How far one task of an order is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "one per task")]
pub enum TaskState {
    Queued,
    /// Handed to an agent, which may look but not change anything yet.
    Granted {
        run: RunId,
        epoch: Epoch,
        attempt: u32,
    },
    /// The start was recorded; from here on something may have been changed.
    Running {
        run: RunId,
        epoch: Epoch,
        attempt: u32,
        plan: Option<PlanDigest>,
    },
    /// The agent vanished after the start.
    Interrupted {
        run: RunId,
        attempt: u32,
    },
    Ended {
        run: RunId,
        result: TaskResult,
    },
    Cancelled {
        by: String,
    },
}

/// What can happen to a task.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "short-lived")]
pub enum TaskEvent {
    Grant {
        run: RunId,
        epoch: Epoch,
    },
    Start {
        run: RunId,
        epoch: Epoch,
        plan: Option<PlanDigest>,
    },
    /// The agent, or its boot, is gone.
    AgentLost,
    End {
        run: RunId,
        epoch: Epoch,
        result: TaskResult,
    },
    /// After an interruption: by its kind's rule, or by a person.
    Retry,
    Cancel {
        by: String,
    },
}

#[derive(Debug, thiserror::Error)]
#[error("a task that is {state} cannot take {event}")]
pub struct IllegalTransition {
    pub state: &'static str,
    pub event: &'static str,
}

impl TaskState {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Granted { .. } => "granted",
            Self::Running { .. } => "running",
            Self::Interrupted { .. } => "interrupted",
            Self::Ended { .. } => "ended",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Granted { run, .. }
            | Self::Running { run, .. }
            | Self::Interrupted { run, .. }
            | Self::Ended { run, .. } => Some(*run),
            Self::Queued | Self::Cancelled { .. } => None,
        }
    }

    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Cancelled { .. })
    }

    #[must_use]
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Granted { attempt, .. } | Self::Running { attempt, .. } | Self::Interrupted { attempt, .. } => {
                *attempt
            }
            _ => 0,
        }
    }

    /// The only way forward. Repeating the event that led here leads here again, so that a lost answer costs nothing.
    ///
    /// `attempts` is how many runs the task had before.
    ///
    /// # Errors
    /// When the event does not belong to this state: another run, an older epoch, or simply the wrong moment.
    pub fn apply(self, event: TaskEvent, attempts: u32) -> Result<Self, IllegalTransition> {
        let illegal = IllegalTransition { state: self.name(), event: event.name() };
        match (self, event) {
            (Self::Queued, TaskEvent::Grant { run, epoch }) => Ok(Self::Granted { run, epoch, attempt: attempts + 1 }),
            (Self::Granted { run, epoch, attempt }, TaskEvent::Grant { run: again, epoch: e })
                if run == again && epoch == e =>
            {
                Ok(Self::Granted { run, epoch, attempt })
            }
            (Self::Granted { run, epoch, attempt }, TaskEvent::Start { run: r, epoch: e, plan })
                if r == run && e == epoch =>
            {
                Ok(Self::Running { run, epoch, attempt, plan })
            }
            (Self::Running { run, epoch, attempt, plan }, TaskEvent::Start { run: r, epoch: e, plan: p })
                if r == run && e == epoch && p == plan =>
            {
                Ok(Self::Running { run, epoch, attempt, plan })
            }
            // Nothing was started: the task is as good as new.
            (Self::Granted { .. }, TaskEvent::AgentLost) => Ok(Self::Queued),
            (Self::Running { run, attempt, .. }, TaskEvent::AgentLost) => Ok(Self::Interrupted { run, attempt }),
            // A task may fail, or have nothing to do, before its start; it cannot have changed anything.
            (Self::Granted { run, epoch, .. }, TaskEvent::End { run: r, epoch: e, result })
                if r == run && e == epoch && result.outcome != Outcome::FailedChanged =>
            {
                Ok(Self::Ended { run, result })
            }
            (Self::Running { run, epoch, .. }, TaskEvent::End { run: r, epoch: e, result })
                if r == run && e == epoch =>
            {
                Ok(Self::Ended { run, result })
            }
            (Self::Ended { run, result }, TaskEvent::End { run: r, .. }) if r == run => Ok(Self::Ended { run, result }),
            (Self::Interrupted { .. }, TaskEvent::Retry) => Ok(Self::Queued),
            (Self::Queued | Self::Granted { .. } | Self::Interrupted { .. }, TaskEvent::Cancel { by }) => {
                Ok(Self::Cancelled { by })
            }
            _ => Err(illegal),
        }
    }
}

impl TaskEvent {
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Grant { .. } => "a grant",
            Self::Start { .. } => "a start",
            Self::AgentLost => "the loss of its agent",
            Self::End { .. } => "an end",
            Self::Retry => "a retry",
            Self::Cancel { .. } => "a cancellation",
        }
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OrderTask {
    pub task: Task,
    #[serde(flatten)]
    pub state: TaskState,
}

/// The sum of its tasks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Nothing was handed out yet.
    Open,
    Running,
    /// An agent vanished in the middle; a person decides, or the task's kind allows another try.
    Interrupted,
    Done,
    Failed,
    Cancelled,
}

impl OrderState {
    /// Whether the machine is still to do something for it.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Running | Self::Interrupted)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// What the states of the tasks add up to. A task that failed ends the order: what follows it is not run.
    #[must_use]
    pub fn of(tasks: &[OrderTask]) -> Self {
        let any = |test: fn(&TaskState) -> bool| tasks.iter().any(|t| test(&t.state));
        if any(|s| matches!(s, TaskState::Ended { result, .. } if !result.outcome.is_success())) {
            Self::Failed
        } else if any(|s| matches!(s, TaskState::Cancelled { .. })) {
            Self::Cancelled
        } else if any(|s| matches!(s, TaskState::Interrupted { .. })) {
            Self::Interrupted
        } else if tasks.iter().all(|t| matches!(t.state, TaskState::Ended { .. })) {
            Self::Done
        } else if tasks.iter().all(|t| matches!(t.state, TaskState::Queued)) {
            Self::Open
        } else {
            Self::Running
        }
    }
}

/// A one-time order for one node: its tasks in turn. Once closed it is never opened again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Order {
    pub id: OrderId,
    pub node: NodeId,
    /// The profile it was made from, if any.
    #[serde(default)]
    pub profile: Option<String>,
    pub state: OrderState,
    pub tasks: Vec<OrderTask>,
    /// Plans are made and reported, nothing is changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Disks that no task of it may touch.
    #[serde(default, skip_serializing_if = "SkipList::is_empty")]
    pub skip_block_devices: SkipList,
    /// Who gave it.
    pub by: String,
    pub created: jiff::Timestamp,
    #[serde(default)]
    pub closed: Option<jiff::Timestamp>,
    /// For the certificates that come of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<CertificateNotes>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Changed;

    fn run() -> RunId {
        RunId(uuid::Uuid::from_u128(1))
    }

    fn states() -> Vec<TaskState> {
        let (run, epoch) = (run(), Epoch(3));
        vec![
            TaskState::Queued,
            TaskState::Granted { run, epoch, attempt: 1 },
            TaskState::Running { run, epoch, attempt: 1, plan: None },
            TaskState::Interrupted { run, attempt: 1 },
            TaskState::Ended { run, result: TaskResult::verified("a", "a", Changed::Changed) },
            TaskState::Cancelled { by: "me".into() },
        ]
    }

    fn events() -> Vec<TaskEvent> {
        let (run, epoch) = (run(), Epoch(3));
        vec![
            TaskEvent::Grant { run, epoch },
            TaskEvent::Start { run, epoch, plan: None },
            TaskEvent::Start { run, epoch: Epoch(2), plan: None },
            TaskEvent::Start { run: RunId(uuid::Uuid::from_u128(2)), epoch, plan: None },
            TaskEvent::AgentLost,
            TaskEvent::End { run, epoch, result: TaskResult::verified("a", "a", Changed::Changed) },
            TaskEvent::End { run, epoch: Epoch(2), result: TaskResult::verified("a", "a", Changed::Changed) },
            TaskEvent::Retry,
            TaskEvent::Cancel { by: "me".into() },
        ]
    }

    /// The whole table, committed: a change of any cell shows in review.
    #[test]
    fn transition_table() {
        use std::fmt::Write as _;
        let mut table = String::new();
        for state in states() {
            for (i, event) in events().into_iter().enumerate() {
                let name = event.name();
                let to = state.clone().apply(event, 0).map_or("-", |s| s.name());
                let _ = writeln!(table, "{:<12} {i} {name:<22} {to}", state.name());
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_failed_task_ends_the_order() {
        let ended = |result| OrderTask {
            task: Task::Inventory(crate::task::InventoryTask::default()),
            state: TaskState::Ended { run: run(), result },
        };
        let queued =
            OrderTask { task: Task::Inventory(crate::task::InventoryTask::default()), state: TaskState::Queued };
        let good = || ended(TaskResult::verified("a", "a", Changed::Changed));
        let fault = crate::fault::Fault::new(crate::fault::FaultCode::DiskIo, "x");
        let bad = ended(TaskResult::failed("a", Outcome::Unknown, fault));
        assert_eq!(OrderState::of(&[good(), bad, queued.clone()]), OrderState::Failed);
        assert_eq!(OrderState::of(&[good(), queued.clone()]), OrderState::Running);
        assert_eq!(OrderState::of(&[queued.clone(), queued]), OrderState::Open);
        assert_eq!(OrderState::of(&[good(), good()]), OrderState::Done);
    }
}
