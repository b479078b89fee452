//! What the store keeps of orders.

use speediso_model::id::{Epoch, NodeId, OrderId, RunId};
use speediso_model::outcome::TaskResult;

use super::{Fut, OrderRecord, RunRecord, Start};

/// The part of a transaction that is about orders and the runs of their tasks.
pub trait OrderTransaction: Send {
    fn order(&mut self, id: OrderId) -> Fut<'_, Option<OrderRecord>>;
    fn open_order(&mut self, node: NodeId) -> Fut<'_, Option<OrderRecord>>;
    /// Newest first.
    fn orders(&mut self, node: Option<NodeId>, limit: u32) -> Fut<'_, Vec<OrderRecord>>;
    fn put_order<'a>(&'a mut self, order: &'a OrderRecord) -> Fut<'a, ()>;
    fn run(&mut self, id: RunId) -> Fut<'_, Option<RunRecord>>;
    fn put_grant(&mut self, run: RunId, order: OrderId, node: NodeId, epoch: Epoch) -> Fut<'_, ()>;
    /// Fails when the run was started before.
    fn put_start<'a>(&'a mut self, run: RunId, start: &'a Start) -> Fut<'a, ()>;
    fn put_end<'a>(&'a mut self, run: RunId, result: &'a TaskResult) -> Fut<'a, ()>;
}
