//! Every answer that is not 2xx has the same body.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use speediso_model::api::ErrorBody;
use speediso_model::fault::{Fault, FaultCode};

use crate::service::Failure;

#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub fault: Fault,
}

impl ApiError {
    #[must_use]
    pub fn new(status: StatusCode, code: FaultCode, message: impl Into<String>) -> Self {
        Self { status, fault: Fault::new(code, message) }
    }

    /// Nobody who may: says neither what is missing nor what is wrong.
    pub(super) fn unauthorized(what: &str) -> Self {
        let mut error = Self::new(StatusCode::UNAUTHORIZED, FaultCode::TokenRefused, format!("{what} is needed"));
        error.fault.advice = "operators: give the token of the controller's data directory; agents: enrol".into();
        error
    }

    pub(super) fn not_found(what: &str) -> Self {
        let mut error = Self::new(StatusCode::NOT_FOUND, FaultCode::TaskInvalid, format!("there is no {what}"));
        error.fault.advice = "compare with the lists the controller gives".into();
        error
    }

    /// For requests where any refusal is a conflict with the state of things.
    pub(crate) fn conflict(mut self) -> Self {
        if self.status == StatusCode::FORBIDDEN || self.status == StatusCode::BAD_REQUEST {
            self.status = StatusCode::CONFLICT;
        }
        self
    }
}

fn status_of(code: FaultCode) -> StatusCode {
    match code {
        FaultCode::TokenRefused | FaultCode::IdentityClash | FaultCode::NotApproved | FaultCode::EpochStale => {
            StatusCode::FORBIDDEN
        }
        FaultCode::MachineProtected
        | FaultCode::OrderClosed
        | FaultCode::Cancelled
        | FaultCode::PlanMismatch
        | FaultCode::LeaseLost
        | FaultCode::NotArmed
        | FaultCode::CertificateRefused => StatusCode::CONFLICT,
        FaultCode::SignatureInvalid => StatusCode::INTERNAL_SERVER_ERROR,
        FaultCode::StoreFull => StatusCode::INSUFFICIENT_STORAGE,
        FaultCode::CmdlineTruncated | FaultCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self { status: status_of(fault.code), fault }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(fault) => fault.into(),
            Failure::NotFound(what) => Self::not_found(&what),
            // The chain goes to the log; a stranger has no use for the state of the database.
            internal => {
                tracing::error!(error = &internal as &dyn std::error::Error, "a request failed");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    FaultCode::Internal,
                    "the controller failed; its log says why",
                )
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.fault })).into_response()
    }
}

pub(super) async fn no_such_path() -> ApiError {
    ApiError::not_found("such path")
}

pub(super) async fn no_such_method() -> ApiError {
    let mut error = ApiError::not_found("such method for this path");
    error.status = StatusCode::METHOD_NOT_ALLOWED;
    error
}
