//! Why a link could not be tried.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("listening at {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("nobody came to {address} within {} s who knows the secret ({turned_away} were turned away)", waited.as_secs())]
    NobodyCame { address: SocketAddr, waited: Duration, turned_away: u32 },
    #[error("{address} could not be reached within {} s", waited.as_secs())]
    Unreachable {
        address: SocketAddr,
        waited: Duration,
        #[source]
        source: io::Error,
    },
    #[error("the partner does not know the secret")]
    WrongSecret,
    #[error("the partner was given other terms: {theirs}, here {ours}")]
    Terms { ours: String, theirs: String },
    #[error("{what} broke off")]
    Broken {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the partner said something that does not belong here: {0}")]
    Protocol(String),
    #[error("the partner gave up: {0}")]
    GaveUp(String),
    #[error("the link test was cancelled")]
    Cancelled,
}

impl LinkError {
    pub(crate) fn broken(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Broken { what, source }
    }
}
