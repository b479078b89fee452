//! The machines' logs: taken in bounded portions, without secrets, and given to operators.
//!
//! Agents hide secrets before they send. They are hidden here again, by shape and by what the machine's open order says: an
//! agent may be older than what it was told.

use std::time::Duration;

use speediso_model::api::{Lease, MAX_WAIT_SECONDS};
use speediso_model::id::NodeId;
use speediso_model::log::{LogBoot, LogLine, LogsQuery, LogsRequest, MAX_LINES, StoredLine, one_line};
use speediso_model::redact::Redactor;
use tokio::time::{Instant, timeout_at};

use super::agent::{Agent, lease};
use super::{Failure, Result, Service, load};
use crate::store::logs::Delivery;
use crate::wake;

impl Service {
    /// # Errors
    /// When the session is not the newest, or the store fails.
    pub async fn log(&self, agent: Agent, request: LogsRequest) -> Result<Lease> {
        let mut tx = self.store.write().await?;
        let machine = load(&mut *tx, agent.node).await?.now;
        machine.check_epoch(agent.epoch)?;
        machine.check_epoch(request.epoch)?;
        let Some(session) = &machine.session else { return Err(Failure::NotFound("session".into())) };
        let mut redactor = Redactor::default();
        for task in machine.order.iter().flat_map(|record| &record.order.tasks) {
            redactor.learn_task(&task.task);
        }
        let lines: Vec<LogLine> = request
            .lines
            .into_iter()
            .take(MAX_LINES)
            .map(|line| LogLine { text: one_line(&redactor.text(&line.text)), ..line })
            .collect();
        let mut network_doctor = request.network_doctor;
        if let Some(findings) = &mut network_doctor {
            redactor.value(findings);
        }
        let (node, boot, epoch) = (agent.node, session.boot_id, agent.epoch);
        tx.put_log(&Delivery { node, boot, epoch, lines, lost: request.lost, network_doctor }).await?;
        tx.touch(&wake::log(node)).await?;
        self.commit(tx).await?;
        Ok(lease(&machine, agent.epoch, &[]))
    }

    /// Waits for new ones, if that is asked.
    ///
    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn node_log(&self, node: NodeId, query: LogsQuery) -> Result<Vec<StoredLine>> {
        let topic = self.wakes.on(&wake::log(node));
        let end = Instant::now() + Duration::from_secs(query.wait.min(MAX_WAIT_SECONDS));
        loop {
            let mut woken = std::pin::pin!(topic.notified());
            woken.as_mut().enable();
            let mut tx = self.store.read().await?;
            tx.node(node).await?.ok_or_else(|| Failure::NotFound(format!("node {node}")))?;
            let lines = tx.log(node, &query).await?;
            drop(tx);
            if !lines.is_empty() || timeout_at(end, woken).await.is_err() {
                return Ok(lines);
            }
        }
    }

    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn node_log_boots(&self, node: NodeId) -> Result<Vec<LogBoot>> {
        let mut tx = self.store.read().await?;
        tx.node(node).await?.ok_or_else(|| Failure::NotFound(format!("node {node}")))?;
        Ok(tx.log_boots(node).await?)
    }
}
