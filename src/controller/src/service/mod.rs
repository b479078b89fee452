//! Loads, lets `machine` decide, stores: one transaction for each. What an API answered is committed.

mod agent;
mod boot;
mod burn_in;
mod capture;
mod certificates;
mod certify;
mod enrol;
mod hardware;
mod lapse;
mod logs;
mod operator;
mod pci_names;
mod share;
mod ssh;
mod views;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::{NodeId, OrderId};
use speediso_model::ssh::SshPolicy;
use speediso_model::task::is_ssh_public_key;

use crate::ca::{Ca, CaError};
use crate::machine::{Decision, Effects, Machine};
use crate::site_key::SiteKeyError;
use crate::store::{NewEvent, Start, Store, StoreError, Transaction};
use crate::token::NoRandomness;
use crate::wake::{self, Wakes};

pub use agent::{Agent, Identified};
pub use boot::{Boot, BootQuery};
pub use lapse::watch_leases;

/// What an operation can come to besides success.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Declined, with what the caller needs to know. Nothing was changed that the message does not name.
    #[error("{0}")]
    Refused(Fault),
    #[error("there is no {0}")]
    NotFound(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    SiteKey(#[from] SiteKeyError),
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault)
    }
}

pub type Result<T> = std::result::Result<T, Failure>;

/// What the site's operator set at start.
#[derive(Clone, Debug)]
pub struct Site {
    /// `https://host:port`, without a slash at the end.
    pub url: String,
    /// `http://host:port` or `https://host:port`, likewise.
    pub boot_url: String,
    /// For the live system's ssh server.
    pub ssh_keys: Vec<String>,
    /// The table `pci.ids`, if not where distributions put it.
    pub pci_ids: Option<PathBuf>,
    pub ssh: SshPolicy,
    /// After how long without work machines may leave; never, if absent.
    pub idle_reboot: Option<Duration>,
}

impl Site {
    /// # Errors
    /// When a URL or key has a form that could not be put into a boot script.
    pub fn check(&self) -> Decision {
        // Boot loaders get TLS from a server in front, if at all.
        for (url, schemes) in [(&self.url, &["https://"][..]), (&self.boot_url, &["http://", "https://"])] {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
            let host = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
            if !host.is_some_and(|host| !host.is_empty() && host.chars().all(plain)) {
                return Err(Fault::new(
                    FaultCode::CmdlineInvalid,
                    format!("{url:?} is not of the form {}HOST[:PORT]", schemes.join("HOST[:PORT] or ")),
                ));
            }
        }
        match self.ssh_keys.iter().find(|k| !is_ssh_public_key(k)) {
            Some(key) => Err(Fault::new(FaultCode::CmdlineInvalid, format!("{key:?} is not an OpenSSH public key"))),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Service {
    pub store: Arc<dyn Store>,
    pub wakes: Arc<Wakes>,
    pub ca: Arc<Ca>,
    pub site: Arc<Site>,
}

/// A machine on its way through one transaction.
struct Loaded {
    before: Machine,
    now: Machine,
}

impl Loaded {
    fn new(machine: Machine) -> Self {
        Self { before: machine.clone(), now: machine }
    }
}

async fn load(tx: &mut dyn Transaction, id: NodeId) -> Result<Loaded> {
    let node = tx.node(id).await?.ok_or_else(|| Failure::NotFound(format!("node {id}")))?;
    let session = tx.session(id, node.epoch).await?;
    let order = tx.open_order(id).await?;
    Ok(Loaded::new(Machine { node, session, order, now: tx.now() }))
}

/// Stores what differs, and the effects. The machine's parts are written before what refers to them.
async fn save(tx: &mut dyn Transaction, machine: &Loaded, fx: &Effects) -> Result<()> {
    let Loaded { before, now } = machine;
    let id = now.node.id;
    if now.node != before.node {
        tx.put_node(&now.node).await?;
    }
    if let Some(superseded) = &fx.superseded {
        tx.put_session(superseded).await?;
    }
    if let Some(session) = &now.session
        && now.session != before.session
    {
        tx.put_session(session).await?;
    }
    if let Some(order) = &now.order
        && now.order != before.order
    {
        tx.put_order(order).await?;
    }
    for (run, order, epoch) in &fx.grants {
        tx.put_grant(*run, *order, id, *epoch).await?;
    }
    if let Some((run, plan, digest)) = &fx.start {
        tx.put_start(*run, &Start { at: tx.now(), digest: digest.clone(), plan: plan.clone() }).await?;
    }
    for (run, result) in &fx.ends {
        tx.put_end(*run, result).await?;
        tx.drop_progress(*run).await?;
    }
    if fx.kill_tokens {
        tx.drop_unused_tokens(id).await?;
    }
    for said in &fx.events {
        tracing::info!(node = %now.node.name, by = said.by, "{}", said.text);
        let event = NewEvent {
            node: id,
            order: said.order,
            source: said.by.clone(),
            late: false,
            text: said.text.clone(),
            detail: said.detail.clone(),
        };
        tx.put_event(&event).await?;
    }
    for raised in &fx.alerts {
        tracing::warn!(node = %now.node.name, code = %raised.fault.code, "{}", raised.fault.message);
        tx.put_alert(&raised.key, Some(id), &raised.fault).await?;
    }
    if !fx.events.is_empty() {
        tx.touch(wake::EVENTS).await?;
    }
    if now.order != before.order || now.node != before.node {
        tx.touch(&wake::node(id)).await?;
    }
    Ok(())
}

impl Service {
    /// One decision about one machine, whole or not at all. A refusal that has effects to store (a quarantine) is
    /// stored before it is returned.
    async fn decide<T>(
        &self,
        id: NodeId,
        decision: impl FnOnce(&mut Machine, &mut Effects) -> Decision<T>,
    ) -> Result<T> {
        let mut tx = self.store.write().await?;
        let mut machine = load(&mut *tx, id).await?;
        let mut fx = Effects::default();
        let decided = decision(&mut machine.now, &mut fx)?;
        save(&mut *tx, &machine, &fx).await?;
        self.commit(tx).await?;
        Ok(decided)
    }

    async fn commit(&self, tx: Box<dyn Transaction>) -> Result<()> {
        tx.commit().await?;
        self.wakes.nudge();
        Ok(())
    }

    /// The node that has this order.
    async fn node_of(&self, order: OrderId) -> Result<NodeId> {
        let mut tx = self.store.read().await?;
        let record = tx.order(order).await?.ok_or_else(|| Failure::NotFound(format!("order {order}")))?;
        Ok(record.order.node)
    }
}
