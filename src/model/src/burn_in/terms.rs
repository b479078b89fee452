//! What two ends of a link test do together: both must have the same.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// Given to both ends beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkTerms {
    /// Of streams: a third of it each way, and a third both ways at once.
    pub stream_seconds: u32,
    pub streams: u8,
    /// Of datagrams: half of it each way.
    pub datagram_seconds: u32,
    pub datagrams_per_second: u32,
    pub datagram_bytes: u16,
    /// All streams of one direction together end after so many in each third, should that be before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_bytes: Option<Bytes>,
}

impl LinkTerms {
    /// Of nothing more than `most` has.
    #[must_use]
    pub fn at_most(self, most: &Self) -> Self {
        Self {
            stream_seconds: self.stream_seconds.min(most.stream_seconds),
            streams: self.streams.min(most.streams),
            datagram_seconds: self.datagram_seconds.min(most.datagram_seconds),
            datagrams_per_second: self.datagrams_per_second.min(most.datagrams_per_second),
            datagram_bytes: self.datagram_bytes.min(most.datagram_bytes),
            stream_bytes: [self.stream_bytes, most.stream_bytes].into_iter().flatten().min(),
        }
    }

    /// How long both ends work, in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        u64::from(self.stream_seconds) + u64::from(self.datagram_seconds)
    }
}

impl fmt::Display for LinkTerms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream_seconds, streams, datagram_seconds, datagrams_per_second, datagram_bytes, stream_bytes } =
            self;
        write!(f, "{streams} streams for {stream_seconds} s")?;
        if let Some(bytes) = stream_bytes {
            write!(f, " or {bytes}")?;
        }
        write!(f, ", {datagrams_per_second} datagrams of {datagram_bytes} bytes a second for {datagram_seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lesser_of_everything() {
        let mine = LinkTerms {
            stream_seconds: 600,
            streams: 2,
            datagram_seconds: 4,
            datagrams_per_second: 50_000,
            datagram_bytes: 700,
            stream_bytes: None,
        };
        let most = LinkTerms {
            stream_seconds: 60,
            streams: 8,
            datagram_seconds: 60,
            datagrams_per_second: 1000,
            datagram_bytes: 1400,
            stream_bytes: Some(Bytes::mib(1)),
        };
        let both = mine.at_most(&most);
        assert_eq!((both.stream_seconds, both.streams, both.datagram_seconds), (60, 2, 4));
        assert_eq!((both.datagrams_per_second, both.stream_bytes), (1000, Some(Bytes::mib(1))));
        assert_eq!(both.seconds(), 64);
        assert!(both.to_string().contains("2 streams for 60 s or 1.0 MiB"), "{both}");
        assert!(!mine.to_string().contains(" or "), "{mine}");
        // One that knows nothing of the bound understands whoever does not use it.
        assert!(!serde_json::to_string(&mine).expect("written").contains("stream_bytes"));
    }
}
