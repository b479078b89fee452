//! The native front door: our own controller, asked over mutual TLS.
//!
//! Two loops after admission. One *delivers*: events, progress and signs of life, at least every third of the lease,
//! whatever the tasks do. The other *works*: asks for the next task, submits it, waits for its end, reports the end.
//! Both go on for ever; a controller that is away costs pauses, nothing else. What ends them is a newer boot of the same
//! machine (`epoch-stale`) or a refusal that no repetition changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use speediso_model::api::{
    Admission, EndAnswer, EndRequest, EnrolAnswer, EnrolRequest, EventsAnswer, EventsRequest, Grant, InventoryReport,
    Lease, NextAnswer, NextQuery, RenewRequest, StartRequest, path,
};
use speediso_model::build::BuildInfo;
use speediso_model::event::EventKind;
use speediso_model::fault::{Fault, FaultClass, FaultCode};
use speediso_model::id::{BootId, Epoch, RunId};
use speediso_model::inventory::SystemVendor;
use speediso_model::lldp::{self, Heard, INTERVAL_SECONDS};
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::task::Task;
use speediso_sys::clock;
use speediso_tasks::share::Sharing;
use tokio::sync::watch;

use crate::backoff::Backoff;
use crate::client::Client;
use crate::doctor::{self, Examination};
use crate::engine::{Engine, StartGate, Submission};
use crate::identity::{BootKey, Session};
use crate::idle;
use crate::live;
use crate::logs::{Logs, upload};
use crate::share::Share;
use crate::ssh::{self, Desk, Ssh};
use crate::state::StateDir;
use crate::tls::{self, Identity, Purpose, Validity};

/// Longer than this between two deliveries only when nothing happens.
const DELIVER_AT_MOST_EVERY: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_secs(10);
/// Between two questions of which the first was answered at once, and with no task.
const NEWS_PAUSE: Duration = Duration::from_millis(250);
const BATCH: usize = 100;
/// Of JSON in one delivery; what the controller takes is four times that.
const BATCH_BYTES: usize = 1 << 20;
/// How long a result may take to be told once there is nothing else left to do.
const LAST_REPORT: Duration = Duration::from_secs(20);
/// Certificates live a day; renewed long before.
const RENEW_EVERY: Duration = Duration::from_secs(8 * 3600);
const RENEW_AGAIN: Duration = Duration::from_secs(120);

/// Who and where the controller is, and who we are.
#[derive(Debug)]
pub struct Native {
    pub controller: String,
    pub pins: Vec<[u8; 32]>,
    pub token: Option<String>,
    pub boot: BootId,
    pub system: SystemVendor,
    pub macs: Vec<String>,
    pub build: BuildInfo,
    pub address: Option<String>,
    /// Enrol and report, but take no work.
    pub only_report: bool,
    /// Where to go on before any work is taken.
    pub live: Option<live::Entry>,
    /// Who was heard at the other end of the cables, as it comes in.
    pub neighbours: Option<watch::Receiver<Vec<Heard>>>,
    /// Whether all disks are there, for which enrolling need not wait; if it is known.
    pub disks: Option<watch::Receiver<bool>>,
    /// What is sent along, where there is a log to send.
    pub logs: Option<Logs>,
    /// What to look at once when enrolling fails, if anything.
    pub examination: Option<Examination>,
    /// When a machine without work may leave, as its command line says.
    pub idle: Option<idle::Word>,
}

impl Native {
    /// Enrols and serves until a fault ends it that no repetition changes, which is returned. Nothing is going on then.
    ///
    /// `idle` is called once, when the controller first says that no order is open.
    pub async fn serve(self, state: &StateDir, engine: &Engine, ssh: &Ssh, idle: impl FnOnce()) -> Fault {
        let mut idle = Some(idle);
        let mut backoff = Backoff::default();
        loop {
            let Err(fault) = Box::pin(self.run(state, engine, ssh, &mut idle)).await;
            if is_final(&fault) {
                ssh.unattended(false);
                // A disk is not left in the middle of a write because nobody listens any more.
                engine.at_rest().await;
                self.tell_the_end(state, engine).await;
                return fault;
            }
            tracing::error!("{fault}; trying on");
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Tries once to report what ended after the controller turned away: a late result is evidence.
    async fn tell_the_end(&self, state: &StateDir, engine: &Engine) {
        let told = async {
            let Some(session) = Session::load(state) else { return Ok(()) };
            let identity = BootKey::load_or_make(state)?.identity(&session.certificate)?;
            let client = Client::new(&self.controller, &self.pins, Some(&identity))?;
            for run in engine.runs() {
                if let Some(result) = run.result {
                    let request = EndRequest { epoch: session.epoch, result };
                    let _: EndAnswer = client.post(&path::END.replace("{run}", &run.id.to_string()), &request).await?;
                }
            }
            Ok::<(), Fault>(())
        };
        match tokio::time::timeout(LAST_REPORT, told).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => tracing::warn!("the last results could not be told: {fault}"),
            Err(_) => tracing::warn!("the last results could not be told in time"),
        }
    }

    async fn run(
        &self,
        state: &StateDir,
        engine: &Engine,
        ssh: &Ssh,
        idle: &mut Option<impl FnOnce()>,
    ) -> Result<std::convert::Infallible, Fault> {
        let key = BootKey::load_or_make(state)?;
        let session = match Session::load(state) {
            Some(session) => {
                tracing::info!("going on as {} (epoch {})", session.name, session.epoch);
                session
            }
            None => {
                let session = self.enrol(&key, state, engine, ssh).await?;
                session.store(state)?;
                tracing::info!("enrolled as {} ({}), epoch {}", session.name, session.node, session.epoch);
                session
            }
        };
        // There may be work at any moment; the first answer says whether.
        ssh.unattended(!self.only_report);
        ssh.set_policy(session.ssh);
        ssh.add_keys(&session.ssh_keys);
        engine.board().enrolled(&session.name);
        let identity = key.identity(&session.certificate)?;
        let client = Client::new(&self.controller, &self.pins, Some(&identity))?;
        let (images, _) = tls::client(&self.pins, Some(&identity), Validity::Checked, Purpose::Images)?;
        engine.set_http(images);
        engine.set_controller(self.controller.clone());

        if let Some(disks) = &self.disks {
            // A sender that is gone will not say more.
            let _ = disks.clone().wait_for(|settled| *settled).await;
        }
        let inventory = tokio::task::spawn_blocking({
            let engine = engine.clone();
            move || engine.inventory()
        })
        .await
        .map_err(|e| Fault::new(FaultCode::Internal, "reading the inventory").because(e.to_string()))?;
        // An inventory is large, and would make every future around this one so.
        let report = Box::new(InventoryReport { epoch: session.epoch, inventory });
        let (current, watched) = watch::channel(client);
        let share = Arc::new(Share::new(watched.clone(), &self.controller, session.epoch, &self.pins, &identity)?);
        engine.set_sharing(Arc::clone(&share) as Arc<dyn Sharing>);
        let upload = upload_if(self.logs.clone(), watched.clone(), session.epoch);
        let reported = async {
            let _: serde_json::Value = persist(&watched, Method::PUT, path::INVENTORY, &report).await?;
            Ok::<(), Fault>(())
        };
        let mut upload = std::pin::pin!(upload);
        tokio::select! {
            reported = reported => reported?,
            never = &mut upload => match never {},
        }

        let neighbours = tell_neighbours(watched.clone(), self.neighbours.clone(), engine.clone(), report);
        let (desk, wishes) = Desk::new();
        let (identities, identity) = watch::channel(identity);
        let way = ssh::Way { controller: self.controller.clone(), pins: self.pins.clone() };
        let attend = ssh::attend(wishes, ssh.clone(), watched.clone(), identity, way, session.epoch);
        let ship = ssh::ship(watched.clone(), session.epoch);
        let leave = idle::leave(idle::after(self.idle, session.idle_reboot_s), engine.clone(), ssh.clone());
        let deliver = deliver(watched.clone(), engine.clone(), session.epoch, desk.clone());
        let work = self.work(watched, engine.clone(), session.epoch, desk, ssh, idle);
        let renew = renew(current, identities, &key, self, session.clone(), state, engine, &share);
        tokio::select! {
            fault = deliver => Err(fault),
            fault = work => Err(fault),
            Err(fault) = neighbours => Err(fault),
            never = renew => match never {},
            never = upload => match never {},
            never = attend => match never {},
            never = ship => match never {},
            never = leave => match never {},
        }
    }

    async fn enrol(&self, key: &BootKey, state: &StateDir, engine: &Engine, ssh: &Ssh) -> Result<Session, Fault> {
        let client = Client::new(&self.controller, &self.pins, None)?;
        let mut request = EnrolRequest {
            token: self.token.clone(),
            csr: key.request()?,
            boot_id: self.boot,
            system: self.system.clone(),
            macs: self.macs.clone(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            build: self.build.clone(),
            ssh_host_key: ssh.host_key().await,
            address: self.address.clone(),
        };
        let mut backoff = Backoff::default();
        let mut said = None;
        let mut examination = self.examination.clone();
        loop {
            match client.post::<EnrolAnswer>(path::ENROL, &request).await {
                Ok(EnrolAnswer::Admitted(admission)) => return self.admitted(admission),
                Ok(EnrolAnswer::Pending { code, retry_ms, .. }) => {
                    ssh.unattended(false);
                    backoff.reset();
                    if said != Some(FaultCode::NotApproved) {
                        said = Some(FaultCode::NotApproved);
                        announce_code(&key.code(), &code);
                        engine.board().pending(&key.code());
                    }
                    // The token, if there was one, has done what it could.
                    request.token = None;
                    tokio::time::sleep(Duration::from_millis(retry_ms.clamp(500, 30_000))).await;
                }
                Err(fault) if fault.code == FaultCode::ClockWrong => {
                    tracing::warn!("{fault}; asking the controller for the time");
                    match client.signed_time().await.and_then(|ms| self.set_clock(ms)) {
                        Ok(()) => {}
                        Err(fault) => {
                            ssh.unattended(false);
                            say_once(engine, &mut said, &fault);
                            tokio::time::sleep(backoff.next()).await;
                        }
                    }
                }
                Err(fault) if is_final(&fault) => return Err(fault),
                Err(fault) => {
                    ssh.unattended(false);
                    say_once(engine, &mut said, &fault);
                    // Once: what the network is like does not depend on how often one asks. Beside the tries, which
                    // may succeed meanwhile.
                    if let Some(examination) = examination.take() {
                        tokio::spawn(doctor::after_failure(examination, engine.clone(), state.clone()));
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    fn admitted(&self, admission: Admission) -> Result<Session, Fault> {
        if admission.certificate.is_empty() {
            return Err(Fault::new(FaultCode::ProtocolError, "the controller admitted us without a certificate"));
        }
        Ok(Session::of(admission))
    }

    fn set_clock(&self, unix_ms: i64) -> Result<(), Fault> {
        let unix_ms = u64::try_from(unix_ms).unwrap_or(0).max(self.build.built * 1000);
        clock::set(unix_ms)
            .map_err(|e| Fault::new(FaultCode::ClockWrong, "setting the clock").because(e.to_string()))?;
        tracing::info!("the clock was set from the controller's signed time");
        Ok(())
    }

    async fn work(
        &self,
        client: watch::Receiver<Client>,
        engine: Engine,
        epoch: Epoch,
        desk: Desk,
        ssh: &Ssh,
        idle: &mut Option<impl FnOnce()>,
    ) -> Fault {
        // What ended before we were restarted, or goes on from before we lost the controller.
        for run in engine.runs() {
            let told = async { end(&client, epoch, run.id, engine.ended(run.id).await?).await };
            if let Err(fault) = told.await {
                return fault;
            }
        }
        let mut only_report = self.only_report;
        if let Some(live) = &self.live
            && let Some(unknown_names) = live.enter(&engine, ssh).await
        {
            only_report = true;
            trouble(&engine, unknown_names);
        }
        let mut backoff = Backoff::default();
        let mut said = None;
        loop {
            let asked = Instant::now();
            match latest(&client).get::<NextAnswer>(path::NEXT, &NextQuery { epoch, wait: 25 }).await {
                Ok(answer) => {
                    if said.take().is_some() {
                        tracing::info!("the controller answers again");
                    }
                    backoff.reset();
                    heed(&engine, &answer.lease, &desk);
                    engine.board().heard();
                    if answer.idle {
                        engine.board().idle();
                        ssh.unattended(false);
                    }
                    if answer.idle
                        && let Some(idle) = idle.take()
                    {
                        idle();
                    }
                    match answer.grant {
                        Some(grant) if only_report => {
                            tracing::warn!(
                                "not taking task {}: the command line names an unknown task",
                                grant.task.kind()
                            );
                            tokio::time::sleep(QUIET).await;
                        }
                        Some(grant) => {
                            ssh.unattended(true);
                            match carry_out(&client, &engine, epoch, grant).await {
                                // Whoever looks into it is to find the door open.
                                Ok(outcome) if !outcome.is_success() => ssh.unattended(false),
                                Ok(_) => {}
                                Err(fault) => return fault,
                            }
                        }
                        // Answered at once, with something for the desk: that takes a moment.
                        None if asked.elapsed() < NEWS_PAUSE => tokio::time::sleep(NEWS_PAUSE).await,
                        None => {}
                    }
                }
                Err(fault) if is_final(&fault) => return fault,
                Err(fault) => {
                    // Nothing runs here, and nobody gives any work.
                    ssh.unattended(false);
                    say_once(&engine, &mut said, &fault);
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }
}

/// The inventory is told as soon as it can be read; switches make themselves heard within half a minute after that. So
/// it is told once more, unless a task has read it anew since: that one had them.
async fn tell_neighbours(
    client: watch::Receiver<Client>,
    heard: Option<watch::Receiver<Vec<Heard>>>,
    engine: Engine,
    mut report: Box<InventoryReport>,
) -> Result<std::convert::Infallible, Fault> {
    /// From the first that is heard to the last.
    const TOGETHER: Duration = Duration::from_secs(INTERVAL_SECONDS + 1);
    let Some(mut heard) = heard else { return std::future::pending().await };
    // The borrowed value is let go of before anything is waited for: the listener could not tell more.
    let begun = heard.wait_for(|heard| !heard.is_empty()).await.is_ok();
    if begun {
        tokio::time::sleep(TOGETHER).await;
        let heard = heard.borrow().clone();
        let before = report.inventory.interfaces.clone();
        lldp::add_to(&mut report.inventory.interfaces, &heard);
        let read_anew = engine.runs().iter().any(|r| matches!(r.task, Task::Inventory(_)) && r.result.is_some());
        if report.inventory.interfaces != before && !read_anew {
            let _: serde_json::Value = persist(&client, Method::PUT, path::INVENTORY, &report).await?;
        }
    }
    std::future::pending().await
}

async fn upload_if(logs: Option<Logs>, client: watch::Receiver<Client>, epoch: Epoch) -> std::convert::Infallible {
    match logs {
        Some(logs) => upload(client, logs, epoch).await,
        None => std::future::pending().await,
    }
}

async fn carry_out(
    client: &watch::Receiver<Client>,
    engine: &Engine,
    epoch: Epoch,
    grant: Grant,
) -> Result<Outcome, Fault> {
    let run = grant.run;
    engine.board().granted(&grant.order.to_string(), grant.index, grant.of);
    tracing::info!("order {}: task {} of {}, {}", grant.order, grant.index + 1, grant.of, grant.task.kind());
    let gate = Arc::new(Recorded { client: client.clone(), epoch });
    let is_inventory = matches!(grant.task, Task::Inventory(_));
    match engine.submit(Submission {
        run,
        task: grant.task,
        dry_run: grant.dry_run,
        skip: grant.skip_block_devices,
        gate,
    }) {
        Ok(()) => {}
        // Granted twice: the first one counts.
        Err(fault) if fault.code == FaultCode::AlreadyDone => {}
        Err(fault) => {
            let result = TaskResult::failed("submit", Outcome::FailedUnchanged, fault);
            return end(client, epoch, run, result).await.map(|()| Outcome::FailedUnchanged);
        }
    }
    let result = engine.ended(run).await?;
    if is_inventory
        && let Some(output) = &result.output
        && let Ok(inventory) = serde_json::from_value(output.clone())
    {
        let report = InventoryReport { epoch, inventory };
        let _: serde_json::Value = persist(client, Method::PUT, path::INVENTORY, &report).await?;
    }
    let outcome = result.outcome;
    end(client, epoch, run, result).await?;
    Ok(outcome)
}

async fn end(client: &watch::Receiver<Client>, epoch: Epoch, run: RunId, result: TaskResult) -> Result<(), Fault> {
    let request = EndRequest { epoch, result };
    let path = path::END.replace("{run}", &run.to_string());
    let answer: EndAnswer = persist(client, Method::POST, &path, &request).await?;
    if answer.late {
        tracing::warn!("the result of run {run} came too late: a newer boot has taken over");
    }
    Ok(())
}

/// The controller stores the start before it answers; only then may anything be changed.
struct Recorded {
    client: watch::Receiver<Client>,
    epoch: Epoch,
}

#[async_trait]
impl StartGate for Recorded {
    async fn permit(&self, run: RunId, plan: &Plan, digest: &PlanDigest) -> Result<(), Fault> {
        let request = StartRequest { epoch: self.epoch, plan: plan.clone(), digest: digest.clone() };
        let path = path::START.replace("{run}", &run.to_string());
        // Asking again is safe: the controller answers the same for the same run and digest. Without an answer nothing
        // is begun, however long it takes.
        let _: Lease = persist(&self.client, Method::POST, &path, &request).await?;
        Ok(())
    }

    fn listens(&self) -> bool {
        true
    }
}

async fn deliver(client: watch::Receiver<Client>, engine: Engine, epoch: Epoch, desk: Desk) -> Fault {
    let mut changes = engine.changes();
    let mut backoff = Backoff::default();
    let mut said = None;
    loop {
        changes.mark_unchanged();
        let events = engine.unacknowledged(BATCH, BATCH_BYTES);
        let last = events.last().map(|e| e.seq);
        let request = EventsRequest { epoch, events, progress: engine.progress() };
        match latest(&client).post::<EventsAnswer>(path::EVENTS, &request).await {
            Ok(answer) => {
                backoff.reset();
                said = None;
                if last.is_some() {
                    engine.acknowledge(answer.acknowledged);
                }
                heed(&engine, &answer.lease, &desk);
                // More than one delivery holds is sent at once; anything else a little later, with what comes by then.
                if last.is_none_or(|seq| answer.acknowledged < seq) || engine.unacknowledged(1, 0).is_empty() {
                    tokio::time::sleep(DELIVER_AT_MOST_EVERY).await;
                    // Quiet times end with the next event, or with the next sign of life.
                    let _ = tokio::time::timeout(QUIET, changes.changed()).await;
                }
            }
            Err(fault) if is_final(&fault) => return fault,
            Err(fault) => {
                // A controller that is away is spoken of by the loop that asks for work.
                if fault.code != FaultCode::ControllerUnreachable {
                    say_once(&engine, &mut said, &fault);
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "everything that holds a certificate gets the new one")]
async fn renew(
    current: watch::Sender<Client>,
    identities: watch::Sender<Identity>,
    key: &BootKey,
    native: &Native,
    mut session: Session,
    state: &StateDir,
    engine: &Engine,
    share: &Share,
) -> std::convert::Infallible {
    let mut pause = RENEW_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let renewed = async {
            let request = RenewRequest { csr: key.request()?, epoch: session.epoch };
            let client = current.borrow().clone();
            let admission: Admission = client.post(path::RENEW, &request).await?;
            session.certificate = admission.certificate;
            session.store(state)?;
            let identity = key.identity(&session.certificate)?;
            let (images, _) = tls::client(&native.pins, Some(&identity), Validity::Checked, Purpose::Images)?;
            engine.set_http(images);
            share.renewed(&identity)?;
            current.send_replace(Client::new(&native.controller, &native.pins, Some(&identity))?);
            identities.send_replace(identity);
            Ok::<(), Fault>(())
        };
        // There are many hours left: whatever is wrong, it is tried again long before the certificate ends.
        pause = match renewed.await {
            Ok(()) => RENEW_EVERY,
            Err(fault) => {
                tracing::warn!("renewing the certificate: {fault}; trying on");
                RENEW_AGAIN
            }
        };
    }
}

/// With the certificate of now: it may be renewed while a request is repeated.
fn latest(client: &watch::Receiver<Client>) -> Client {
    client.borrow().clone()
}

/// Repeats a request until it is answered with anything but "not now".
async fn persist<T: DeserializeOwned>(
    client: &watch::Receiver<Client>,
    method: Method,
    path: &str,
    body: &(impl Serialize + Sync),
) -> Result<T, Fault> {
    let mut backoff = Backoff::default();
    loop {
        match latest(client).send(method.clone(), path, body).await {
            Err(fault) if may_pass(&fault) => {
                if backoff.tries() == 0 {
                    tracing::warn!("{fault}; trying on");
                }
                tokio::time::sleep(backoff.next()).await;
            }
            other => return other,
        }
    }
}

fn heed(engine: &Engine, lease: &Lease, desk: &Desk) {
    desk.lay(lease);
    for run in &lease.cancel {
        engine.cancel(*run);
    }
}

/// Whether the same request may be answered otherwise later: a controller in trouble, too, is one that is away. A run
/// that was taken back is not waited for: the next one has to be asked for.
fn may_pass(fault: &Fault) -> bool {
    let trouble = matches!(fault.code, FaultCode::Internal | FaultCode::ProtocolError | FaultCode::TlsPinMismatch);
    fault.code != FaultCode::LeaseLost && (fault.is_transient() || trouble)
}

/// Whether repeating the request cannot help.
fn is_final(fault: &Fault) -> bool {
    match fault.code {
        FaultCode::EpochStale | FaultCode::TokenRefused | FaultCode::IdentityClash => true,
        // A CA that is being replaced, or a neighbour in between: either may pass, and trying costs nothing.
        FaultCode::TlsPinMismatch => false,
        _ => fault.class == FaultClass::Refused && fault.code != FaultCode::NotApproved,
    }
}

fn say_once(engine: &Engine, said: &mut Option<FaultCode>, fault: &Fault) {
    engine.board().troubled(fault);
    if said.replace(fault.code) != Some(fault.code) {
        tracing::error!("{fault}");
        tracing::error!("what to do: {}; trying on", fault.advice);
    }
}

fn announce_code(ours: &str, theirs: &str) {
    tracing::warn!("this machine waits to be approved");
    tracing::warn!("");
    tracing::warn!("    CODE  {ours}");
    tracing::warn!("");
    tracing::warn!("what to do: speediso approve MACHINE --code {ours}");
    if ours != theirs {
        tracing::error!("the controller computes another code ({theirs}): do not approve");
    }
}

/// Reports trouble that concerns no run, wherever it can.
pub(crate) fn trouble(engine: &Engine, fault: Fault) {
    engine.tell(None, EventKind::Trouble { fault });
}
