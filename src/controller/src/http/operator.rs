//! Paths for operators.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use speediso_model::api::{
    Alert, ApproveRequest, CreateNodeRequest, EventsQuery, List, NodeView, OrderRequest, OrderView, ProtectRequest,
    Rule, RuleRequest, StoredEvent,
};
use speediso_model::burn_in::site::{BurnInView, BurnInsQuery};
use speediso_model::id::{NodeId, OrderId};
use speediso_model::inventory::Inventory;
use speediso_model::inventory::compare::SeenChanges;
use speediso_model::log::{LogBoot, LogsQuery, StoredLine};
use speediso_model::order::Order;

use super::auth::OPERATOR;
use super::extract::{Body, Params, Part};
use super::{ApiError, AppState};

/// A report has every number: the newest few.
const BURN_INS: u32 = 5;

type Answer<T> = Result<Json<T>, ApiError>;

fn list<T>(items: Vec<T>) -> Json<List<T>> {
    Json(List { items })
}

pub(super) async fn nodes(State(app): State<AppState>) -> Answer<List<NodeView>> {
    Ok(list(app.service.node_views().await?))
}

pub(super) async fn create_node(
    State(app): State<AppState>,
    Body(request): Body<CreateNodeRequest>,
) -> Result<(StatusCode, Json<NodeView>), ApiError> {
    Ok((StatusCode::CREATED, Json(app.service.create_node(request, OPERATOR).await?)))
}

pub(super) async fn node(State(app): State<AppState>, Part(id): Part<NodeId>) -> Answer<NodeView> {
    Ok(Json(app.service.node_view(id).await?))
}

pub(super) async fn node_inventory(State(app): State<AppState>, Part(id): Part<NodeId>) -> Answer<Option<Inventory>> {
    Ok(Json(app.service.node_inventory(id).await?))
}

pub(super) async fn node_changes(State(app): State<AppState>, Part(id): Part<NodeId>) -> Answer<List<SeenChanges>> {
    Ok(Json(List { items: app.service.hardware_changes(id).await? }))
}

pub(super) async fn node_burn_ins(
    State(app): State<AppState>,
    Part(id): Part<NodeId>,
    Params(query): Params<BurnInsQuery>,
) -> Answer<List<BurnInView>> {
    Ok(list(app.service.burn_ins(id, query.limit.unwrap_or(BURN_INS)).await?))
}

pub(super) async fn approve(
    State(app): State<AppState>,
    Part(id): Part<NodeId>,
    Body(request): Body<ApproveRequest>,
) -> Answer<NodeView> {
    Ok(Json(app.service.approve(id, request, OPERATOR).await?))
}

pub(super) async fn protect(
    State(app): State<AppState>,
    Part(id): Part<NodeId>,
    Body(request): Body<ProtectRequest>,
) -> Answer<NodeView> {
    Ok(Json(app.service.protect(id, request.protected, OPERATOR).await?))
}

pub(super) async fn release(State(app): State<AppState>, Part(id): Part<NodeId>) -> Answer<NodeView> {
    Ok(Json(app.service.release(id, OPERATOR).await?))
}

pub(super) async fn arm(State(app): State<AppState>, Part(id): Part<NodeId>) -> Answer<NodeView> {
    Ok(Json(app.service.arm(id, OPERATOR).await?))
}

pub(super) async fn node_order(
    State(app): State<AppState>,
    Part(id): Part<NodeId>,
    Body(request): Body<OrderRequest>,
) -> Result<(StatusCode, Json<OrderView>), ApiError> {
    Ok((StatusCode::CREATED, Json(app.service.order(id, request, OPERATOR).await?)))
}

pub(super) async fn orders(State(app): State<AppState>) -> Answer<List<Order>> {
    Ok(list(app.service.orders(None).await?))
}

pub(super) async fn order(State(app): State<AppState>, Part(id): Part<OrderId>) -> Answer<OrderView> {
    Ok(Json(app.service.order_view(id).await?))
}

pub(super) async fn cancel(State(app): State<AppState>, Part(id): Part<OrderId>) -> Answer<OrderView> {
    Ok(Json(app.service.cancel(id, OPERATOR).await?))
}

pub(super) async fn retry(State(app): State<AppState>, Part(id): Part<OrderId>) -> Answer<OrderView> {
    Ok(Json(app.service.retry(id, OPERATOR).await?))
}

pub(super) async fn events(
    State(app): State<AppState>,
    Params(query): Params<EventsQuery>,
) -> Answer<List<StoredEvent>> {
    Ok(list(app.service.stored_events(query).await?))
}

pub(super) async fn node_log(
    State(app): State<AppState>,
    Part(id): Part<NodeId>,
    Params(query): Params<LogsQuery>,
) -> Answer<List<StoredLine>> {
    Ok(list(app.service.node_log(id, query).await?))
}

pub(super) async fn node_log_boots(State(app): State<AppState>, Part(id): Part<NodeId>) -> Answer<List<LogBoot>> {
    Ok(list(app.service.node_log_boots(id).await?))
}

pub(super) async fn alerts(State(app): State<AppState>) -> Answer<List<Alert>> {
    Ok(list(app.service.alerts().await?))
}

pub(super) async fn rules(State(app): State<AppState>) -> Answer<List<Rule>> {
    Ok(list(app.service.rules().await?))
}

pub(super) async fn add_rule(
    State(app): State<AppState>,
    Body(request): Body<RuleRequest>,
) -> Result<(StatusCode, Json<Rule>), ApiError> {
    Ok((StatusCode::CREATED, Json(app.service.add_rule(request).await?)))
}

pub(super) async fn remove_rule(State(app): State<AppState>, Part(id): Part<i64>) -> Result<StatusCode, ApiError> {
    app.service.remove_rule(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
