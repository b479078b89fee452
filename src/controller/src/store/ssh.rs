//! What the store keeps of the way into a machine: the key it shows, who may come, and what was done.

use serde::{Deserialize, Serialize};
use speediso_model::id::NodeId;
use speediso_model::ssh::{SessionId, SessionView, TunnelId};

use super::{Fut, Millis};

/// Sessions of one machine of which anything is kept.
pub const MOST_SESSIONS: u32 = 200;

/// Part of a node. What operators gave ends with the boot for which they gave it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSsh {
    pub host_key: Option<String>,
    /// Grows with every wish, over all boots.
    pub number: u64,
    pub until: Millis,
    pub keys: Vec<GivenKey>,
    /// Asked for, and not taken up by the agent yet.
    pub tunnels: Vec<AskedTunnel>,
    /// The wish of which the agent has said that it is in force.
    pub in_force: u64,
    pub refused: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GivenKey {
    pub key: String,
    pub until: Millis,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct AskedTunnel {
    pub id: TunnelId,
    pub until: Millis,
}

/// The part of a transaction that is about ssh sessions.
pub trait SshTransaction: Send {
    fn ssh_session(&mut self, id: SessionId) -> Fut<'_, Option<SessionView>>;
    /// Stores what is known of it now, and removes the oldest sessions of its machine that are too many.
    fn put_ssh_session<'a>(&'a mut self, session: &'a SessionView) -> Fut<'a, ()>;
    fn put_ssh_piece<'a>(&'a mut self, session: SessionId, at: u64, data: &'a [u8]) -> Fut<'a, ()>;
    /// Newest first.
    fn ssh_sessions(&mut self, node: NodeId) -> Fut<'_, Vec<SessionView>>;
    /// The whole recording.
    fn ssh_cast(&mut self, session: SessionId) -> Fut<'_, Vec<u8>>;
}
