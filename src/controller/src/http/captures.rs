//! Images from agents.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use speediso_model::api::ImageView;
use speediso_model::id::RunId;

use super::auth::{Caller, agent};
use super::extract::Part;
use super::{ApiError, AppState};
use crate::captures::Part as File;

type Stored = Result<(StatusCode, Json<ImageView>), ApiError>;

pub(super) async fn data(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Part(run): Part<RunId>,
    body: Body,
) -> Stored {
    take(&app, caller, run, File::Data, body).await
}

pub(super) async fn index(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Part(run): Part<RunId>,
    body: Body,
) -> Stored {
    take(&app, caller, run, File::Index, body).await
}

pub(super) async fn manifest(
    State(app): State<AppState>,
    caller: Extension<Caller>,
    Part(run): Part<RunId>,
    body: Body,
) -> Stored {
    take(&app, caller, run, File::Manifest, body).await
}

/// The view's digest is that of what is on the medium.
async fn take(app: &AppState, caller: Extension<Caller>, run: RunId, file: File, body: Body) -> Stored {
    let agent = agent(caller)?;
    let name = app.service.capture_name(agent, run).await?;
    let image = app.images.take(&app.service, run, &name, file, body.into_data_stream()).await?;
    Ok((StatusCode::CREATED, Json(app.service.image_view(image))))
}
