//! Burn-ins in SQLite.

use futures_util::FutureExt as _;
use speediso_model::burn_in::pairing::Waiting;
use speediso_model::id::{NodeId, RunId};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{MAX_ROWS, Tx, parse, read, write};
use crate::store::burn_in::{BurnInTransaction, StoredBurnIn};
use crate::store::{Fut, Millis, Result};

fn stored(row: &SqliteRow) -> Result<StoredBurnIn> {
    Ok(StoredBurnIn {
        run: parse("burn-in", row.try_get("run")?)?,
        node: parse("burn-in", row.try_get("node")?)?,
        maker: row.try_get("maker")?,
        product: row.try_get("product")?,
        ended: row.try_get("ended")?,
        report: read("burn-in", row.try_get("report")?)?,
    })
}

impl BurnInTransaction for Tx {
    fn put_burn_in<'a>(&'a mut self, one: &'a StoredBurnIn) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO burn_in (run, node, maker, product, ended, report) VALUES (?, ?, ?, ?, ?, ?)
                 ON CONFLICT (run) DO NOTHING",
            )
            .bind(one.run.to_string())
            .bind(one.node.to_string())
            .bind(&one.maker)
            .bind(&one.product)
            .bind(one.ended)
            .bind(write("burn-in", &one.report)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn burn_ins(&mut self, node: NodeId, limit: u32) -> Fut<'_, Vec<StoredBurnIn>> {
        async move {
            let rows = sqlx::query("SELECT * FROM burn_in WHERE node = ? ORDER BY ended DESC, run LIMIT ?")
                .bind(node.to_string())
                .bind(limit.min(MAX_ROWS))
                .fetch_all(&mut *self.tx)
                .await?;
            rows.iter().map(stored).collect()
        }
        .boxed()
    }

    fn burn_ins_of_model<'a>(
        &'a mut self,
        maker: &'a str,
        product: &'a str,
        but: NodeId,
        limit: u32,
    ) -> Fut<'a, Vec<StoredBurnIn>> {
        async move {
            // SQLite gives the other columns of the row that has the maximum.
            let rows = sqlx::query(
                "SELECT run, node, maker, product, max(ended) AS ended, report FROM burn_in
                 WHERE maker = ? AND product = ? AND node <> ? GROUP BY node ORDER BY ended DESC LIMIT ?",
            )
            .bind(maker)
            .bind(product)
            .bind(but.to_string())
            .bind(limit.min(MAX_ROWS))
            .fetch_all(&mut *self.tx)
            .await?;
            rows.iter().map(stored).collect()
        }
        .boxed()
    }

    fn run_ended(&mut self, run: RunId) -> Fut<'_, Option<Millis>> {
        async move {
            let ended: Option<Option<i64>> = sqlx::query_scalar("SELECT ended FROM run WHERE id = ?")
                .bind(run.to_string())
                .fetch_optional(&mut *self.tx)
                .await?;
            Ok(ended.flatten())
        }
        .boxed()
    }

    fn pairing(&mut self) -> Fut<'_, Vec<Waiting>> {
        async move {
            let rows: Vec<String> =
                sqlx::query_scalar("SELECT record FROM pairing WHERE until > ? ORDER BY run LIMIT ?")
                    .bind(self.now)
                    .bind(MAX_ROWS)
                    .fetch_all(&mut *self.tx)
                    .await?;
            rows.iter().map(|row| read("waiting machine", row)).collect()
        }
        .boxed()
    }

    fn put_pairing<'a>(&'a mut self, waiting: &'a Waiting) -> Fut<'a, ()> {
        async move {
            sqlx::query("DELETE FROM pairing WHERE until <= ?").bind(self.now).execute(&mut *self.tx).await?;
            sqlx::query(
                "INSERT INTO pairing (run, until, record) VALUES (?, ?, ?)
                 ON CONFLICT (run) DO UPDATE SET until = excluded.until, record = excluded.record",
            )
            .bind(waiting.run.to_string())
            .bind(waiting.until)
            .bind(write("waiting machine", waiting)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }
}
