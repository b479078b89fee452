//! What agents ask for.

use std::time::Duration;

use serde_json::Value;
use speediso_model::api::{
    Admission, EndAnswer, EndRequest, EnrolAnswer, EnrolRequest, EventsAnswer, EventsRequest, HeartbeatRequest,
    InventoryReport, Lease, MAX_WAIT_SECONDS, NextAnswer, NextQuery, RenewRequest, RuleRequest, StartRequest,
    TimeAnswer,
};
use speediso_model::event::{Event, EventKind};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{Epoch, NodeId, RunId};
use speediso_model::inventory::{canonical_mac, is_real_identifier};
use speediso_model::node::NodeState;
use tokio::time::{Instant, timeout_at};

use super::{Failure, Loaded, Result, Service, load, save};
use crate::ca::AgentKey;
use crate::machine::{Effects, LEASE, Machine};
use crate::store::record::{WaitingKey, identity_of};
use crate::store::{NewEvent, Node, Transaction};
use crate::wake;

/// How soon a waiting agent asks again.
const RETRY_MS: u64 = 3_000;

/// Most events of one report that are looked at; the rest comes again.
const MAX_EVENTS: usize = 256;

/// Most MAC addresses of one machine that are taken.
const MAX_MACS: usize = 64;

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

    /// # Errors
    /// When the machine is not admitted and may not wait either.
    pub async fn enrol(&self, mut request: EnrolRequest) -> Result<EnrolAnswer> {
        let key = AgentKey::from_csr(&request.csr).map_err(|e| Fault::from_error(FaultCode::ProtocolError, &e))?;
        request.macs = request.macs.iter().filter_map(|m| canonical_mac(m)).take(MAX_MACS).collect();
        shorten(&mut request);
        match request.token.take() {
            Some(token) => self.enrol_by_token(&token, &request, &key).await,
            None => self.enrol_without_token(&request, &key).await,
        }
    }

    async fn enrol_by_token(&self, token: &str, request: &EnrolRequest, key: &AgentKey) -> Result<EnrolAnswer> {
        // The same words for every token that is no good: whoever guesses learns nothing.
        let refused = || {
            Failure::Refused(Fault::new(
                FaultCode::TokenRefused,
                "the enrolment token is unknown, expired, replaced by a newer boot script, or another machine's",
            ))
        };
        let mut tx = self.store.write().await?;
        let mut token = tx.token(&crate::token::hash(token)).await?.ok_or_else(refused)?;
        let mut machine = load(&mut *tx, token.node).await?;
        let mut fx = Effects::default();
        if let Some(used_by) = &token.used_by {
            let known = machine.now.session.as_ref().filter(|s| s.key == key.digest && !s.revoked);
            if *used_by == key.digest {
                // Its answer was lost.
                let Some(session) = known else { return Err(refused()) };
                let epoch = session.epoch;
                let certificate = session.certificate.clone();
                return Ok(EnrolAnswer::Admitted(self.admission(&machine.now, epoch, certificate)));
            }
            let fault = machine.now.clash("an enrolment token was presented again, with another key", &mut fx);
            save(&mut *tx, &machine, &fx).await?;
            self.commit(tx).await?;
            return Err(fault.into());
        }
        if token.expires <= tx.now() {
            return Err(refused());
        }
        if machine.now.node.state == NodeState::Quarantined {
            return Err(quarantined(&machine.now.node).into());
        }
        let claims = identity_of(&request.system, &request.macs);
        let known = machine.now.node.identity();
        if !known.is_empty() && !known.iter().any(|k| claims.contains(k)) {
            let fault = Fault::new(
                FaultCode::TokenRefused,
                format!(
                    "the token of {} was presented by a machine with none of its identifiers ({})",
                    machine.now.node.name,
                    request.macs.join(", ")
                ),
            );
            tx.put_alert(&format!("strange-token:{}", token.sha256), Some(token.node), &fault).await?;
            self.commit(tx).await?;
            return Err(refused());
        }
        token.used_by = Some(key.digest.clone());
        tx.put_token(&token).await?;
        let admission = self.admit(&mut *tx, &mut machine, request, key, fx).await?;
        self.commit(tx).await?;
        Ok(EnrolAnswer::Admitted(admission))
    }

    async fn enrol_without_token(&self, request: &EnrolRequest, key: &AgentKey) -> Result<EnrolAnswer> {
        let claims = identity_of(&request.system, &request.macs);
        if claims.is_empty() {
            return Err(Fault::new(
                FaultCode::ProtocolError,
                "the machine names nothing to know it by: no MAC address, UUID or serial number",
            )
            .into());
        }
        let mut tx = self.store.write().await?;
        let found = tx.nodes_with(&claims).await?;
        let mut fx = Effects::default();
        let mut machine = match found.as_slice() {
            [] => {
                let node = new_node(&mut *tx, request).await?;
                // Stored first: what follows refers to it.
                tx.put_node(&node).await?;
                load(&mut *tx, node.id).await?
            }
            [one] => load(&mut *tx, one.id).await?,
            several => {
                let names = several.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
                let fault = Fault::new(
                    FaultCode::IdentityClash,
                    format!("one machine has identifiers of several nodes ({names}); none of them was changed"),
                );
                tx.put_alert(&format!("ambiguous:{names}"), None, &fault).await?;
                self.commit(tx).await?;
                return Err(fault.into());
            }
        };
        if machine.now.node.state == NodeState::Quarantined {
            return Err(quarantined(&machine.now.node).into());
        }
        if let Some(session) = machine.now.session.as_ref().filter(|s| !s.revoked) {
            if session.key == key.digest {
                let (epoch, certificate) = (session.epoch, session.certificate.clone());
                return Ok(EnrolAnswer::Admitted(self.admission(&machine.now, epoch, certificate)));
            }
            if machine.now.is_online() && session.boot_id != request.boot_id {
                let fault = machine.now.clash("a second agent claimed a machine whose own agent is at work", &mut fx);
                save(&mut *tx, &machine, &fx).await?;
                self.commit(tx).await?;
                return Err(fault.into());
            }
        }
        let approved = machine.now.node.approved.as_deref() == Some(key.digest.as_str());
        let ruled_in = !approved && !machine.now.has_open_order() && {
            let rules = tx.rules().await?;
            rules.iter().any(|r| rule_fits(&r.rule, request))
        };
        if approved || ruled_in {
            if ruled_in {
                fx_note(&mut fx, &machine.now, "a rule admits it");
            }
            let admission = self.admit(&mut *tx, &mut machine, request, key, fx).await?;
            self.commit(tx).await?;
            return Ok(EnrolAnswer::Admitted(admission));
        }
        if machine.now.node.state == NodeState::Pending {
            machine.now.describe(request.system.clone(), request.macs.clone());
            machine.now.node.build = request.build.clone();
        }
        let waiting = WaitingKey {
            key: key.digest.clone(),
            code: key.code.clone(),
            seen: tx.now(),
            build: request.build.clone(),
        };
        machine.now.wait_for_approval(waiting, &mut fx);
        save(&mut *tx, &machine, &fx).await?;
        self.commit(tx).await?;
        Ok(EnrolAnswer::Pending { node: machine.now.node.id, code: key.code.clone(), retry_ms: RETRY_MS })
    }

    async fn admit(
        &self,
        tx: &mut dyn Transaction,
        machine: &mut Loaded,
        request: &EnrolRequest,
        key: &AgentKey,
        mut fx: Effects,
    ) -> Result<Admission> {
        machine.now.describe(request.system.clone(), request.macs.clone());
        machine.now.node.build = request.build.clone();
        let epoch = machine.now.admit(request.boot_id, key.digest.clone(), &mut fx);
        let issued = self.ca.client(key, machine.now.node.id, tx.now())?;
        if let Some(session) = &mut machine.now.session {
            session.certificate.clone_from(&issued.pem);
        }
        save(tx, machine, &fx).await?;
        tx.put_certificate(&issued.serial, machine.now.node.id, epoch).await?;
        Ok(self.admission(&machine.now, epoch, issued.pem))
    }

    fn admission(&self, machine: &Machine, epoch: Epoch, certificate: String) -> Admission {
        Admission {
            node: machine.node.id,
            name: machine.node.name.clone(),
            certificate,
            epoch,
            lease_ms: u64::try_from(LEASE).unwrap_or(0),
            ssh_keys: self.site.ssh_keys.clone(),
        }
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
    pub async fn inventory(&self, agent: Agent, report: InventoryReport) -> Result<Lease> {
        let mut tx = self.store.write().await?;
        let mut machine = load(&mut *tx, agent.node).await?;
        machine.now.check_epoch(agent.epoch)?;
        machine.now.check_epoch(report.epoch)?;
        let mut fx = Effects::default();
        machine.now.renew(None);
        let macs = report.inventory.macs();
        if !macs.is_empty() {
            machine.now.describe(report.inventory.system_vendor.clone(), macs);
        }
        if report.inventory.build.number != 0 {
            machine.now.node.build = report.inventory.build.clone();
        }
        machine.now.inventoried(&mut fx);
        save(&mut *tx, &machine, &fx).await?;
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
            let answer = self.next_now(agent, query.epoch).await?;
            if answer.grant.is_some() || !answer.lease.cancel.is_empty() || timeout_at(end, woken).await.is_err() {
                return Ok(answer);
            }
        }
    }

    async fn next_now(&self, agent: Agent, epoch: Epoch) -> Result<NextAnswer> {
        // Most polls find nothing and need not take the write lock.
        let mut reading = self.store.read().await?;
        let peek = load(&mut *reading, agent.node).await?.now;
        peek.check_epoch(agent.epoch)?;
        peek.check_epoch(epoch)?;
        drop(reading);
        let fresh = peek.lease_left() > u64::try_from(LEASE * 2 / 3).unwrap_or(0);
        if fresh && !peek.has_open_order() {
            return Ok(NextAnswer { lease: lease(&peek, epoch, &[]), grant: None, idle: true });
        }
        let run = RunId::random();
        let (grant, lease, idle) = self
            .decide(agent.node, |m, fx| {
                m.check_epoch(agent.epoch)?;
                m.renew(None);
                let grant = m.next(epoch, run, fx)?;
                Ok((grant, lease(m, epoch, &[]), !m.has_open_order()))
            })
            .await?;
        Ok(NextAnswer { lease, grant, idle })
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

fn lease(machine: &Machine, epoch: Epoch, running: &[RunId]) -> Lease {
    Lease { epoch, lease_ms: machine.lease_left(), cancel: machine.to_stop(running) }
}

fn quarantined(node: &Node) -> Fault {
    let why = node.reason.as_deref().unwrap_or("two agents claimed it");
    Fault::new(FaultCode::IdentityClash, format!("{} is quarantined: {why}", node.name))
}

fn fx_note(fx: &mut Effects, machine: &Machine, text: &str) {
    fx.events.push(crate::machine::Said {
        by: crate::machine::CONTROLLER.to_owned(),
        order: None,
        text: format!("{}: {text}", machine.node.name),
        detail: Value::Null,
    });
}

/// What strangers send is kept short.
fn shorten(request: &mut EnrolRequest) {
    let system = &mut request.system;
    for text in [
        &mut system.manufacturer,
        &mut system.product_name,
        &mut system.serial_number,
        &mut system.board_serial,
        &mut system.chassis_serial,
        &mut system.asset_tag,
        &mut system.firmware.vendor,
        &mut system.firmware.version,
        &mut system.firmware.build_date,
        &mut request.build.version,
        &mut request.build.kernel,
    ] {
        clean(text);
    }
    if let Some(uuid) = &mut system.uuid {
        clean(uuid);
    }
}

fn clean(text: &mut String) {
    *text = text.chars().filter(|c| !c.is_control()).take(128).collect();
}

/// A node for a machine that was never seen, named by its serial number or MAC address.
async fn new_node(tx: &mut dyn Transaction, request: &EnrolRequest) -> Result<Node> {
    let serial = &request.system.serial_number;
    let from = if is_real_identifier(serial) { serial } else { request.macs.first().unwrap_or(serial) };
    let mut name: String =
        from.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(48).collect();
    name = name.trim_matches('-').to_owned();
    let mut macs = request.macs.clone();
    macs.sort();
    macs.dedup();
    let mut node = Node::new(name, NodeState::Pending, request.system.clone(), macs);
    if node.name.is_empty() || tx.node_named(&node.name).await?.is_some() {
        node.name = format!("{}-{}", node.name, &node.id.to_string()[..8]).trim_matches('-').to_owned();
    }
    Ok(node)
}

/// Every property the rule names must fit; one that names none fits nothing.
fn rule_fits(rule: &RuleRequest, request: &EnrolRequest) -> bool {
    let mut named = 0;
    let mut all = true;
    let mut check = |wanted: &Option<String>, fits: &dyn Fn(&str) -> bool| {
        if let Some(wanted) = wanted {
            named += 1;
            all &= fits(wanted);
        }
    };
    let system = &request.system;
    check(&rule.manufacturer, &|w| system.manufacturer.eq_ignore_ascii_case(w));
    check(&rule.product_name, &|w| system.product_name.eq_ignore_ascii_case(w));
    check(&rule.serial_prefix, &|w| !w.is_empty() && system.serial_number.starts_with(w));
    check(&rule.mac_prefix, &|w| {
        let w = w.to_ascii_lowercase().replace('-', ":");
        !w.is_empty() && request.macs.iter().any(|m| m.starts_with(&w))
    });
    named > 0 && all
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
        EventKind::Unknown => "something this controller is too old to understand".to_owned(),
    }
}

/// What a rule must be to be taken.
pub(super) fn check_rule(rule: &RuleRequest) -> std::result::Result<(), Fault> {
    let given = [&rule.manufacturer, &rule.product_name, &rule.serial_prefix, &rule.mac_prefix];
    if given.iter().all(|g| g.as_deref().is_none_or(str::is_empty)) {
        return Err(Fault::new(FaultCode::TaskInvalid, "a rule must name at least one property"));
    }
    Ok(())
}
