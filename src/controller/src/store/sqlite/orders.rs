//! Orders and their runs in SQLite.

use futures_util::FutureExt as _;
use speediso_model::id::{Epoch, NodeId, OrderId, RunId};
use speediso_model::outcome::TaskResult;
use speediso_model::plan::PlanDigest;
use sqlx::Row as _;

use super::{MAX_ROWS, Tx, parse, read, signed, unsigned, write};
use crate::store::{Fut, Millis, OrderRecord, OrderTransaction, Result, RunRecord, Start};

fn orders(rows: &[String]) -> Result<Vec<OrderRecord>> {
    rows.iter().map(|r| read("order", r)).collect()
}

impl OrderTransaction for Tx {
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
}
