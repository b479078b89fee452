//! Sharing: machines that write the same manifest image give each other its chunks.
//!
//! A manifest image is cut into *segments*, the same on every machine. A machine that has written and verified a whole
//! segment can give it away. The controller names *peers* to ask, and hands out *tickets*: segments that a machine is to
//! fetch from the image's server, because nobody near has them. All that decides is here, without clock, network or
//! random source of its own, so that the simulation of a data hall runs what the machines run:
//! [`group`] is the controller's side, [`picker`] the agent's.

pub mod group;
mod map;
pub mod picker;

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::map::{BadMap, MAX_SEGMENTS, SegmentMap};
use crate::api::Lease;
use crate::id::{Epoch, NodeId};

/// Where agents serve what they hold, to one another. `{...}` stands for an identifier, `{chunks}` for `n` or `n-m`.
pub mod path {
    pub const CHUNKS: &str = "/v1/chunks/{manifest}/{chunks}";
    pub const HAVE: &str = "/v1/have/{manifest}";
}

/// In the header of a request to a peer: `<until_ms>.<signature>`.
pub const PERMIT_HEADER: &str = "speediso-permit";
/// In the header of a peer's answer: what it holds now.
pub const HAVE_HEADER: &str = "speediso-have";

/// Requests that one machine answers at once; who comes beside them is sent to somebody else.
pub const REQUESTS: usize = 4;

/// "Here I am, this is what I hold": said by an agent while it writes a manifest image, and as long as it gives.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareRequest {
    pub epoch: Epoch,
    /// SHA-256 of `manifest.json`: 64 hex digits.
    pub manifest: String,
    /// Host and port of the image's server, whose capacity is shared by all who name it.
    pub origin: String,
    /// Where this machine serves chunks. Without it, it only takes.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// The switch this machine is plugged into, as LLDP names it, where that is known.
    #[serde(default)]
    pub switch: Option<String>,
    pub have: SegmentMap,
    /// Stored bytes of one segment, on average.
    pub segment_bytes: u64,
    /// What came from the server since the last time, and how long something was under way.
    #[serde(default)]
    pub fetched_bytes: u64,
    #[serde(default)]
    pub fetched_ms: u64,
    /// Peers whose bytes were not those of the manifest.
    #[serde(default)]
    pub wrong: Vec<NodeId>,
    /// Nothing is served any more.
    #[serde(default)]
    pub leaving: bool,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShareAnswer {
    #[serde(flatten)]
    pub lease: Lease,
    pub peers: Vec<Peer>,
    /// The whole of what may be fetched from the image's server now; what was granted before and is not here, is not
    /// granted any more.
    pub ticket: SegmentMap,
    /// From the moment the request was sent.
    pub ticket_ms: u64,
    /// For asking peers. Absent for a machine that no task entitles.
    #[serde(default)]
    pub permit: Option<Permit>,
    /// By which peers' permits are judged: the public key, base64 of its X9.62 point.
    pub permit_key: String,
    /// The controller's clock, by which permits end.
    pub now_ms: i64,
    /// When to say it again.
    pub again_ms: u64,
}

/// A machine that may be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Peer {
    /// Its certificate must bear this name.
    pub node: NodeId,
    pub address: SocketAddr,
    /// On the same switch, or else in the same subnet.
    pub near: bool,
    /// What it held when it last spoke to the controller.
    pub have: SegmentMap,
}

/// The controller's word that a machine may ask for the chunks of one image.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Permit {
    pub until_ms: i64,
    /// ECDSA P-256 over SHA-256 of [`Permit::signed_text`], ASN.1 DER, in base64.
    pub signature: String,
}

impl Permit {
    /// What is signed. The machine is the one that the asker's certificate names.
    #[must_use]
    pub fn signed_text(manifest: &str, node: NodeId, until_ms: i64) -> String {
        format!("speediso share v1\n{manifest}\n{node}\n{until_ms}\n")
    }

    #[must_use]
    pub fn header(&self) -> String {
        format!("{}.{}", self.until_ms, self.signature)
    }

    #[must_use]
    pub fn from_header(text: &str) -> Option<Self> {
        let (until, signature) = text.split_once('.')?;
        Some(Self { until_ms: until.parse().ok()?, signature: signature.to_owned() })
    }
}

/// SHA-256 in hex, lower case.
#[must_use]
pub fn is_manifest_name(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Numbers without a pattern, from a seed: choosing needs no secrecy, and a simulation must come out the same again.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % (n.max(1) as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_survive_their_header() {
        let permit = Permit { until_ms: 1_700_000_000_000, signature: "MEUC+/=".into() };
        assert_eq!(Permit::from_header(&permit.header()), Some(permit));
        for bad in ["", "x.y", "12", ".sig"] {
            assert_eq!(Permit::from_header(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn manifests_are_named_by_their_digest_only() {
        assert!(is_manifest_name(&"0a".repeat(32)));
        for bad in ["", "../../etc/passwd", &"0A".repeat(32), &"0".repeat(63)] {
            assert!(!is_manifest_name(bad), "{bad:?}");
        }
    }
}
