//! Streams between operators and machines that nobody can reach: both come here, and are tied together.
//!
//! A tunnel lives in the process to which both ends came; with several replicas an agent that comes to another one is
//! turned away, and the operator asks again. Everything else about it (who may, for how long) is in the store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::ssh::TunnelId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::service::{Agent, Service};

/// At a time, to all machines.
const MOST: usize = 64;
/// A tunnel on which nothing goes either way ends: ssh speaks every few seconds if it is told to.
const SILENT: Duration = Duration::from_secs(15 * 60);
/// How often the access that it belongs to is looked at.
const LOOK: Duration = Duration::from_secs(5);
const PIECE: usize = 16 << 10;

/// The agent's end, as it arrives.
#[derive(Debug)]
pub struct Arrived {
    pub agent: Agent,
    pub upgrade: OnUpgrade,
}

#[derive(Clone, Debug)]
pub struct Tunnels {
    waiting: Arc<Mutex<HashMap<TunnelId, oneshot::Sender<Arrived>>>>,
    places: Arc<Semaphore>,
}

impl Default for Tunnels {
    fn default() -> Self {
        Self { waiting: Arc::default(), places: Arc::new(Semaphore::new(MOST)) }
    }
}

/// An operator that waits; dropping it ends the waiting.
#[derive(Debug)]
pub struct Waiting {
    id: TunnelId,
    arrival: oneshot::Receiver<Arrived>,
    tunnels: Tunnels,
    place: Option<OwnedSemaphorePermit>,
}

impl Tunnels {
    /// # Errors
    /// When there are as many as there may be.
    pub fn wait(&self, id: TunnelId) -> Result<Waiting, Fault> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let mut fault = Fault::new(FaultCode::TimedOut, format!("there are {MOST} tunnels already"));
            fault.advice = "end one, or reach the machine in its own network".into();
            fault
        })?;
        let (sender, arrival) = oneshot::channel();
        self.lock().insert(id, sender);
        Ok(Waiting { id, arrival, tunnels: self.clone(), place: Some(place) })
    }

    /// The agent came.
    ///
    /// # Errors
    /// When nobody waits for it here.
    pub fn arrive(&self, id: TunnelId, arrived: Arrived) -> Result<(), Fault> {
        let gone = || Fault::new(FaultCode::Cancelled, "nobody waits here for this tunnel");
        let waiting = self.lock().remove(&id).ok_or_else(gone)?;
        waiting.send(arrived).map_err(|_| gone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TunnelId, oneshot::Sender<Arrived>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The agent's end and the place that it takes, or nothing in that time.
    pub async fn arrived(mut self, limit: Duration) -> Option<(Arrived, OwnedSemaphorePermit)> {
        let arrived = tokio::time::timeout(limit, &mut self.arrival).await.ok()?.ok()?;
        Some((arrived, self.place.take()?))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.tunnels.lock().remove(&self.id);
    }
}

/// Ties both ends together until one closes, nothing goes for long, or the access ends; then says so.
pub async fn serve(service: Service, operator: OnUpgrade, arrived: Arrived, _place: OwnedSemaphorePermit) {
    let Arrived { agent, upgrade } = arrived;
    let begun = Instant::now();
    let (mut there, mut back) = (0, 0);
    let why = match tokio::try_join!(operator, upgrade) {
        Err(_) => "an end vanished",
        Ok((operator, machine)) => {
            let lines = Lines::default();
            let why = tokio::select! {
                () = lines.relay(TokioIo::new(operator), TokioIo::new(machine)) => "closed",
                why = lines.over(&service, agent) => why,
            };
            (there, back) = (lines.there.load(Ordering::Relaxed), lines.back.load(Ordering::Relaxed));
            why
        }
    };
    let seconds = begun.elapsed().as_secs();
    let said = service.say_of_tunnel(agent.node, |name| {
        format!("the tunnel to {name} ended ({why}) after {seconds} s, {there} bytes there and {back} back")
    });
    if let Err(error) = said.await {
        tracing::error!(error = &error as &dyn std::error::Error, "recording the end of a tunnel; proceeding");
    }
}

/// What went, and when last.
#[derive(Debug)]
struct Lines {
    there: AtomicU64,
    back: AtomicU64,
    begun: Instant,
    last_ms: AtomicU64,
}

impl Default for Lines {
    fn default() -> Self {
        Self { there: AtomicU64::new(0), back: AtomicU64::new(0), begun: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Lines {
    /// Until both directions have ended; the end of one is passed on, so that what is under way still arrives.
    async fn relay(&self, operator: impl AsyncRead + AsyncWrite, machine: impl AsyncRead + AsyncWrite) {
        let (from_operator, to_operator) = tokio::io::split(operator);
        let (from_machine, to_machine) = tokio::io::split(machine);
        tokio::join!(
            self.copy(from_operator, to_machine, &self.there),
            self.copy(from_machine, to_operator, &self.back)
        );
    }

    async fn copy(&self, from: impl AsyncRead, to: impl AsyncWrite, count: &AtomicU64) {
        let (mut from, mut to) = (std::pin::pin!(from), std::pin::pin!(to));
        let mut piece = vec![0; PIECE];
        while let Ok(n @ 1..) = from.read(&mut piece).await {
            if to.write_all(&piece[..n]).await.is_err() || to.flush().await.is_err() {
                break;
            }
            count.fetch_add(n as u64, Ordering::Relaxed);
            let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_ms.store(ms, Ordering::Relaxed);
        }
        // The other end may have gone already.
        let _ = to.shutdown().await;
    }

    async fn over(&self, service: &Service, agent: Agent) -> &'static str {
        loop {
            let left = match service.ssh_left_ms(agent).await {
                Ok(left) => Duration::from_millis(left),
                // A store in trouble ends nobody's work; the next look will say.
                Err(_) => LOOK,
            };
            if left.is_zero() {
                return "the access is over";
            }
            let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            if self.begun.elapsed().saturating_sub(last) >= SILENT {
                return "nothing went for long";
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }
}
