//! Two machines try the link between them.
//!
//! One *listens*, on one address, for one partner; the other *connects*. Both hold a secret that whoever paired them gave
//! to both, and prove it to one another before anything else is said ([`handshake`]); every stream and datagram belongs to
//! the session that came of it. TLS would do that too, but what is measured here is the link: bytes are sent as they are,
//! so that what a cable, a card or its memory does to them is seen, and a machine without a controller has no certificate.
//!
//! Then, for a time each: streams from the one to the other, back, and both ways at once; and datagrams both ways, echoed.
//! Every block and datagram bears its number and is filled with bytes that follow from the session's key and that number, so
//! that anything lost, doubled or changed is seen by the receiver. At the end both say what they sent and received.
//!
//! Blocking sockets and threads: one for each stream and direction. Used by agents and by the controller, which may be the
//! partner of a machine that found none.

#![forbid(unsafe_code)]

mod cancel;
mod datagrams;
mod error;
mod handshake;
mod payload;
mod report;
mod secret;
mod session;
mod streams;
mod wire;

pub use self::cancel::Stop;
pub use self::error::LinkError;
pub use self::report::{Datagrams, LinkReport, Streams, Way};
pub use self::secret::Secret;
pub use self::session::{Link, Listener, connect};
/// Both ends must have the same.
pub use speediso_model::burn_in::LinkTerms as Terms;
