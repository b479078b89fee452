//! Bodies, queries and path parameters; what is wrong with one is said in our own form.

use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use speediso_model::fault::FaultCode;

use super::ApiError;

/// A JSON body. Its size is bounded by the route, its depth by the parser (128).
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            ApiError::new(
                rejection.status(),
                FaultCode::ProtocolError,
                format!("reading the body: {}", rejection.body_text()),
            )
        })?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self(value)),
            Err(error) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                FaultCode::TaskInvalid,
                format!("the body is not what this path takes: {error}"),
            )),
        }
    }
}

/// The query of a URL.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(ApiError::new(StatusCode::BAD_REQUEST, FaultCode::TaskInvalid, rejection.body_text()))
            }
        }
    }
}

/// The one variable part of a path.
pub(super) struct Part<T>(pub(super) T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Part<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|rejection| {
            ApiError::new(StatusCode::BAD_REQUEST, FaultCode::TaskInvalid, rejection.body_text())
        })?;
        // What is no identifier names nothing.
        text.parse().map(Self).map_err(|_| ApiError::not_found("such thing"))
    }
}
