//! The image store over HTTP.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use speediso_model::api::{ImageView, List};

use super::extract::Part;
use super::{ApiError, AppState, files};
use crate::images::check_name;

pub(super) async fn list(State(app): State<AppState>) -> Result<Json<List<ImageView>>, ApiError> {
    Ok(Json(List { items: app.service.image_views().await? }))
}

/// 201, also when it replaces an image of the same name: orders name digests, so none changes its meaning by that.
pub(super) async fn store(
    State(app): State<AppState>,
    Part(name): Part<String>,
    body: Body,
) -> Result<(StatusCode, Json<ImageView>), ApiError> {
    let image = app.images.put(&*app.service.store, &name, body.into_data_stream()).await?;
    Ok((StatusCode::CREATED, Json(app.service.image_view(image))))
}

pub(super) async fn fetch(
    State(app): State<AppState>,
    Part(name): Part<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    check_name(&name)?;
    let image = app.service.image(&name).await?;
    let etag = format!("\"sha256:{}\"", image.sha256);
    files::serve(&app.images.path(&image.sha256), Some(&etag), &headers).await
}
