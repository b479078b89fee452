//! How long a step takes.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Seconds, or a text with a unit: `90`, `"90s"`, `"30m"`, `"4h"`, `"7d"`. Written as seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Seconds(pub u32);

impl Seconds {
    /// Longer is a mistake, not a burn-in.
    pub const MOST: Self = Self(31 * 86_400);

    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        // `parse` would take a sign.
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<u32>().ok()?.checked_mul(factor)).flatten().map(Self)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        let bad = || D::Error::custom("a duration is seconds, or a text like \"90s\", \"30m\", \"4h\" or \"7d\"");
        match Written::deserialize(deserializer).map_err(|_| bad())? {
            Written::Number(seconds) => u32::try_from(seconds).map(Self).map_err(|_| bad()),
            Written::Text(text) => Self::parse(&text).ok_or_else(bad),
        }
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Seconds, or a text with a unit: 90, \"90s\", \"30m\", \"4h\", \"7d\".",
            "oneOf": [
                {"type": "integer", "minimum": 1, "maximum": Self::MOST.0},
                {"type": "string", "pattern": "^[0-9]+[smhd]?$"}
            ]
        })
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s >= 7200 && s.is_multiple_of(3600) => write!(f, "{} h", s / 3600),
            s if s >= 120 && s.is_multiple_of(60) => write!(f, "{} min", s / 60),
            s => write!(f, "{s} s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let read = |text: &str| serde_json::from_str::<Seconds>(text);
        for (text, seconds) in [("90", 90), ("\"90\"", 90), ("\"90s\"", 90), ("\"30m\"", 1800), ("\"7d\"", 604_800)] {
            assert_eq!(read(text).expect(text), Seconds(seconds));
        }
        for bad in
            ["-1", "1.5", "\"\"", "\"m\"", "\"+5m\"", "\"5 m\"", "\"5w\"", "\"99999999d\"", "99999999999", "null"]
        {
            let error = read(bad).expect_err(bad).to_string();
            assert!(error.contains("30m"), "{error}");
        }
        assert_eq!(Seconds(1800).to_string(), "30 min");
        assert_eq!(Seconds(14_400).to_string(), "4 h");
        assert_eq!(Seconds(90).to_string(), "90 s");
    }
}
