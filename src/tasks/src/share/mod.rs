//! Taking an image's chunks from other machines, and giving them.
//!
//! What is given is read back from the disk that is being written, and only what has the hash that the manifest names
//! leaves the machine: whatever else the disk holds, or held before, cannot. What is taken is judged by the same hashes,
//! so a peer needs no trust. Nothing is kept in memory for others.
//!
//! [`Swarm`] is one image on one disk. Who talks to the controller and to other machines is behind [`Sharing`], which the
//! front door brings: it has the certificates.

mod layout;
mod offer;
mod swarm;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use speediso_model::fault::Fault;
use speediso_model::id::NodeId;
use speediso_model::share::picker::Failed;

pub(crate) use self::layout::{Layout, Run};
pub use self::offer::{NotGiven, Offer};
pub(crate) use self::swarm::{Handed, Image};
pub use self::swarm::{Swarm, chunks_of};

/// The way to other machines.
pub trait Sharing: Send + Sync {
    /// Serves what `swarm` holds, and keeps it informed of the others, until [`Self::leave`]. Says where, for people.
    ///
    /// # Errors
    /// When no port can be opened. The image's server is asked for everything then.
    fn join(&self, swarm: Arc<Swarm>) -> Result<String, Fault>;

    /// Fetches these chunks, decoded, one after the other: exactly `length` bytes. Blocks.
    ///
    /// # Errors
    /// When the peer gives them not, or not in time.
    fn get(&self, swarm: &Swarm, wanted: &Wanted, into: &mut Vec<u8>) -> Result<(), PeerError>;

    /// Serves no more after this time; if it is zero, no read is begun once this returns.
    fn leave(&self, after: Duration);
}

/// What a peer is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub node: NodeId,
    pub address: SocketAddr,
    pub first: u64,
    pub last: u64,
    pub length: usize,
}

/// Why a peer did not give.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PeerError {
    #[error("it is busy, or does not hold them yet")]
    Busy,
    #[error("{0}")]
    Silent(String),
    #[error("chunk {chunk} is not what the manifest names")]
    Wrong { chunk: u64 },
}

impl PeerError {
    fn how(&self) -> Failed {
        match self {
            Self::Busy => Failed::Busy,
            Self::Silent(_) => Failed::Silent,
            Self::Wrong { .. } => Failed::Wrong,
        }
    }
}
