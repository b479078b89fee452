//! What may happen to a machine, decided without asking anybody: no store, no clock, no network.
//!
//! [`Machine`] is one node with its newest session and its open order, as loaded in one transaction. Its methods are
//! the only place where a `NodeState` changes; each either changes nothing and says why, or changes the machine and
//! says in [`Effects`] what else is to be stored with it.

mod orders;
mod ssh;
#[cfg(test)]
mod tests;

use serde_json::Value;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{BootId, Epoch, OrderId, RunId};
use speediso_model::inventory::SystemVendor;
use speediso_model::node::{NodeEvent, NodeState};
use speediso_model::outcome::TaskResult;
use speediso_model::plan::{Plan, PlanDigest};

use crate::store::record::{KeyDigest, Noticed, WaitingKey};
use crate::store::{Millis, Node, OrderRecord, Session};

pub use orders::Started;
pub use ssh::TUNNEL_PATIENCE;

/// How long a lease lasts; agents renew it at a third.
pub const LEASE: Millis = 60_000;

/// After this long a silent agent with a destructive task is a matter for a person.
pub const LONG_SILENCE: Millis = 10 * 60_000;

/// Runs of one task that an order starts by itself when agents vanish.
pub const MAX_ATTEMPTS: u32 = 2;

/// Keys that may wait for approval at one node.
const MAX_WAITING: usize = 4;

#[derive(Clone, Debug)]
pub struct Machine {
    pub node: Node,
    pub session: Option<Session>,
    pub order: Option<OrderRecord>,
    pub now: Millis,
}

/// What is to be stored along with the machine.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    pub events: Vec<Said>,
    pub alerts: Vec<Raised>,
    /// Runs granted by this decision.
    pub grants: Vec<(RunId, OrderId, Epoch)>,
    pub start: Option<(RunId, Plan, PlanDigest)>,
    pub ends: Vec<(RunId, TaskResult)>,
    /// A session that ended by this decision, besides the machine's own.
    pub superseded: Option<Session>,
    /// Tokens of the node that nobody used are dead.
    pub kill_tokens: bool,
}

#[derive(Clone, Debug)]
pub struct Said {
    pub by: String,
    pub order: Option<OrderId>,
    pub text: String,
    pub detail: Value,
}

#[derive(Clone, Debug)]
pub struct Raised {
    /// The same trouble has the same key.
    pub key: String,
    pub fault: Fault,
}

impl Effects {
    fn say(&mut self, by: &str, order: Option<OrderId>, text: impl Into<String>) {
        self.events.push(Said { by: by.to_owned(), order, text: text.into(), detail: Value::Null });
    }

    pub fn say_as_controller(&mut self, text: String) {
        self.say(CONTROLLER, None, text);
    }

    fn raise(&mut self, key: String, fault: Fault) {
        self.alerts.push(Raised { key, fault });
    }
}

/// The controller's own name as a source of events.
pub const CONTROLLER: &str = "controller";

pub type Decision<T = ()> = Result<T, Fault>;

impl Machine {
    /// Moves the node along the published table; an event without a place there changes nothing.
    fn step(&mut self, event: NodeEvent, reason: Option<String>, fx: &mut Effects) {
        let Some(to) = self.node.state.after(event) else { return };
        if to != self.node.state {
            let because = reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
            fx.say(CONTROLLER, None, format!("{} is {} now{because}", self.node.name, to.name()));
        }
        self.node.state = to;
        self.node.reason = reason;
    }

    /// Whether an agent may come back to its lease.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.session.as_ref().is_some_and(|s| s.is_live(self.now))
    }

    // ------------------------------------------------------------ who it is

    /// Two agents claim the machine: neither gets anything until a person has looked.
    pub fn clash(&mut self, what: &str, fx: &mut Effects) -> Fault {
        let fault = Fault::new(
            FaultCode::IdentityClash,
            format!("{what}: {} is quarantined and both sessions are revoked", self.node.name),
        );
        if let Some(session) = &mut self.session {
            session.revoked = true;
        }
        self.node.approved = None;
        self.node.armed = false;
        self.node.waiting.clear();
        fx.kill_tokens = true;
        // What the revoked agent only looked at goes back; what it has begun, it may still be doing.
        self.withdraw_grants(fx);
        self.step(NodeEvent::Clash, Some(what.to_owned()), fx);
        fx.raise(format!("clash:{}:{}", self.node.id, self.node.epoch), fault.clone());
        fault
    }

    /// A key without a token waits for a person. Nothing else about the node changes.
    pub fn wait_for_approval(&mut self, waiting: WaitingKey, fx: &mut Effects) {
        if let Some(known) = self.node.waiting.iter_mut().find(|w| w.key == waiting.key) {
            known.seen = waiting.seen;
            return;
        }
        if self.node.waiting.len() == MAX_WAITING {
            // The one that has been silent for longest has most likely gone.
            self.node.waiting.sort_by_key(|w| std::cmp::Reverse(w.seen));
            self.node.waiting.pop();
        }
        fx.say(
            CONTROLLER,
            None,
            format!("{} waits for approval: its console shows the code {}", self.node.name, waiting.code),
        );
        self.node.waiting.insert(0, waiting);
    }

    /// A person compared the code, or a rule fits. The key is admitted when it asks again.
    ///
    /// # Errors
    /// When no waiting key has this code, or the node is quarantined.
    pub fn approve(&mut self, code: &str, by: &str, fx: &mut Effects) -> Decision {
        self.not_quarantined()?;
        let code = code.trim().to_ascii_uppercase();
        let Some(found) = self.node.waiting.iter().find(|w| w.code == code) else {
            return Err(Fault::new(
                FaultCode::NotApproved,
                format!("no agent of {} waits with the code {code:?}; nothing was admitted", self.node.name),
            ));
        };
        self.node.approved = Some(found.key.clone());
        fx.say(by, None, format!("{} was approved with the code {code}", self.node.name));
        self.step(NodeEvent::Approved, None, fx);
        Ok(())
    }

    /// Admits a boot of this machine: a new epoch, and the end of whatever ran under the old one.
    pub fn admit(&mut self, boot_id: BootId, key: KeyDigest, fx: &mut Effects) -> Epoch {
        self.seen_again(fx);
        if let Some(old) = &mut self.session {
            old.revoked = true;
            fx.superseded = Some(old.clone());
        }
        self.agent_lost("the machine was booted anew", fx);
        let epoch = Epoch(self.node.epoch.0 + 1);
        self.node.epoch = epoch;
        self.node.armed = false;
        self.node.approved = None;
        self.node.waiting.clear();
        fx.kill_tokens = true;
        if self.node.state == NodeState::Pending {
            self.step(NodeEvent::Approved, None, fx);
        }
        self.session = Some(Session {
            node: self.node.id,
            epoch,
            boot_id,
            key,
            certificate: String::new(),
            lease_until: self.now + LEASE,
            last_seen: self.now,
            address: None,
            revoked: false,
            noticed: Noticed::Nothing,
        });
        fx.say(
            CONTROLLER,
            self.order_id(),
            format!("{} booted the ramdisk and was admitted (epoch {epoch})", self.node.name),
        );
        epoch
    }

    /// What the machine says of itself now replaces what was known: parts are exchanged.
    pub fn describe(&mut self, system: SystemVendor, mut macs: Vec<String>) {
        macs.sort();
        macs.dedup();
        self.node.system = system;
        self.node.macs = macs;
    }

    pub fn inventoried(&mut self, fx: &mut Effects) {
        self.step(NodeEvent::Inventoried, self.node.reason.clone(), fx);
    }

    // ------------------------------------------------------------ leases

    /// # Errors
    /// `epoch-stale` when this is not the newest admitted boot.
    pub fn check_epoch(&self, epoch: Epoch) -> Decision {
        match &self.session {
            Some(s) if s.epoch == epoch && epoch == self.node.epoch && !s.revoked => Ok(()),
            Some(s) if s.epoch == epoch && s.revoked => Err(Fault::new(
                FaultCode::EpochStale,
                format!(
                    "the session of {} was revoked: {}",
                    self.node.name,
                    self.node.reason.as_deref().unwrap_or("a newer boot took its place")
                ),
            )),
            _ => Err(Fault::new(
                FaultCode::EpochStale,
                format!("epoch {epoch} of {} has been superseded by epoch {}", self.node.name, self.node.epoch),
            )),
        }
    }

    /// A sign of life. Leases are written only when a third is used up: a thousand polls need not be a thousand
    /// writes to a disk.
    pub fn renew(&mut self, address: Option<String>) {
        let now = self.now;
        if let Some(session) = &mut self.session {
            if session.lease_until - now < LEASE * 2 / 3 {
                session.lease_until = now + LEASE;
                session.last_seen = now;
                session.noticed = Noticed::Nothing;
            }
            if address.is_some() && session.address != address {
                session.address = address;
            }
        }
    }

    #[must_use]
    pub fn lease_left(&self) -> u64 {
        self.session.as_ref().map_or(0, |s| u64::try_from(s.lease_until - self.now).unwrap_or(0))
    }

    /// The lease ended in silence. What has begun may be going on, so only what had not begun is taken back.
    pub fn notice_silence(&mut self, fx: &mut Effects) {
        let Some(session) = &self.session else { return };
        let (silent, noticed) = (self.now - session.lease_until, session.noticed);
        if session.revoked || silent < 0 {
            return;
        }
        if noticed == Noticed::Nothing {
            fx.say(CONTROLLER, self.order_id(), format!("{} is silent: its lease ended", self.node.name));
            self.withdraw_grants(fx);
            self.silent_after_power(fx);
            self.notice(Noticed::LeaseLapsed);
        }
        if silent >= LONG_SILENCE && noticed < Noticed::LongSilence {
            if let Some((run, kind)) = self.running_destructive() {
                let minutes = (silent + LEASE) / 60_000;
                let fault = Fault::new(
                    FaultCode::LeaseLost,
                    format!(
                        "{}: nothing was heard for {minutes} minutes during {kind}; it may still be at work",
                        self.node.name
                    ),
                );
                let fault = Fault {
                    advice: "look at the machine's console; boot it from the network again to go on with the order"
                        .into(),
                    ..fault
                };
                fx.raise(format!("silent:{run}"), fault);
            }
            self.notice(Noticed::LongSilence);
        }
    }

    fn notice(&mut self, noticed: Noticed) {
        if let Some(session) = &mut self.session {
            session.noticed = noticed;
        }
    }

    // ------------------------------------------------------------ what a person wants of it

    pub fn protect(&mut self, protected: bool, by: &str, fx: &mut Effects) {
        if self.node.protected != protected {
            self.node.protected = protected;
            let what = if protected { "protected: it takes no destructive order" } else { "no longer protected" };
            fx.say(by, None, format!("{} is {what}", self.node.name));
        }
    }

    /// # Errors
    /// When the node is neither quarantined nor in maintenance.
    pub fn release(&mut self, by: &str, fx: &mut Effects) -> Decision {
        if self.node.state.after(NodeEvent::Released).is_none() {
            return Err(Fault::new(
                FaultCode::TaskInvalid,
                format!(
                    "{} is {}; only a quarantine or maintenance can be released",
                    self.node.name,
                    self.node.state.name()
                ),
            ));
        }
        fx.say(by, None, format!("{} was released", self.node.name));
        self.step(NodeEvent::Released, None, fx);
        Ok(())
    }

    /// The next boot from the network leads into the ramdisk, once.
    ///
    /// # Errors
    /// When the node is not admitted, or quarantined.
    pub fn arm(&mut self, by: &str, fx: &mut Effects) -> Decision {
        self.not_quarantined()?;
        self.not_pending()?;
        self.node.armed = true;
        fx.say(by, None, format!("{} is armed: its next boot from the network leads into the ramdisk", self.node.name));
        Ok(())
    }

    // ------------------------------------------------------------ at the boot server

    /// Whether its boot script leads into the ramdisk with a token.
    #[must_use]
    pub fn wants_ramdisk(&self) -> bool {
        !matches!(self.node.state, NodeState::Pending | NodeState::Quarantined)
            && (self.node.armed || self.order.as_ref().is_some_and(|o| o.order.state.is_open()))
    }

    /// An order that this very decision closed is open no more.
    #[must_use]
    pub fn has_open_order(&self) -> bool {
        self.order.as_ref().is_some_and(|o| o.order.state.is_open())
    }

    /// Otherwise. A machine that waits for approval comes up in the ramdisk to show its code; a quarantined one may be
    /// at work for somebody, and is left to boot as it did.
    #[must_use]
    pub fn boots_own_disk(&self) -> bool {
        !self.wants_ramdisk() && self.node.state != NodeState::Pending
    }

    fn not_quarantined(&self) -> Decision {
        if self.node.state == NodeState::Quarantined {
            let why = self.node.reason.as_deref().unwrap_or("two agents claimed it");
            return Err(Fault::new(FaultCode::IdentityClash, format!("{} is quarantined: {why}", self.node.name)));
        }
        Ok(())
    }

    fn not_pending(&self) -> Decision {
        if self.node.state == NodeState::Pending {
            return Err(Fault::new(FaultCode::NotApproved, format!("{} waits for approval", self.node.name)));
        }
        Ok(())
    }

    fn order_id(&self) -> Option<OrderId> {
        self.order.as_ref().map(|o| o.order.id)
    }
}
