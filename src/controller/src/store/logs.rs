//! What the store keeps of the machines' logs.

use speediso_model::id::{BootId, Epoch, NodeId};
use speediso_model::log::{LogBoot, LogLine, LogsQuery, StoredLine};

use super::Fut;

/// Boots of one machine of which lines are kept.
pub const MOST_BOOTS: u32 = 5;
/// Lines of one boot; the oldest make room.
pub const MOST_LINES: u32 = 10_000;

/// What a boot has delivered.
#[derive(Clone, PartialEq, Debug)]
pub struct Delivery {
    pub node: NodeId,
    pub boot: BootId,
    pub epoch: Epoch,
    pub lines: Vec<LogLine>,
    pub lost: u64,
    pub network_doctor: Option<serde_json::Value>,
}

/// The part of a transaction that is about logs.
pub trait LogTransaction: Send {
    /// Stores what is new of it, and removes what is too much.
    fn put_log<'a>(&'a mut self, delivery: &'a Delivery) -> Fut<'a, ()>;
    /// In the order in which they arrived.
    fn log<'a>(&'a mut self, node: NodeId, query: &'a LogsQuery) -> Fut<'a, Vec<StoredLine>>;
    /// Newest first.
    fn log_boots(&mut self, node: NodeId) -> Fut<'_, Vec<LogBoot>>;
}
