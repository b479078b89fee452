//! What agents ask for.

use std::time::Duration;

use serde_json::Value;
use speediso_model::api::{
    Admission, EndAnswer, EndRequest, EventsAnswer, EventsRequest, HeartbeatRequest, InventoryReport, Lease,
    MAX_WAIT_SECONDS, NextAnswer, NextQuery, RenewRequest, StartRequest, TimeAnswer,
};
use speediso_model::event::{Event, EventKind};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{Epoch, NodeId, RunId};
use tokio::time::{Instant, timeout_at};

use super::burn_in::keep_report;
use super::certify::{certify, see_disks};
use super::enrol::describe;
use super::hardware::see_changes;
use super::{Failure, Result, Service, load, pci_names, save};
use crate::ca::AgentKey;
use crate::machine::{Effects, LEASE, Machine};
use crate::store::NewEvent;
use crate::wake;

/// Most events of one report that are looked at; the rest comes again.
const MAX_EVENTS: usize = 256;

/// An agent by its certificate. Whether its epoch is still the newest is judged in each transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agent {
    pub node: NodeId,
    pub epoch: Epoch,
}

/// Whether an agent may do more than leave evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identified {
    Current(Agent),
    Superseded(Agent),
}

impl Service {
    /// # Errors
    /// When the store or the signature fails.
    pub async fn time(&self, nonce: String) -> Result<TimeAnswer> {
        if !(32..=64).contains(&nonce.len()) || !nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Fault::new(FaultCode::ProtocolError, "the nonce must be 32 to 64 printable characters").into());
        }
        // The clock that judges leases and certificates is the one to give.
        let now = self.store.read().await?.now();
        Ok(self.ca.time(nonce, now)?)
    }

    /// Whose certificate has this serial number.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn identify(&self, serial: &str) -> Result<Identified> {
        let mut tx = self.store.read().await?;
        let unknown = || {
            Failure::Refused(Fault::new(FaultCode::EpochStale, "the controller's store does not know this certificate"))
        };
        let (node, epoch) = tx.certificate(serial).await?.ok_or_else(unknown)?;
        let session = tx.session(node, epoch).await?.ok_or_else(unknown)?;
        let agent = Agent { node, epoch };
        Ok(if session.revoked { Identified::Superseded(agent) } else { Identified::Current(agent) })
    }

    /// A new certificate for the same boot. It is for the session's own key only.
    ///
    /// # Errors
    /// When the session is not the newest, or the key another one.
    pub async fn renew(&self, agent: Agent, request: RenewRequest) -> Result<Admission> {
        let key = AgentKey::from_csr(&request.csr).map_err(|e| Fault::from_error(FaultCode::ProtocolError, &e))?;
        let mut tx = self.store.write().await?;
        let mut machine = load(&mut *tx, agent.node).await?;
        machine.now.check_epoch(agent.epoch)?;
        machine.now.check_epoch(request.epoch)?;
        let Some(session) = &mut machine.now.session else {
            return Err(Failure::NotFound("session".into()));
        };
        if session.key != key.digest {
            return Err(Fault::new(FaultCode::ProtocolError, "a certificate is renewed for the same key only").into());
        }
        let issued = self.ca.client(&key, agent.node, tx.now())?;
        session.certificate.clone_from(&issued.pem);
        machine.now.renew(None);
        save(&mut *tx, &machine, &Effects::default()).await?;
        tx.put_certificate(&issued.serial, agent.node, agent.epoch).await?;
        self.commit(tx).await?;
        Ok(self.admission(&machine.now, agent.epoch, issued.pem))
    }

    /// # Errors
    /// When the session is not the newest.
    pub async fn inventory(&self, agent: Agent, mut report: InventoryReport) -> Result<Lease> {
        report.inventory = pci_names::added(self.site.pci_ids.as_deref(), report.inventory).await;
        let mut tx = self.store.write().await?;
        let mut machine = load(&mut *tx, agent.node).await?;
        machine.now.check_epoch(agent.epoch)?;
        machine.now.check_epoch(report.epoch)?;
        let mut fx = Effects::default();
        machine.now.renew(None);
        let macs = report.inventory.macs();
        if !macs.is_empty() {
            describe(&mut *tx, &mut machine.now, report.inventory.system_vendor.clone(), macs).await?;
        }
        if report.inventory.build.number != 0 {
            machine.now.node.build = report.inventory.build.clone();
        }
        machine.now.inventoried(&mut fx);
        save(&mut *tx, &machine, &fx).await?;
        see_disks(&mut *tx, agent.node, &report.inventory.disks).await?;
        see_changes(&mut *tx, &machine.now, &report.inventory).await?;
        tx.put_inventory(agent.node, &report.inventory).await?;
        self.commit(tx).await?;
        Ok(lease(&machine.now, agent.epoch, &[]))
    }

    /// Waits for something to do.
    ///
    /// # Errors
    /// When the session is not the newest.
    pub async fn next(&self, agent: Agent, query: NextQuery) -> Result<NextAnswer> {
        let topic = self.wakes.on(&wake::node(agent.node));
        let end = Instant::now() + Duration::from_secs(query.wait.min(MAX_WAIT_SECONDS));
        loop {
            let mut woken = std::pin::pin!(topic.notified());
            woken.as_mut().enable();
            let (answer, has_news) = self.next_now(agent, query.epoch).await?;
            let is_something = answer.grant.is_some() || !answer.lease.cancel.is_empty() || has_news;
            if is_something || timeout_at(end, woken).await.is_err() {
                return Ok(answer);
            }
        }
    }

    /// What there is now, and whether the agent has not heard of all of it yet.
    async fn next_now(&self, agent: Agent, epoch: Epoch) -> Result<(NextAnswer, bool)> {
        // Most polls find nothing and need not take the write lock.
        let mut reading = self.store.read().await?;
        let peek = load(&mut *reading, agent.node).await?.now;
        peek.check_epoch(agent.epoch)?;
        peek.check_epoch(epoch)?;
        drop(reading);
        let fresh = peek.lease_left() > u64::try_from(LEASE * 2 / 3).unwrap_or(0);
        if fresh && !peek.has_open_order() {
            return Ok((NextAnswer { lease: lease(&peek, epoch, &[]), grant: None, idle: true }, peek.has_ssh_news()));
        }
        let run = RunId::random();
        let (grant, lease, idle, has_news) = self
            .decide(agent.node, |m, fx| {
                m.check_epoch(agent.epoch)?;
                m.renew(None);
                let grant = m.next(epoch, run, fx)?;
                Ok((grant, lease(m, epoch, &[]), !m.has_open_order(), m.has_ssh_news()))
            })
            .await?;
        Ok((NextAnswer { lease, grant, idle }, has_news))
    }

    /// # Errors
    /// When the session is not the newest.
    pub async fn heartbeat(&self, agent: Agent, request: HeartbeatRequest) -> Result<Lease> {
        let address = request.address.filter(|a| a.parse::<std::net::IpAddr>().is_ok());
        self.decide(agent.node, |m, _| {
            m.check_epoch(agent.epoch)?;
            m.check_epoch(request.epoch)?;
            m.renew(address);
            Ok(lease(m, agent.epoch, &request.running))
        })
        .await
    }

    /// Permission to begin; stored when this returns.
    ///
    /// # Errors
    /// Whatever forbids it.
    pub async fn start(&self, agent: Agent, run: RunId, request: StartRequest) -> Result<Lease> {
        self.decide(agent.node, |m, fx| {
            m.check_epoch(agent.epoch)?;
            m.renew(None);
            m.start(run, request.epoch, &request.plan, &request.digest, fx)?;
            Ok(lease(m, agent.epoch, &[]))
        })
        .await
    }

    /// The end of a run. From a boot that was superseded it is evidence and moves nothing.
    ///
    /// # Errors
    /// When the result contradicts what is known of the run.
    pub async fn end(&self, agent: Agent, run: RunId, request: EndRequest) -> Result<EndAnswer> {
        let mut tx = self.store.write().await?;
        let mut machine = load(&mut *tx, agent.node).await?;
        let record = tx.run(run).await?.filter(|r| r.node == agent.node);
        let mine = record.as_ref().is_some_and(|r| r.epoch == agent.epoch);
        let late = machine.now.check_epoch(agent.epoch).is_err() || request.epoch != agent.epoch || !mine;
        let mut fx = Effects::default();
        if late {
            // Told again and again, it is one piece of evidence. A run that is not known here (the machine did it on its
            // own account) is evidence as well.
            if record.as_ref().is_none_or(|r| r.ended.is_none()) {
                let outcome = request.result.outcome.name();
                let text =
                    format!("a result that changes nothing here (run {run}, epoch {}): {outcome}", request.epoch);
                let detail = serde_json::to_value(&request.result).unwrap_or(Value::Null);
                let (order, source) = (record.map(|r| r.order), "agent".to_owned());
                tx.put_event(&NewEvent { node: agent.node, order, source, late: true, text, detail }).await?;
                tx.put_end(run, &request.result).await?;
                tx.touch(wake::EVENTS).await?;
            }
        } else {
            machine.now.renew(None);
            machine.now.end(run, agent.epoch, request.result, &mut fx)?;
            save(&mut *tx, &machine, &fx).await?;
            for (run, result) in &fx.ends {
                if let Some(order) = &machine.now.order {
                    certify(&mut *tx, &machine.now.node, order, *run, result).await?;
                    let ended = order.order.tasks.iter().find(|t| t.state.run() == Some(*run));
                    if let Some(ended) = ended {
                        keep_report(&mut *tx, &machine.now.node, *run, &ended.task, result).await?;
                    }
                }
            }
        }
        self.commit(tx).await?;
        Ok(EndAnswer { lease: lease(&machine.now, machine.now.node.epoch, &[]), late })
    }

    /// Numbered events, taken once and in order, and the latest progress.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn events(&self, agent: Agent, request: EventsRequest) -> Result<EventsAnswer> {
        let mut tx = self.store.write().await?;
        let mut machine = load(&mut *tx, agent.node).await?;
        let late = machine.now.check_epoch(agent.epoch).is_err() || request.epoch != agent.epoch;
        let Some(session) = tx.session(agent.node, agent.epoch).await? else {
            return Err(Failure::NotFound("session".into()));
        };
        let mut acknowledged = tx.acknowledged(agent.node, session.boot_id).await?;
        let before = acknowledged;
        for event in request.events.iter().take(MAX_EVENTS) {
            // Repeated ones are known; after a gap the rest comes again in order.
            if event.seq != acknowledged + 1 {
                continue;
            }
            acknowledged = event.seq;
            let order = match event.run {
                Some(run) => tx.run(run).await?.filter(|r| r.node == agent.node).map(|r| r.order),
                None => None,
            };
            let detail = serde_json::to_value(event).unwrap_or(Value::Null);
            let text = line(event);
            tx.put_event(&NewEvent { node: agent.node, order, source: "agent".into(), late, text, detail }).await?;
        }
        if acknowledged != before {
            tx.put_acknowledged(agent.node, session.boot_id, acknowledged).await?;
            tx.touch(wake::EVENTS).await?;
        }
        if !late {
            for progress in request.progress.iter().take(MAX_EVENTS) {
                let mine = tx
                    .run(progress.run)
                    .await?
                    .is_some_and(|r| r.node == agent.node && r.epoch == agent.epoch && r.ended.is_none());
                if mine {
                    tx.put_progress(agent.node, progress).await?;
                }
            }
            machine.now.renew(None);
            save(&mut *tx, &machine, &Effects::default()).await?;
        }
        self.commit(tx).await?;
        Ok(EventsAnswer { lease: lease(&machine.now, machine.now.node.epoch, &[]), acknowledged })
    }
}

pub(super) fn lease(machine: &Machine, epoch: Epoch, running: &[RunId]) -> Lease {
    Lease { epoch, lease_ms: machine.lease_left(), cancel: machine.to_stop(running), ssh: machine.ssh_wish() }
}

/// One line for people.
fn line(event: &Event) -> String {
    match &event.kind {
        EventKind::AgentStarted { version, restarts: 0 } => format!("agent {version} started"),
        EventKind::AgentStarted { version, restarts } => {
            format!("agent {version} was restarted ({restarts} times in this boot)")
        }
        EventKind::Registered { task } => format!("{}: registered", task.kind()),
        EventKind::Planned { plan, digest } => {
            let on: Vec<_> = plan.devices.iter().map(|d| format!("{} ({})", d.seen_as, d.identity)).collect();
            let on = if on.is_empty() { String::new() } else { format!(" on {}", on.join(", ")) };
            format!("{}: planned{on}, plan {}", plan.task, digest.0.get(..12).unwrap_or(&digest.0))
        }
        EventKind::Started { .. } => "begun".to_owned(),
        EventKind::StepBegan { step } => format!("{step} ..."),
        EventKind::StepEnded { step, detail } if detail.is_empty() => format!("{step}: done"),
        EventKind::StepEnded { step, detail } => format!("{step}: {detail}"),
        EventKind::Notice { text } => text.clone(),
        EventKind::Ended { result } => match &result.fault {
            Some(fault) => format!("{}: {fault}; {}", result.outcome.name(), fault.advice),
            None => format!("{} ({})", result.outcome.name(), result.used),
        },
        EventKind::Trouble { fault } => format!("trouble: {fault}; {}", fault.advice),
        EventKind::NetworkExamined { report } => report.summary(),
        EventKind::Unknown => "something this controller is too old to understand".to_owned(),
    }
}
