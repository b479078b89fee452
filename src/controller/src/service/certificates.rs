//! What operators ask about certificates of sanitization.

use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::try_unfold;
use speediso_model::certificate::machine::{Gone, KnownDisk, disk_key};
use speediso_model::certificate::site::{
    CertificatePolicy, CertificateView, CertificatesQuery, DiskGoneRequest, SiteKeyView,
};
use speediso_model::certificate::{Document, check_text};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::id::{NodeId, OrderId};
use speediso_model::task::Task;

use super::certify::{machine, open, timestamp};
use super::{Failure, Result, Service};
use crate::site_key::SiteSigner;
use crate::store::{NewEvent, Node, StoreError};
use crate::wake;

/// Documents that are held in memory at once while the chain is given out.
const CHAIN_PART: u32 = 256;

fn invalid(message: String) -> Failure {
    Fault::new(FaultCode::TaskInvalid, message).into()
}

impl Service {
    /// Newest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn certificates(&self, query: CertificatesQuery) -> Result<Vec<CertificateView>> {
        let found = self.store.read().await?.wipe_certificates(&query).await?;
        Ok(found.into_iter().map(|c| c.view).collect())
    }

    /// The document as it was signed.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn certificate(&self, number: u64) -> Result<String> {
        let found = self.store.read().await?.wipe_certificate(number).await?;
        found.map(|c| c.document).ok_or_else(|| Failure::NotFound(format!("certificate {number}")))
    }

    /// What the document says, its signature checked.
    ///
    /// # Errors
    /// When there is none, it was changed in the store, or the store fails.
    pub async fn certificate_document(&self, number: u64) -> Result<Document> {
        let text = self.certificate(number).await?;
        open(&mut *self.store.read().await?, &text).await
    }

    /// All documents in order, in parts.
    pub fn certificate_chain(&self) -> impl Stream<Item = std::result::Result<String, StoreError>> + use<> {
        let store = Arc::clone(&self.store);
        try_unfold(0, move |after| {
            let store = Arc::clone(&store);
            async move {
                let part = store.read().await?.wipe_certificate_chain(after, CHAIN_PART).await?;
                Ok(part.last().map(|(last, _)| (part.iter().map(|(_, d)| d.as_str()).collect::<String>(), *last)))
            }
        })
    }

    /// # Errors
    /// When the store fails.
    pub async fn site_keys(&self) -> Result<Vec<SiteKeyView>> {
        Ok(self.store.read().await?.site_keys().await?)
    }

    /// Another key signs from now on.
    ///
    /// # Errors
    /// When the store fails or there are no random numbers.
    pub async fn rotate_site_key(&self, by: &str) -> Result<SiteKeyView> {
        let mut tx = self.store.write().await?;
        let key = SiteSigner::rotate(&mut *tx).await?;
        tracing::warn!(by, key = key.key, "certificates are signed with another key from now on");
        self.commit(tx).await?;
        Ok(key)
    }

    /// # Errors
    /// When the store fails.
    pub async fn certificate_policy(&self) -> Result<CertificatePolicy> {
        Ok(self.store.read().await?.certificate_policy().await?)
    }

    /// # Errors
    /// When a text cannot be printed.
    pub async fn set_certificate_policy(&self, policy: CertificatePolicy, by: &str) -> Result<CertificatePolicy> {
        policy.check().map_err(invalid)?;
        let mut tx = self.store.write().await?;
        tx.put_certificate_policy(&policy).await?;
        tracing::warn!(by, ?policy, "the site's policy for certificates was changed");
        self.commit(tx).await?;
        Ok(policy)
    }

    /// The certificate of the whole machine that an order was for.
    ///
    /// # Errors
    /// `certificate-refused` with the names of the disks that lack one.
    pub async fn machine_certificate(&self, order: OrderId) -> Result<CertificateView> {
        let mut tx = self.store.write().await?;
        let record = tx.order(order).await?.ok_or_else(|| Failure::NotFound(format!("order {order}")))?;
        let id = record.order.node;
        let node = tx.node(id).await?.ok_or_else(|| Failure::NotFound(format!("node {id}")))?;
        let policy = tx.certificate_policy().await?;
        let open = record.order.tasks.iter().any(|t| matches!(t.task, Task::Wipe(_)) && !t.state.is_final());
        if open {
            return Err(refused(&node, "the order has a wipe that has not ended").into());
        }
        match machine(&mut *tx, &node, &record, &policy).await? {
            Ok(made) => {
                self.commit(tx).await?;
                Ok(made.view)
            }
            Err(why) => Err(refused(&node, &why).into()),
        }
    }

    /// Every disk that was ever seen in the machine.
    ///
    /// # Errors
    /// When there is no such node, or the store fails.
    pub async fn known_disks(&self, id: NodeId) -> Result<Vec<KnownDisk>> {
        let mut tx = self.store.read().await?;
        tx.node(id).await?.ok_or_else(|| Failure::NotFound(format!("node {id}")))?;
        Ok(tx.known_disks(id).await?)
    }

    /// A person says where a disk is that is not in the machine any more.
    ///
    /// # Errors
    /// When it is there, or was never recorded.
    pub async fn disk_gone(&self, id: NodeId, request: DiskGoneRequest, by: &str) -> Result<Vec<KnownDisk>> {
        check_text("why", &request.why).map_err(invalid)?;
        let mut tx = self.store.write().await?;
        tx.node(id).await?.ok_or_else(|| Failure::NotFound(format!("node {id}")))?;
        let here = tx.inventory(id).await?.unwrap_or_default();
        if let Some(disk) = here.disks.iter().find(|d| disk_key(d) == request.key) {
            let text = format!("{} is in the machine, as far as its last inventory says", describe(disk));
            return Err(Fault::new(FaultCode::CertificateRefused, text).into());
        }
        let gone = Gone { why: request.why, by: by.to_owned(), at: timestamp(tx.now()) };
        if !tx.put_gone(id, &request.key, &gone).await? {
            return Err(Failure::NotFound(format!("disk {:?} among those recorded", request.key)));
        }
        let text = format!("the disk {} is accounted for: {}", request.key, gone.why);
        let (source, detail) = (by.to_owned(), serde_json::Value::Null);
        tx.put_event(&NewEvent { node: id, order: None, source, late: false, text, detail }).await?;
        tx.touch(wake::EVENTS).await?;
        self.commit(tx).await?;
        self.known_disks(id).await
    }
}

fn refused(node: &Node, why: &str) -> Fault {
    Fault::new(FaultCode::CertificateRefused, format!("no certificate for the whole of {}: {why}", node.name))
}
