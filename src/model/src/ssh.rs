//! The way in for people: who may come for how long, what the machine shows them, and what is kept of what they did.
//!
//! A machine opens its ssh server by itself, never by a connection to it: what an operator wants travels in the lease that
//! every answer to the agent carries.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::id::{BootId, Epoch, NodeId};
use crate::task::is_ssh_public_key;

/// Longest time for which access is given at once.
pub const MAX_MINUTES: u32 = 24 * 60;
/// What is given when nobody says how long.
pub const DEFAULT_MINUTES: u32 = 60;
/// Tunnels to one machine at a time.
pub const MAX_TUNNELS: usize = 4;
/// Most of a recording that travels at once, before base64.
pub const MAX_PIECE: usize = 64 << 10;
/// Most that is kept of one recording, on the machine and at the controller.
pub const MAX_RECORDING: u64 = 8 << 20;
/// The `Upgrade` of a tunnel's two ends.
pub const TUNNEL_PROTOCOL: &str = "speediso-tunnel";

/// When the live system's ssh server is open, if there is a key at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SshPolicy {
    /// Not while a task runs unattended, unless an operator asks; again once it has failed or nothing is left to do.
    #[default]
    Auto,
    Always,
    /// Only while an operator asks.
    Asked,
}

impl FromStr for SshPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "asked" => Ok(Self::Asked),
            other => Err(format!("{other:?} is none of auto, always, asked")),
        }
    }
}

/// One tunnel, by which both ends find one another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TunnelId(pub Uuid);

/// One login, or one command.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SessionId(pub Uuid);

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(s).map(Self)
            }
        }
    };
}

text!(TunnelId);
text!(SessionId);

/// What an operator wants of a machine's ssh, as its agent hears it with every answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SshWish {
    /// Of this wish; the agent says which one is in force.
    pub number: u64,
    /// How long it is open from now on.
    pub left_ms: u64,
    /// Let in beside the machine's own keys, each for its time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<TimedKey>,
    /// To be opened by the agent, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnels: Vec<TunnelId>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TimedKey {
    pub key: String,
    pub left_ms: u64,
}

/// The agent: the wish with this number is in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SshReport {
    pub epoch: Epoch,
    pub number: u64,
    /// Why not, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// An operator wants to come in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SshAccessRequest {
    /// [`DEFAULT_MINUTES`] if absent; 0 ends what was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minutes: Option<u32>,
    /// Public key that is let in for that time only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl SshAccessRequest {
    /// # Errors
    /// Says in words what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.minutes.is_some_and(|m| m > MAX_MINUTES) {
            return Err(format!("access is given for at most {MAX_MINUTES} minutes"));
        }
        if self.key.as_deref().is_some_and(|key| !is_ssh_public_key(key)) {
            return Err("the key is not an OpenSSH public key on one line".into());
        }
        Ok(())
    }
}

/// How a machine is reached, and by what it is known.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SshView {
    pub node: NodeId,
    pub name: String,
    /// Of the live system of the newest boot: `ssh-ed25519 AAAA...`, as the agent reported it when it enrolled.
    #[serde(default)]
    pub host_key: Option<String>,
    #[serde(default)]
    pub fingerprint: Option<String>,
    #[serde(default)]
    pub address: Option<IpAddr>,
    pub online: bool,
    /// Until when an operator's access lasts.
    #[serde(default)]
    pub until: Option<jiff::Timestamp>,
    /// The agent has said that it is in force.
    pub in_force: bool,
    /// Why it is not, as the agent says.
    #[serde(default)]
    pub refused: Option<String>,
}

impl SshView {
    /// The name under which known_hosts has the machine, whatever its address is today.
    #[must_use]
    pub fn host_alias(&self) -> String {
        format!("speediso-{}", self.node)
    }
}

/// What is known of one login or command, as it begins, goes on and ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    pub id: SessionId,
    /// `SHA256:...` of the key that was let in.
    pub key: String,
    /// The other end's address.
    pub from: String,
    /// Absent for a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Milliseconds since the kernel started; the machine's clock may have been wrong.
    pub began_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// As a shell gives it: 128 and the signal for what was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// What came after the recording was full is not in it.
    #[serde(default)]
    pub cut: bool,
}

/// A part of a recording. Where it begins is its number: the same piece again changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionPiece {
    pub epoch: Epoch,
    pub session: Session,
    pub offset: u64,
    /// In base64; empty if only the session's facts are new.
    pub data: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionAnswer {
    /// Where the next piece begins.
    pub next: u64,
}

/// A session as the controller keeps it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    #[serde(flatten)]
    pub session: Session,
    pub node: NodeId,
    pub boot: BootId,
    /// When the controller first heard of it.
    pub begun: jiff::Timestamp,
    pub heard: jiff::Timestamp,
    /// Of the recording, in bytes.
    pub size: u64,
}

/// As ssh-keygen shows a key: `SHA256:` and 43 characters.
#[must_use]
pub fn fingerprint(key: &str) -> Option<String> {
    let blob = from_base64(key.split(' ').nth(1)?)?;
    Some(format!("SHA256:{}", to_base64(&Sha256::digest(&blob)).trim_end_matches('=')))
}

/// RFC 4648, section 4.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The same back; `None` for what is not written exactly so.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `ssh-keygen -lf`.
    #[test]
    fn a_key_is_known_by_the_same_fingerprint_as_elsewhere() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl github";
        assert_eq!(fingerprint(key).as_deref(), Some("SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"));
        assert_eq!(fingerprint("ssh-ed25519"), None);
    }

    #[test]
    fn requests_are_bounded() {
        let asked = |minutes, key: Option<&str>| SshAccessRequest { minutes, key: key.map(str::to_owned) }.check();
        assert!(asked(None, None).is_ok() && asked(Some(MAX_MINUTES), None).is_ok());
        assert!(asked(Some(MAX_MINUTES + 1), None).is_err());
        let key = format!("ssh-ed25519 {}", "A".repeat(68));
        assert!(asked(None, Some(&key)).is_ok());
        assert!(asked(None, Some(&format!("command=\"x\" {key}"))).is_err());
    }
}
