//! Changes in machines in SQLite.

use futures_util::FutureExt as _;
use speediso_model::id::{Epoch, NodeId};
use speediso_model::inventory::compare::{Change, SeenChanges};
use sqlx::Row as _;

use super::{MAX_ROWS, Tx, read, signed, timestamp, unsigned, write};
use crate::store::Fut;
use crate::store::hardware::HardwareTransaction;

/// Of one machine. One that is worked on every day keeps those of half a year.
const KEPT: i64 = 200;

impl HardwareTransaction for Tx {
    fn put_hardware_changes<'a>(&'a mut self, node: NodeId, epoch: Epoch, changes: &'a [Change]) -> Fut<'a, ()> {
        async move {
            sqlx::query("INSERT INTO hardware_change (node, epoch, seen, record) VALUES (?, ?, ?, ?)")
                .bind(node.to_string())
                .bind(signed(epoch.0))
                .bind(self.now)
                .bind(write("hardware change", &changes)?)
                .execute(&mut *self.tx)
                .await?;
            sqlx::query(
                "DELETE FROM hardware_change WHERE node = ?1 AND number NOT IN
                 (SELECT number FROM hardware_change WHERE node = ?1 ORDER BY number DESC LIMIT ?2)",
            )
            .bind(node.to_string())
            .bind(KEPT)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn hardware_changes(&mut self, node: NodeId, limit: u32) -> Fut<'_, Vec<SeenChanges>> {
        async move {
            let rows = sqlx::query("SELECT * FROM hardware_change WHERE node = ? ORDER BY number DESC LIMIT ?")
                .bind(node.to_string())
                .bind(limit.min(MAX_ROWS))
                .fetch_all(&mut *self.tx)
                .await?;
            rows.iter()
                .map(|row| {
                    Ok(SeenChanges {
                        seen: timestamp(row.try_get("seen")?),
                        epoch: Epoch(unsigned(row.try_get("epoch")?)),
                        changes: read("hardware change", row.try_get("record")?)?,
                    })
                })
                .collect()
        }
        .boxed()
    }
}
