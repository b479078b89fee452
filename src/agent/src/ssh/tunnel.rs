//! What operators want of the ssh, carried out: access is opened and reported, tunnels are brought.
//!
//! A tunnel is a connection of ours to the controller that becomes a stream, and one to our own ssh server; whoever is
//! at the other end has to have a key as anybody.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONNECTION, UPGRADE};
use speediso_model::api::{Lease, path};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::Epoch;
use speediso_model::ssh::{MAX_TUNNELS, SshReport, SshWish, TUNNEL_PROTOCOL, TunnelId};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};

use super::Ssh;
use crate::client::Client;
use crate::tls::{self, Identity, Purpose, Validity};

/// For the controller to answer that the operator is there.
const ANSWER: Duration = Duration::from_secs(20);
/// The server may be starting.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

/// Where wishes are laid down by whoever hears them.
#[derive(Clone, Debug)]
pub(crate) struct Desk(mpsc::Sender<SshWish>);

impl Desk {
    /// Full is no harm: every answer brings the wish again.
    pub(crate) fn lay(&self, lease: &Lease) {
        if let Some(wish) = &lease.ssh {
            let _ = self.0.try_send(wish.clone());
        }
    }

    pub(crate) fn new() -> (Self, mpsc::Receiver<SshWish>) {
        let (sender, receiver) = mpsc::channel(8);
        (Self(sender), receiver)
    }
}

/// Whom tunnels are brought to.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) controller: String,
    pub(crate) pins: Vec<[u8; 32]>,
}

/// Carries out what is laid down, for ever.
pub(crate) async fn attend(
    mut wishes: mpsc::Receiver<SshWish>,
    ssh: Ssh,
    client: watch::Receiver<Client>,
    identity: watch::Receiver<Identity>,
    way: Way,
    epoch: Epoch,
) -> std::convert::Infallible {
    let places = Arc::new(Semaphore::new(MAX_TUNNELS));
    let begun: Arc<Mutex<HashSet<TunnelId>>> = Arc::default();
    let mut reported = 0;
    loop {
        let Some(wish) = wishes.recv().await else { std::future::pending().await };
        ssh.heed(&wish);
        if reported < wish.number {
            ssh.apply_soon().await;
            let report = SshReport { epoch, number: wish.number, refused: ssh.refusal() };
            if let Some(why) = &report.refused {
                tracing::warn!("ssh: an operator asks for access, but {why}");
            } else if wish.left_ms > 0 {
                tracing::info!("ssh: an operator asked for access, for {} min", wish.left_ms.div_ceil(60_000));
            }
            let current = client.borrow().clone();
            match current.post::<Lease>(path::SSH_REPORT, &report).await {
                Ok(_) => reported = wish.number,
                // The wish comes again with the next answer.
                Err(fault) => tracing::debug!("ssh: reporting: {fault}"),
            }
        }
        for id in wish.tunnels {
            let is_new = begun.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            if !is_new {
                continue;
            }
            let (way, identity) = (way.clone(), identity.borrow().clone());
            tokio::spawn(async move {
                tracing::info!("ssh: bringing a tunnel to {}", way.controller);
                match bring(&way, &identity, id).await {
                    Ok(()) => tracing::info!("ssh: the tunnel has ended"),
                    Err(fault) => tracing::warn!("ssh: {fault}"),
                }
                drop(place);
            });
        }
    }
}

async fn bring(way: &Way, identity: &Identity, id: TunnelId) -> Result<(), Fault> {
    let failed = |what: &str, why: &dyn std::fmt::Display| {
        Fault::new(FaultCode::ControllerUnreachable, format!("bringing a tunnel: {what}")).because(why.to_string())
    };
    let mut server = connect().await.map_err(|e| failed("our own ssh server does not answer", &e))?;
    // HTTP/1.1 and no limit of time: both are those of images.
    let (http, _) = tls::client(&way.pins, Some(identity), Validity::Checked, Purpose::Images)?;
    let url = format!("{}{}", way.controller, path::SSH_TUNNEL.replace("{tunnel}", &id.to_string()));
    let request = http.get(url).header(CONNECTION, "upgrade").header(UPGRADE, TUNNEL_PROTOCOL);
    let answer = tokio::time::timeout(ANSWER, request.send())
        .await
        .map_err(|_| failed("the controller does not answer", &"timed out"))?
        .map_err(|e| failed("no answer from the controller", &e))?;
    if answer.status() != reqwest::StatusCode::SWITCHING_PROTOCOLS {
        return Err(failed("the controller declined", &answer.status()));
    }
    let mut stream = answer.upgrade().await.map_err(|e| failed("the connection became no stream", &e))?;
    // How it ends is told by the ssh at both ends.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
    Ok(())
}

async fn connect() -> std::io::Result<TcpStream> {
    let mut tries = 0;
    loop {
        match TcpStream::connect(("127.0.0.1", 22)).await {
            Ok(stream) => return Ok(stream),
            Err(error) if tries >= TRIES => return Err(error),
            Err(_) => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
