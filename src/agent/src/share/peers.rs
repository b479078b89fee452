//! Asking other machines.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::ClientConfig;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::NodeId;
use speediso_model::share::{HAVE_HEADER, PERMIT_HEADER, SegmentMap};
use speediso_tasks::share::{PeerError, Swarm, Wanted};

use super::tls::name_of;

/// Machines of one site, whose port is open.
const CONNECT: Duration = Duration::from_secs(3);
/// For an answer, beside the time for its bytes.
const ANSWER: Duration = Duration::from_secs(5);
/// One that is slower than this is asked no more for a while: anybody else is better.
const LEAST_BYTES_PER_SECOND: usize = 512 << 10;
/// A map of segments is shorter.
const MAX_MAP: usize = 1024;

/// Where the machines are that the controller named. Their names mean nothing to any other resolver.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<String, SocketAddr>>);

impl Resolve for Places {
    fn resolve(&self, name: Name) -> Resolving {
        let place = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).copied();
        Box::pin(std::future::ready(match place {
            Some(address) => Ok(Box::new(std::iter::once(address)) as Addrs),
            None => Err(format!("{} was not named by the controller", name.as_str()).into()),
        }))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Peers {
    http: reqwest::Client,
    places: Arc<Places>,
}

impl Peers {
    pub(super) fn new(tls: ClientConfig) -> Result<Self, Fault> {
        let places = Arc::new(Places::default());
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::clone(&places))
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(2)
            .pool_idle_timeout(Duration::from_secs(8))
            .no_proxy()
            .build()
            .map_err(|e| Fault::from_error(FaultCode::Internal, &e).because("setting up TLS with other machines"))?;
        Ok(Self { http, places })
    }

    async fn ask(
        &self,
        swarm: &Swarm,
        node: NodeId,
        address: SocketAddr,
        path: &str,
    ) -> Result<reqwest::Response, PeerError> {
        let name = name_of(node);
        self.places.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), address);
        let permit = swarm.permit().ok_or_else(|| PeerError::Silent("the controller gave no permit".into()))?;
        let url = format!("https://{name}:{}{path}", address.port());
        let request = self.http.get(url).header(PERMIT_HEADER, permit.header());
        let answer = request.send().await.map_err(|e| PeerError::Silent(e.without_url().to_string()))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => {
                heed(swarm, node, &answer);
                Err(PeerError::Busy)
            }
            status => Err(PeerError::Silent(format!("it answered {status}"))),
        }
    }

    /// Exactly the bytes wanted.
    pub(super) async fn get(&self, swarm: &Swarm, wanted: &Wanted, into: &mut Vec<u8>) -> Result<(), PeerError> {
        let path = format!("/v1/chunks/{}/{}-{}", swarm.manifest(), wanted.first, wanted.last);
        let seconds = u64::try_from(wanted.length / LEAST_BYTES_PER_SECOND).unwrap_or(0);
        into.clear();
        let fetched = tokio::time::timeout(ANSWER + Duration::from_secs(seconds), async {
            let mut answer = self.ask(swarm, wanted.node, wanted.address, &path).await?;
            heed(swarm, wanted.node, &answer);
            while let Some(piece) = answer.chunk().await.map_err(|e| PeerError::Silent(e.without_url().to_string()))? {
                if into.len() + piece.len() > wanted.length {
                    return Err(PeerError::Silent(format!("it sent more than the {} bytes asked for", wanted.length)));
                }
                into.extend_from_slice(&piece);
            }
            if into.len() < wanted.length {
                return Err(PeerError::Silent(format!("it sent {} of {} bytes", into.len(), wanted.length)));
            }
            Ok(())
        });
        fetched.await.unwrap_or_else(|_| Err(PeerError::Silent("it was too slow".into())))
    }

    /// What the machine says it holds.
    pub(super) async fn have(&self, swarm: &Swarm, node: NodeId, address: SocketAddr) -> Option<SegmentMap> {
        let path = format!("/v1/have/{}", swarm.manifest());
        let asked = tokio::time::timeout(CONNECT, async {
            let mut answer = self.ask(swarm, node, address, &path).await.ok()?;
            let mut text = Vec::new();
            while let Some(piece) = answer.chunk().await.ok()? {
                text.extend_from_slice(&piece);
                if text.len() > MAX_MAP {
                    return None;
                }
            }
            String::from_utf8(text).ok()?.parse().ok()
        });
        asked.await.ok().flatten()
    }
}

/// With each answer comes what the machine holds now.
fn heed(swarm: &Swarm, node: NodeId, answer: &reqwest::Response) {
    let have = answer.headers().get(HAVE_HEADER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if let Some(have) = have {
        swarm.holds(node, &have);
    }
}
