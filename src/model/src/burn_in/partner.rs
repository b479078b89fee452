//! The controller as the other end of a link test.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::terms::LinkTerms;

/// "Be my partner": said by an agent in a network step with the controller, again while it is told to wait.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkRequest {
    /// From where the machine will come: nobody else is answered.
    pub address: IpAddr,
    /// What it wishes; the controller may give less.
    pub terms: LinkTerms,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "link", rename_all = "snake_case")]
pub enum LinkAnswer {
    /// A port is open for this machine, for a minute, and then for as long as the terms say.
    Open {
        address: SocketAddr,
        /// The controller's interface that has this address, where it knows.
        interface: Option<String>,
        /// 64 hexadecimal digits, for these two and this time only.
        secret: String,
        /// On these both work.
        terms: LinkTerms,
    },
    /// Others try their links with it now.
    Wait { again_ms: u64 },
    /// This controller is no partner.
    No { because: String },
}
