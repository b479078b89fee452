//! Sizes that say their unit.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// A number of bytes. On the wire a plain integer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n * MIB)
    }

    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n * GIB)
    }
}

impl fmt::Display for Bytes {
    /// Binary units with one decimal, as operators compare them with `lsblk`: `3.7 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 5] = [(1 << 50, "PiB"), (1 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
        for (size, name) in UNITS {
            if self.0 >= size {
                // Tenths in integers: no rounding surprises at the top of the range.
                let tenths = u128::from(self.0) * 10 / u128::from(size);
                return write!(f, "{}.{} {name}", tenths / 10, tenths % 10);
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_lsblk_shows_them() {
        assert_eq!(Bytes(0).to_string(), "0 B");
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes::gib(4).to_string(), "4.0 GiB");
        assert_eq!(Bytes(4_000_787_030_016).to_string(), "3.6 TiB");
        assert_eq!(Bytes(u64::MAX).to_string(), "16383.9 PiB");
    }
}
