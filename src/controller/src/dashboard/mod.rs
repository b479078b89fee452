//! The pages for people: rendered here, refreshed in place, without anything from elsewhere.
//!
//! A browser logs in once with the operators' token and gets a cookie: an expiry and an HMAC over it, under a key that
//! is derived from the token's hash. So every replica knows it, and a new operators' token ends all of them.

mod burn_in;
mod certificate;
mod devices;
mod errors;
mod page;
mod plot;
mod session;
mod sheet;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;
use speediso_model::certificate::site::CertificatesQuery;
use speediso_model::fault::FaultCode;
use speediso_model::id::{NodeId, RunId};

pub(crate) use certificate::certificate_page;

use crate::http::{ApiError, AppState};

/// How much of a machine's history a page shows.
const EVENTS: u32 = 100;

/// Reports of a machine that its page leads to.
const BURN_INS: u32 = 12;

/// Certificates on one page of the list.
const CERTIFICATES: u32 = 200;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// `/login`, the explanation of errors and the two files are for everyone; the rest is behind the cookie.
pub(crate) fn routes(state: &AppState) -> Router<AppState> {
    Router::new()
        .route("/", get(machines))
        .route("/fragments/machines", get(machines_fragment))
        .route("/machines/{node}", get(machine))
        .route("/fragments/machines/{node}", get(machine_fragment))
        .route("/machines/{node}/burn-in", get(burn_in_report))
        .route("/certificates", get(certificates))
        .route("/certificates/{number}", get(certificate))
        .layer(from_fn_with_state(state.clone(), logged_in))
        .route("/login", get(login_page).post(login).layer(DefaultBodyLimit::max(4096)))
        .route("/docs/errors", get(|| async { Html(errors::page()) }))
        .route("/dashboard/style.css", get(|| async { ([(header::CONTENT_TYPE, "text/css")], page::STYLE) }))
        .route("/dashboard/live.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript")], page::SCRIPT) }))
        .layer(from_fn(policy))
}

async fn policy(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // A page to be printed has its own.
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn logged_in(State(app): State<AppState>, request: Request, next: Next) -> Response {
    if session::is_valid(&app.operator, request.headers(), unix_seconds()) {
        return next.run(request).await;
    }
    // A fragment is fetched by the script, which would put a login form into the page.
    if request.uri().path().starts_with("/fragments/") {
        return ApiError::new(StatusCode::UNAUTHORIZED, FaultCode::TokenRefused, "log in again: the session ended")
            .into_response();
    }
    Redirect::to("/login").into_response()
}

fn unix_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

async fn login_page() -> Html<String> {
    Html(page::login(false).into_string())
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

async fn login(State(app): State<AppState>, headers: HeaderMap, Form(form): Form<Login>) -> Response {
    // A form on another site must not log anybody in here.
    let elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    if elsewhere || !app.operator.is(form.token.trim()) {
        return (StatusCode::FORBIDDEN, Html(page::login(true).into_string())).into_response();
    }
    let cookie = session::cookie(&app.operator, unix_seconds());
    ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
}

async fn machines(State(app): State<AppState>) -> Result<Html<String>, ApiError> {
    let (nodes, alerts) = (app.service.node_views().await?, app.service.alerts().await?);
    Ok(Html(page::machines(&nodes, &alerts).into_string()))
}

async fn machines_fragment(State(app): State<AppState>) -> Result<Html<String>, ApiError> {
    let (nodes, alerts) = (app.service.node_views().await?, app.service.alerts().await?);
    Ok(Html(page::machine_table(&nodes, &alerts).into_string()))
}

async fn machine(State(app): State<AppState>, Path(node): Path<String>) -> Result<Html<String>, ApiError> {
    let id = parse(&node)?;
    let node = app.service.node_view(id).await?;
    let inventory = app.service.node_inventory(id).await?;
    let (orders, events) = (app.service.orders(Some(id)).await?, app.service.last_events(id, EVENTS).await?);
    let changes = app.service.hardware_changes(id).await?;
    let detail = page::machine_detail(&node, inventory.as_ref(), &changes, &orders, &events);
    Ok(Html(page::machine(&node, &detail).into_string()))
}

async fn machine_fragment(State(app): State<AppState>, Path(node): Path<String>) -> Result<Html<String>, ApiError> {
    let id = parse(&node)?;
    let node = app.service.node_view(id).await?;
    let inventory = app.service.node_inventory(id).await?;
    let (orders, events) = (app.service.orders(Some(id)).await?, app.service.last_events(id, EVENTS).await?);
    let changes = app.service.hardware_changes(id).await?;
    Ok(Html(page::machine_detail(&node, inventory.as_ref(), &changes, &orders, &events).into_string()))
}

#[derive(Deserialize)]
struct Chosen {
    run: Option<RunId>,
}

/// The newest report, or the one of a run.
async fn burn_in_report(
    State(app): State<AppState>,
    Path(node): Path<String>,
    Query(chosen): Query<Chosen>,
) -> Result<Response, ApiError> {
    let views = app.service.burn_ins(parse(&node)?, BURN_INS).await?;
    let place = chosen.run.map_or(Some(0), |run| views.iter().position(|view| view.run == run));
    let not_here =
        || ApiError::new(StatusCode::NOT_FOUND, FaultCode::TaskInvalid, "that run is none of these burn-ins");
    Ok(burn_in::report_page(&views, place.ok_or_else(not_here)?))
}

async fn certificates(
    State(app): State<AppState>,
    Query(query): Query<CertificatesQuery>,
) -> Result<Html<String>, ApiError> {
    let query = CertificatesQuery { limit: Some(query.limit.unwrap_or(CERTIFICATES).min(CERTIFICATES)), ..query };
    let items = app.service.certificates(query.clone()).await?;
    Ok(Html(page::certificates(&items, &query, CERTIFICATES).into_string()))
}

async fn certificate(State(app): State<AppState>, Path(number): Path<u64>) -> Result<Response, ApiError> {
    Ok(certificate_page(&app.service.certificate_document(number).await?))
}

fn parse(node: &str) -> Result<NodeId, ApiError> {
    node.parse().map_err(|_| ApiError::new(StatusCode::NOT_FOUND, FaultCode::TaskInvalid, "there is no such machine"))
}
