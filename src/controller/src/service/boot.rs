//! What a machine that asks the boot server is to boot.

use serde::Deserialize;
use speediso_model::inventory::canonical_mac;
use speediso_model::profile::Profile;

use super::{Failure, Result, Service, load, save};
use crate::boot_script::{Cmdline, Word};
use crate::machine::Effects;
use crate::store::{Identity, Token};
use crate::token;

/// What a boot loader says of its machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BootQuery {
    pub mac: Option<String>,
    pub uuid: Option<String>,
    pub serial: Option<String>,
    /// iPXE's `${platform}`: `efi` or `pcbios`.
    pub platform: Option<String>,
}

impl BootQuery {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mac.is_none() && self.uuid.is_none() && self.serial.is_none()
    }

    fn identity(&self) -> Vec<Identity> {
        let mac = self.mac.as_deref().and_then(Identity::mac);
        let uuid = self.uuid.as_deref().and_then(Identity::uuid);
        let serial = self.serial.as_deref().and_then(Identity::serial);
        mac.into_iter().chain(uuid).chain(serial).collect()
    }
}

/// What the boot script says, whatever its dialect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Boot {
    Ramdisk(Cmdline),
    OwnDisk,
}

impl Service {
    /// Decides, and makes the one-time token if the machine is to have one: the one before is dead from then on.
    ///
    /// # Errors
    /// When the store fails or the kernel line grows too long.
    pub async fn boot(&self, query: &BootQuery) -> Result<Boot> {
        let mac = query.mac.as_deref().and_then(canonical_mac);
        let mut cmdline = Cmdline {
            controller: Word::new(&self.site.url),
            ca: Word::new(&self.ca.fingerprint()),
            token: None,
            profile: None,
            mac: mac.as_deref().map(Word::new),
            tools: None,
            addon: false,
        };
        let mut tx = self.store.write().await?;
        let found = tx.nodes_with(&query.identity()).await?;
        // Identifiers of several machines identify none; the agent will say so when it enrols.
        let [node] = found.as_slice() else { return Ok(Boot::Ramdisk(cmdline)) };
        let mut machine = load(&mut *tx, node.id).await?;
        let mut fx = Effects::default();
        machine.now.node.booted = Some(tx.now());
        machine.now.seen_again(&mut fx);
        let boot = if machine.now.wants_ramdisk() {
            let secret = token::new()?;
            tx.drop_unused_tokens(node.id).await?;
            let expires = tx.now() + token::LIFETIME_MS;
            tx.put_token(&Token { sha256: token::hash(&secret), node: node.id, expires, used_by: None }).await?;
            cmdline.token = Some(Word::new(&secret));
            // Only names of the closed list: a machine without an order runs nothing by this.
            let profile =
                machine.now.order.as_ref().filter(|o| o.order.state.is_open()).and_then(|o| o.order.profile.as_deref());
            cmdline.profile = profile.and_then(Profile::named).map(|p| Word::new(p.name()));
            Boot::Ramdisk(cmdline)
        } else if machine.now.boots_own_disk() {
            Boot::OwnDisk
        } else {
            Boot::Ramdisk(cmdline)
        };
        save(&mut *tx, &machine, &fx).await?;
        self.commit(tx).await?;
        Ok(boot)
    }

    /// Whether a node has this identifier: PXELINUX asks by several names in turn.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn knows(&self, query: &BootQuery) -> Result<bool> {
        let mut tx = self.store.read().await?;
        Ok(!tx.nodes_with(&query.identity()).await.map_err(Failure::from)?.is_empty())
    }
}
