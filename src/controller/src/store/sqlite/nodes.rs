//! Machines, their boots and what lets them in, in SQLite.

use futures_util::FutureExt as _;
use speediso_model::id::{Epoch, NodeId};
use speediso_model::inventory::Inventory;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Tx, parse, read, signed, unsigned, write};
use crate::store::record::Noticed;
use crate::store::{Fut, Identity, Millis, Node, NodeTransaction, Result, Session, Token};

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

impl NodeTransaction for Tx {
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
}
