//! ssh sessions in SQLite.

use futures_util::FutureExt as _;
use speediso_model::id::NodeId;
use speediso_model::ssh::{SessionId, SessionView};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::{Tx, parse, read, signed, timestamp, unsigned, write};
use crate::store::ssh::{MOST_SESSIONS, SshTransaction};
use crate::store::{Fut, Result};

fn session(row: &SqliteRow) -> Result<SessionView> {
    Ok(SessionView {
        session: read("ssh session", row.try_get("session")?)?,
        node: parse("ssh session", row.try_get("node")?)?,
        boot: parse("ssh session", row.try_get("boot_id")?)?,
        begun: timestamp(row.try_get("begun")?),
        heard: timestamp(row.try_get("heard")?),
        size: unsigned(row.try_get("size")?),
    })
}

impl SshTransaction for Tx {
    fn ssh_session(&mut self, id: SessionId) -> Fut<'_, Option<SessionView>> {
        async move {
            let row = sqlx::query("SELECT * FROM ssh_session WHERE id = ?")
                .bind(id.to_string())
                .fetch_optional(&mut *self.tx)
                .await?;
            row.as_ref().map(session).transpose()
        }
        .boxed()
    }

    fn put_ssh_session<'a>(&'a mut self, view: &'a SessionView) -> Fut<'a, ()> {
        async move {
            let node = view.node.to_string();
            sqlx::query(
                "INSERT INTO ssh_session (id, node, boot_id, session, begun, heard, size) VALUES (?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET
                     session = excluded.session, heard = excluded.heard, size = excluded.size",
            )
            .bind(view.session.id.to_string())
            .bind(&node)
            .bind(view.boot.to_string())
            .bind(write("ssh session", &view.session)?)
            .bind(view.begun.as_millisecond())
            .bind(view.heard.as_millisecond())
            .bind(signed(view.size))
            .execute(&mut *self.tx)
            .await?;
            sqlx::query(
                "DELETE FROM ssh_session WHERE node = ?1 AND id NOT IN
                     (SELECT id FROM ssh_session WHERE node = ?1 ORDER BY begun DESC, id LIMIT ?2)",
            )
            .bind(&node)
            .bind(MOST_SESSIONS)
            .execute(&mut *self.tx)
            .await?;
            Ok(())
        }
        .boxed()
    }

    fn put_ssh_piece<'a>(&'a mut self, session: SessionId, at: u64, data: &'a [u8]) -> Fut<'a, ()> {
        async move {
            sqlx::query("INSERT INTO ssh_piece (session, at, data) VALUES (?, ?, ?)")
                .bind(session.to_string())
                .bind(signed(at))
                .bind(data)
                .execute(&mut *self.tx)
                .await?;
            Ok(())
        }
        .boxed()
    }

    fn ssh_sessions(&mut self, node: NodeId) -> Fut<'_, Vec<SessionView>> {
        async move {
            let rows = sqlx::query("SELECT * FROM ssh_session WHERE node = ? ORDER BY begun DESC, id")
                .bind(node.to_string())
                .fetch_all(&mut *self.tx)
                .await?;
            rows.iter().map(session).collect()
        }
        .boxed()
    }

    fn ssh_cast(&mut self, session: SessionId) -> Fut<'_, Vec<u8>> {
        async move {
            let pieces: Vec<Vec<u8>> = sqlx::query_scalar("SELECT data FROM ssh_piece WHERE session = ? ORDER BY at")
                .bind(session.to_string())
                .fetch_all(&mut *self.tx)
                .await?;
            Ok(pieces.concat())
        }
        .boxed()
    }
}
