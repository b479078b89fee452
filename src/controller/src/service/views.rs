//! What operators see.

use std::time::Duration;

use speediso_model::api::{Alert, EventsQuery, ImageView, MAX_WAIT_SECONDS, NodeView, OrderView, Rule, StoredEvent};
use speediso_model::id::{Epoch, NodeId, OrderId};
use speediso_model::inventory::Inventory;
use speediso_model::order::Order;
use tokio::time::{Instant, timeout_at};

use super::{Failure, Result, Service};
use crate::store::{Image, Millis, Node, Transaction};
use crate::wake;

/// Rows of a list that is not asked for more narrowly.
const LIMIT: u32 = 500;

impl Service {
    /// # Errors
    /// When the store fails.
    pub async fn node_views(&self) -> Result<Vec<NodeView>> {
        let mut tx = self.store.read().await?;
        let mut views = Vec::new();
        for node in tx.nodes().await? {
            views.push(view(&mut *tx, node).await?);
        }
        Ok(views)
    }

    /// # Errors
    /// When there is none, or the store fails.
    pub async fn node_view(&self, id: NodeId) -> Result<NodeView> {
        let mut tx = self.store.read().await?;
        let node = tx.node(id).await?.ok_or_else(|| Failure::NotFound(format!("node {id}")))?;
        view(&mut *tx, node).await
    }

    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn node_inventory(&self, id: NodeId) -> Result<Option<Inventory>> {
        let mut tx = self.store.read().await?;
        tx.node(id).await?.ok_or_else(|| Failure::NotFound(format!("node {id}")))?;
        Ok(tx.inventory(id).await?)
    }

    /// Newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn orders(&self, node: Option<NodeId>) -> Result<Vec<Order>> {
        let mut tx = self.store.read().await?;
        Ok(tx.orders(node, LIMIT).await?.into_iter().map(|r| without_secrets(r.order)).collect())
    }

    /// # Errors
    /// When there is none, or the store fails.
    pub async fn order_view(&self, id: OrderId) -> Result<OrderView> {
        let mut tx = self.store.read().await?;
        let order = tx.order(id).await?.ok_or_else(|| Failure::NotFound(format!("order {id}")))?.order;
        let node_name = tx.node(order.node).await?.map(|n| n.name).unwrap_or_default();
        let event_cursor = tx.event_cursor().await?;
        let mut progress = tx.progress(order.node).await?;
        progress.retain(|p| order.tasks.iter().any(|t| t.state.run() == Some(p.run)));
        Ok(OrderView { order: without_secrets(order), node_name, progress, event_cursor })
    }

    /// Waits, when there is none and the query says so.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn stored_events(&self, query: EventsQuery) -> Result<Vec<StoredEvent>> {
        let topic = self.wakes.on(wake::EVENTS);
        let end = Instant::now() + Duration::from_secs(query.wait.min(MAX_WAIT_SECONDS));
        loop {
            let mut woken = std::pin::pin!(topic.notified());
            woken.as_mut().enable();
            let events = self.store.read().await?.events(&query).await?;
            if !events.is_empty() || timeout_at(end, woken).await.is_err() {
                return Ok(events);
            }
        }
    }

    /// The newest of one node, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn last_events(&self, node: NodeId, limit: u32) -> Result<Vec<StoredEvent>> {
        Ok(self.store.read().await?.last_events(node, limit).await?)
    }

    /// # Errors
    /// When the store fails.
    pub async fn alerts(&self) -> Result<Vec<Alert>> {
        Ok(self.store.read().await?.alerts(LIMIT).await?)
    }

    /// # Errors
    /// When the store fails.
    pub async fn rules(&self) -> Result<Vec<Rule>> {
        Ok(self.store.read().await?.rules().await?)
    }

    /// # Errors
    /// When the store fails.
    pub async fn image_views(&self) -> Result<Vec<ImageView>> {
        let images = self.store.read().await?.images().await?;
        Ok(images.into_iter().map(|i| self.image_view(i)).collect())
    }

    /// # Errors
    /// When there is none, or the store fails.
    pub async fn image(&self, name: &str) -> Result<Image> {
        let image = self.store.read().await?.image(name).await?;
        image.ok_or_else(|| Failure::NotFound(format!("image {name}")))
    }

    #[must_use]
    pub fn image_view(&self, image: Image) -> ImageView {
        ImageView {
            url: format!("{}/v1/images/{}", self.site.url, image.name),
            size: image.size,
            digest: format!("sha256:{}", image.sha256),
            stored: timestamp(image.stored),
            name: image.name,
        }
    }
}

fn timestamp(at: Millis) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// What only the machine needs to know, nobody reads here.
fn without_secrets(mut order: Order) -> Order {
    order.tasks.iter_mut().for_each(|task| task.task = task.task.redacted());
    order
}

async fn view(tx: &mut dyn Transaction, node: Node) -> Result<NodeView> {
    let session = if node.epoch == Epoch(0) { None } else { tx.session(node.id, node.epoch).await? };
    let now = tx.now();
    let open = tx.open_order(node.id).await?;
    let mut progress = Vec::new();
    if let Some(open) = &open {
        progress = tx.progress(node.id).await?;
        progress.retain(|p| open.order.tasks.iter().any(|t| t.state.run() == Some(p.run)));
    }
    let seen = session.as_ref().map(|s| s.last_seen).max(node.waiting.iter().map(|w| w.seen).max()).max(node.booted);
    Ok(NodeView {
        id: node.id,
        state: node.state,
        reason: node.reason,
        protected: node.protected,
        code: node.waiting.first().map(|w| w.code.clone()),
        system: node.system,
        macs: node.macs,
        build: node.build,
        address: session.as_ref().and_then(|s| s.address.clone()),
        epoch: node.epoch,
        online: session.as_ref().is_some_and(|s| s.is_live(now)),
        last_seen: seen.map(timestamp),
        open_order: open.map(|o| o.order.id),
        progress,
        name: node.name,
    })
}
