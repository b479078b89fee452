//! The task engine: what every front door works with, and the only thing that runs tasks.
//!
//! A door never touches a device. It may ask what the engine can do ([`Engine::capabilities`]), have short things
//! answered at once ([`Engine::plan`], [`Engine::inventory`]), submit tasks ([`Engine::submit`]), read every run of
//! this boot in order ([`Engine::runs`]), and take events ([`Engine::unacknowledged`]). A run is registered before any
//! work begins, so that a door that pushes commands (as Ironic's conductor does) finds it in the list whatever happens
//! to its own connection.
//!
//! Before the first change a task's plan and digest go through the door's [`StartGate`]. Whatever the gate answers is
//! journalled before anything is done.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use speediso_model::build::BuildInfo;
use speediso_model::event::{Event, EventBuffer, EventKind, Progress};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::SkipList;
use speediso_model::id::RunId;
use speediso_model::inventory::Inventory;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::task::{OnInterrupt, PowerAction, Task};
use speediso_sys::clock;
use speediso_sys::disks::DiskScope;
use speediso_sys::inflight;
use speediso_sys::roots::Roots;
use speediso_tasks::ctx::{Cancel, Patience, ProgressUpdate, Reporter, TaskCtx, Uploads};
use speediso_tasks::share::Sharing;
use speediso_tasks::tools::Tools;
use tokio::sync::watch;

use crate::console::board::Board;
use crate::journal::Journal;
use crate::logs;
use crate::secrets;
use crate::state::{MOVED, StateDir};

/// How long the last reports may take before a reboot goes on without them.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// The same for lines on consoles and to syslog.
pub(crate) const LAST_LINES: Duration = Duration::from_secs(3);

/// Whoever gave the order permits the start, or does not.
#[async_trait]
pub trait StartGate: Send + Sync {
    /// Asked once per run, before the first change. Returning `Ok` means that the start is on record.
    async fn permit(&self, run: RunId, plan: &Plan, digest: &PlanDigest) -> Result<(), Fault>;

    /// Whether somebody beyond this machine takes the events, so that the last of them are waited for before it goes.
    fn listens(&self) -> bool;
}

/// What a run is to do.
pub struct Submission {
    pub run: RunId,
    pub task: Task,
    /// Make the plan, change nothing.
    pub dry_run: bool,
    /// What the order says to leave alone, beside what this machine does anyway.
    pub skip: SkipList,
    pub gate: Arc<dyn StartGate>,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submission").field("run", &self.run).field("task", &self.task.kind()).finish_non_exhaustive()
    }
}

/// One run of this boot.
#[derive(Clone, Debug)]
pub struct Run {
    pub id: RunId,
    /// Without what may be secret in it.
    pub task: Task,
    pub started: bool,
    /// Present once it has ended.
    pub result: Option<TaskResult>,
}

/// A kind of task that this build carries out.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Capability {
    pub task: &'static str,
    pub destructive: bool,
    pub on_interrupt: OnInterrupt,
    /// JSON Schema of its parameters.
    pub schema: serde_json::Value,
}

/// What the engine's tasks are given.
#[derive(Clone)]
pub struct Surroundings {
    pub roots: Roots,
    pub scope: DiskScope,
    /// Disks that no task of this boot may touch.
    pub skip: SkipList,
    pub http: reqwest::Client,
    pub probe: Option<PathBuf>,
    pub boot_mac: Option<String>,
    pub build: BuildInfo,
    /// How long a disk may take for one request: [`DISK_PATIENCE`], but in tests.
    pub disk_patience: Duration,
    /// The way to other machines, where the door brings one.
    pub sharing: Option<Arc<dyn Sharing>>,
    /// External programs.
    pub tools: Tools,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("roots", &self.roots).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// The kernel's own timeouts, retries and resets of a SCSI disk together stay below it.
pub const DISK_PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

struct Inner {
    surroundings: Mutex<Surroundings>,
    /// Whose image store takes captures.
    controller: Mutex<Option<String>>,
    runtime: tokio::runtime::Handle,
    state: Mutex<State>,
    /// Counts what is new to tell; doors wait for it.
    changes: watch::Sender<u64>,
    /// The number up to which events are stored elsewhere.
    acknowledged: watch::Sender<u64>,
    /// How often the agent died before, in this boot.
    restarts: u32,
    /// What the consoles show.
    board: Board,
}

struct State {
    journal: Journal,
    events: EventBuffer,
    runs: Vec<Run>,
    cancels: BTreeMap<RunId, Cancel>,
    progress: BTreeMap<(RunId, Option<String>), Progress>,
}

impl Engine {
    /// Takes up where the journal ends.
    ///
    /// # Errors
    /// When the journal cannot be read or written: without it nothing destructive may be done.
    pub fn start(state: &StateDir, surroundings: Surroundings) -> Result<Self, Fault> {
        let (journal, events) = Journal::open(&state.file("journal.jsonl"))
            .map_err(|e| Fault::new(FaultCode::Io, "opening the journal").because(e.to_string()))?;
        let started = events.iter().filter(|e| matches!(e.kind, EventKind::AgentStarted { .. })).count();
        let restarts = started.saturating_sub(usize::from(state.file(MOVED).exists()));
        let mut buffer = EventBuffer::default();
        let mut runs: Vec<Run> = Vec::new();
        for event in events {
            if let Some(id) = event.run {
                note(&mut runs, id, &event.kind);
            }
            buffer.restore(event);
        }
        let open: Vec<(RunId, Task, bool)> =
            runs.iter().filter(|r| r.result.is_none()).map(|r| (r.id, r.task.clone(), r.started)).collect();
        let engine = Self {
            inner: Arc::new(Inner {
                surroundings: Mutex::new(surroundings),
                controller: Mutex::new(None),
                runtime: tokio::runtime::Handle::current(),
                state: Mutex::new(State {
                    journal,
                    events: buffer,
                    runs,
                    cancels: BTreeMap::new(),
                    progress: BTreeMap::new(),
                }),
                changes: watch::Sender::new(0),
                acknowledged: watch::Sender::new(0),
                restarts: u32::try_from(restarts).unwrap_or(u32::MAX),
                board: Board::default(),
            }),
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        engine.tell(None, EventKind::AgentStarted { version, restarts: engine.inner.restarts });
        for (run, task, started) in open {
            engine.tell(Some(run), EventKind::Ended { result: died(&task, started) });
        }
        Ok(engine)
    }

    /// How often the agent died before in this boot.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.inner.restarts
    }

    /// What people see of this engine's work at the machine.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.inner.board
    }

    /// After enrolment images are fetched with the session's certificate.
    pub fn set_http(&self, http: reqwest::Client) {
        self.inner.surroundings.lock().unwrap_or_else(PoisonError::into_inner).http = http;
    }

    /// From now on tasks may send images to its store.
    pub fn set_controller(&self, url: String) {
        *self.inner.controller.lock().unwrap_or_else(PoisonError::into_inner) = Some(url);
    }

    /// After enrolment images may come from other machines too.
    pub fn set_sharing(&self, sharing: Arc<dyn Sharing>) {
        self.inner.surroundings.lock().unwrap_or_else(PoisonError::into_inner).sharing = Some(sharing);
    }

    #[must_use]
    pub fn capabilities(&self) -> Vec<Capability> {
        capabilities()
    }

    /// What a task would do here now.
    ///
    /// # Errors
    /// Why it would be refused.
    pub fn plan(&self, task: &Task) -> Result<Plan, Fault> {
        speediso_tasks::plan(task, &self.context(RunId::random(), Cancel::default()))
    }

    /// Reads the machine; takes a second or two.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        speediso_tasks::collect_inventory(&self.context(RunId::random(), Cancel::default()))
    }

    /// What a task is given, for work of the agent's own that is none.
    pub(crate) fn surroundings(&self, reporter: Arc<dyn Reporter>) -> TaskCtx {
        TaskCtx { reporter, uploads: None, ..self.context(RunId::random(), Cancel::default()) }
    }

    /// Every run of this boot, oldest first.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        self.state().runs.clone()
    }

    /// Registers a run and begins it.
    ///
    /// # Errors
    /// When the task is invalid, the run is known already, another task is still going on, or it cannot be journalled.
    pub fn submit(&self, submission: Submission) -> Result<(), Fault> {
        secrets::learn_task(&submission.task);
        submission.task.validate()?;
        submission.skip.check().map_err(|what| Fault::new(FaultCode::TaskInvalid, what))?;
        let cancel = Cancel::default();
        {
            let mut state = self.state();
            if state.runs.iter().any(|r| r.id == submission.run) {
                return Err(Fault::new(FaultCode::AlreadyDone, format!("run {} is known already", submission.run)));
            }
            if let Some(busy) = state.runs.iter().find(|r| r.result.is_none()) {
                return Err(Fault::new(
                    FaultCode::Internal,
                    format!("{} is still going on as run {}", busy.task.kind(), busy.id),
                ));
            }
            self.record(&mut state, Some(submission.run), EventKind::Registered { task: submission.task.redacted() })?;
            state.cancels.insert(submission.run, cancel.clone());
        }
        let engine = self.clone();
        let (run, kind) = (submission.run, submission.task.kind());
        // What hangs from a run before is not this one's.
        let began = Instant::now();
        let spawned = std::thread::Builder::new().name(format!("task-{kind}")).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| engine.carry_out(&submission, &cancel)));
            let result = result.unwrap_or_else(|panic| {
                engine.share_no_more();
                panicked(kind, panic.as_ref())
            });
            engine.end(run, kind, result);
        });
        if let Err(error) = spawned {
            let fault = Fault::from_error(FaultCode::Internal, &error);
            self.tell(
                Some(run),
                EventKind::Ended { result: TaskResult::failed(kind, Outcome::FailedUnchanged, fault) },
            );
        }
        self.inner.runtime.spawn(self.clone().watch(run, kind, began));
        Ok(())
    }

    /// Ends a run, unless that was done before.
    fn end(&self, run: RunId, kind: &str, result: TaskResult) {
        let given_up = self.state().runs.iter().any(|r| r.id == run && r.result.is_some());
        let told = if given_up {
            EventKind::Notice { text: format!("{kind} came back after it was given up: {}", result.outcome.name()) }
        } else {
            EventKind::Ended { result }
        };
        self.tell(Some(run), told);
    }

    /// Gives a run up when a disk no longer answers it: its thread waits in the kernel and cannot say so itself. The disk
    /// stays claimed by that thread, so that nobody else gets it.
    async fn watch(self, run: RunId, kind: &'static str, began: Instant) {
        let patience = self.inner.surroundings.lock().unwrap_or_else(PoisonError::into_inner).disk_patience;
        let mut rhythm = tokio::time::interval((patience / 10).max(Duration::from_millis(10)));
        while self.state().runs.iter().any(|r| r.id == run && r.result.is_none()) {
            rhythm.tick().await;
            let hung = inflight::oldest_since(began).filter(|request| request.since.elapsed() > patience);
            let Some(hung) = hung else { continue };
            // Should the disk come back: no further than the next safe point.
            self.cancel(run);
            self.share_no_more();
            let message = format!(
                "{} {} bytes at byte {} of {} has not ended for {} s",
                hung.operation,
                hung.length,
                hung.offset,
                hung.device,
                hung.since.elapsed().as_secs()
            );
            let fault = Fault::new(FaultCode::DiskHung, message);
            self.end(run, kind, TaskResult::failed(kind, Outcome::Unknown, fault));
            return;
        }
    }

    /// Asks a run to stop at its next safe point.
    pub fn cancel(&self, run: RunId) {
        if let Some(cancel) = self.state().cancels.get(&run) {
            cancel.cancel();
        }
    }

    /// Waits for the end of a run.
    ///
    /// # Errors
    /// When the run is not known.
    pub async fn ended(&self, run: RunId) -> Result<TaskResult, Fault> {
        let mut changes = self.inner.changes.subscribe();
        loop {
            match self.state().runs.iter().find(|r| r.id == run).map(|r| r.result.clone()) {
                Some(Some(result)) => return Ok(result),
                Some(None) => {}
                None => return Err(Fault::new(FaultCode::Internal, format!("run {run} is not known"))),
            }
            // The sender lives as long as the engine.
            let _ = changes.changed().await;
        }
    }

    /// Waits until no run is going on.
    pub async fn at_rest(&self) {
        let mut changes = self.inner.changes.subscribe();
        while self.state().runs.iter().any(|r| r.result.is_none()) {
            // The sender lives as long as the engine.
            let _ = changes.changed().await;
        }
    }

    /// Changes whenever there is something new to tell.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The oldest events that nobody has acknowledged, up to a number of them and about so many bytes.
    #[must_use]
    pub fn unacknowledged(&self, limit: usize, bytes: usize) -> Vec<Event> {
        self.state().events.batch(limit, bytes)
    }

    /// Everything up to and with this number is stored elsewhere.
    pub fn acknowledge(&self, seq: u64) {
        self.state().events.acknowledge(seq);
        self.inner.acknowledged.send_replace(seq);
    }

    /// The latest of every run and device that is going on.
    #[must_use]
    pub fn progress(&self) -> Vec<Progress> {
        self.state().progress.values().cloned().collect()
    }

    /// Keeps an event for the doors, writes it to the consoles, and journals it if that can be done.
    pub fn tell(&self, run: Option<RunId>, kind: EventKind) {
        let kind = without_secrets(kind);
        let mut state = self.state();
        if let Err(fault) = self.record(&mut state, run, kind.clone()) {
            tracing::error!("{fault}, proceeding");
            if let Some(id) = run {
                note(&mut state.runs, id, &kind);
            }
        }
        if let (Some(id), EventKind::Ended { .. }) = (run, kind) {
            state.cancels.remove(&id);
            state.progress.retain(|(r, _), _| *r != id);
            self.inner.board.progress(state.progress.values().cloned().collect());
        }
        drop(state);
        self.inner.changes.send_modify(|n| *n += 1);
    }

    /// The same, but an event that cannot be journalled counts for nothing: what it announces must not be done.
    fn record(&self, state: &mut State, run: Option<RunId>, kind: EventKind) -> Result<(), Fault> {
        say(&kind);
        self.inner.board.note(run, &kind);
        let event = state.events.push(run, clock::uptime_ms(), kind);
        let journalled = state.journal.append(&event);
        self.inner.changes.send_modify(|n| *n += 1);
        journalled.map_err(|e| Fault::new(FaultCode::Io, "the journal cannot be written").because(e.to_string()))?;
        if let Some(id) = run {
            note(&mut state.runs, id, &event.kind);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it was held left whole values behind: every change is one assignment or push.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn context(&self, run: RunId, cancel: Cancel) -> TaskCtx {
        let surroundings = self.inner.surroundings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let controller = self.inner.controller.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TaskCtx {
            roots: surroundings.roots,
            scope: surroundings.scope,
            skip: surroundings.skip,
            reporter: Arc::new(RunReporter { engine: self.clone(), run }),
            cancel,
            http: surroundings.http,
            runtime: self.inner.runtime.clone(),
            probe: surroundings.probe,
            boot_mac: surroundings.boot_mac,
            build: surroundings.build,
            patience: Patience::default(),
            uploads: controller.map(|controller| Uploads { controller, run }),
            resuming: false,
            sharing: surroundings.sharing,
            tools: surroundings.tools,
        }
    }

    /// Closes the port on which an image's chunks are given, if one is open.
    fn share_no_more(&self) {
        let sharing = self.inner.surroundings.lock().unwrap_or_else(PoisonError::into_inner).sharing.clone();
        if let Some(sharing) = sharing {
            sharing.leave(Duration::ZERO);
        }
    }

    /// Whether an earlier run of the same task was begun and did not end well.
    fn was_interrupted(&self, run: RunId, task: &Task) -> bool {
        let task = task.redacted();
        let unfinished = |r: &Run| r.result.as_ref().is_some_and(|result| result.outcome != Outcome::Verified);
        self.state().runs.iter().any(|r| r.id != run && r.started && r.task == task && unfinished(r))
    }

    fn carry_out(&self, submission: &Submission, cancel: &Cancel) -> TaskResult {
        let Submission { run, task, dry_run, skip, gate } = submission;
        let kind = task.kind();
        // What the last task gave, it gives no longer: the disks are this task's.
        self.share_no_more();
        let unchanged = |fault| TaskResult::failed(kind, Outcome::FailedUnchanged, fault);
        let resuming = self.was_interrupted(*run, task);
        let mut ctx = TaskCtx { resuming, ..self.context(*run, cancel.clone()) };
        ctx.skip = ctx.skip.and(skip);
        let ctx = ctx;
        let plan = match speediso_tasks::plan(task, &ctx) {
            Ok(plan) => plan,
            Err(fault) => return unchanged(fault),
        };
        let digest = plan.digest();
        self.tell(Some(*run), EventKind::Planned { plan: plan.clone(), digest: digest.clone() });
        if *dry_run {
            return TaskResult::verified(kind, "dry run: the plan was made, nothing was changed", Changed::AlreadySo);
        }
        if let Err(fault) = cancel.check() {
            return unchanged(fault);
        }
        if task.needs_permission() {
            let permitted = self.inner.runtime.block_on(async {
                tokio::select! {
                    permitted = gate.permit(*run, &plan, &digest) => permitted,
                    () = cancel.cancelled() => cancel.check(),
                }
            });
            if let Err(fault) = permitted {
                return unchanged(fault);
            }
        }
        // On record before the first change: should we die now, the truth is that it may have begun.
        let recorded = self.record(&mut self.state(), Some(*run), EventKind::Started { digest: digest.clone() });
        if let Err(fault) = recorded {
            return unchanged(fault);
        }
        match task {
            Task::Power(power) => self.last_words(*run, power.action, gate.listens()),
            _ => {
                let result = speediso_tasks::execute(task, &digest, &ctx);
                if let Some(sharing) = &ctx.sharing {
                    sharing.leave(share_for(task, &result));
                }
                result
            }
        }
    }

    /// Delivers what there is to tell, then goes. Returns only if the kernel declines.
    fn last_words(&self, run: RunId, action: PowerAction, heard: bool) -> TaskResult {
        let step = match action {
            PowerAction::Reboot => "reboot",
            PowerAction::PowerOff => "power off",
        };
        self.tell(Some(run), EventKind::StepBegan { step: step.into() });
        if heard {
            let delivered = self.inner.runtime.block_on(async {
                let mut acknowledged = self.inner.acknowledged.subscribe();
                tokio::time::timeout(LAST_WORDS, async {
                    while !self.state().events.is_empty() {
                        let _ = acknowledged.changed().await;
                    }
                })
                .await
            });
            if delivered.is_err() {
                tracing::warn!("not everything could be told in time; proceeding with {step}");
            }
        }
        logs::drain(LAST_LINES);
        let Err(fault) = speediso_tasks::perform_power(action);
        TaskResult::failed(step, Outcome::FailedUnchanged, fault)
    }
}

/// How long the port on which chunks are shared outlives its task.
fn share_for(task: &Task, result: &TaskResult) -> Duration {
    match task {
        Task::WriteImage(task) if result.outcome == Outcome::Verified => Duration::from_secs(task.share_for.into()),
        _ => Duration::ZERO,
    }
}

/// The tasks of this build.
#[must_use]
pub fn capabilities() -> Vec<Capability> {
    use speediso_model::task as t;
    fn schema<T: schemars::JsonSchema>() -> serde_json::Value {
        schemars::schema_for!(T).to_value()
    }
    let capability = |task, destructive, on_interrupt, schema| Capability { task, destructive, on_interrupt, schema };
    vec![
        capability("inventory", false, OnInterrupt::Safe, schema::<t::InventoryTask>()),
        capability("wipe", true, OnInterrupt::Safe, schema::<t::WipeTask>()),
        capability("teardown", true, OnInterrupt::Reconcile, schema::<t::TeardownTask>()),
        capability("nvme_format", true, OnInterrupt::Safe, schema::<t::NvmeFormatTask>()),
        capability(
            "hardware_raid",
            true,
            OnInterrupt::Reconcile,
            schema::<speediso_model::hardware_raid::HardwareRaidTask>(),
        ),
        capability("partition", true, OnInterrupt::Reconcile, schema::<t::PartitionTask>()),
        capability("raid", true, OnInterrupt::Reconcile, schema::<t::RaidTask>()),
        capability("write_image", true, OnInterrupt::Safe, schema::<t::WriteImageTask>()),
        capability("capture", false, OnInterrupt::Safe, schema::<speediso_model::capture::CaptureTask>()),
        capability("config_drive", true, OnInterrupt::Reconcile, schema::<t::ConfigDriveTask>()),
        capability("boot_entry", false, OnInterrupt::Reconcile, schema::<t::BootEntryTask>()),
        capability("burn_in", false, OnInterrupt::Safe, schema::<t::BurnInTask>()),
        capability("power", false, OnInterrupt::Never, schema::<t::PowerTask>()),
    ]
}

fn note(runs: &mut Vec<Run>, id: RunId, kind: &EventKind) {
    match kind {
        EventKind::Registered { task } => runs.push(Run { id, task: task.clone(), started: false, result: None }),
        EventKind::Started { .. } => {
            if let Some(run) = runs.iter_mut().find(|r| r.id == id) {
                run.started = true;
            }
        }
        EventKind::Ended { result } => {
            if let Some(run) = runs.iter_mut().find(|r| r.id == id) {
                run.result.get_or_insert_with(|| result.clone());
            }
        }
        _ => {}
    }
}

/// The truth about a run whose agent died.
fn died(task: &Task, started: bool) -> TaskResult {
    let (outcome, message) = if started {
        (Outcome::Unknown, format!("the agent ended in the middle of {}", task.kind()))
    } else {
        (Outcome::FailedUnchanged, format!("the agent ended before {} began", task.kind()))
    };
    TaskResult::failed(task.kind(), outcome, Fault::new(FaultCode::AgentDied, message))
}

fn panicked(kind: &str, panic: &(dyn std::any::Any + Send)) -> TaskResult {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into());
    TaskResult::failed(kind, Outcome::Unknown, Fault::new(FaultCode::Internal, format!("{kind} panicked: {text}")))
}

/// What a tool or a server said may hold what it was told in confidence. Plans and tasks hold none: they are what they
/// are, and bound by their digests.
fn without_secrets(kind: EventKind) -> EventKind {
    match kind {
        EventKind::StepEnded { step, detail } => EventKind::StepEnded { step, detail: secrets::hide(&detail) },
        EventKind::Notice { text } => EventKind::Notice { text: secrets::hide(&text) },
        EventKind::Ended { mut result } => {
            result.fault = result.fault.map(hidden);
            for device in &mut result.devices {
                device.fault = device.fault.take().map(hidden);
            }
            EventKind::Ended { result }
        }
        EventKind::Trouble { fault } => EventKind::Trouble { fault: hidden(fault) },
        other => other,
    }
}

fn hidden(mut fault: Fault) -> Fault {
    fault.message = secrets::hide(&fault.message);
    fault.causes.iter_mut().for_each(|cause| *cause = secrets::hide(cause));
    fault
}

/// One line on the consoles for each event.
fn say(kind: &EventKind) {
    match kind {
        EventKind::AgentStarted { version, restarts: 0 } => tracing::info!("speediso-agent {version} is up"),
        EventKind::AgentStarted { version, restarts } => {
            tracing::warn!("speediso-agent {version} is up again, after it died {restarts} times in this boot");
        }
        EventKind::Registered { task } => tracing::info!("task {}", task.kind()),
        EventKind::Planned { plan, .. } => plan.to_string().lines().for_each(|line| tracing::info!("{line}")),
        EventKind::Started { digest } => tracing::info!("permitted to start (plan {digest})"),
        EventKind::StepBegan { step } => tracing::info!("{step} ..."),
        EventKind::StepEnded { step, detail } => tracing::info!("{step}: {detail}"),
        EventKind::Notice { text } => tracing::warn!("{text}"),
        EventKind::Ended { result } => match &result.fault {
            None => tracing::info!("{}: {}", result.outcome.name(), result.used),
            Some(fault) => {
                tracing::error!("{} ({}): {fault}", result.outcome.name(), result.outcome.meaning());
                tracing::error!("what to do: {}", fault.advice);
            }
        },
        EventKind::Trouble { fault } => {
            tracing::error!("{fault}");
            tracing::error!("what to do: {}", fault.advice);
        }
        // Its screen was shown when it was made.
        EventKind::NetworkExamined { .. } | EventKind::Unknown => {}
    }
}

struct RunReporter {
    engine: Engine,
    run: RunId,
}

impl Reporter for RunReporter {
    fn step_began(&self, step: &str) {
        self.engine.tell(Some(self.run), EventKind::StepBegan { step: step.into() });
    }

    fn step_ended(&self, step: &str, detail: &str) {
        self.engine.tell(Some(self.run), EventKind::StepEnded { step: step.into(), detail: detail.into() });
    }

    fn notice(&self, text: &str) {
        self.engine.tell(Some(self.run), EventKind::Notice { text: text.into() });
    }

    fn progress(&self, update: ProgressUpdate) {
        let progress = Progress {
            run: self.run,
            stage: update.stage.into(),
            current: update.current,
            total: update.total,
            unit: update.unit.into(),
            rate: update.rate,
            device: update.device.clone(),
            uptime_ms: clock::uptime_ms(),
        };
        let all = {
            let mut state = self.engine.state();
            state.progress.insert((self.run, update.device), progress);
            state.progress.values().cloned().collect()
        };
        self.engine.inner.board.progress(all);
        self.engine.inner.changes.send_modify(|n| *n += 1);
    }
}
