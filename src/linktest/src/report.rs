//! What came of it, as one end sees it.

use serde::{Deserialize, Serialize};
use speediso_model::burn_in::Series;
use speediso_model::latency::LatencyHistogram;

/// Which way, seen from here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Way {
    Sent,
    Received,
}

/// What one end says of what it sent in a phase.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    /// Bytes of streams, or datagrams.
    pub(crate) amount: u64,
    pub(crate) seconds: f64,
}

/// What one end says of what it received in a phase.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Received {
    pub(crate) amount: u64,
    pub(crate) seconds: f64,
    /// Blocks or datagrams whose bytes were not those that were sent.
    pub(crate) corrupt: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) jitter_us: f64,
}

/// All streams in one direction.
#[derive(Clone, Debug)]
pub struct Streams {
    pub way: Way,
    /// While the other direction was at work too.
    pub both_at_once: bool,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub seconds: f64,
    pub corrupt_blocks: u64,
    /// Bits per second since the begin, as seen at this end.
    pub over_time: Series,
}

impl Streams {
    #[must_use]
    pub fn bits_per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people and limits")]
        let bits = self.bytes_received as f64 * 8.0;
        (bits / self.seconds.max(1e-3)).round()
    }
}

/// Datagrams in one direction.
#[derive(Clone, Debug)]
pub struct Datagrams {
    pub way: Way,
    pub sent: u64,
    pub received: u64,
    pub corrupt: u64,
    pub duplicated: u64,
    pub reordered: u64,
    /// Interarrival jitter (RFC 3550, 6.4.1), in microseconds.
    pub jitter_us: f64,
    /// From sending to the echo: only of what this end sent.
    pub round_trip: Option<LatencyHistogram>,
}

impl Datagrams {
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    #[must_use]
    pub fn loss_percent(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a share for people and limits")]
        let share = self.lost() as f64 / (self.sent.max(1)) as f64;
        share * 100.0
    }
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct LinkReport {
    pub streams: Vec<Streams>,
    pub datagrams: Vec<Datagrams>,
    /// Connections that did not know the secret.
    pub turned_away: u32,
}
