//! The open order of a machine: grants, starts, ends, and what follows when an agent vanishes.

use speediso_model::api::Grant;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{Epoch, RunId};
use speediso_model::node::NodeEvent;
use speediso_model::order::{OrderState, TaskEvent, TaskState};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::task::{OnInterrupt, PowerAction, Task};

use super::{CONTROLLER, Decision, Effects, MAX_ATTEMPTS, Machine};
use crate::store::OrderRecord;

/// How a start was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Started {
    /// Recorded by this request.
    Now,
    /// The same start was recorded before: its answer was lost.
    Before,
}

fn shown(run: RunId) -> String {
    run.to_string()[..8].to_owned()
}

/// The end of a run whose start was never asked for.
fn not_permitted(kind: &str, result: TaskResult) -> TaskResult {
    let mut fault = Fault::new(
        FaultCode::ProtocolError,
        format!("{kind} ended as {} without a start that was permitted", result.outcome.name()),
    );
    fault.causes.extend(result.fault.as_ref().map(ToString::to_string));
    TaskResult { outcome: Outcome::Unknown, changed: None, fault: Some(fault), ..result }
}

impl Machine {
    /// Opens an order.
    ///
    /// # Errors
    /// When the node takes none, has one, is protected, or the tasks are invalid.
    pub fn open(&mut self, record: OrderRecord, fx: &mut Effects) -> Decision {
        self.not_pending()?;
        self.not_quarantined()?;
        let order = &record.order;
        if let Some(open) = &self.order {
            return Err(Fault::new(
                FaultCode::OrderClosed,
                format!("{} has an open order ({}); a machine takes one at a time", self.node.name, open.order.id),
            )
            .because("cancel it or wait for its end"));
        }
        order.tasks.iter().try_for_each(|t| t.task.validate())?;
        if self.node.protected && !order.dry_run && order.tasks.iter().any(|t| t.task.is_destructive()) {
            return Err(self.protected("the order"));
        }
        let what = order
            .profile
            .clone()
            .unwrap_or_else(|| order.tasks.iter().map(|t| t.task.kind()).collect::<Vec<_>>().join(", "));
        let dry = if order.dry_run { " (dry run: nothing will be changed)" } else { "" };
        fx.say(&order.by, Some(order.id), format!("{what} was ordered for {}{dry}", self.node.name));
        // An order without tasks (`shell`) is done once the next boot leads into the ramdisk.
        self.node.armed |= order.tasks.is_empty();
        let purpose = record.purpose();
        self.order = Some(record);
        if let Some(purpose) = purpose {
            self.step(NodeEvent::OrderOpened(purpose), None, fx);
        }
        self.settle(fx);
        Ok(())
    }

    fn protected(&self, what: &str) -> Fault {
        Fault::new(
            FaultCode::MachineProtected,
            format!("{} is protected; {what} would destroy data and was refused", self.node.name),
        )
    }

    /// The next task for this agent, if there is one. The same run again until it has begun.
    ///
    /// # Errors
    /// When the epoch is not the newest.
    pub fn next(&mut self, epoch: Epoch, new_run: RunId, fx: &mut Effects) -> Decision<Option<Grant>> {
        self.check_epoch(epoch)?;
        self.not_quarantined()?;
        let Some(record) = &mut self.order else { return Ok(None) };
        let of = u32::try_from(record.order.tasks.len()).unwrap_or(u32::MAX);
        let Some(index) = record.order.tasks.iter().position(|t| !t.state.is_final()) else { return Ok(None) };
        let attempts = record.attempts[index];
        let run = match &record.order.tasks[index].state {
            TaskState::Granted { run, epoch: e, .. } if *e == epoch => *run,
            TaskState::Queued => new_run,
            // Running: the agent has it. Interrupted: a person decides.
            _ => return Ok(None),
        };
        let task = &mut record.order.tasks[index];
        task.state = apply(&task.state, TaskEvent::Grant { run, epoch }, attempts)?;
        let attempt = task.state.attempt();
        let grant = Grant {
            run,
            order: record.order.id,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            of,
            attempt,
            task: task.task.clone(),
            dry_run: record.order.dry_run,
            skip_block_devices: record.order.skip_block_devices.clone(),
        };
        if run == new_run {
            record.attempts[index] += 1;
            fx.grants.push((run, record.order.id, epoch));
        }
        self.settle(fx);
        Ok(Some(grant))
    }

    /// Permission to begin. Recorded before it is answered; one run begins at most once.
    ///
    /// # Errors
    /// Whatever forbids it; nothing was recorded then.
    pub fn start(
        &mut self,
        run: RunId,
        epoch: Epoch,
        plan: &Plan,
        digest: &PlanDigest,
        fx: &mut Effects,
    ) -> Decision<Started> {
        self.check_epoch(epoch)?;
        self.not_quarantined()?;
        if plan.digest() != *digest {
            return Err(Fault::new(FaultCode::PlanMismatch, "the digest is not that of the plan sent with it"));
        }
        let name = self.node.name.clone();
        let protected = self.node.protected;
        let refusal = self.protected("the task");
        let Some(record) = &mut self.order else {
            return Err(Fault::new(FaultCode::OrderClosed, format!("{name} has no open order any more")));
        };
        let Some(index) = record.order.tasks.iter().position(|t| t.state.run() == Some(run)) else {
            return Err(if record.withdrawn.contains(&run) {
                Fault::new(
                    FaultCode::LeaseLost,
                    format!("the run {} was taken back; ask for the next task", shown(run)),
                )
            } else {
                Fault::new(FaultCode::OrderClosed, format!("the run {} is none of the open order", shown(run)))
            });
        };
        if matches!(record.order.tasks[index].state, TaskState::Running { .. }) {
            let again = TaskEvent::Start { run, epoch, plan: Some(digest.clone()) };
            return match apply(&record.order.tasks[index].state, again, 0) {
                Ok(_) => Ok(Started::Before),
                Err(_) => Err(Fault::new(
                    FaultCode::PlanMismatch,
                    format!("the run {} was started with another plan", shown(run)),
                )),
            };
        }
        let task = &record.order.tasks[index].task;
        if record.order.dry_run {
            return Err(Fault::new(FaultCode::NotArmed, "this order is a dry run; nothing of it may begin"));
        }
        if let Some(by) = &record.cancelling {
            return Err(Fault::new(FaultCode::Cancelled, format!("the order was cancelled by {by}")));
        }
        let destructive = task.is_destructive() || plan.destructive;
        if protected && destructive {
            return Err(refusal);
        }
        if plan.task != task.kind() {
            return Err(Fault::new(
                FaultCode::PlanMismatch,
                format!("the plan is for {}, the task is {}", plan.task, task.kind()),
            ));
        }
        let kind = task.kind();
        let event = TaskEvent::Start { run, epoch, plan: Some(digest.clone()) };
        record.order.tasks[index].state = apply(&record.order.tasks[index].state, event, 0)?;
        fx.start = Some((run, plan.clone(), digest.clone()));
        fx.say(CONTROLLER, Some(record.order.id), format!("{name} may begin {kind} (run {})", shown(run)));
        self.settle(fx);
        Ok(Started::Now)
    }

    /// The end of a run by its own agent. A run that ended before, or was never known here, changes nothing.
    ///
    /// # Errors
    /// When the result contradicts the state, such as a change reported by a run that never began.
    pub fn end(&mut self, run: RunId, epoch: Epoch, result: TaskResult, fx: &mut Effects) -> Decision {
        let died = result.fault.as_ref().is_some_and(|f| f.code == FaultCode::AgentDied);
        let Some(record) = &mut self.order else { return Ok(()) };
        let Some(index) = record.order.tasks.iter().position(|t| t.state.run() == Some(run)) else { return Ok(()) };
        let state = &record.order.tasks[index].state;
        if matches!(state, TaskState::Ended { .. } | TaskState::Interrupted { .. }) {
            return Ok(());
        }
        // Looking was cut short and can be had again; not without end, though.
        if died && matches!(state, TaskState::Granted { .. }) && record.attempts[index] <= MAX_ATTEMPTS {
            fx.ends.push((run, result));
            self.withdraw_grants(fx);
            return Ok(());
        }
        if died && matches!(state, TaskState::Running { .. }) {
            fx.ends.push((run, result));
            self.agent_lost("the agent died in the middle", fx);
            return Ok(());
        }
        let task = &record.order.tasks[index].task;
        let kind = task.kind();
        let unasked = matches!(state, TaskState::Granted { .. })
            && task.needs_permission()
            && !record.order.dry_run
            && result.outcome != Outcome::FailedUnchanged;
        // Whoever changes a disk without leave is not believed about what it did there either.
        let result = if unasked { not_permitted(kind, result) } else { result };
        let state = apply(state, TaskEvent::End { run, epoch, result: result.clone() }, 0)?;
        record.order.tasks[index].state = state;
        let fault = result.fault.as_ref().map(|f| format!(": {f}")).unwrap_or_default();
        let text = format!("{kind} ended on {}: {}{fault}", self.node.name, result.outcome.name());
        fx.events.push(super::Said {
            by: CONTROLLER.to_owned(),
            order: Some(record.order.id),
            text,
            detail: serde_json::Value::Null,
        });
        fx.ends.push((run, result));
        self.settle(fx);
        Ok(())
    }

    /// The agent that had the current task is gone: what it only looked at is as good as new, what it had begun goes
    /// by its kind's rule.
    pub(super) fn agent_lost(&mut self, why: &str, fx: &mut Effects) {
        self.withdraw_grants(fx);
        let Some(record) = &mut self.order else { return };
        let id = record.order.id;
        let Some(index) = record.order.tasks.iter().position(|t| matches!(t.state, TaskState::Running { .. })) else {
            return;
        };
        let task = &mut record.order.tasks[index];
        // Running always takes the loss of its agent.
        let Ok(interrupted) = apply(&task.state, TaskEvent::AgentLost, 0) else { return };
        task.state = interrupted;
        let kind = task.task.kind();
        let attempts = record.attempts[index];
        record.interruptions[index] += 1;
        let again = record.interruptions[index] < MAX_ATTEMPTS;
        fx.say(CONTROLLER, Some(id), format!("{kind} on {} was interrupted: {why}", self.node.name));
        let rule = task.task.on_interrupt();
        if let Some(by) = record.cancelling.clone() {
            record.cancel_rest(&by);
        } else if rule != OnInterrupt::Never && again {
            if let Ok(queued) = apply(&task.state, TaskEvent::Retry, attempts) {
                task.state = queued;
                fx.say(
                    CONTROLLER,
                    Some(id),
                    format!("{kind} on {} will be tried again, once, from the beginning", self.node.name),
                );
            }
        } else {
            let fault = Fault::new(
                FaultCode::AgentDied,
                format!("{kind} on {} was interrupted ({why}) and is not repeated by itself", self.node.name),
            );
            let advice = "look at the machine's disks, then retry or cancel the order";
            fx.raise(format!("interrupted:{id}:{index}:{attempts}"), Fault { advice: advice.into(), ..fault });
            if record.purpose().is_some() {
                self.step(NodeEvent::OrderFailed, Some(format!("{kind} was interrupted: {why}")), fx);
            }
        }
        self.settle(fx);
    }

    /// Takes back what was handed out and has not begun.
    pub(super) fn withdraw_grants(&mut self, fx: &mut Effects) {
        let Some(record) = &mut self.order else { return };
        for task in &mut record.order.tasks {
            if let TaskState::Granted { run, .. } = task.state
                && let Ok(queued) = apply(&task.state, TaskEvent::AgentLost, 0)
            {
                record.withdrawn.push(run);
                task.state = queued;
            }
        }
        self.settle(fx);
    }

    pub(super) fn running_destructive(&self) -> Option<(RunId, &'static str)> {
        self.order.as_ref()?.order.tasks.iter().find_map(|t| match t.state {
            TaskState::Running { run, .. } if t.task.is_destructive() => Some((run, t.task.kind())),
            _ => None,
        })
    }

    /// The machine was seen after a restart: at the boot server, or as a new boot. That is how a power task ends.
    pub fn seen_again(&mut self, fx: &mut Effects) {
        self.end_power("seen at the boot server", fx);
    }

    /// Its lease ran out after it announced a restart: its last word stands.
    pub(super) fn silent_after_power(&mut self, fx: &mut Effects) {
        self.end_power("the agent's last word, then silence", fx);
    }

    fn end_power(&mut self, how: &str, fx: &mut Effects) {
        let Some(record) = &mut self.order else { return };
        let running = record.order.tasks.iter_mut().find_map(|t| match (&t.task, &t.state) {
            (Task::Power(power), TaskState::Running { run, epoch, .. }) => Some((power.action, *run, *epoch)),
            _ => None,
        });
        let Some((action, run, epoch)) = running else { return };
        let asked = match action {
            PowerAction::Reboot => "reboot",
            PowerAction::PowerOff => "power off",
        };
        // A running power task takes this end: run and epoch are its own.
        let _ = self.end(run, epoch, TaskResult::verified(asked, how, Changed::Changed), fx);
    }

    /// A person does not want it any more. What runs can only be asked to stop.
    ///
    /// # Errors
    /// When the order is closed already.
    pub fn cancel(&mut self, by: &str, fx: &mut Effects) -> Decision {
        let online = self.is_online();
        let Some(record) = &mut self.order else {
            return Err(Fault::new(FaultCode::OrderClosed, "the order is closed already"));
        };
        let id = record.order.id;
        if record.order.tasks.iter().any(|t| matches!(t.state, TaskState::Running { .. })) {
            record.cancelling = Some(by.to_owned());
            let moves_node = record.purpose().is_some();
            if online {
                fx.say(by, Some(id), format!("{by} asks {} to stop at the next safe point", self.node.name));
            } else {
                // Nobody is there to stop, and perhaps nobody ever will be: the order must end all the same.
                self.agent_lost("the order was cancelled while the agent was silent", fx);
                let reason = "the order was cancelled while its agent was silent; it may still be at work".to_owned();
                if moves_node {
                    self.step(NodeEvent::OrderFailed, Some(reason), fx);
                }
            }
        } else {
            record.cancel_rest(by);
            fx.say(by, Some(id), format!("the order for {} was cancelled", self.node.name));
        }
        self.settle(fx);
        Ok(())
    }

    /// A person has looked and wants the interrupted task tried again.
    ///
    /// # Errors
    /// When nothing is interrupted, or the machine is protected.
    pub fn retry(&mut self, by: &str, fx: &mut Effects) -> Decision {
        self.not_quarantined()?;
        let refusal = self.protected("the task");
        let protected = self.node.protected;
        let Some(record) = &mut self.order else {
            return Err(Fault::new(
                FaultCode::OrderClosed,
                "the order is closed; only an interrupted task can be retried",
            ));
        };
        let Some(index) = record.order.tasks.iter().position(|t| matches!(t.state, TaskState::Interrupted { .. }))
        else {
            return Err(Fault::new(FaultCode::TaskInvalid, "no task of the order is interrupted"));
        };
        let task = &mut record.order.tasks[index];
        if protected && task.task.is_destructive() {
            return Err(refusal);
        }
        task.state = apply(&task.state, TaskEvent::Retry, record.attempts[index])?;
        fx.say(by, Some(record.order.id), format!("{} is to be tried again on {}", task.task.kind(), self.node.name));
        let purpose = record.purpose();
        if let Some(purpose) = purpose {
            self.step(NodeEvent::OrderOpened(purpose), None, fx);
        }
        self.settle(fx);
        Ok(())
    }

    /// Runs this agent should stop: cancelled, or no longer its own.
    #[must_use]
    pub fn to_stop(&self, running: &[RunId]) -> Vec<RunId> {
        let mut stop: Vec<RunId> = Vec::new();
        if let Some(record) = &self.order {
            stop.extend(&record.withdrawn);
            if record.cancelling.is_some() {
                stop.extend(record.order.tasks.iter().filter_map(|t| match t.state {
                    TaskState::Running { run, .. } => Some(run),
                    _ => None,
                }));
            }
        }
        // What the agent has in hand and no open order knows was cancelled with its order.
        let known = |run: &RunId| {
            self.order.as_ref().is_some_and(|r| r.order.tasks.iter().any(|t| t.state.run() == Some(*run)))
        };
        stop.extend(running.iter().filter(|r| !known(r)));
        stop.sort();
        stop.dedup();
        stop
    }

    /// Brings the order's state in line with its tasks', and closes it when they are through.
    fn settle(&mut self, fx: &mut Effects) {
        let Some(record) = &mut self.order else { return };
        // A task that ended well in spite of a cancellation ends only itself.
        if let Some(by) = record.cancelling.clone()
            && !record.order.tasks.iter().any(|t| matches!(t.state, TaskState::Running { .. }))
        {
            record.cancel_rest(&by);
        }
        record.order.state = OrderState::of(&record.order.tasks);
        let state = record.order.state;
        if state.is_open() || record.order.closed.is_some() {
            return;
        }
        record.order.closed = jiff::Timestamp::from_millisecond(self.now).ok();
        let id = record.order.id;
        let purpose = record.purpose();
        let failed = record.order.tasks.iter().find_map(|t| match &t.state {
            TaskState::Ended { result, .. } if !result.outcome.is_success() => Some((t.task.kind(), result.clone())),
            _ => None,
        });
        fx.say(CONTROLLER, Some(id), format!("the order for {} is {}", self.node.name, state.name()));
        let (event, reason) = match (state, purpose) {
            (_, None) => return,
            (OrderState::Done, Some(purpose)) => (NodeEvent::OrderDone(purpose), None),
            (OrderState::Failed, _) => {
                let reason = failed.map(|(kind, result)| {
                    let fault =
                        result.fault.clone().unwrap_or_else(|| Fault::new(FaultCode::Other, result.outcome.meaning()));
                    fx.raise(
                        format!("failed:{id}"),
                        Fault { message: format!("{}: {kind}: {}", self.node.name, fault.message), ..fault.clone() },
                    );
                    format!("{kind}: {}; {}", fault.message, result.outcome.meaning())
                });
                (NodeEvent::OrderFailed, reason)
            }
            _ => (NodeEvent::OrderCancelled, None),
        };
        self.step(event, reason, fx);
    }
}

impl OrderRecord {
    /// Cancels what is not at its end, so that nothing of it is handed out any more.
    fn cancel_rest(&mut self, by: &str) {
        for task in &mut self.order.tasks {
            if let TaskState::Granted { run, .. } = task.state {
                self.withdrawn.push(run);
            }
            if let Ok(cancelled) = apply(&task.state, TaskEvent::Cancel { by: by.to_owned() }, 0) {
                task.state = cancelled;
            }
        }
    }
}

/// The one way a task's state changes.
fn apply(state: &TaskState, event: TaskEvent, attempts: u32) -> Decision<TaskState> {
    state.clone().apply(event, attempts).map_err(|e| Fault::from_error(FaultCode::OrderClosed, &e))
}
