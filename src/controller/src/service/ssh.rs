//! The way into machines: access given by operators, what agents say of it, and the recordings of what was done.

use std::time::Duration;

use speediso_model::api::Lease;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::NodeId;
use speediso_model::log::one_line;
use speediso_model::redact::Redactor;
use speediso_model::ssh::{
    MAX_PIECE, MAX_RECORDING, Session, SessionAnswer, SessionId, SessionPiece, SessionView, SshAccessRequest,
    SshReport, SshView, TunnelId, fingerprint, from_base64,
};
use tokio::time::{Instant, timeout_at};

use super::agent::{Agent, lease};
use super::{Failure, Result, Service, load};
use crate::machine::{Effects, Machine};
use crate::store::NewEvent;
use crate::wake;

/// How long an operator's request waits for the agent to say that it is in force. An agent at work is heard every few
/// seconds.
const IN_FORCE: Duration = Duration::from_secs(25);

fn timestamp(at: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

fn view(machine: &Machine) -> SshView {
    let Machine { node, session, now, .. } = machine;
    let ssh = &node.ssh;
    let address = session.as_ref().and_then(|s| s.address.as_deref()).and_then(|a| a.parse().ok());
    SshView {
        node: node.id,
        name: node.name.clone(),
        fingerprint: ssh.host_key.as_deref().and_then(fingerprint),
        host_key: ssh.host_key.clone(),
        address,
        online: machine.is_online(),
        until: (ssh.until > *now).then(|| timestamp(ssh.until)),
        in_force: ssh.in_force == ssh.number,
        refused: ssh.refused.clone(),
    }
}

impl Service {
    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn ssh_view(&self, node: NodeId) -> Result<SshView> {
        let mut tx = self.store.read().await?;
        Ok(view(&load(&mut *tx, node).await?.now))
    }

    /// Gives access, and waits a while for the agent to say that it is in force.
    ///
    /// # Errors
    /// When the machine has no agent, or the request is malformed.
    pub async fn allow_ssh(&self, node: NodeId, request: SshAccessRequest, by: &str) -> Result<SshView> {
        self.decide(node, |m, fx| m.allow_ssh(&request, by, fx)).await?;
        self.until_in_force(node).await
    }

    async fn until_in_force(&self, node: NodeId) -> Result<SshView> {
        let topic = self.wakes.on(&wake::node(node));
        let end = Instant::now() + IN_FORCE;
        loop {
            let mut woken = std::pin::pin!(topic.notified());
            woken.as_mut().enable();
            let view = self.ssh_view(node).await?;
            if view.in_force || timeout_at(end, woken).await.is_err() {
                return Ok(view);
            }
        }
    }

    /// # Errors
    /// When the session is not the newest.
    pub async fn ssh_report(&self, agent: Agent, report: SshReport) -> Result<Lease> {
        self.decide(agent.node, |m, _| {
            m.check_epoch(agent.epoch)?;
            m.check_epoch(report.epoch)?;
            m.ssh_in_force(&report);
            Ok(lease(m, agent.epoch, &[]))
        })
        .await
    }

    /// # Errors
    /// As [`Machine::ask_tunnel`].
    pub async fn ask_tunnel(&self, node: NodeId, id: TunnelId, by: &str) -> Result<()> {
        self.decide(node, |m, fx| m.ask_tunnel(id, by, fx)).await
    }

    /// # Errors
    /// When nobody asked this machine for it.
    pub async fn take_tunnel(&self, agent: Agent, id: TunnelId) -> Result<()> {
        self.decide(agent.node, |m, _| {
            m.check_epoch(agent.epoch)?;
            m.take_tunnel(id)
        })
        .await
    }

    /// Nobody waits for it any more.
    pub async fn forget_tunnel(&self, node: NodeId, id: TunnelId) {
        // One that was taken meanwhile is forgotten already.
        let _ = self.decide(node, |m, _| m.take_tunnel(id)).await;
    }

    /// Milliseconds for which a tunnel to the machine may go on: none once the access or the boot has ended.
    pub(crate) async fn ssh_left_ms(&self, agent: Agent) -> Result<u64> {
        let mut tx = self.store.read().await?;
        let machine = load(&mut *tx, agent.node).await?.now;
        if machine.check_epoch(agent.epoch).is_err() {
            return Ok(0);
        }
        Ok(u64::try_from(machine.node.ssh.until - machine.now).unwrap_or(0))
    }

    pub(crate) async fn say_of_tunnel(&self, node: NodeId, text: impl FnOnce(&str) -> String) -> Result<()> {
        self.decide(node, |m, fx: &mut Effects| {
            let text = text(&m.node.name);
            fx.say_as_controller(text);
            Ok(())
        })
        .await
    }

    /// Part of a recording, once and in order.
    ///
    /// # Errors
    /// When the boot is not the newest, or the session is another machine's.
    pub async fn ssh_piece(&self, agent: Agent, piece: SessionPiece) -> Result<SessionAnswer> {
        let malformed = |what: &str| Failure::Refused(Fault::new(FaultCode::ProtocolError, what));
        let data = from_base64(&piece.data).ok_or_else(|| malformed("the recording's piece is not base64"))?;
        if data.len() > MAX_PIECE {
            return Err(malformed("the recording's piece is too large"));
        }
        let mut tx = self.store.write().await?;
        let machine = load(&mut *tx, agent.node).await?.now;
        machine.check_epoch(agent.epoch)?;
        machine.check_epoch(piece.epoch)?;
        let Some(boot) = machine.session.as_ref().map(|s| s.boot_id) else {
            return Err(Failure::NotFound("session".into()));
        };
        let mut redactor = Redactor::default();
        for task in machine.order.iter().flat_map(|record| &record.order.tasks) {
            redactor.learn_task(&task.task);
        }
        let mut session = shortened(piece.session, &redactor);
        let known = tx.ssh_session(session.id).await?;
        if known.as_ref().is_some_and(|k| k.node != agent.node) {
            return Err(malformed("another machine has a session of this name"));
        }
        let now = timestamp(tx.now());
        let size = known.as_ref().map_or(0, |k| k.size);
        let is_next = piece.offset == size && !data.is_empty();
        let fits = size + data.len() as u64 <= MAX_RECORDING;
        session.cut |= known.as_ref().is_some_and(|k| k.session.cut) || (is_next && !fits);
        let next = if is_next && fits { size + data.len() as u64 } else { size };
        for text in said(known.as_ref().map(|k| &k.session), &session) {
            let event = NewEvent {
                node: agent.node,
                order: None,
                source: "agent".into(),
                late: false,
                text,
                detail: serde_json::json!({ "ssh_session": session.id }),
            };
            tx.put_event(&event).await?;
            tx.touch(wake::EVENTS).await?;
        }
        let id = session.id;
        let begun = known.map_or(now, |k| k.begun);
        tx.put_ssh_session(&SessionView { session, node: agent.node, boot, begun, heard: now, size: next }).await?;
        if next > size {
            tx.put_ssh_piece(id, size, &data).await?;
        }
        self.commit(tx).await?;
        // What does not fit is not asked for again.
        Ok(SessionAnswer { next: if is_next && !fits { piece.offset + data.len() as u64 } else { next } })
    }

    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn ssh_sessions(&self, node: NodeId) -> Result<Vec<SessionView>> {
        let mut tx = self.store.read().await?;
        tx.node(node).await?.ok_or_else(|| Failure::NotFound(format!("node {node}")))?;
        Ok(tx.ssh_sessions(node).await?)
    }

    /// # Errors
    /// When there is none, or the store fails.
    pub async fn ssh_cast(&self, id: SessionId) -> Result<Vec<u8>> {
        let mut tx = self.store.read().await?;
        tx.ssh_session(id).await?.ok_or_else(|| Failure::NotFound(format!("ssh session {id}")))?;
        Ok(tx.ssh_cast(id).await?)
    }
}

/// What machines send is kept short, and free of what is known to be secret.
fn shortened(mut session: Session, redactor: &Redactor) -> Session {
    let clean = |text: &str, most: usize| -> String { text.chars().filter(|c| !c.is_control()).take(most).collect() };
    session.key = clean(&session.key, 80);
    session.from = clean(&session.from, 64);
    session.command = session.command.map(|command| one_line(&redactor.text(&command)));
    session
}

/// What of it belongs into the events.
fn said(before: Option<&Session>, now: &Session) -> Vec<String> {
    let mut lines = Vec::new();
    if before.is_none() {
        lines.push(match &now.command {
            None => format!("ssh: {} came in from {}, session {}", now.key, now.from, now.id),
            Some(command) => format!("ssh: {} from {} ran `{command}`", now.key, now.from),
        });
    }
    if now.command.is_none()
        && before.is_none_or(|b| b.ended_ms.is_none())
        && let Some(ended) = now.ended_ms
    {
        let seconds = ended.saturating_sub(now.began_ms) / 1000;
        lines.push(format!("ssh: session {} ended after {seconds} s", now.id));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_two_events_and_a_command_is_one() {
        let id = SessionId(uuid::Uuid::from_u128(1));
        let shell = Session {
            id,
            key: "SHA256:x".into(),
            from: "192.0.2.1".into(),
            command: None,
            began_ms: 1000,
            ended_ms: None,
            status: None,
            cut: false,
        };
        let ended = Session { ended_ms: Some(8000), status: Some(0), ..shell.clone() };
        assert_eq!((said(None, &shell).len(), said(Some(&shell), &shell).len()), (1, 0));
        assert!(said(Some(&shell), &ended)[0].contains("after 7 s"));
        assert_eq!((said(None, &ended).len(), said(Some(&ended), &ended).len()), (2, 0));
        let command = Session { command: Some("reboot".into()), ..ended };
        assert_eq!(said(None, &command), ["ssh: SHA256:x from 192.0.2.1 ran `reboot`"]);
        let hostile = Session { command: Some("a\n\u{1b}[2Jb token=CANARY".into()), key: "k".repeat(500), ..command };
        let kept = shortened(hostile, &Redactor::default());
        assert!(kept.key.len() == 80 && !kept.command.expect("one").contains(['\n', '\u{1b}']));
    }
}
