//! Certificates of sanitization in SQLite.

use futures_util::FutureExt as _;
use speediso_model::certificate::Digest;
use speediso_model::certificate::machine::{Gone, KnownDisk};
use speediso_model::certificate::site::{CertificatePolicy, CertificatesQuery, SiteKeyView};
use speediso_model::id::NodeId;
use speediso_model::inventory::Disk;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{MAX_ROWS, Tx, read, signed, timestamp, unsigned, write};
use crate::store::certificates::{CertificateTransaction, WipeCertificate};
use crate::store::{Fut, Result};

fn certificate(row: &SqliteRow) -> Result<WipeCertificate> {
    Ok(WipeCertificate {
        view: read("certificate", row.try_get("view")?)?,
        origin: row.try_get("origin")?,
        disk: row.try_get("disk")?,
        document: row.try_get("document")?,
    })
}

impl CertificateTransaction for Tx {
    fn wipe_certificate_head(&mut self) -> Fut<'_, Option<(u64, Digest)>> {
        async move {
            let row: Option<(i64, String)> =
                sqlx::query_as("SELECT number, sha256 FROM wipe_certificate ORDER BY number DESC LIMIT 1")
                    .fetch_optional(&mut *self.tx)
                    .await?;
            Ok(row.map(|(number, sha256)| (unsigned(number), Digest(sha256))))
        }
        .boxed()
    }

    fn put_wipe_certificate<'a>(&'a mut self, certificate: &'a WipeCertificate) -> Fut<'a, ()> {
        async move {
            let view = &certificate.view;
            sqlx::query(
                "INSERT INTO wipe_certificate
                     (number, sha256, origin, node, order_id, disk, serial, issued, view, document)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(signed(view.number))
            .bind(&view.document.0)
            .bind(&certificate.origin)
            .bind(view.node.to_string())
            .bind(view.order.to_string())
            .bind(&certificate.disk)
            .bind(&view.serial)
            .bind(view.issued.as_millisecond())
            .bind(write("certificate", view)?)
            .bind(&certificate.document)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn wipe_certificate(&mut self, number: u64) -> Fut<'_, Option<WipeCertificate>> {
        async move {
            // A number beyond SQLite's is one that was never given.
            let Ok(number) = i64::try_from(number) else { return Ok(None) };
            let row = sqlx::query("SELECT * FROM wipe_certificate WHERE number = ?")
                .bind(number)
                .fetch_optional(&mut *self.tx)
                .await?;
            row.as_ref().map(certificate).transpose()
        }
        .boxed()
    }

    fn wipe_certificate_for<'a>(&'a mut self, origin: &'a str) -> Fut<'a, Option<WipeCertificate>> {
        async move {
            let row = sqlx::query("SELECT * FROM wipe_certificate WHERE origin = ?")
                .bind(origin)
                .fetch_optional(&mut *self.tx)
                .await?;
            row.as_ref().map(certificate).transpose()
        }
        .boxed()
    }

    fn wipe_certificates<'a>(&'a mut self, query: &'a CertificatesQuery) -> Fut<'a, Vec<WipeCertificate>> {
        async move {
            let mut select = sqlx::QueryBuilder::new("SELECT * FROM wipe_certificate WHERE true");
            if let Some(node) = query.node {
                select.push(" AND node = ").push_bind(node.to_string());
            }
            if let Some(order) = query.order {
                select.push(" AND order_id = ").push_bind(order.to_string());
            }
            if let Some(serial) = &query.serial {
                select.push(" AND serial = ").push_bind(serial.trim().to_owned()).push(" COLLATE NOCASE");
            }
            if let Some(from) = query.from {
                select.push(" AND issued >= ").push_bind(from.as_millisecond());
            }
            if let Some(until) = query.until {
                select.push(" AND issued < ").push_bind(until.as_millisecond());
            }
            if let Some(before) = query.before {
                select.push(" AND number < ").push_bind(signed(before));
            }
            let limit = query.limit.unwrap_or(MAX_ROWS).min(MAX_ROWS);
            select.push(" ORDER BY number DESC LIMIT ").push_bind(limit);
            let rows = select.build().fetch_all(&mut *self.tx).await?;
            rows.iter().map(certificate).collect()
        }
        .boxed()
    }

    fn wipe_certificate_chain(&mut self, after: u64, limit: u32) -> Fut<'_, Vec<(u64, String)>> {
        async move {
            let rows: Vec<(i64, String)> = sqlx::query_as(
                "SELECT number, document FROM wipe_certificate WHERE number > ? ORDER BY number LIMIT ?",
            )
            .bind(signed(after))
            .bind(limit)
            .fetch_all(&mut *self.tx)
            .await?;
            Ok(rows.into_iter().map(|(number, document)| (unsigned(number), document)).collect())
        }
        .boxed()
    }

    fn site_keys(&mut self) -> Fut<'_, Vec<SiteKeyView>> {
        async move {
            let rows: Vec<String> =
                sqlx::query_scalar("SELECT record FROM site_key ORDER BY since, key").fetch_all(&mut *self.tx).await?;
            rows.iter().map(|r| read("site key", r)).collect()
        }
        .boxed()
    }

    fn put_site_key<'a>(&'a mut self, key: &'a SiteKeyView) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO site_key (since, key, record) VALUES (?, ?, ?)
                 ON CONFLICT (key) DO UPDATE SET record = excluded.record",
            )
            .bind(key.since.as_millisecond())
            .bind(&key.key)
            .bind(write("site key", key)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn certificate_policy(&mut self) -> Fut<'_, CertificatePolicy> {
        async move {
            let row: Option<String> =
                sqlx::query_scalar("SELECT record FROM certificate_policy").fetch_optional(&mut *self.tx).await?;
            row.map_or_else(|| Ok(CertificatePolicy::default()), |r| read("certificate policy", &r))
        }
        .boxed()
    }

    fn put_certificate_policy<'a>(&'a mut self, policy: &'a CertificatePolicy) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO certificate_policy (id, record) VALUES (1, ?)
                 ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            )
            .bind(write("certificate policy", policy)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn known_disks(&mut self, node: NodeId) -> Fut<'_, Vec<KnownDisk>> {
        async move {
            let rows = sqlx::query("SELECT * FROM known_disk WHERE node = ? ORDER BY disk")
                .bind(node.to_string())
                .fetch_all(&mut *self.tx)
                .await?;
            rows.iter()
                .map(|row| {
                    let gone: Option<String> = row.try_get("gone")?;
                    Ok(KnownDisk {
                        key: row.try_get("disk")?,
                        disk: read("known disk", row.try_get("record")?)?,
                        first_seen: timestamp(row.try_get("first_seen")?),
                        last_seen: timestamp(row.try_get("last_seen")?),
                        gone: gone.map(|g| read("known disk", &g)).transpose()?,
                    })
                })
                .collect()
        }
        .boxed()
    }

    fn see_disk<'a>(&'a mut self, node: NodeId, key: &'a str, disk: &'a Disk) -> Fut<'a, ()> {
        async move {
            sqlx::query(
                "INSERT INTO known_disk (node, disk, first_seen, last_seen, record) VALUES (?1, ?2, ?3, ?3, ?4)
                 ON CONFLICT (node, disk) DO UPDATE
                 SET last_seen = excluded.last_seen, record = excluded.record, gone = NULL",
            )
            .bind(node.to_string())
            .bind(key)
            .bind(self.now)
            .bind(write("known disk", disk)?)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn put_gone<'a>(&'a mut self, node: NodeId, key: &'a str, gone: &'a Gone) -> Fut<'a, bool> {
        async move {
            let done = sqlx::query("UPDATE known_disk SET gone = ? WHERE node = ? AND disk = ?")
                .bind(write("known disk", gone)?)
                .bind(node.to_string())
                .bind(key)
                .execute(&mut *self.tx)
                .await?;
            Ok(done.rows_affected() == 1)
        }
        .boxed()
    }
}
