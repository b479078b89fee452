//! Where the controller keeps everything it knows.
//!
//! The trait is small and says nothing of SQLite, so that several controllers can share a PostgreSQL: nothing that
//! matters is kept in a process. Leases are judged by the database's clock; who waits is woken through the table of
//! changes; the CA's key is in here. A writing transaction sees nobody else's writes until it ends, and what `commit`
//! returned survives a power cut.

use std::fmt::Debug;

use futures_util::future::BoxFuture;

pub mod burn_in;
pub mod certificates;
#[cfg(test)]
mod conformance;
pub mod events;
pub mod hardware;
pub mod images;
pub mod logs;
pub mod nodes;
pub mod orders;
pub mod record;
mod sqlite;
pub mod ssh;

pub use burn_in::{BurnInTransaction, StoredBurnIn};
pub use certificates::{CertificateTransaction, WipeCertificate};
pub use events::EventTransaction;
pub use hardware::HardwareTransaction;
pub use images::ImageTransaction;
pub use logs::LogTransaction;
pub use nodes::NodeTransaction;
pub use orders::OrderTransaction;
pub use record::{Identity, Image, Millis, NewEvent, Node, OrderRecord, RunRecord, Session, Start, Token};
pub use sqlite::SqliteStore;
pub use ssh::{NodeSsh, SshTransaction};

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

pub trait Transaction:
    NodeTransaction
    + OrderTransaction
    + EventTransaction
    + ImageTransaction
    + CertificateTransaction
    + HardwareTransaction
    + LogTransaction
    + BurnInTransaction
    + SshTransaction
{
    /// The database's clock when the transaction began.
    fn now(&self) -> Millis;
    fn commit(self: Box<Self>) -> Fut<'static, ()>;

    /// Wakes whoever waits for this topic, in every replica, once committed.
    fn touch<'a>(&'a mut self, topic: &'a str) -> Fut<'a, ()>;

    fn secret<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<Vec<u8>>>;
    fn put_secret<'a>(&'a mut self, name: &'a str, value: &'a [u8]) -> Fut<'a, ()>;
}
