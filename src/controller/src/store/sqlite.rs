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
use speediso_model::api::{Alert, EventsQuery, Rule, RuleRequest, StoredEvent};
use speediso_model::event::Progress;
use speediso_model::fault::Fault;
use speediso_model::id::{BootId, Epoch, NodeId, OrderId, RunId};
use speediso_model::inventory::Inventory;
use speediso_model::outcome::TaskResult;
use speediso_model::plan::PlanDigest;
use speediso_model::share::group::Member;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row as _, Sqlite, SqlitePool};

use super::record::Noticed;
use super::{
    Fut, Identity, Image, Millis, NewEvent, Node, OrderRecord, Result, RunRecord, Session, Start, Store, StoreError,
    Token, Transaction,
};

mod burn_in;
mod certificates;
mod hardware;
mod logs;

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

fn session(row: &SqliteRow) -> Result<Session> {
    Ok(Session {
        node: parse("session", row.try_get("node")?)?,
        epoch: Epoch(unsigned(row.try_get("epoch")?)),
        boot_id: parse("session", row.try_get("boot_id")?)?,
        key: row.try_get("spki_sha256")?,
        certificate: row.try_get("certificate")?,
        lease_until: row.try_get("lease_until")?,
        last_seen: row.try_get("last_seen")?,
        address: row.try_get("address")?,
        revoked: row.try_get("revoked")?,
        noticed: match row.try_get::<i64, _>("noticed")? {
            0 => Noticed::Nothing,
            1 => Noticed::LeaseLapsed,
            _ => Noticed::LongSilence,
        },
    })
}

fn event(row: &SqliteRow) -> Result<StoredEvent> {
    let order: Option<String> = row.try_get("order_id")?;
    Ok(StoredEvent {
        cursor: row.try_get("cursor")?,
        node: parse("event", row.try_get("node")?)?,
        order: order.map(|o| parse("event", o)).transpose()?,
        received: timestamp(row.try_get("received")?),
        source: row.try_get("source")?,
        late: row.try_get("late")?,
        text: row.try_get("text")?,
        detail: read("event", row.try_get("detail")?)?,
    })
}

fn image(row: &SqliteRow) -> Result<Image> {
    Ok(Image {
        name: row.try_get("name")?,
        size: unsigned(row.try_get("size")?),
        sha256: row.try_get("sha256")?,
        stored: row.try_get("stored")?,
    })
}

fn orders(rows: &[String]) -> Result<Vec<OrderRecord>> {
    rows.iter().map(|r| read("order", r)).collect()
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

    fn node(&mut self, id: NodeId) -> Fut<'_, Option<Node>> {
        async move {
            let row: Option<String> = sqlx::query_scalar("SELECT record FROM node WHERE id = ?")
                .bind(id.to_string())
                .fetch_optional(&mut *self.tx)
                .await?;
            row.map(|r| read("node", &r)).transpose()
        }
        .boxed()
    }

    fn node_named<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<NodeId>> {
        async move {
            let row: Option<String> = sqlx::query_scalar("SELECT id FROM node WHERE name = ?")
                .bind(name)
                .fetch_optional(&mut *self.tx)
                .await?;
            row.map(|r| parse("node", r)).transpose()
        }
        .boxed()
    }

    fn nodes(&mut self) -> Fut<'_, Vec<Node>> {
        async move {
            let rows: Vec<String> =
                sqlx::query_scalar("SELECT record FROM node ORDER BY name").fetch_all(&mut *self.tx).await?;
            rows.iter().map(|r| read("node", r)).collect()
        }
        .boxed()
    }

    fn nodes_with<'a>(&'a mut self, identity: &'a [Identity]) -> Fut<'a, Vec<Node>> {
        async move {
            let mut found: Vec<Node> = Vec::new();
            for one in identity {
                let rows: Vec<String> = sqlx::query_scalar(
                    "SELECT node.record FROM node JOIN identity ON identity.node = node.id
                     WHERE identity.kind = ? AND identity.value = ?",
                )
                .bind(one.kind)
                .bind(&one.value)
                .fetch_all(&mut *self.tx)
                .await?;
                for row in rows {
                    let node: Node = read("node", &row)?;
                    if found.iter().all(|n| n.id != node.id) {
                        found.push(node);
                    }
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn put_node<'a>(&'a mut self, node: &'a Node) -> Fut<'a, ()> {
        async move {
            let id = node.id.to_string();
            sqlx::query(
                "INSERT INTO node (id, name, record) VALUES (?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name, record = excluded.record",
            )
            .bind(&id)
            .bind(&node.name)
            .bind(write("node", node)?)
            .execute(&mut *self.tx)
            .await?;
            sqlx::query("DELETE FROM identity WHERE node = ?").bind(&id).execute(&mut *self.tx).await?;
            for one in node.identity() {
                sqlx::query("INSERT INTO identity (kind, value, node) VALUES (?, ?, ?)")
                    .bind(one.kind)
                    .bind(one.value)
                    .bind(&id)
                    .execute(&mut *self.tx)
                    .await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn inventory(&mut self, node: NodeId) -> Fut<'_, Option<Inventory>> {
        async move {
            let row: Option<String> = sqlx::query_scalar("SELECT record FROM inventory WHERE node = ?")
                .bind(node.to_string())
                .fetch_optional(&mut *self.tx)
                .await?;
            row.map(|r| read("inventory", &r)).transpose()
        }
        .boxed()
    }

    fn put_inventory<'a>(&'a mut self, node: NodeId, inventory: &'a Inventory) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO inventory (node, record) VALUES (?, ?)
                 ON CONFLICT (node) DO UPDATE SET record = excluded.record",
            )
            .bind(node.to_string())
            .bind(write("inventory", inventory)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn session(&mut self, node: NodeId, epoch: Epoch) -> Fut<'_, Option<Session>> {
        async move {
            sqlx::query("SELECT * FROM session WHERE node = ? AND epoch = ?")
                .bind(node.to_string())
                .bind(signed(epoch.0))
                .fetch_optional(&mut *self.tx)
                .await?
                .map(|row| session(&row))
                .transpose()
        }
        .boxed()
    }

    fn put_session<'a>(&'a mut self, s: &'a Session) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO session (node, epoch, boot_id, spki_sha256, certificate, lease_until, last_seen, address,
                                      revoked, noticed)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (node, epoch) DO UPDATE SET certificate = excluded.certificate,
                     lease_until = excluded.lease_until, last_seen = excluded.last_seen, address = excluded.address,
                     revoked = excluded.revoked, noticed = excluded.noticed",
            )
            .bind(s.node.to_string())
            .bind(signed(s.epoch.0))
            .bind(s.boot_id.to_string())
            .bind(&s.key)
            .bind(&s.certificate)
            .bind(s.lease_until)
            .bind(s.last_seen)
            .bind(&s.address)
            .bind(s.revoked)
            .bind(match s.noticed {
                Noticed::Nothing => 0,
                Noticed::LeaseLapsed => 1,
                Noticed::LongSilence => 2,
            })
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn certificate<'a>(&'a mut self, serial: &'a str) -> Fut<'a, Option<(NodeId, Epoch)>> {
        async move {
            let row: Option<(String, i64)> = sqlx::query_as("SELECT node, epoch FROM certificate WHERE serial = ?")
                .bind(serial)
                .fetch_optional(&mut *self.tx)
                .await?;
            row.map(|(node, epoch)| Ok((parse("certificate", node)?, Epoch(unsigned(epoch))))).transpose()
        }
        .boxed()
    }

    fn put_certificate<'a>(&'a mut self, serial: &'a str, node: NodeId, epoch: Epoch) -> Fut<'a, ()> {
        async move {
            sqlx::query("INSERT INTO certificate (serial, node, epoch) VALUES (?, ?, ?)")
                .bind(serial)
                .bind(node.to_string())
                .bind(signed(epoch.0))
                .execute(&mut *self.tx)
                .await?;
            Ok(())
        }
        .boxed()
    }

    fn lapsed(&mut self, silence: Millis) -> Fut<'_, Vec<NodeId>> {
        async move {
            let rows: Vec<String> = sqlx::query_scalar(
                "SELECT node FROM session WHERE revoked = 0
                 AND ((noticed = 0 AND lease_until <= ?1) OR (noticed = 1 AND lease_until <= ?1 - ?2))",
            )
            .bind(self.now)
            .bind(silence)
            .fetch_all(&mut *self.tx)
            .await?;
            rows.into_iter().map(|r| parse("session", r)).collect()
        }
        .boxed()
    }

    fn token<'a>(&'a mut self, sha256: &'a str) -> Fut<'a, Option<Token>> {
        async move {
            let row =
                sqlx::query("SELECT * FROM token WHERE sha256 = ?").bind(sha256).fetch_optional(&mut *self.tx).await?;
            row.map(|row| {
                Ok(Token {
                    sha256: row.try_get("sha256")?,
                    node: parse("token", row.try_get("node")?)?,
                    expires: row.try_get("expires")?,
                    used_by: row.try_get("used_by")?,
                })
            })
            .transpose()
        }
        .boxed()
    }

    fn put_token<'a>(&'a mut self, token: &'a Token) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO token (sha256, node, expires, used_by) VALUES (?, ?, ?, ?)
                 ON CONFLICT (sha256) DO UPDATE SET used_by = excluded.used_by",
            )
            .bind(&token.sha256)
            .bind(token.node.to_string())
            .bind(token.expires)
            .bind(&token.used_by)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn drop_unused_tokens(&mut self, node: NodeId) -> Fut<'_, ()> {
        async move {
            sqlx::query("DELETE FROM token WHERE node = ? AND used_by IS NULL")
                .bind(node.to_string())
                .execute(&mut *self.tx)
                .await?;
            Ok(())
        }
        .boxed()
    }

    fn order(&mut self, id: OrderId) -> Fut<'_, Option<OrderRecord>> {
        async move {
            let row: Option<String> = sqlx::query_scalar("SELECT record FROM work_order WHERE id = ?")
                .bind(id.to_string())
                .fetch_optional(&mut *self.tx)
                .await?;
            row.map(|r| read("order", &r)).transpose()
        }
        .boxed()
    }

    fn open_order(&mut self, node: NodeId) -> Fut<'_, Option<OrderRecord>> {
        async move {
            let row: Option<String> = sqlx::query_scalar("SELECT record FROM work_order WHERE node = ? AND open = 1")
                .bind(node.to_string())
                .fetch_optional(&mut *self.tx)
                .await?;
            row.map(|r| read("order", &r)).transpose()
        }
        .boxed()
    }

    fn orders(&mut self, node: Option<NodeId>, limit: u32) -> Fut<'_, Vec<OrderRecord>> {
        async move {
            let rows: Vec<String> = match node {
                Some(node) => {
                    sqlx::query_scalar("SELECT record FROM work_order WHERE node = ? ORDER BY created DESC, id LIMIT ?")
                        .bind(node.to_string())
                        .bind(limit.min(MAX_ROWS))
                        .fetch_all(&mut *self.tx)
                        .await?
                }
                None => {
                    sqlx::query_scalar("SELECT record FROM work_order ORDER BY created DESC, id LIMIT ?")
                        .bind(limit.min(MAX_ROWS))
                        .fetch_all(&mut *self.tx)
                        .await?
                }
            };
            orders(&rows)
        }
        .boxed()
    }

    fn put_order<'a>(&'a mut self, record: &'a OrderRecord) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO work_order (id, node, open, created, record) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET open = excluded.open, record = excluded.record",
            )
            .bind(record.order.id.to_string())
            .bind(record.order.node.to_string())
            .bind(record.order.state.is_open())
            .bind(record.order.created.as_millisecond())
            .bind(write("order", record)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn run(&mut self, id: RunId) -> Fut<'_, Option<RunRecord>> {
        async move {
            let Some(row) = sqlx::query("SELECT * FROM run WHERE id = ?")
                .bind(id.to_string())
                .fetch_optional(&mut *self.tx)
                .await?
            else {
                return Ok(None);
            };
            let started = match row.try_get::<Option<Millis>, _>("started")? {
                None => None,
                Some(at) => Some(Start {
                    at,
                    digest: PlanDigest(row.try_get("digest")?),
                    plan: read("plan", row.try_get("plan")?)?,
                }),
            };
            let result: Option<String> = row.try_get("result")?;
            Ok(Some(RunRecord {
                id,
                order: parse("run", row.try_get("order_id")?)?,
                node: parse("run", row.try_get("node")?)?,
                epoch: Epoch(unsigned(row.try_get("epoch")?)),
                started,
                ended: result.map(|r| read("result", &r)).transpose()?,
            }))
        }
        .boxed()
    }

    fn put_grant(&mut self, run: RunId, order: OrderId, node: NodeId, epoch: Epoch) -> Fut<'_, ()> {
        async move {
            sqlx::query("INSERT INTO run (id, order_id, node, epoch) VALUES (?, ?, ?, ?)")
                .bind(run.to_string())
                .bind(order.to_string())
                .bind(node.to_string())
                .bind(signed(epoch.0))
                .execute(&mut *self.tx)
                .await?;
            Ok(())
        }
        .boxed()
    }

    fn put_start<'a>(&'a mut self, run: RunId, start: &'a Start) -> Fut<'a, ()> {
        async move {
            let done = sqlx::query("UPDATE run SET started = ?, digest = ?, plan = ? WHERE id = ?")
                .bind(start.at)
                .bind(&start.digest.0)
                .bind(write("plan", &start.plan)?)
                .bind(run.to_string())
                .execute(&mut *self.tx)
                .await?;
            if done.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound.into()) }
        }
        .boxed()
    }

    fn put_end<'a>(&'a mut self, run: RunId, result: &'a TaskResult) -> Fut<'a, ()> {
        async move {
            // The first word counts; a repeated one changes nothing.
            sqlx::query("UPDATE run SET ended = ?, result = ? WHERE id = ? AND ended IS NULL")
                .bind(self.now)
                .bind(write("result", result)?)
                .bind(run.to_string())
                .execute(&mut *self.tx)
                .await?;
            Ok(())
        }
        .boxed()
    }

    fn put_event<'a>(&'a mut self, event: &'a NewEvent) -> Fut<'a, i64> {
        async move {
            Ok(sqlx::query_scalar(
                "INSERT INTO event (node, order_id, received, source, late, text, detail) VALUES (?, ?, ?, ?, ?, ?, ?)
                 RETURNING cursor",
            )
            .bind(event.node.to_string())
            .bind(event.order.map(|o| o.to_string()))
            .bind(self.now)
            .bind(&event.source)
            .bind(event.late)
            .bind(&event.text)
            .bind(write("event", &event.detail)?)
            .fetch_one(&mut *self.tx)
            .await?)
        }
        .boxed()
    }

    fn events<'a>(&'a mut self, query: &'a EventsQuery) -> Fut<'a, Vec<StoredEvent>> {
        async move {
            let limit = query.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS);
            let node = query.node.map(|n| n.to_string());
            let order = query.order.map(|o| o.to_string());
            // One statement for each case, so that each can use its index.
            let rows = match (node, order) {
                (None, None) => {
                    sqlx::query("SELECT * FROM event WHERE cursor > ? ORDER BY cursor LIMIT ?")
                        .bind(query.after)
                        .bind(limit)
                        .fetch_all(&mut *self.tx)
                        .await?
                }
                (Some(node), None) => {
                    sqlx::query("SELECT * FROM event WHERE node = ? AND cursor > ? ORDER BY cursor LIMIT ?")
                        .bind(node)
                        .bind(query.after)
                        .bind(limit)
                        .fetch_all(&mut *self.tx)
                        .await?
                }
                (node, Some(order)) => {
                    sqlx::query(
                        "SELECT * FROM event WHERE order_id = ?1 AND (?2 IS NULL OR node = ?2) AND cursor > ?3
                         ORDER BY cursor LIMIT ?4",
                    )
                    .bind(order)
                    .bind(node)
                    .bind(query.after)
                    .bind(limit)
                    .fetch_all(&mut *self.tx)
                    .await?
                }
            };
            rows.iter().map(event).collect()
        }
        .boxed()
    }

    fn last_events(&mut self, node: NodeId, limit: u32) -> Fut<'_, Vec<StoredEvent>> {
        async move {
            let rows = sqlx::query("SELECT * FROM event WHERE node = ? ORDER BY cursor DESC LIMIT ?")
                .bind(node.to_string())
                .bind(limit.min(MAX_ROWS))
                .fetch_all(&mut *self.tx)
                .await?;
            rows.iter().rev().map(event).collect()
        }
        .boxed()
    }

    fn event_cursor(&mut self) -> Fut<'_, i64> {
        async move {
            Ok(sqlx::query_scalar("SELECT coalesce(max(cursor), 0) FROM event").fetch_one(&mut *self.tx).await?)
        }
        .boxed()
    }

    fn acknowledged(&mut self, node: NodeId, boot: BootId) -> Fut<'_, u64> {
        async move {
            let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM acknowledged WHERE node = ? AND boot_id = ?")
                .bind(node.to_string())
                .bind(boot.to_string())
                .fetch_optional(&mut *self.tx)
                .await?;
            Ok(unsigned(seq.unwrap_or(0)))
        }
        .boxed()
    }

    fn put_acknowledged(&mut self, node: NodeId, boot: BootId, seq: u64) -> Fut<'_, ()> {
        async move {
            sqlx::query(
                "INSERT INTO acknowledged (node, boot_id, seq) VALUES (?, ?, ?)
                 ON CONFLICT (node, boot_id) DO UPDATE SET seq = max(seq, excluded.seq)",
            )
            .bind(node.to_string())
            .bind(boot.to_string())
            .bind(signed(seq))
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn progress(&mut self, node: NodeId) -> Fut<'_, Vec<Progress>> {
        async move {
            let rows: Vec<String> =
                sqlx::query_scalar("SELECT record FROM progress WHERE node = ? ORDER BY run, device")
                    .bind(node.to_string())
                    .fetch_all(&mut *self.tx)
                    .await?;
            rows.iter().map(|r| read("progress", r)).collect()
        }
        .boxed()
    }

    fn put_progress<'a>(&'a mut self, node: NodeId, progress: &'a Progress) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO progress (run, device, node, uptime_ms, record) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (run, device) DO UPDATE SET uptime_ms = excluded.uptime_ms, record = excluded.record
                 WHERE excluded.uptime_ms >= uptime_ms",
            )
            .bind(progress.run.to_string())
            .bind(progress.device.as_deref().unwrap_or_default())
            .bind(node.to_string())
            .bind(signed(progress.uptime_ms))
            .bind(write("progress", progress)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn drop_progress(&mut self, run: RunId) -> Fut<'_, ()> {
        async move {
            sqlx::query("DELETE FROM progress WHERE run = ?").bind(run.to_string()).execute(&mut *self.tx).await?;
            Ok(())
        }
        .boxed()
    }

    fn put_alert<'a>(&'a mut self, key: &'a str, node: Option<NodeId>, fault: &'a Fault) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO alert (key, node, raised, fault) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
            )
            .bind(key)
            .bind(node.map(|n| n.to_string()))
            .bind(self.now)
            .bind(write("alert", fault)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn alerts(&mut self, limit: u32) -> Fut<'_, Vec<Alert>> {
        async move {
            let rows = sqlx::query("SELECT * FROM alert ORDER BY id DESC LIMIT ?")
                .bind(limit.min(MAX_ROWS))
                .fetch_all(&mut *self.tx)
                .await?;
            rows.iter()
                .map(|row| {
                    let node: Option<String> = row.try_get("node")?;
                    Ok(Alert {
                        id: row.try_get("id")?,
                        node: node.map(|n| parse("alert", n)).transpose()?,
                        raised: timestamp(row.try_get("raised")?),
                        fault: read("alert", row.try_get("fault")?)?,
                    })
                })
                .collect()
        }
        .boxed()
    }

    fn sharing<'a>(&'a mut self, manifest: &'a str, origin: &'a str) -> Fut<'a, Vec<Member>> {
        async move {
            let rows: Vec<String> = sqlx::query_scalar(
                "SELECT record FROM share WHERE (manifest = ?1 OR origin = ?2) AND until > ?3
                 ORDER BY until DESC LIMIT ?4",
            )
            .bind(manifest)
            .bind(origin)
            .bind(self.now)
            .bind(MAX_ROWS)
            .fetch_all(&mut *self.tx)
            .await?;
            rows.iter().map(|r| read("sharing machine", r)).collect()
        }
        .boxed()
    }

    fn put_sharing<'a>(&'a mut self, member: &'a Member) -> Fut<'a, ()> {
        async move {
            sqlx::query("DELETE FROM share WHERE until <= ?").bind(self.now).execute(&mut *self.tx).await?;
            sqlx::query(
                "INSERT INTO share (manifest, node, origin, until, record) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (manifest, node) DO UPDATE SET origin = excluded.origin, until = excluded.until,
                     record = excluded.record",
            )
            .bind(&member.manifest)
            .bind(member.node.to_string())
            .bind(&member.origin)
            .bind(member.until)
            .bind(write("sharing machine", member)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn drop_sharing<'a>(&'a mut self, manifest: &'a str, node: NodeId) -> Fut<'a, ()> {
        async move {
            sqlx::query("DELETE FROM share WHERE manifest = ? AND node = ?")
                .bind(manifest)
                .bind(node.to_string())
                .execute(&mut *self.tx)
                .await?;
            Ok(())
        }
        .boxed()
    }

    fn rules(&mut self) -> Fut<'_, Vec<Rule>> {
        async move {
            let rows: Vec<(i64, String)> =
                sqlx::query_as("SELECT id, record FROM rule ORDER BY id").fetch_all(&mut *self.tx).await?;
            rows.into_iter().map(|(id, r)| Ok(Rule { id, rule: read("rule", &r)? })).collect()
        }
        .boxed()
    }

    fn put_rule<'a>(&'a mut self, rule: &'a RuleRequest) -> Fut<'a, Rule> {
        async move {
            let id = sqlx::query_scalar("INSERT INTO rule (record) VALUES (?) RETURNING id")
                .bind(write("rule", rule)?)
                .fetch_one(&mut *self.tx)
                .await?;
            Ok(Rule { id, rule: rule.clone() })
        }
        .boxed()
    }

    fn drop_rule(&mut self, id: i64) -> Fut<'_, bool> {
        async move {
            let done = sqlx::query("DELETE FROM rule WHERE id = ?").bind(id).execute(&mut *self.tx).await?;
            Ok(done.rows_affected() > 0)
        }
        .boxed()
    }

    fn image<'a>(&'a mut self, name: &'a str) -> Fut<'a, Option<Image>> {
        async move {
            let row =
                sqlx::query("SELECT * FROM image WHERE name = ?").bind(name).fetch_optional(&mut *self.tx).await?;
            row.map(|row| image(&row)).transpose()
        }
        .boxed()
    }

    fn images(&mut self) -> Fut<'_, Vec<Image>> {
        async move {
            let rows = sqlx::query("SELECT * FROM image ORDER BY name").fetch_all(&mut *self.tx).await?;
            rows.iter().map(image).collect()
        }
        .boxed()
    }

    fn put_image<'a>(&'a mut self, image: &'a Image) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO image (name, size, sha256, stored) VALUES (?, ?, ?, ?)
                 ON CONFLICT (name) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256, stored = excluded.stored",
            )
            .bind(&image.name)
            .bind(signed(image.size))
            .bind(&image.sha256)
            .bind(self.now)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }
}
