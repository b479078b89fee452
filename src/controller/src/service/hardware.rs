//! A machine against what it was when it was last seen.

use speediso_model::id::NodeId;
use speediso_model::inventory::Inventory;
use speediso_model::inventory::compare::{SeenChanges, compare};

use super::{Failure, Result, Service};
use crate::machine::{CONTROLLER, Machine};
use crate::store::{NewEvent, StoreError, Transaction};
use crate::wake;

/// Of one inventory: a machine that makes up disks does not fill the store.
const MOST_CHANGES: usize = 500;
/// Lists on pages and in answers.
const SHOWN: u32 = 20;

impl Service {
    /// Newest first.
    ///
    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn hardware_changes(&self, id: NodeId) -> Result<Vec<SeenChanges>> {
        let mut tx = self.store.read().await?;
        tx.node(id).await?.ok_or_else(|| Failure::NotFound(format!("node {id}")))?;
        Ok(tx.hardware_changes(id, SHOWN).await?)
    }
}

/// Keeps what differs, and tells a person of what is missing or fails.
pub(super) async fn see_changes(tx: &mut dyn Transaction, machine: &Machine, now: &Inventory) -> Result<()> {
    let node = &machine.node;
    let before = match tx.inventory(node.id).await {
        // One that an older or newer controller wrote: there is nothing to compare with, and it is replaced.
        Err(StoreError::Record { source, .. }) => {
            tracing::warn!(node = %node.name, "its last inventory cannot be read ({source}); proceeding without");
            None
        }
        read => read?,
    };
    let Some(before) = before else { return Ok(()) };
    let mut changes = compare(&before, now);
    changes.truncate(MOST_CHANGES);
    if changes.is_empty() {
        return Ok(());
    }
    for change in &changes {
        if let Some(fault) = change.alarm(&node.name) {
            let key =
                format!("hardware:{}:{}:{:?}:{:?}:{}", node.id, node.epoch, change.kind, change.part, change.which);
            tx.put_alert(&key, Some(node.id), &fault).await?;
        }
    }
    let graver = changes.first().map(|c| c.text.clone()).unwrap_or_default();
    let text = match changes.len() {
        1 => format!("the hardware has changed: {graver}"),
        n => format!("the hardware has changed: {graver}, and {} more", n - 1),
    };
    let detail = serde_json::to_value(&changes).unwrap_or_default();
    let event = NewEvent { node: node.id, order: None, source: CONTROLLER.to_owned(), late: false, text, detail };
    tx.put_event(&event).await?;
    tx.touch(wake::EVENTS).await?;
    tx.put_hardware_changes(node.id, node.epoch, &changes).await?;
    Ok(())
}
