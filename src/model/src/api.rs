//! Paths and bodies of the controller's HTTP API. The controller's OpenAPI document is made from these types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::BuildInfo;
use crate::certificate::CertificateNotes;
use crate::event::{Event, Progress};
use crate::fault::Fault;
use crate::hints::SkipList;
use crate::id::{BootId, Epoch, NodeId, OrderId, RunId};
use crate::inventory::{Inventory, SystemVendor};
use crate::node::NodeState;
use crate::order::{Order, OrderState};
use crate::outcome::TaskResult;
use crate::plan::{Plan, PlanDigest};
use crate::ssh::{SshPolicy, SshWish};
use crate::task::Task;

/// Where things are. `{...}` stands for an identifier.
pub mod path {
    // For agents. The first two need no client certificate.
    pub const TIME: &str = "/v1/time";
    pub const ENROL: &str = "/v1/agent/enrol";
    pub const RENEW: &str = "/v1/agent/renew";
    pub const INVENTORY: &str = "/v1/agent/inventory";
    pub const NEXT: &str = "/v1/agent/next";
    pub const HEARTBEAT: &str = "/v1/agent/heartbeat";
    pub const EVENTS: &str = "/v1/agent/events";
    pub const LOGS: &str = "/v1/agent/logs";
    pub const START: &str = "/v1/agent/runs/{run}/start";
    pub const END: &str = "/v1/agent/runs/{run}/end";
    pub const SHARE: &str = "/v1/agent/share";
    pub const PAIR: &str = "/v1/agent/runs/{run}/pair";
    pub const LINK: &str = "/v1/agent/runs/{run}/link";
    pub const SSH_REPORT: &str = "/v1/agent/ssh";
    pub const SSH_PIECE: &str = "/v1/agent/ssh/sessions";
    /// The agent's end of a tunnel: becomes a stream of bytes.
    pub const SSH_TUNNEL: &str = "/v1/agent/ssh/tunnels/{tunnel}";

    /// What a capture that was begun sends to the image store. The manifest, last, makes an image of it.
    pub const CAPTURE_DATA: &str = "/v1/agent/runs/{run}/capture/data";
    pub const CAPTURE_INDEX: &str = "/v1/agent/runs/{run}/capture/index";
    pub const CAPTURE_MANIFEST: &str = "/v1/agent/runs/{run}/capture/manifest";

    // For operators, with the bearer token.
    pub const NODES: &str = "/v1/nodes";
    pub const NODE: &str = "/v1/nodes/{node}";
    pub const NODE_INVENTORY: &str = "/v1/nodes/{node}/inventory";
    pub const NODE_CHANGES: &str = "/v1/nodes/{node}/changes";
    pub const NODE_APPROVE: &str = "/v1/nodes/{node}/approve";
    pub const NODE_PROTECT: &str = "/v1/nodes/{node}/protect";
    pub const NODE_RELEASE: &str = "/v1/nodes/{node}/release";
    pub const NODE_ARM: &str = "/v1/nodes/{node}/arm";
    pub const NODE_ORDERS: &str = "/v1/nodes/{node}/orders";
    pub const NODE_LOGS: &str = "/v1/nodes/{node}/logs";
    pub const NODE_LOG_BOOTS: &str = "/v1/nodes/{node}/logs/boots";
    pub const NODE_SSH: &str = "/v1/nodes/{node}/ssh";
    pub const NODE_SSH_SESSIONS: &str = "/v1/nodes/{node}/ssh/sessions";
    /// The operator's end of a tunnel: becomes a stream of bytes.
    pub const NODE_SSH_TUNNEL: &str = "/v1/nodes/{node}/ssh/tunnel";
    /// A recording, in asciinema's format.
    pub const SSH_CAST: &str = "/v1/ssh/sessions/{session}/cast";
    pub const ORDERS: &str = "/v1/orders";
    pub const ORDER: &str = "/v1/orders/{order}";
    pub const ORDER_CANCEL: &str = "/v1/orders/{order}/cancel";
    pub const ORDER_RETRY: &str = "/v1/orders/{order}/retry";
    pub const STORED_EVENTS: &str = "/v1/events";
    pub const ALERTS: &str = "/v1/alerts";
    pub const RULES: &str = "/v1/rules";
    pub const RULE: &str = "/v1/rules/{rule}";
    pub const IMAGES: &str = "/v1/images";
    /// PUT by operators; GET with ranges by operators and agents.
    pub const IMAGE: &str = "/v1/images/{name}";
    /// Certificates of sanitization.
    pub const CERTIFICATES: &str = "/v1/certificates";
    pub const CERTIFICATE: &str = "/v1/certificates/{number}";
    pub const CERTIFICATE_PAGE: &str = "/v1/certificates/{number}/page";
    /// All of them, one a line, in order.
    pub const CERTIFICATE_CHAIN: &str = "/v1/certificates/chain";
    pub const CERTIFICATE_KEYS: &str = "/v1/certificates/keys";
    pub const CERTIFICATE_POLICY: &str = "/v1/certificates/policy";
    pub const ORDER_CERTIFICATE: &str = "/v1/orders/{order}/certificate";
    /// Reports of its burn-ins, newest first.
    pub const NODE_BURN_INS: &str = "/v1/nodes/{node}/burn-ins";
    pub const NODE_DISKS: &str = "/v1/nodes/{node}/disks";
    pub const NODE_DISK_GONE: &str = "/v1/nodes/{node}/disks/gone";
    pub const OPENAPI: &str = "/v1/openapi.json";

    // On the boot listener, plain HTTP: boot loaders speak nothing else. Nothing here is secret but one-time tokens.
    pub const BOOT_IPXE: &str = "/boot/ipxe";
    pub const BOOT_PXELINUX: &str = "/boot/pxelinux.cfg/{file}";
    pub const BOOT_GRUB: &str = "/boot/grub/{file}";
    pub const BOOT_FILE: &str = "/boot/{file}";
}

/// Longest wait of a long poll.
pub const MAX_WAIT_SECONDS: u64 = 30;

// ---------------------------------------------------------------- errors

/// Body of every answer that is not 2xx.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    pub error: Fault,
}

// ---------------------------------------------------------------- time

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeQuery {
    /// 32 to 64 characters of the agent's choice.
    pub nonce: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TimeAnswer {
    /// Milliseconds since 1970.
    pub unix_ms: i64,
    pub nonce: String,
    /// ECDSA P-256 over SHA-256 of [`TimeAnswer::signed_text`], ASN.1 DER, in base64.
    pub signature: String,
    /// Certificate of the time key, signed by the CA: DER in base64.
    pub certificate: String,
}

impl TimeAnswer {
    /// What is signed.
    #[must_use]
    pub fn signed_text(nonce: &str, unix_ms: i64) -> String {
        format!("speediso time v1\n{nonce}\n{unix_ms}\n")
    }
}

// ---------------------------------------------------------------- enrolment

/// Who the agent says the machine is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// From the kernel command line, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// PKCS #10 request in PEM for a key that was made in this boot. Names in it are ignored.
    pub csr: String,
    pub boot_id: BootId,
    pub system: SystemVendor,
    pub macs: Vec<String>,
    pub agent_version: String,
    pub build: BuildInfo,
    /// Public key of the live system's ssh server, made in this boot: `ssh-ed25519 AAAA...`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_host_key: Option<String>,
    /// Where the machine is reached in its own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "enrolment", rename_all = "snake_case")]
pub enum EnrolAnswer {
    Admitted(Admission),
    /// A person must approve; ask again with the same key.
    Pending {
        node: NodeId,
        code: String,
        retry_ms: u64,
    },
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Admission {
    pub node: NodeId,
    pub name: String,
    /// For this boot only, in PEM; the issuing CA follows.
    pub certificate: String,
    pub epoch: Epoch,
    pub lease_ms: u64,
    /// Public keys for the live system's ssh server.
    pub ssh_keys: Vec<String>,
    #[serde(default)]
    pub ssh: SshPolicy,
    /// After how long without work the machine may leave, unless its own command line says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_reboot_s: Option<u64>,
}

/// Short code by which a person matches the machine on the console with the one in the list: from the SHA-256 of the
/// public key (SubjectPublicKeyInfo, DER). 40 bits: nobody finds a second key with it while the approver looks.
#[must_use]
pub fn approval_code(spki_sha256: &[u8; 32]) -> String {
    // Crockford's alphabet: no I, L, O, U to misread.
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bits = spki_sha256[..5].iter().fold(0u64, |acc, b| acc << 8 | u64::from(*b));
    let mut code = String::with_capacity(9);
    for i in 0..8u32 {
        if i == 4 {
            code.push('-');
        }
        let index = usize::try_from(bits >> (35 - 5 * i) & 31).unwrap_or(0);
        code.push(char::from(ALPHABET[index]));
    }
    code
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    pub csr: String,
    pub epoch: Epoch,
}

// ---------------------------------------------------------------- work

/// In every answer to an enrolled agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    pub epoch: Epoch,
    /// From the moment the request was sent, by the agent's monotonic clock.
    pub lease_ms: u64,
    /// Runs that are to stop at the next safe point.
    #[serde(default)]
    pub cancel: Vec<RunId>,
    /// What an operator wants of the machine's ssh, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshWish>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NextQuery {
    pub epoch: Epoch,
    /// Seconds to wait when there is nothing, at most [`MAX_WAIT_SECONDS`].
    #[serde(default)]
    pub wait: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NextAnswer {
    #[serde(flatten)]
    pub lease: Lease,
    /// Asking again before the run has begun gives the same run again.
    #[serde(default)]
    pub grant: Option<Grant>,
    /// Nothing is open: `SPEEDISO` may be looked at, the machine may idle.
    #[serde(default)]
    pub idle: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Grant {
    pub run: RunId,
    pub order: OrderId,
    /// Place in the order, from 0, and how many there are.
    pub index: u32,
    pub of: u32,
    pub attempt: u32,
    pub task: Task,
    pub dry_run: bool,
    /// Disks that the order says to leave alone.
    #[serde(default, skip_serializing_if = "SkipList::is_empty")]
    pub skip_block_devices: SkipList,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatRequest {
    pub epoch: Epoch,
    /// Runs that the agent knows to be going on.
    pub running: Vec<RunId>,
    #[serde(default)]
    pub address: Option<String>,
}

/// Asked before the first change; answered only when it is stored.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StartRequest {
    pub epoch: Epoch,
    pub plan: Plan,
    pub digest: PlanDigest,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EventsRequest {
    pub epoch: Epoch,
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub progress: Vec<Progress>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EventsAnswer {
    #[serde(flatten)]
    pub lease: Lease,
    /// Everything up to and with this number is stored.
    pub acknowledged: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EndRequest {
    pub epoch: Epoch,
    pub result: TaskResult,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EndAnswer {
    #[serde(flatten)]
    pub lease: Lease,
    /// The epoch was an old one: kept as evidence, no state changed.
    pub late: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InventoryReport {
    pub epoch: Epoch,
    pub inventory: Inventory,
}

// ---------------------------------------------------------------- operators

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NodeView {
    pub id: NodeId,
    pub name: String,
    pub state: NodeState,
    /// Why it is in this state, where that needs saying.
    #[serde(default)]
    pub reason: Option<String>,
    pub protected: bool,
    /// What to compare with the console while it is pending.
    #[serde(default)]
    pub code: Option<String>,
    pub system: SystemVendor,
    pub macs: Vec<String>,
    #[serde(default)]
    pub build: BuildInfo,
    #[serde(default)]
    pub address: Option<String>,
    pub epoch: Epoch,
    /// Whether an agent holds a lease now.
    pub online: bool,
    #[serde(default)]
    pub last_seen: Option<jiff::Timestamp>,
    #[serde(default)]
    pub open_order: Option<OrderId>,
    #[serde(default)]
    pub progress: Vec<Progress>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// As the machine's console shows it.
    pub code: String,
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectRequest {
    pub protected: bool,
}

/// A node known before it was ever seen. Its first boot is armed like any other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNodeRequest {
    pub name: String,
    pub macs: Vec<String>,
    #[serde(default)]
    pub uuid: Option<String>,
    #[serde(default)]
    pub serial_number: Option<String>,
}

/// Either a profile with its parameters, or a list of tasks.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    #[serde(default)]
    pub dry_run: bool,
    /// Disks that no task of the order may touch.
    #[serde(default, skip_serializing_if = "SkipList::is_empty")]
    pub skip_block_devices: SkipList,
    /// For the certificates that come of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<CertificateNotes>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OrderView {
    #[serde(flatten)]
    pub order: Order,
    pub node_name: String,
    /// The latest of each run and device.
    #[serde(default)]
    pub progress: Vec<Progress>,
    /// Highest number in the event store when this was read.
    pub event_cursor: i64,
}

/// An event as stored.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StoredEvent {
    /// Counts up over all nodes.
    pub cursor: i64,
    pub node: NodeId,
    #[serde(default)]
    pub order: Option<OrderId>,
    pub received: jiff::Timestamp,
    /// `agent`, `controller`, or an operator's name.
    pub source: String,
    /// Arrived under an old epoch: evidence, not state.
    #[serde(default)]
    pub late: bool,
    /// One line for people.
    pub text: String,
    #[serde(default)]
    pub detail: Value,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventsQuery {
    /// Events after this cursor.
    pub after: i64,
    pub node: Option<NodeId>,
    pub order: Option<OrderId>,
    pub limit: Option<u32>,
    /// Seconds to wait when there is none.
    pub wait: u64,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    pub id: i64,
    pub node: Option<NodeId>,
    pub raised: jiff::Timestamp,
    pub fault: Fault,
}

/// Admits machines without a person, when every property given matches.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_prefix: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Rule {
    pub id: i64,
    #[serde(flatten)]
    pub rule: RuleRequest,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImageView {
    pub name: String,
    pub size: u64,
    /// `sha256:...` over the bytes as stored.
    pub digest: String,
    /// Where agents fetch it.
    pub url: String,
    pub stored: jiff::Timestamp,
}

/// A list in an object, so that answers can grow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    pub items: Vec<T>,
}

/// How the state of an order reads in one word for scripts' exit codes.
#[must_use]
pub fn exit_code(state: OrderState) -> u8 {
    match state {
        OrderState::Done => 0,
        OrderState::Failed => 1,
        OrderState::Cancelled => 3,
        OrderState::Interrupted => 4,
        OrderState::Open | OrderState::Running => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approval_codes_have_forty_bits() {
        let mut digest = [0u8; 32];
        assert_eq!(approval_code(&digest), "0000-0000");
        digest[..5].copy_from_slice(&[0xff; 5]);
        assert_eq!(approval_code(&digest), "ZZZZ-ZZZZ");
        digest[..5].copy_from_slice(&[0, 0, 0, 0, 1]);
        assert_eq!(approval_code(&digest), "0000-0001");
    }

    #[test]
    fn flattened_bodies_round_trip() {
        let answer = NextAnswer {
            lease: Lease { epoch: Epoch(4), lease_ms: 60_000, cancel: vec![RunId::random()], ssh: None },
            grant: None,
            idle: true,
        };
        let text = serde_json::to_string(&answer).expect("serialises");
        assert_eq!(serde_json::from_str::<NextAnswer>(&text).expect("reads back"), answer);
    }
}
