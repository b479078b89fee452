//! The log on its way to the controller: in batches, at its own pace, with what was lost said.

use std::path::Path;
use std::time::Duration;

use speediso_model::api::path;
use speediso_model::fault::FaultCode;
use speediso_model::id::Epoch;
use speediso_model::log::{LogsRequest, MAX_LINES};
use tokio::sync::watch;

use super::Logs;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::secrets;

/// Together with what comes by then.
const PAUSE: Duration = Duration::from_secs(1);
/// What the network doctor leaves for whoever wants it.
const NETWORK_DOCTOR: &str = "/run/speediso/network-doctor.json";
/// Larger findings are none of its.
const MAX_FINDINGS: u64 = 128 << 10;

/// Sends for ever. Nothing depends on its success, so it complains to nobody: a controller that is away is spoken of by
/// those who need it, and one that knows no logs is an older one.
pub(crate) async fn upload(client: watch::Receiver<Client>, logs: Logs, epoch: Epoch) -> std::convert::Infallible {
    let mut newest = logs.newest();
    let mut backoff = Backoff::default();
    let (mut next, mut lost, mut findings_sent) = (0, 0, None);
    loop {
        newest.mark_unchanged();
        let batch = logs.after(next, MAX_LINES);
        let findings = findings(Path::new(NETWORK_DOCTOR)).filter(|f| findings_sent.as_ref() != Some(f));
        if batch.lines.is_empty() && findings.is_none() {
            let _ = newest.changed().await;
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let request = LogsRequest {
            epoch,
            lines: batch.lines.iter().map(|line| (**line).clone()).collect(),
            lost: lost + batch.lost,
            network_doctor: findings.clone(),
        };
        let client = client.borrow().clone();
        match client.post::<serde_json::Value>(path::LOGS, &request).await {
            Ok(_) => {
                backoff.reset();
                (next, lost) = (batch.next, 0);
                findings_sent = findings.or(findings_sent);
            }
            Err(fault) => {
                // What it cannot take, it will not take when asked again.
                if !fault.is_transient() && fault.code != FaultCode::Internal {
                    lost += batch.lost + batch.lines.len() as u64;
                    next = batch.next;
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn findings(file: &Path) -> Option<serde_json::Value> {
    let size = std::fs::metadata(file).ok()?.len();
    let text = (size <= MAX_FINDINGS).then(|| std::fs::read(file).ok()).flatten()?;
    secrets::hide_in(&serde_json::from_slice::<serde_json::Value>(&text).ok()?)
}
