//! Paths for agents.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use speediso_model::api::{
    Admission, EndAnswer, EndRequest, EnrolAnswer, EnrolRequest, EventsAnswer, EventsRequest, HeartbeatRequest,
    InventoryReport, Lease, NextAnswer, NextQuery, RenewRequest, StartRequest, TimeAnswer, TimeQuery,
};
use speediso_model::burn_in::pairing::{PairAnswer, PairRequest};
use speediso_model::burn_in::partner::{LinkAnswer, LinkRequest};
use speediso_model::id::RunId;
use speediso_model::log::LogsRequest;
use speediso_model::share::{ShareAnswer, ShareRequest};

use super::auth::{Caller, agent};
use super::extract::{Body, Params, Part};
use super::{ApiError, AppState};

type Answer<T> = Result<Json<T>, ApiError>;

pub(super) async fn time(State(app): State<AppState>, Params(query): Params<TimeQuery>) -> Answer<TimeAnswer> {
    Ok(Json(app.service.time(query.nonce).await?))
}

/// 202 while the machine waits for approval.
pub(super) async fn enrol(
    State(app): State<AppState>,
    Body(request): Body<EnrolRequest>,
) -> Result<(StatusCode, Json<EnrolAnswer>), ApiError> {
    let answer = app.service.enrol(request).await?;
    let status = match answer {
        EnrolAnswer::Admitted(_) => StatusCode::OK,
        EnrolAnswer::Pending { .. } => StatusCode::ACCEPTED,
    };
    Ok((status, Json(answer)))
}

pub(super) async fn renew(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Body(request): Body<RenewRequest>,
) -> Answer<Admission> {
    Ok(Json(app.service.renew(agent(caller)?, request).await?))
}

pub(super) async fn inventory(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Body(report): Body<InventoryReport>,
) -> Answer<Lease> {
    Ok(Json(app.service.inventory(agent(caller)?, report).await?))
}

pub(super) async fn next(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Params(query): Params<NextQuery>,
) -> Answer<NextAnswer> {
    Ok(Json(app.service.next(agent(caller)?, query).await?))
}

pub(super) async fn heartbeat(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Body(request): Body<HeartbeatRequest>,
) -> Answer<Lease> {
    Ok(Json(app.service.heartbeat(agent(caller)?, request).await?))
}

pub(super) async fn start(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Part(run): Part<RunId>,
    Body(request): Body<StartRequest>,
) -> Answer<Lease> {
    let started = app.service.start(agent(caller)?, run, request).await;
    Ok(Json(started.map_err(|failure| ApiError::from(failure).conflict())?))
}

pub(super) async fn end(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Part(run): Part<RunId>,
    Body(request): Body<EndRequest>,
) -> Answer<EndAnswer> {
    let answer = app.service.end(agent(caller)?, run, request).await?;
    if !app.service.is_running(run).await? {
        app.images.forget(run).await?;
    }
    Ok(Json(answer))
}

pub(super) async fn events(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Body(request): Body<EventsRequest>,
) -> Answer<EventsAnswer> {
    Ok(Json(app.service.events(agent(caller)?, request).await?))
}

pub(super) async fn logs(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Body(request): Body<LogsRequest>,
) -> Answer<Lease> {
    Ok(Json(app.service.log(agent(caller)?, request).await?))
}

pub(super) async fn pair(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Part(run): Part<RunId>,
    Body(request): Body<PairRequest>,
) -> Result<Json<PairAnswer>, ApiError> {
    Ok(Json(app.service.pair(agent(caller)?, run, request).await?))
}

pub(super) async fn link(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Part(run): Part<RunId>,
    Body(request): Body<LinkRequest>,
) -> Answer<LinkAnswer> {
    Ok(Json(app.service.link(agent(caller)?, run, request, &app.links).await?))
}

pub(super) async fn share(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Body(request): Body<ShareRequest>,
) -> Answer<ShareAnswer> {
    Ok(Json(app.service.share(agent(caller)?, request).await?))
}
