//! Paths of the way into machines. Tunnels are requests that become streams; what is left here is who may.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use hyper::upgrade::OnUpgrade;
use speediso_model::api::{Lease, List};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::id::NodeId;
use speediso_model::ssh::{
    SessionAnswer, SessionId, SessionPiece, SessionView, SshAccessRequest, SshReport, SshView, TUNNEL_PROTOCOL,
    TunnelId,
};

use super::auth::{Caller, OPERATOR, agent};
use super::extract::{Body as JsonBody, Part};
use super::{ApiError, AppState};
use crate::machine::TUNNEL_PATIENCE;
use crate::tunnel::{self, Arrived};

type Answer<T> = Result<Json<T>, ApiError>;

pub(super) async fn report(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    JsonBody(report): JsonBody<SshReport>,
) -> Answer<Lease> {
    Ok(Json(app.service.ssh_report(agent(caller)?, report).await?))
}

pub(super) async fn piece(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    JsonBody(piece): JsonBody<SessionPiece>,
) -> Answer<SessionAnswer> {
    Ok(Json(app.service.ssh_piece(agent(caller)?, piece).await?))
}

pub(super) async fn view(State(app): State<AppState>, Part(node): Part<NodeId>) -> Answer<SshView> {
    Ok(Json(app.service.ssh_view(node).await?))
}

pub(super) async fn allow(
    State(app): State<AppState>,
    Part(node): Part<NodeId>,
    JsonBody(request): JsonBody<SshAccessRequest>,
) -> Answer<SshView> {
    let allowed = app.service.allow_ssh(node, request, OPERATOR).await;
    Ok(Json(allowed.map_err(|failure| ApiError::from(failure).conflict())?))
}

pub(super) async fn sessions(State(app): State<AppState>, Part(node): Part<NodeId>) -> Answer<List<SessionView>> {
    Ok(Json(List { items: app.service.ssh_sessions(node).await? }))
}

pub(super) async fn cast(State(app): State<AppState>, Part(session): Part<SessionId>) -> Result<Response, ApiError> {
    let cast = app.service.ssh_cast(session).await?;
    Ok(([(header::CONTENT_TYPE, "application/x-asciicast")], cast).into_response())
}

/// The agent's end.
pub(super) async fn bring(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Part(id): Part<TunnelId>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let agent = agent(caller)?;
    let upgrade = upgrade_of(&mut request)?;
    app.service.take_tunnel(agent, id).await?;
    app.tunnels.arrive(id, Arrived { agent, upgrade })?;
    Ok(switching())
}

/// The operator's end: answered once the agent has brought the other.
pub(super) async fn ask(
    State(app): State<AppState>,
    Part(node): Part<NodeId>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let operator = upgrade_of(&mut request)?;
    let id = TunnelId(uuid::Uuid::new_v4());
    let waiting = app.tunnels.wait(id)?;
    let asked = app.service.ask_tunnel(node, id, OPERATOR).await;
    asked.map_err(|failure| ApiError::from(failure).conflict())?;
    let patience = Duration::from_millis(u64::try_from(TUNNEL_PATIENCE).unwrap_or(0));
    let Some((arrived, place)) = waiting.arrived(patience).await else {
        app.service.forget_tunnel(node, id).await;
        let mut error =
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, FaultCode::TimedOut, "the machine brought no tunnel in time");
        error.fault.advice = "see `speediso logs` for why; a machine at work is heard every few seconds only".into();
        return Err(error);
    };
    tokio::spawn(tunnel::serve(app.service.clone(), operator, arrived, place));
    Ok(switching())
}

/// What the connection becomes after the answer.
fn upgrade_of(request: &mut Request) -> Result<OnUpgrade, ApiError> {
    let wanted = |headers: &HeaderMap| {
        headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).is_some_and(|v| v == TUNNEL_PROTOCOL)
    };
    let upgrade = (request.version() == Version::HTTP_11 && wanted(request.headers()))
        .then(|| request.extensions_mut().remove::<OnUpgrade>())
        .flatten();
    upgrade.ok_or_else(|| {
        let mut error: ApiError =
            Fault::new(FaultCode::ProtocolError, "this path becomes a stream over HTTP/1.1 only").into();
        error.status = StatusCode::UPGRADE_REQUIRED;
        error.fault.advice = format!("ask with `Connection: upgrade` and `Upgrade: {TUNNEL_PROTOCOL}`");
        error
    })
}

fn switching() -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static(TUNNEL_PROTOCOL));
    answer
}
