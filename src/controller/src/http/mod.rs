//! The HTTP side: thin. Decode, ask the service, encode.

mod agent;
mod auth;
mod boot;
mod captures;
mod certificates;
mod error;
mod extract;
pub mod files;
mod images;
mod openapi;
mod operator;
mod routes;
mod ssh;
#[cfg(test)]
mod tests;
pub mod tls;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};

pub use auth::OperatorToken;
pub use error::ApiError;
pub use openapi::document as openapi_document;
pub use tls::Peer;

use crate::dashboard;
use crate::images::ImageStore;
use crate::links::LinkPartner;
use crate::service::Service;
use crate::tunnel::Tunnels;

#[derive(Clone, Debug)]
pub struct AppState {
    pub service: Service,
    pub images: ImageStore,
    pub tunnels: Tunnels,
    pub operator: OperatorToken,
    /// Directory of the ramdisk's files.
    pub boot_files: Arc<PathBuf>,
    /// The other end for machines that try their link.
    pub links: LinkPartner,
    /// Boot entries load the add-on behind the ramdisk.
    pub boot_addon: bool,
}

/// Everything on the TLS listener.
pub fn api(state: AppState) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        router = router.route(route.path, route.guarded(&state));
    }
    router
        .merge(dashboard::routes(&state))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(from_fn(harden))
        .with_state(state)
}

/// Everything on the plain listener.
pub fn boot(state: AppState) -> Router {
    boot::routes().fallback(error::no_such_path).method_not_allowed_fallback(error::no_such_method).with_state(state)
}

/// What every answer carries.
async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await.into_response();
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
