//! How many, or how much: a whole number that must be, or be compared with.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hints::{HintError, SizeHint};
use crate::units::Bytes;

/// On the wire a number, or a string with an operator in front: `>= 2`, `<or> 2 <or> 4`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NumberHint(SizeHint);

impl NumberHint {
    #[must_use]
    pub fn exactly(n: u64) -> Self {
        Self(SizeHint::Equal(Bytes(n)))
    }

    #[must_use]
    pub fn agrees(&self, found: u64) -> bool {
        self.0.agrees(Bytes(found))
    }

    /// `at least 2`
    #[must_use]
    pub fn wanted(&self) -> String {
        match &self.0 {
            SizeHint::Equal(n) => n.0.to_string(),
            SizeHint::NotEqual(n) => format!("other than {}", n.0),
            SizeHint::Less(n) => format!("less than {}", n.0),
            SizeHint::AtMost(n) => format!("at most {}", n.0),
            SizeHint::AtLeast(n) => format!("at least {}", n.0),
            SizeHint::Greater(n) => format!("more than {}", n.0),
            SizeHint::OneOf(all) => {
                format!("one of {}", all.iter().map(|n| n.0.to_string()).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl FromStr for NumberHint {
    type Err = HintError;

    fn from_str(text: &str) -> Result<Self, HintError> {
        let number = |text: &str| text.parse().map(Bytes).map_err(|_| HintError::NotANumber(text.to_owned()));
        SizeHint::comparing(text, number).map(Self)
    }
}

impl fmt::Display for NumberHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for NumberHint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NumberHint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl de::Visitor<'_> for Either {
            type Value = NumberHint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, or a string like \">= 2\"")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<NumberHint, E> {
                Ok(NumberHint::exactly(n))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<NumberHint, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for NumberHint {
    fn schema_name() -> Cow<'static, str> {
        "NumberHint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [{"type": "integer", "minimum": 0, "format": "uint64"}, {"type": "string", "minLength": 1}],
            "description": "A whole number, or a string with an operator in front: ==, !=, <, <=, >=, >, <or> (repeated).",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared() {
        for (json, found, agrees) in [
            ("4", 4, true),
            ("4", 5, false),
            ("\"4\"", 4, true),
            ("\">= 2\"", 2, true),
            ("\">2\"", 2, false),
            ("\"!= 0\"", 0, false),
            ("\"<or> 2 <or> 4\"", 4, true),
            ("\"<or> 2 <or> 4\"", 3, false),
        ] {
            let hint: NumberHint = serde_json::from_str(json).expect(json);
            assert_eq!(hint.agrees(found), agrees, "{json} {found}: {}", hint.wanted());
            let written = serde_json::to_string(&hint).expect("written");
            assert_eq!(serde_json::from_str::<NumberHint>(&written).expect("read back"), hint);
        }
        for bad in ["-1", "1.5", "\"4GiB\"", "\"= 4\"", "\"<in> 4\"", "\"\"", "\">=\"", "true"] {
            assert!(serde_json::from_str::<NumberHint>(bad).is_err(), "{bad}");
        }
    }
}
