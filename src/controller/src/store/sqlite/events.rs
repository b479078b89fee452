//! What happened, in SQLite.

use futures_util::FutureExt as _;
use speediso_model::api::{Alert, EventsQuery, StoredEvent};
use speediso_model::event::Progress;
use speediso_model::fault::Fault;
use speediso_model::id::{BootId, NodeId, RunId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{MAX_ROWS, Tx, parse, read, signed, timestamp, unsigned, write};
use crate::store::{EventTransaction, Fut, NewEvent, Result};

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

impl EventTransaction for Tx {
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
}
