//! Noticing silence. Any number of replicas may do this at once: each node is judged in a transaction of its own, by
//! the database's clock.

use std::time::Duration;

use super::{Result, Service};
use crate::machine::LONG_SILENCE;

const INTERVAL: Duration = Duration::from_secs(5);

/// Runs for ever.
pub async fn watch_leases(service: Service) {
    loop {
        if let Err(error) = service.notice_silence().await {
            tracing::error!(error = &error as &dyn std::error::Error, "looking for lapsed leases; proceeding");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Service {
    /// # Errors
    /// When the store fails.
    pub async fn notice_silence(&self) -> Result<()> {
        let lapsed = self.store.read().await?.lapsed(LONG_SILENCE).await?;
        for node in lapsed {
            self.decide(node, |m, fx| {
                m.notice_silence(fx);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
