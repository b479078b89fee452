//! Images, who shares them, and rules, in SQLite.

use futures_util::FutureExt as _;
use speediso_model::api::{Rule, RuleRequest};
use speediso_model::id::NodeId;
use speediso_model::share::group::Member;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{MAX_ROWS, Tx, read, signed, unsigned, write};
use crate::store::{Fut, Image, ImageTransaction, Result};

fn image(row: &SqliteRow) -> Result<Image> {
    Ok(Image {
        name: row.try_get("name")?,
        size: unsigned(row.try_get("size")?),
        sha256: row.try_get("sha256")?,
        stored: row.try_get("stored")?,
    })
}

impl ImageTransaction for Tx {
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
}
