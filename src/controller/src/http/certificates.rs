//! Certificates of sanitization. A document is given out as it was signed, never made anew.

use axum::Json;
use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use speediso_model::api::List;
use speediso_model::certificate::machine::KnownDisk;
use speediso_model::certificate::site::{
    CertificatePolicy, CertificateView, CertificatesQuery, DiskGoneRequest, SiteKeyView,
};
use speediso_model::id::{NodeId, OrderId};

use super::auth::OPERATOR;
use super::extract::{Body, Params, Part};
use super::{ApiError, AppState};
use crate::dashboard;

type Answer<T> = Result<Json<T>, ApiError>;

pub(super) async fn list(
    State(app): State<AppState>,
    Params(query): Params<CertificatesQuery>,
) -> Answer<List<CertificateView>> {
    Ok(Json(List { items: app.service.certificates(query).await? }))
}

pub(super) async fn document(State(app): State<AppState>, Part(number): Part<u64>) -> Result<Response, ApiError> {
    let document = app.service.certificate(number).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

pub(super) async fn page(State(app): State<AppState>, Part(number): Part<u64>) -> Result<Response, ApiError> {
    Ok(dashboard::certificate_page(&app.service.certificate_document(number).await?))
}

pub(super) async fn chain(State(app): State<AppState>) -> Response {
    let body = Stream::from_stream(app.service.certificate_chain());
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

pub(super) async fn keys(State(app): State<AppState>) -> Answer<List<SiteKeyView>> {
    Ok(Json(List { items: app.service.site_keys().await? }))
}

pub(super) async fn rotate(State(app): State<AppState>) -> Result<(StatusCode, Json<SiteKeyView>), ApiError> {
    Ok((StatusCode::CREATED, Json(app.service.rotate_site_key(OPERATOR).await?)))
}

pub(super) async fn policy(State(app): State<AppState>) -> Answer<CertificatePolicy> {
    Ok(Json(app.service.certificate_policy().await?))
}

pub(super) async fn set_policy(
    State(app): State<AppState>,
    Body(policy): Body<CertificatePolicy>,
) -> Answer<CertificatePolicy> {
    Ok(Json(app.service.set_certificate_policy(policy, OPERATOR).await?))
}

pub(super) async fn machine(State(app): State<AppState>, Part(order): Part<OrderId>) -> Answer<CertificateView> {
    Ok(Json(app.service.machine_certificate(order).await?))
}

pub(super) async fn disks(State(app): State<AppState>, Part(node): Part<NodeId>) -> Answer<List<KnownDisk>> {
    Ok(Json(List { items: app.service.known_disks(node).await? }))
}

pub(super) async fn disk_gone(
    State(app): State<AppState>,
    Part(node): Part<NodeId>,
    Body(request): Body<DiskGoneRequest>,
) -> Answer<List<KnownDisk>> {
    Ok(Json(List { items: app.service.disk_gone(node, request, OPERATOR).await? }))
}
