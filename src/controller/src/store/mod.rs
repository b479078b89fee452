//! Where the controller keeps everything it knows.
//!
//! The trait is small and says nothing of SQLite, so that several controllers can share a PostgreSQL: nothing that
//! matters is kept in a process. Leases are judged by the database's clock; who waits is woken through the table of
//! changes; the CA's key is in here. A writing transaction sees nobody else's writes until it ends, and what `commit`
//! returned survives a power cut.

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use speediso_model::api::{Alert, EventsQuery, Rule, RuleRequest, StoredEvent};
use speediso_model::event::Progress;
use speediso_model::fault::Fault;
use speediso_model::id::{BootId, Epoch, NodeId, OrderId, RunId};
use speediso_model::inventory::Inventory;
use speediso_model::outcome::TaskResult;
use speediso_model::share::group::Member;

pub mod burn_in;
pub mod certificates;
#[cfg(test)]
mod conformance;
pub mod hardware;
pub mod logs;
pub mod record;
mod sqlite;

pub use burn_in::{BurnInTransaction, StoredBurnIn};
pub use certificates::{CertificateTransaction, WipeCertificate};
pub use hardware::HardwareTransaction;
pub use logs::LogTransaction;
pub use record::{Identity, Image, Millis, NewEvent, Node, OrderRecord, RunRecord, Session, Start, Token};
pub use sqlite::SqliteStore;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store failed")]
    Database(#[from] sqlx::Error),
    #[error("bringing the store's tables up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("a {what} in the store cannot be read; was it written by a newer controller?")]
    Record {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("a {what} in the store is malformed: {value:?}")]
    Value { what: &'static str, value: String },
}

pub type Result<T> = std::result::Result<T, StoreError>;
pub type Fut<'a, T> = BoxFuture<'a, Result<T>>;

pub trait Store: Send + Sync + Debug {
    /// A snapshot to read from.
    fn read(&self) -> Fut<'_, Box<dyn Transaction>>;

    /// Excludes every other writer from the start, so that what was read holds until `commit`. Dropped, it is undone.
    fn write(&self) -> Fut<'_, Box<dyn Transaction>>;

    /// Topics that changed after `seq`, with their newest numbers, in order.
    fn changes(&self, after: i64) -> Fut<'_, Vec<(String, i64)>>;
}

pub trait Transaction: CertificateTransaction + HardwareTransaction + LogTransaction + BurnInTransaction {
    /// The database's clock when the transaction began.
    fn now(&self) -> Millis;
    fn commit(self: Box<Self>) -> Fut<'static, ()>;

    /// Wakes whoever waits for this topic, in every replica, once committed.
    fn touch<'a>(&'a mut self, topic: &'a str) -> Fut<'a, ()>;

    fn secret<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<Vec<u8>>>;
    fn put_secret<'a>(&'a mut self, name: &'a str, value: &'a [u8]) -> Fut<'a, ()>;

    fn node(&mut self, id: NodeId) -> Fut<'_, Option<Node>>;
    fn node_named<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<NodeId>>;
    fn nodes(&mut self) -> Fut<'_, Vec<Node>>;
    /// Nodes that have any of these, each once.
    fn nodes_with<'a>(&'a mut self, identity: &'a [Identity]) -> Fut<'a, Vec<Node>>;
    fn put_node<'a>(&'a mut self, node: &'a Node) -> Fut<'a, ()>;

    fn inventory(&mut self, node: NodeId) -> Fut<'_, Option<Inventory>>;
    fn put_inventory<'a>(&'a mut self, node: NodeId, inventory: &'a Inventory) -> Fut<'a, ()>;

    fn session(&mut self, node: NodeId, epoch: Epoch) -> Fut<'_, Option<Session>>;
    fn put_session<'a>(&'a mut self, session: &'a Session) -> Fut<'a, ()>;
    fn certificate<'a>(&'a mut self, serial: &'a str) -> Fut<'a, Option<(NodeId, Epoch)>>;
    fn put_certificate<'a>(&'a mut self, serial: &'a str, node: NodeId, epoch: Epoch) -> Fut<'a, ()>;
    /// Nodes whose lease ended unnoticed, or whose silence lasts longer than `silence`.
    fn lapsed(&mut self, silence: Millis) -> Fut<'_, Vec<NodeId>>;

    fn token<'a>(&'a mut self, sha256: &'a str) -> Fut<'a, Option<Token>>;
    fn put_token<'a>(&'a mut self, token: &'a Token) -> Fut<'a, ()>;
    /// Forgets the node's tokens that nobody used. Used ones are kept, to recognise a second use.
    fn drop_unused_tokens(&mut self, node: NodeId) -> Fut<'_, ()>;

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

    /// Who writes or gives this image, or takes anything else from this server, as far as it has spoken lately: those that
    /// spoke last, if they are many.
    fn sharing<'a>(&'a mut self, manifest: &'a str, origin: &'a str) -> Fut<'a, Vec<Member>>;
    /// Also forgets those that have fallen silent.
    fn put_sharing<'a>(&'a mut self, member: &'a Member) -> Fut<'a, ()>;
    fn drop_sharing<'a>(&'a mut self, manifest: &'a str, node: NodeId) -> Fut<'a, ()>;

    fn rules(&mut self) -> Fut<'_, Vec<Rule>>;
    fn put_rule<'a>(&'a mut self, rule: &'a RuleRequest) -> Fut<'a, Rule>;
    fn drop_rule(&mut self, id: i64) -> Fut<'_, bool>;

    fn image<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<Image>>;
    fn images(&mut self) -> Fut<'_, Vec<Image>>;
    fn put_image<'a>(&'a mut self, image: &'a Image) -> Fut<'a, ()>;
}
