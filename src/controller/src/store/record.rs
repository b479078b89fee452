//! What is stored, as far as it is not simply a type of `model`.

use serde::{Deserialize, Serialize};
use speediso_model::build::BuildInfo;
use speediso_model::id::{BootId, Epoch, NodeId, OrderId, RunId};
use speediso_model::inventory::{SystemVendor, canonical_mac, is_real_identifier};
use speediso_model::node::NodeState;
use speediso_model::order::Order;
use speediso_model::outcome::TaskResult;
use speediso_model::plan::{Plan, PlanDigest};
use speediso_model::profile::Profile;

pub use super::ssh::NodeSsh;

/// Milliseconds since 1970 by the database's clock.
pub type Millis = i64;

/// SHA-256 of a SubjectPublicKeyInfo in DER, in hex: by this an agent's key is known.
pub type KeyDigest = String;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub name: String,
    pub state: NodeState,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub protected: bool,
    /// The next boot script leads into the ramdisk even without an order.
    #[serde(default)]
    pub armed: bool,
    pub epoch: Epoch,
    pub system: SystemVendor,
    pub macs: Vec<String>,
    #[serde(default)]
    pub build: BuildInfo,
    /// Keys that wait for a person. Several, so that a stranger cannot push out the one on the real console.
    #[serde(default)]
    pub waiting: Vec<WaitingKey>,
    /// The key a person approved; it is admitted when it asks again.
    #[serde(default)]
    pub approved: Option<KeyDigest>,
    /// When its boot script was last asked for.
    #[serde(default)]
    pub booted: Option<Millis>,
    /// The way into its live system, of the newest boot.
    #[serde(default)]
    pub ssh: NodeSsh,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WaitingKey {
    pub key: KeyDigest,
    pub code: String,
    pub seen: Millis,
    pub build: BuildInfo,
}

impl Node {
    #[must_use]
    pub fn new(name: String, state: NodeState, system: SystemVendor, macs: Vec<String>) -> Self {
        Self {
            id: NodeId::random(),
            name,
            state,
            reason: None,
            protected: false,
            armed: false,
            epoch: Epoch(0),
            system,
            macs,
            build: BuildInfo::default(),
            waiting: Vec::new(),
            approved: None,
            booted: None,
            ssh: NodeSsh::default(),
        }
    }

    #[must_use]
    pub fn identity(&self) -> Vec<Identity> {
        identity_of(&self.system, &self.macs)
    }
}

/// One of the properties by which a machine is recognised, in canonical form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    pub kind: &'static str,
    pub value: String,
}

impl Identity {
    #[must_use]
    pub fn mac(text: &str) -> Option<Self> {
        canonical_mac(text).map(|value| Self { kind: "mac", value })
    }

    #[must_use]
    pub fn uuid(text: &str) -> Option<Self> {
        is_real_identifier(text).then(|| Self { kind: "uuid", value: text.trim().to_ascii_lowercase() })
    }

    #[must_use]
    pub fn serial(text: &str) -> Option<Self> {
        is_real_identifier(text).then(|| Self { kind: "serial", value: text.trim().to_ascii_lowercase() })
    }
}

/// Everything about a machine that identifies it; placeholders that boards ship with do not.
#[must_use]
pub fn identity_of(system: &SystemVendor, macs: &[String]) -> Vec<Identity> {
    let mut all: Vec<Identity> = macs.iter().filter_map(|m| Identity::mac(m)).collect();
    all.extend(system.uuid.as_deref().and_then(Identity::uuid));
    all.extend(Identity::serial(&system.serial_number));
    all.sort();
    all.dedup();
    all
}

/// What the controller has noticed of an agent's silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub enum Noticed {
    Nothing,
    LeaseLapsed,
    /// Silent for so long that a person was told.
    LongSilence,
}

/// One boot of one machine, admitted.
#[derive(Clone, PartialEq, Debug)]
pub struct Session {
    pub node: NodeId,
    pub epoch: Epoch,
    pub boot_id: BootId,
    pub key: KeyDigest,
    /// Chain in PEM, kept so that an answer that was lost can be given again.
    pub certificate: String,
    pub lease_until: Millis,
    pub last_seen: Millis,
    pub address: Option<String>,
    pub revoked: bool,
    pub noticed: Noticed,
}

impl Session {
    #[must_use]
    pub fn is_live(&self, now: Millis) -> bool {
        !self.revoked && self.lease_until > now
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Token {
    /// Of the token's text; the token itself is nowhere kept.
    pub sha256: String,
    pub node: NodeId,
    pub expires: Millis,
    pub used_by: Option<KeyDigest>,
}

/// An order with what the controller keeps beside it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OrderRecord {
    #[serde(flatten)]
    pub order: Order,
    /// How many runs each task had.
    pub attempts: Vec<u32>,
    /// How often each was interrupted after its start.
    pub interruptions: Vec<u32>,
    /// Who wants it cancelled while a task is running, which nobody can undo but the agent can stop.
    #[serde(default)]
    pub cancelling: Option<String>,
    /// Runs that an agent may still be looking into though they are no longer its.
    #[serde(default)]
    pub withdrawn: Vec<RunId>,
}

impl OrderRecord {
    #[must_use]
    pub fn new(order: Order) -> Self {
        let n = order.tasks.len();
        Self { order, attempts: vec![0; n], interruptions: vec![0; n], cancelling: None, withdrawn: Vec::new() }
    }

    /// What the order means for its node's state. A dry run means nothing; neither does a list of tasks that neither
    /// installs nor wipes.
    #[must_use]
    pub fn purpose(&self) -> Option<Profile> {
        use speediso_model::task::Task;
        if self.order.dry_run {
            return None;
        }
        if let Some(profile) = self.order.profile.as_deref().and_then(Profile::named) {
            return Some(profile);
        }
        let has = |test: fn(&Task) -> bool| self.order.tasks.iter().any(|t| test(&t.task));
        Some(if has(|t| matches!(t, Task::WriteImage(_))) {
            Profile::Lininstall
        } else if has(|t| matches!(t, Task::Wipe(_))) {
            Profile::Wipe
        } else {
            Profile::Inventory
        })
    }
}

/// One grant of one task, for ever.
#[derive(Clone, PartialEq, Debug)]
pub struct RunRecord {
    pub id: RunId,
    pub order: OrderId,
    pub node: NodeId,
    pub epoch: Epoch,
    pub started: Option<Start>,
    pub ended: Option<TaskResult>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Start {
    pub at: Millis,
    pub digest: PlanDigest,
    pub plan: Plan,
}

/// An event about to be stored.
#[derive(Clone, PartialEq, Debug)]
pub struct NewEvent {
    pub node: NodeId,
    pub order: Option<OrderId>,
    pub source: String,
    pub late: bool,
    pub text: String,
    pub detail: serde_json::Value,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    pub name: String,
    pub size: u64,
    /// Hex; the file in the store is named by it.
    pub sha256: String,
    pub stored: Millis,
}
