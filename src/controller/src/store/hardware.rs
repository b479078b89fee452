//! What the store keeps of changes in machines.

use speediso_model::id::{Epoch, NodeId};
use speediso_model::inventory::compare::{Change, SeenChanges};

use super::Fut;

/// The part of a transaction that is about them.
pub trait HardwareTransaction: Send {
    /// Seen now. Of one machine the newest are kept, some hundred of them.
    fn put_hardware_changes<'a>(&'a mut self, node: NodeId, epoch: Epoch, changes: &'a [Change]) -> Fut<'a, ()>;
    /// Newest first.
    fn hardware_changes(&mut self, node: NodeId, limit: u32) -> Fut<'_, Vec<SeenChanges>>;
}
