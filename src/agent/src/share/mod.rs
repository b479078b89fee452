//! Sharing with other machines: the port on which this one gives, the way by which it takes, and the word with the
//! controller about both.
//!
//! A port is open only while a manifest image is written, and for as long afterwards as the order says. Both sides of
//! a connection show the certificate of their boot; the asker also shows the controller's permit.

mod announce;
mod peers;
mod permit;
mod server;
mod tls;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::Epoch;
use speediso_tasks::share::{PeerError, Sharing, Swarm, Wanted};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::peers::Peers;
use crate::client::Client;
use crate::tls::Identity;

/// What connections are made of; new with each certificate.
#[derive(Clone)]
struct Credentials {
    server: Arc<ServerConfig>,
    peers: Peers,
}

/// An image that is being shared.
struct Open {
    swarm: Arc<Swarm>,
    stop: watch::Sender<bool>,
    work: Vec<JoinHandle<()>>,
}

/// The native door's way to other machines.
pub(crate) struct Share {
    controller: watch::Receiver<Client>,
    url: String,
    epoch: Epoch,
    pins: Vec<[u8; 32]>,
    runtime: tokio::runtime::Handle,
    credentials: Mutex<Credentials>,
    open: Arc<Mutex<Option<Open>>>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Share").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Share {
    /// # Errors
    /// When the certificate cannot be used.
    pub(crate) fn new(
        controller: watch::Receiver<Client>,
        url: &str,
        epoch: Epoch,
        pins: &[[u8; 32]],
        identity: &Identity,
    ) -> Result<Self, Fault> {
        Ok(Self {
            controller,
            url: url.to_owned(),
            epoch,
            pins: pins.to_vec(),
            runtime: tokio::runtime::Handle::current(),
            credentials: Mutex::new(credentials(identity, pins)?),
            open: Arc::default(),
        })
    }

    /// What begins from now on shows the new certificate; what is under way keeps the one that is valid for hours yet.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn renewed(&self, identity: &Identity) -> Result<(), Fault> {
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = credentials(identity, &self.pins)?;
        Ok(())
    }

    fn credentials(&self) -> Credentials {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn credentials(identity: &Identity, pins: &[[u8; 32]]) -> Result<Credentials, Fault> {
    let ca = identity.chain.iter().find(|c| pins.contains(&crate::tls::sha256(c)));
    let ca = ca.ok_or_else(|| Fault::new(FaultCode::ProtocolError, "our certificate came without the pinned CA"))?;
    Ok(Credentials { server: tls::server(identity, ca)?, peers: Peers::new(tls::client(identity, ca)?)? })
}

impl Sharing for Share {
    fn join(&self, swarm: Arc<Swarm>) -> Result<String, Fault> {
        self.leave(Duration::ZERO);
        let (listener, port) = server::listen()?;
        let (stop, stopped) = watch::channel(false);
        let Credentials { server, peers } = self.credentials();
        let _inside = self.runtime.enter();
        let work = vec![
            tokio::spawn(server::serve(listener, server, Arc::clone(&swarm), stopped.clone())),
            tokio::spawn(announce::look_around(peers, Arc::clone(&swarm), stopped.clone())),
            tokio::spawn(announce::announce(
                self.controller.clone(),
                self.url.clone(),
                self.epoch,
                port,
                Arc::clone(&swarm),
                stopped,
            )),
        ];
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(Open { swarm, stop, work });
        Ok(format!("port {port}"))
    }

    fn get(&self, swarm: &Swarm, wanted: &Wanted, into: &mut Vec<u8>) -> Result<(), PeerError> {
        let peers = self.credentials().peers;
        self.runtime.block_on(peers.get(swarm, wanted, into))
    }

    fn leave(&self, after: Duration) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(current) = &*open else { return };
        if after.is_zero() {
            if let Some(open) = open.take() {
                open.close();
            }
            return;
        }
        let (this, slot) = (Arc::clone(&current.swarm), Arc::downgrade(&self.open));
        drop(open);
        self.runtime.spawn(async move {
            tokio::time::sleep(after).await;
            let Some(slot) = slot.upgrade() else { return };
            let ended = {
                let mut open = slot.lock().unwrap_or_else(PoisonError::into_inner);
                // The next task may have opened another meanwhile.
                open.take_if(|o| Arc::ptr_eq(&o.swarm, &this))
            };
            if let Some(open) = ended {
                open.close();
            }
        });
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.leave(Duration::ZERO);
    }
}

impl Open {
    /// The port closes; that we are gone is told the controller if it listens.
    fn close(self) {
        self.swarm.offer().close();
        tracing::info!("chunks are not served any more");
        self.stop.send_replace(true);
        // Each ends by itself once it is told to stop; the last has a word to say.
        drop(self.work);
    }
}
