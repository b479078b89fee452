//! The port on which chunks are given.
//!
//! Everything about it has a bound: connections, requests at once, the memory they need, and the time each may take. Our own
//! writing comes first: while it goes on, whoever has kept the disk busy with reading rests for as long again.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::NodeId;
use speediso_model::share::{HAVE_HEADER, PERMIT_HEADER, REQUESTS};
use speediso_sys::buffer::AlignedBuffer;
use speediso_tasks::share::{NotGiven, Swarm, chunks_of};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{permit, tls};

const MOST_CONNECTIONS: usize = 48;
/// For all requests together, but at least for one.
const MEMORY: usize = 8 << 20;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For the head of a request, and between two of them.
const HEAD: Duration = Duration::from_secs(10);
/// How long a request waits for its turn before it is told to come again.
const TURN: Duration = Duration::from_millis(500);
/// For one request, whatever the network does. Long before that the asker has turned away.
const LONGEST: Duration = Duration::from_secs(60);

/// A port of the kernel's choice, for IPv6 and IPv4 where there are both.
pub(super) fn listen() -> Result<(std::net::TcpListener, u16), Fault> {
    let failed = |e: std::io::Error| Fault::from_error(FaultCode::Io, &e).because("opening a port to share chunks on");
    let listener = std::net::TcpListener::bind("[::]:0").or_else(|_| std::net::TcpListener::bind("0.0.0.0:0"));
    let listener = listener.map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

/// Until `stop`; then every connection is cut.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    swarm: Arc<Swarm>,
    mut stop: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("serving chunks: {error}; proceeding without"),
    };
    let requests = (MEMORY / swarm.offer().largest_request()).clamp(1, REQUESTS);
    let giver = Giver { swarm, requests: Arc::new(Semaphore::new(requests)) };
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            // One more is turned away: the asker goes to somebody else.
            Ok(_) if connections.len() >= MOST_CONNECTIONS => {}
            Ok((stream, _)) => {
                connections.spawn(connection(acceptor.clone(), stream, giver.clone()));
            }
            Err(error) => {
                tracing::debug!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, giver: Giver) {
    // An answer's last packet does not wait for more.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let asker = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(tls::node_of);
    let Some(asker) = asker else { return };
    let since = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let (giver, since) = (giver.clone(), Arc::clone(&since));
        async move { Ok::<_, Infallible>(giver.answer(asker, &request, &since).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut rhythm = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = rhythm.tick() => {
                let begun: Option<Instant> = *since.lock().unwrap_or_else(PoisonError::into_inner);
                if begun.is_some_and(|begun| begun.elapsed() > LONGEST) {
                    return;
                }
            }
        }
    }
}

type Since = Arc<Mutex<Option<Instant>>>;

#[derive(Clone)]
struct Giver {
    swarm: Arc<Swarm>,
    requests: Arc<Semaphore>,
}

impl Giver {
    async fn answer(&self, asker: NodeId, request: &Request<Incoming>, since: &Since) -> Response<Given> {
        let mut answer = match self.given(asker, request, since).await {
            Ok(given) => Response::new(given),
            Err(status) => {
                let mut response = Response::new(Given::default());
                *response.status_mut() = status;
                response
            }
        };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Ok(have) = HeaderValue::from_str(&self.swarm.offer().have().to_string()) {
            headers.insert(HAVE_HEADER, have);
        }
        answer
    }

    async fn given(&self, asker: NodeId, request: &Request<Incoming>, since: &Since) -> Result<Given, StatusCode> {
        if request.method() != Method::GET {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let parts: Vec<&str> = request.uri().path().split('/').collect();
        let (manifest, chunks) = match parts.as_slice() {
            ["", "v1", "have", manifest] => (*manifest, None),
            ["", "v1", "chunks", manifest, chunks] => (*manifest, Some(*chunks)),
            _ => return Err(StatusCode::NOT_FOUND),
        };
        let Some((key, now_ms)) = self.swarm.judge() else { return Err(StatusCode::SERVICE_UNAVAILABLE) };
        let header = request.headers().get(PERMIT_HEADER).and_then(|v| v.to_str().ok());
        if let Err(why) = permit::check(header, manifest, asker, &key, now_ms) {
            tracing::debug!("machine {asker} asked for chunks: {why}");
            return Err(StatusCode::FORBIDDEN);
        }
        // After the permit, so that nobody without one learns what is written here.
        if manifest != self.swarm.manifest() {
            return Err(StatusCode::NOT_FOUND);
        }
        let Some(chunks) = chunks else { return Ok(Given::text(self.swarm.offer().have().to_string())) };
        let (first, last) = chunks_of(chunks).ok_or(StatusCode::BAD_REQUEST)?;
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.requests).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(StatusCode::SERVICE_UNAVAILABLE) };
        let busy = Busy::begin(since, turn);
        let (swarm, begun) = (Arc::clone(&self.swarm), Instant::now());
        let read = tokio::task::spawn_blocking(move || swarm.offer().read(first, last)).await;
        let chunks = match read {
            Ok(Ok(chunks)) => chunks,
            Ok(Err(NotGiven::NotHeld)) => return Err(StatusCode::NOT_FOUND),
            Ok(Err(error)) => {
                tracing::warn!("not giving chunks {first} to {last} to machine {asker}: {error}");
                return Err(StatusCode::NOT_FOUND);
            }
            Err(_) => return Err(StatusCode::SERVICE_UNAVAILABLE),
        };
        if !self.swarm.is_done() {
            tokio::time::sleep(begun.elapsed()).await;
        }
        Ok(Given { parts: chunks.into_iter().map(|c| Bytes::from_owner(Owned(c))).collect(), _busy: Some(busy) })
    }
}

/// A turn that is taken, until the last byte has gone or the connection ended.
struct Busy {
    since: Since,
    _turn: OwnedSemaphorePermit,
}

impl Busy {
    fn begin(since: &Since, turn: OwnedSemaphorePermit) -> Self {
        *since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Self { since: Arc::clone(since), _turn: turn }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

struct Owned(AlignedBuffer);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The body of an answer, in the memory that the disk was read into.
#[derive(Default)]
struct Given {
    parts: VecDeque<Bytes>,
    _busy: Option<Busy>,
}

impl Given {
    fn text(text: String) -> Self {
        Self { parts: [Bytes::from(text)].into(), _busy: None }
    }
}

impl Body for Given {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.parts.iter().map(|p| p.len() as u64).sum())
    }
}
