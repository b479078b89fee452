//! Who may ask for what. Every route of the table names its audience; there is no default, so none is open by
//! omission.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::{ApiError, AppState, Peer};
use crate::service::{Agent, Identified};
use crate::token;

/// For whom a route is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Audience {
    /// What is needed before there are credentials.
    Anyone,
    /// The newest admitted boot of a machine.
    Agent,
    /// Also a boot that was superseded: what it reports is kept as evidence.
    AnyAgent,
    Operator,
    AgentOrOperator,
}

/// Who asks; handlers take it as an extension.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    Agent(Agent),
    Operator,
}

/// How operators appear in events. Names come with accounts.
pub(super) const OPERATOR: &str = "operator";

/// What is kept of the operators' token.
#[derive(Clone, Debug)]
pub struct OperatorToken {
    sha256: Arc<str>,
}

impl OperatorToken {
    #[must_use]
    pub fn from_secret(secret: &str) -> Self {
        Self { sha256: token::hash(secret).into() }
    }

    #[must_use]
    pub fn is(&self, secret: &str) -> bool {
        token::same_hash(&token::hash(secret), &self.sha256)
    }

    /// From which the dashboard derives its sessions.
    pub(crate) fn session_key(&self) -> &str {
        &self.sha256
    }

    fn is_in(&self, headers: &HeaderMap) -> bool {
        headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "))
            .is_some_and(|secret| self.is(secret.trim()))
    }
}

pub(super) async fn gate(
    State((state, audience)): State<(AppState, Audience)>,
    mut request: Request,
    next: Next,
) -> Response {
    let is_operator = state.operator.is_in(request.headers());
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    match caller(&state, audience, is_operator, peer).await {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn caller(
    state: &AppState,
    audience: Audience,
    is_operator: bool,
    peer: Peer,
) -> Result<Option<Caller>, ApiError> {
    if is_operator && matches!(audience, Audience::Operator | Audience::AgentOrOperator) {
        return Ok(Some(Caller::Operator));
    }
    match audience {
        Audience::Anyone => return Ok(None),
        Audience::Operator => return Err(ApiError::unauthorized("the operators' token")),
        Audience::Agent | Audience::AnyAgent | Audience::AgentOrOperator => {}
    }
    let Some(serial) = peer.serial else {
        return Err(ApiError::unauthorized("a client certificate of this controller"));
    };
    match state.service.identify(&serial).await? {
        Identified::Current(agent) => Ok(Some(Caller::Agent(agent))),
        Identified::Superseded(agent) if audience == Audience::AnyAgent => Ok(Some(Caller::Agent(agent))),
        Identified::Superseded(agent) => Err(speediso_model::fault::Fault::new(
            speediso_model::fault::FaultCode::EpochStale,
            format!("epoch {} of this machine was revoked or superseded by a newer boot", agent.epoch),
        )
        .into()),
    }
}

/// The agent that asks.
pub(super) fn agent(Extension(caller): Extension<Caller>) -> Result<Agent, ApiError> {
    match caller {
        Caller::Agent(agent) => Ok(agent),
        Caller::Operator => Err(ApiError::unauthorized("a client certificate of this controller")),
    }
}
