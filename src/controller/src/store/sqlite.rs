//! The embedded store: one SQLite file.
//!
//! WAL with `synchronous=FULL`: a commit is on the disk before it returns, also through a power cut. Writing
//! transactions begin IMMEDIATE, so they queue for the write lock instead of failing halfway, and go through one
//! connection; readers have their own and never wait for a writer.

use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool};

use super::{Fut, Millis, Result, Store, StoreError, Transaction};

mod burn_in;
mod certificates;
mod events;
mod hardware;
mod images;
mod logs;
mod nodes;
mod orders;
mod ssh;

/// Readers; more than this wait for one another.
const READERS: u32 = 8;

/// How long a writer waits for its turn before it says that the store is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most rows any list gives.
const MAX_ROWS: u32 = 1000;

/// In order; one that was published is never changed, a new one is added.
fn migrations() -> Vec<Migration> {
    let one = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    vec![
        one(1, "start", include_str!("migrations/0001_start.sql")),
        one(2, "share", include_str!("migrations/0002_share.sql")),
        one(3, "certificates", include_str!("migrations/0003_certificates.sql")),
        one(4, "hardware_changes", include_str!("migrations/0004_hardware_changes.sql")),
        one(5, "logs", include_str!("migrations/0005_logs.sql")),
        one(6, "burn_in", include_str!("migrations/0006_burn_in.sql")),
        one(7, "ssh", include_str!("migrations/0007_ssh.sql")),
    ]
}

#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, made if it is absent, and brings its tables up to date.
    ///
    /// # Errors
    /// When the file cannot be opened, or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let pool = |n| SqlitePoolOptions::new().max_connections(n).acquire_timeout(PATIENCE).idle_timeout(None);
        let writer = pool(1).connect_with(options.clone()).await?;
        Migrator::with_migrations(migrations()).run(&writer).await?;
        let readers = pool(READERS).connect_with(options).await?;
        Ok(Self { writer, readers })
    }

    async fn begin(pool: &SqlitePool, how: &'static str) -> Result<Box<dyn Transaction>> {
        let mut tx = pool.begin_with(how).await?;
        let now =
            sqlx::query_scalar("SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)").fetch_one(&mut *tx).await?;
        Ok(Box::new(Tx { tx, now }))
    }
}

impl Store for SqliteStore {
    fn read(&self) -> Fut<'_, Box<dyn Transaction>> {
        Self::begin(&self.readers, "BEGIN DEFERRED").boxed()
    }

    fn write(&self) -> Fut<'_, Box<dyn Transaction>> {
        Self::begin(&self.writer, "BEGIN IMMEDIATE").boxed()
    }

    fn changes(&self, after: i64) -> Fut<'_, Vec<(String, i64)>> {
        async move {
            Ok(sqlx::query_as("SELECT topic, seq FROM change WHERE seq > ? ORDER BY seq")
                .bind(after)
                .fetch_all(&self.readers)
                .await?)
        }
        .boxed()
    }
}

struct Tx {
    tx: sqlx::Transaction<'static, Sqlite>,
    now: Millis,
}

fn read<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| StoreError::Record { what, source })
}

fn write<T: Serialize>(what: &'static str, record: &T) -> Result<String> {
    serde_json::to_string(record).map_err(|source| StoreError::Record { what, source })
}

fn parse<T: std::str::FromStr>(what: &'static str, text: String) -> Result<T> {
    text.parse().map_err(|_| StoreError::Value { what, value: text })
}

/// SQLite's integers are signed; ours that go in are counts far below 2^63.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn timestamp(at: Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

impl Transaction for Tx {
    fn now(&self) -> Millis {
        self.now
    }

    fn commit(self: Box<Self>) -> Fut<'static, ()> {
        async move { Ok(self.tx.commit().await?) }.boxed()
    }

    fn touch<'a>(&'a mut self, topic: &'a str) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO change (topic, seq) VALUES (?, (SELECT coalesce(max(seq), 0) + 1 FROM change))
                 ON CONFLICT (topic) DO UPDATE SET seq = excluded.seq",
            )
            .bind(topic)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn secret<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<Vec<u8>>> {
        async move {
            Ok(sqlx::query_scalar("SELECT value FROM secret WHERE name = ?")
                .bind(name)
                .fetch_optional(&mut *self.tx)
                .await?)
        }
        .boxed()
    }

    fn put_secret<'a>(&'a mut self, name: &'a str, value: &'a [u8]) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO secret (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            )
            .bind(name)
            .bind(value)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }
}
