//! Failures in the BMC's event log: where an operator looks whose machine shows nothing.
//!
//! The fault's code alone goes there, once in a boot, and few of them: such a log is small and wears out.

use std::collections::BTreeSet;
use std::time::Duration;

use speediso_sys::ipmi::{self, IpmiDevice};
use speediso_sys::process;
use speediso_sys::roots::Roots;

use crate::console::board::Board;
use crate::drivers::Loading;

/// Different faults of one boot.
const MOST: usize = 8;
/// For a BMC to take one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes for ever what the board shows; at once nothing, where there is no BMC.
pub(crate) async fn write(board: Board, roots: Roots) {
    Loading::Drivers.ended().await;
    let mut status = board.subscribe();
    let mut told = BTreeSet::new();
    loop {
        let code = status.borrow_and_update().fault.as_ref().map(|fault| fault.code.clone());
        if let Some(code) = code
            && told.len() < MOST
            && told.insert(code.clone())
        {
            let roots = roots.clone();
            let written = tokio::task::spawn_blocking(move || process::within(PATIENCE, move || put(&roots, &code)));
            match written.await {
                Ok(Some(Ok(Some(code)))) => tracing::info!("the BMC's event log has {code} now"),
                // No BMC: nothing more to look for.
                Ok(Some(Ok(None))) => return,
                Ok(Some(Err(why))) => return tracing::warn!("the BMC's event log gets no entry: {why}"),
                Ok(None) => return tracing::warn!("the BMC's event log gets no entry: it does not answer in time"),
                Err(error) => return tracing::warn!("the BMC's event log gets no entry: {error}"),
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn put(roots: &Roots, code: &str) -> Result<Option<String>, String> {
    let Some(bmc) = IpmiDevice::open(roots).map_err(|e| e.to_string())? else { return Ok(None) };
    ipmi::add_note(&bmc, code).map_err(|e| e.to_string())?;
    Ok(Some(code.to_owned()))
}
