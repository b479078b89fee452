//! The machines' logs in SQLite.

use futures_util::FutureExt as _;
use speediso_model::id::{Epoch, NodeId};
use speediso_model::log::{LogBoot, LogLevel, LogLine, LogSource, LogsQuery, StoredLine};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{MAX_ROWS, Tx, parse, read, signed, timestamp, unsigned, write};
use crate::store::logs::{Delivery, LogTransaction, MOST_BOOTS, MOST_LINES};
use crate::store::{Fut, Result};

/// As in JSON, so that the words in a database are those on the wire.
fn word<T: serde::Serialize>(value: &T) -> Result<String> {
    Ok(write("log line", value)?.trim_matches('"').to_owned())
}

fn unword<T: serde::de::DeserializeOwned>(word: &str) -> Result<T> {
    read("log line", &serde_json::Value::from(word).to_string())
}

fn line(row: &SqliteRow) -> Result<StoredLine> {
    Ok(StoredLine {
        cursor: row.try_get("cursor")?,
        boot: parse("log line", row.try_get("boot_id")?)?,
        received: timestamp(row.try_get("received")?),
        line: LogLine {
            seq: unsigned(row.try_get("seq")?),
            uptime_ms: unsigned(row.try_get("uptime_ms")?),
            level: unword::<LogLevel>(row.try_get("level")?)?,
            source: unword::<LogSource>(row.try_get("source")?)?,
            text: row.try_get("text")?,
        },
    })
}

fn boot(row: &SqliteRow) -> Result<LogBoot> {
    let findings: Option<String> = row.try_get("network_doctor")?;
    Ok(LogBoot {
        boot: parse("boot", row.try_get("boot_id")?)?,
        epoch: Epoch(unsigned(row.try_get("epoch")?)),
        first: timestamp(row.try_get("first_received")?),
        last: timestamp(row.try_get("last_received")?),
        lines: unsigned(row.try_get("lines")?),
        lost: unsigned(row.try_get("lost")?),
        network_doctor: findings.map(|text| read("network doctor's report", &text)).transpose()?,
    })
}

impl LogTransaction for Tx {
    fn put_log<'a>(&'a mut self, delivery: &'a Delivery) -> Fut<'a, ()> {
        async move {
            let (node, boot_id) = (delivery.node.to_string(), delivery.boot.to_string());
            let findings =
                delivery.network_doctor.as_ref().map(|f| write("network doctor's report", f)).transpose()?;
            sqlx::query(
                "INSERT INTO machine_boot (node, boot_id, epoch, first_received, last_received, lost, network_doctor)
                 VALUES (?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (node, boot_id) DO UPDATE SET
                     epoch = excluded.epoch,
                     last_received = excluded.last_received,
                     lost = machine_boot.lost + excluded.lost,
                     network_doctor = coalesce(excluded.network_doctor, machine_boot.network_doctor)",
            )
            .bind(&node)
            .bind(&boot_id)
            .bind(signed(delivery.epoch.0))
            .bind(self.now)
            .bind(self.now)
            .bind(signed(delivery.lost))
            .bind(findings)
            .execute(&mut *self.tx)
            .await?;
            for line in &delivery.lines {
                sqlx::query(
                    "INSERT OR IGNORE INTO machine_log (node, boot_id, source, seq, uptime_ms, level, received, text)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                )
                .bind(&node)
                .bind(&boot_id)
                .bind(word(&line.source)?)
                .bind(signed(line.seq))
                .bind(signed(line.uptime_ms))
                .bind(word(&line.level)?)
                .bind(self.now)
                .bind(&line.text)
                .execute(&mut *self.tx)
                .await?;
            }
            let removed = sqlx::query(
                "DELETE FROM machine_log WHERE node = ?1 AND boot_id = ?2 AND cursor <=
                     (SELECT cursor FROM machine_log WHERE node = ?1 AND boot_id = ?2
                      ORDER BY cursor DESC LIMIT 1 OFFSET ?3)",
            )
            .bind(&node)
            .bind(&boot_id)
            .bind(MOST_LINES)
            .execute(&mut *self.tx)
            .await?
            .rows_affected();
            if removed > 0 {
                sqlx::query("UPDATE machine_boot SET lost = lost + ? WHERE node = ? AND boot_id = ?")
                    .bind(signed(removed))
                    .bind(&node)
                    .bind(&boot_id)
                    .execute(&mut *self.tx)
                    .await?;
            }
            sqlx::query(
                "DELETE FROM machine_boot WHERE node = ?1 AND boot_id NOT IN
                     (SELECT boot_id FROM machine_boot WHERE node = ?1 ORDER BY last_received DESC, epoch DESC LIMIT ?2)",
            )
            .bind(&node)
            .bind(MOST_BOOTS)
            .execute(&mut *self.tx)
            .await?;
            sqlx::query(
                "DELETE FROM machine_log WHERE node = ?1 AND boot_id NOT IN
                     (SELECT boot_id FROM machine_boot WHERE node = ?1)",
            )
            .bind(&node)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn log<'a>(&'a mut self, node: NodeId, query: &'a LogsQuery) -> Fut<'a, Vec<StoredLine>> {
        async move {
            let rows = sqlx::query(
                "SELECT * FROM machine_log
                 WHERE node = ?1 AND cursor > ?2 AND (?3 IS NULL OR boot_id = ?3) ORDER BY cursor LIMIT ?4",
            )
            .bind(node.to_string())
            .bind(query.after)
            .bind(query.boot.map(|boot| boot.to_string()))
            .bind(query.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS))
            .fetch_all(&mut *self.tx)
            .await?;
            rows.iter().map(line).collect()
        }
        .boxed()
    }

    fn log_boots(&mut self, node: NodeId) -> Fut<'_, Vec<LogBoot>> {
        async move {
            let rows = sqlx::query(
                "SELECT b.*, (SELECT count(*) FROM machine_log l WHERE l.node = b.node AND l.boot_id = b.boot_id) AS lines
                 FROM machine_boot b WHERE b.node = ? ORDER BY b.last_received DESC, b.epoch DESC",
            )
            .bind(node.to_string())
            .fetch_all(&mut *self.tx)
            .await?;
            rows.iter().map(boot).collect()
        }
        .boxed()
    }
}
