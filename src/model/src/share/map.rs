//! A set of an image's segments.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Segments of one image at most: a map of them stays a line of text.
pub const MAX_SEGMENTS: usize = 1024;

/// On the wire: how many segments the image has, a colon, and their bits in hex, the first segment in the lowest bit of
/// the first byte.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct SegmentMap {
    bytes: Vec<u8>,
    len: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a map of segments of the form <count>:<hex>")]
pub struct BadMap(String);

impl SegmentMap {
    /// # Panics
    /// Never for what [`MAX_SEGMENTS`] allows; more are not kept.
    #[must_use]
    pub fn none_of(len: usize) -> Self {
        let len = len.min(MAX_SEGMENTS);
        Self { bytes: vec![0; len.div_ceil(8)], len }
    }

    #[must_use]
    pub fn all_of(len: usize) -> Self {
        let mut map = Self::none_of(len);
        (0..map.len).for_each(|n| map.insert(n));
        map
    }

    /// Segments of the image, whether in the set or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.iter().all(|b| *b == 0)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.bytes.iter().map(|b| b.count_ones() as usize).sum()
    }

    #[must_use]
    pub fn contains(&self, segment: usize) -> bool {
        segment < self.len && self.bytes[segment / 8] & 1 << (segment % 8) != 0
    }

    pub fn insert(&mut self, segment: usize) {
        if segment < self.len {
            self.bytes[segment / 8] |= 1 << (segment % 8);
        }
    }

    pub fn remove(&mut self, segment: usize) {
        if segment < self.len {
            self.bytes[segment / 8] &= !(1 << (segment % 8));
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|n| self.contains(*n))
    }

    /// Whether it has one that `other` has not.
    #[must_use]
    pub fn adds_to(&self, other: &Self) -> bool {
        self.len == other.len && self.bytes.iter().zip(&other.bytes).any(|(a, b)| a & !b != 0)
    }
}

impl fmt::Display for SegmentMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.len, crate::plan::hex(&self.bytes))
    }
}

impl FromStr for SegmentMap {
    type Err = BadMap;

    fn from_str(text: &str) -> Result<Self, BadMap> {
        let bad = || BadMap(text.chars().take(80).collect());
        let (len, digits) = text.split_once(':').ok_or_else(bad)?;
        let len: usize = len.parse().map_err(|_| bad())?;
        let n = len.div_ceil(8);
        if len > MAX_SEGMENTS || digits.len() != 2 * n || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let byte = |i: usize| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| bad());
        let bytes = (0..n).map(byte).collect::<Result<Vec<_>, _>>()?;
        // A bit beyond the last segment would count as one.
        if !len.is_multiple_of(8) && bytes.last().is_some_and(|last| last >> (len % 8) != 0) {
            return Err(bad());
        }
        Ok(Self { bytes, len })
    }
}

impl TryFrom<String> for SegmentMap {
    type Error = BadMap;

    fn try_from(text: String) -> Result<Self, BadMap> {
        text.parse()
    }
}

impl From<SegmentMap> for String {
    fn from(map: SegmentMap) -> Self {
        map.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn maps_survive_the_wire(len in 0usize..=MAX_SEGMENTS, some in proptest::collection::vec(0usize..1100, 0..40)) {
            let mut map = SegmentMap::none_of(len);
            some.iter().for_each(|n| map.insert(*n));
            let expected: std::collections::BTreeSet<usize> = some.into_iter().filter(|n| *n < len).collect();
            prop_assert_eq!(map.iter().collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(map.count(), expected.len());
            prop_assert_eq!(map.to_string().parse::<SegmentMap>().ok(), Some(map));
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in ["", "8", "8:", "8:0", "8:000", "8:zz", "9:0002", "1025:00", "-1:", "99999999999999999999:"] {
            assert!(bad.parse::<SegmentMap>().is_err(), "{bad:?}");
        }
        assert_eq!(SegmentMap::all_of(9).to_string(), "9:ff01");
        assert_eq!("0:".parse::<SegmentMap>().ok(), Some(SegmentMap::none_of(0)));
    }
}
