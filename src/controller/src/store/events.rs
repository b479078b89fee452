//! What the store keeps of what happened.

use speediso_model::api::{Alert, EventsQuery, StoredEvent};
use speediso_model::event::Progress;
use speediso_model::fault::Fault;
use speediso_model::id::{BootId, NodeId, RunId};

use super::{Fut, NewEvent};

/// The part of a transaction that is about events, progress and alerts.
pub trait EventTransaction: Send {
    fn put_event<'a>(&'a mut self, event: &'a NewEvent) -> Fut<'a, i64>;
    fn events<'a>(&'a mut self, query: &'a EventsQuery) -> Fut<'a, Vec<StoredEvent>>;
    /// The newest of one node, oldest first.
    fn last_events(&mut self, node: NodeId, limit: u32) -> Fut<'_, Vec<StoredEvent>>;
    fn event_cursor(&mut self) -> Fut<'_, i64>;
    fn acknowledged(&mut self, node: NodeId, boot: BootId) -> Fut<'_, u64>;
    fn put_acknowledged(&mut self, node: NodeId, boot: BootId, seq: u64) -> Fut<'_, ()>;
    fn progress(&mut self, node: NodeId) -> Fut<'_, Vec<Progress>>;
    fn put_progress<'a>(&'a mut self, node: NodeId, progress: &'a Progress) -> Fut<'a, ()>;
    fn drop_progress(&mut self, run: RunId) -> Fut<'_, ()>;
    /// The same key again adds nothing.
    fn put_alert<'a>(&'a mut self, key: &'a str, node: Option<NodeId>, fault: &'a Fault) -> Fut<'a, ()>;
    /// Newest first.
    fn alerts(&mut self, limit: u32) -> Fut<'_, Vec<Alert>>;
}
