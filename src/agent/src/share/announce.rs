//! Telling the controller what is held here, hearing who else there is, and looking what they hold.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use speediso_model::api::path;
use speediso_model::id::Epoch;
use speediso_model::share::ShareAnswer;
use speediso_sys::lldp::Memory;
use speediso_sys::nics;
use speediso_sys::roots::Roots;
use speediso_tasks::share::Swarm;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::peers::Peers;
use crate::client::Client;

/// However fast a ticket is used up: not sooner.
const SOONEST: Duration = Duration::from_millis(200);
const LATEST: Duration = Duration::from_secs(10);
/// After an answer that was none.
const AGAIN: Duration = Duration::from_secs(2);
/// What peers hold is told with every exchange; those that nothing is asked of are looked at so often.
const LOOK: Duration = Duration::from_secs(1);
const LAST_WORD: Duration = Duration::from_secs(5);

/// Until `stop`, and a last word then.
pub(super) async fn announce(
    controller: watch::Receiver<Client>,
    url: String,
    epoch: Epoch,
    port: u16,
    swarm: Arc<Swarm>,
    mut stop: watch::Receiver<bool>,
) {
    let mut address = None;
    let mut said = false;
    loop {
        if address.is_none() {
            address = own_address(&url).await.map(|ip| SocketAddr::new(ip, port));
        }
        // Where no switch speaks, the subnet tells neighbours.
        let request = swarm.announcement(epoch, address, switch(address));
        let client = controller.borrow().clone();
        let sent = Instant::now();
        let answer = tokio::select! {
            answer = client.post::<ShareAnswer>(path::SHARE, &request) => answer,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let pause = match answer {
            Ok(answer) => {
                said = false;
                swarm.heed(&answer, sent);
                Duration::from_millis(answer.again_ms).clamp(SOONEST, LATEST)
            }
            Err(fault) => {
                swarm.unheard(!fault.is_transient());
                if !said {
                    tracing::warn!("telling the controller what is shared: {fault}; proceeding without");
                    said = true;
                }
                AGAIN
            }
        };
        let hungry = async {
            tokio::time::sleep(SOONEST).await;
            swarm.hungry().await;
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hungry => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    let mut last = swarm.announcement(epoch, None, None);
    last.leaving = true;
    let client = controller.borrow().clone();
    // Nobody is named for long who says nothing, so that it does not matter whether this arrives.
    let _ = tokio::time::timeout(LAST_WORD, client.post::<ShareAnswer>(path::SHARE, &last)).await;
}

/// Until everything is here, or `stop`.
pub(super) async fn look_around(peers: Peers, swarm: Arc<Swarm>, mut stop: watch::Receiver<bool>) {
    while !swarm.is_done() {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let looks = swarm.to_look_at().into_iter().map(|(node, address)| {
            let (peers, swarm) = (&peers, &swarm);
            async move {
                if let Some(have) = peers.have(swarm, node, address).await {
                    swarm.holds(node, &have);
                }
            }
        });
        tokio::select! {
            _ = join_all(looks) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// The switch behind the interface that has this address.
fn switch(address: Option<SocketAddr>) -> Option<String> {
    let roots = Roots::live();
    let memory = Memory::read(&roots)?;
    let mut interfaces = nics::read(&roots).ok()?;
    nics::add_addresses(&mut interfaces).ok()?;
    let ip = address?.ip().to_string();
    let has = |text: &Option<String>| text.as_deref() == Some(&ip);
    let interface = interfaces.iter().find(|i| has(&i.ipv4_address) || has(&i.ipv6_address));
    memory.switch(interface.map(|i| i.name.as_str()))
}

/// The address that this machine speaks to the controller from. Connecting a datagram socket sends nothing.
async fn own_address(url: &str) -> Option<IpAddr> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    for target in tokio::net::lookup_host((host, url.port_or_known_default()?)).await.ok()? {
        let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let Ok(socket) = UdpSocket::bind((any, 0)).await else { continue };
        if socket.connect(target).await.is_ok()
            && let Ok(local) = socket.local_addr()
        {
            return Some(local.ip());
        }
    }
    None
}
