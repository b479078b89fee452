//! What the size of a disk must be.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::exact;
use super::operator::{HintError, Operator, split};
use crate::units::Bytes;

/// A comparison with a size.
///
/// On the wire a number of bytes, or a string: a size with its unit (`100GiB`), with or without an operator in front.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SizeHint {
    Equal(Bytes),
    NotEqual(Bytes),
    Less(Bytes),
    AtMost(Bytes),
    AtLeast(Bytes),
    Greater(Bytes),
    OneOf(Vec<Bytes>),
}

impl SizeHint {
    pub(crate) fn agrees(&self, found: Bytes) -> bool {
        match self {
            Self::Equal(wanted) => found == *wanted,
            Self::NotEqual(wanted) => found != *wanted,
            Self::Less(wanted) => found < *wanted,
            Self::AtMost(wanted) => found <= *wanted,
            Self::AtLeast(wanted) => found >= *wanted,
            Self::Greater(wanted) => found > *wanted,
            Self::OneOf(wanted) => wanted.contains(&found),
        }
    }

    pub(crate) fn wanted(&self) -> String {
        match self {
            Self::Equal(size) => exact(*size),
            Self::NotEqual(size) => format!("other than {}", exact(*size)),
            Self::Less(size) => format!("less than {}", exact(*size)),
            Self::AtMost(size) => format!("at most {}", exact(*size)),
            Self::AtLeast(size) => format!("at least {}", exact(*size)),
            Self::Greater(size) => format!("more than {}", exact(*size)),
            Self::OneOf(sizes) => {
                format!("one of {}", sizes.iter().map(|size| exact(*size)).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// With `number` reading each value, so that OpenStack's unit can be another one.
    pub(super) fn parse_with(
        text: &str,
        number: impl Fn(&str) -> Result<Bytes, HintError>,
    ) -> Result<(Option<Operator>, Self), HintError> {
        let (operator, values) = split(text)?;
        let sizes = values.into_iter().map(number).collect::<Result<Vec<_>, _>>()?;
        let one = sizes[0];
        let hint = match operator {
            None | Some(Operator::Equal) => Self::Equal(one),
            Some(Operator::NotEqual) => Self::NotEqual(one),
            Some(Operator::Less) => Self::Less(one),
            Some(Operator::AtMost) => Self::AtMost(one),
            Some(Operator::AtLeast | Operator::BareEqual) => Self::AtLeast(one),
            Some(Operator::Greater) => Self::Greater(one),
            Some(Operator::Or) => Self::OneOf(sizes),
            Some(unknown @ Operator::RangeIn) => return Err(HintError::Unknown(unknown.to_string())),
            Some(
                text @ (Operator::TextEqual
                | Operator::TextNotEqual
                | Operator::TextLess
                | Operator::TextAtMost
                | Operator::TextAtLeast
                | Operator::TextGreater
                | Operator::In
                | Operator::AllIn),
            ) => return Err(HintError::OfTexts(text)),
        };
        Ok((operator, hint))
    }
}

/// `4096`, `10GiB`, `10 GiB`. Units of ten are not taken: of a disk sold as "960 GB" nobody knows how many that is.
pub(super) fn parse_size(text: &str) -> Result<Bytes, HintError> {
    let bad = || HintError::NotASize(text.to_owned());
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor: u64 = match text[split..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "PiB" => 1 << 50,
        _ => return Err(bad()),
    };
    text[..split].parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).map(Bytes).ok_or_else(bad)
}

impl SizeHint {
    /// With `number` reading each value, and without OpenStack's ambiguous `=`.
    pub(crate) fn comparing(text: &str, number: impl Fn(&str) -> Result<Bytes, HintError>) -> Result<Self, HintError> {
        match Self::parse_with(text, number)? {
            (Some(Operator::BareEqual), _) => Err(HintError::BareEqual),
            (_, hint) => Ok(hint),
        }
    }
}

impl FromStr for SizeHint {
    type Err = HintError;

    fn from_str(text: &str) -> Result<Self, HintError> {
        Self::comparing(text, parse_size)
    }
}

impl fmt::Display for SizeHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |f: &mut fmt::Formatter<'_>, operator: Operator, size: &Bytes| write!(f, "{operator} {}", size.0);
        match self {
            Self::Equal(size) => write!(f, "{}", size.0),
            Self::NotEqual(size) => with(f, Operator::NotEqual, size),
            Self::Less(size) => with(f, Operator::Less, size),
            Self::AtMost(size) => with(f, Operator::AtMost, size),
            Self::AtLeast(size) => with(f, Operator::AtLeast, size),
            Self::Greater(size) => with(f, Operator::Greater, size),
            Self::OneOf(sizes) => {
                let each: Vec<String> = sizes.iter().map(|size| format!("{} {}", Operator::Or, size.0)).collect();
                f.write_str(&each.join(" "))
            }
        }
    }
}

impl From<Bytes> for SizeHint {
    fn from(size: Bytes) -> Self {
        Self::Equal(size)
    }
}

impl Serialize for SizeHint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Equal(size) => size.serialize(serializer),
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for SizeHint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl de::Visitor<'_> for Either {
            type Value = SizeHint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a string like \"100GiB\" or \">= 100GiB\"")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<SizeHint, E> {
                Ok(SizeHint::Equal(Bytes(bytes)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SizeHint, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for SizeHint {
    fn schema_name() -> Cow<'static, str> {
        "SizeHint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [{"type": "integer", "minimum": 0, "format": "uint64"}, {"type": "string", "minLength": 1}],
            "description": "Bytes, or a string: a size with its unit (100GiB), or an operator in front of it: ==, !=, <, \
                            <=, >=, >, <or> (repeated).",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<SizeHint, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_are_bytes_and_strings_have_units() {
        for (json, hint) in [
            ("4096", SizeHint::Equal(Bytes(4096))),
            ("\"4096\"", SizeHint::Equal(Bytes(4096))),
            ("\"10GiB\"", SizeHint::Equal(Bytes::gib(10))),
            ("\"== 10 GiB\"", SizeHint::Equal(Bytes::gib(10))),
            ("\">= 1TiB\"", SizeHint::AtLeast(Bytes::gib(1024))),
            ("\"<10MiB\"", SizeHint::Less(Bytes::mib(10))),
            ("\"!= 1B\"", SizeHint::NotEqual(Bytes(1))),
            ("\"<or> 1GiB <or> 2GiB\"", SizeHint::OneOf(vec![Bytes::gib(1), Bytes::gib(2)])),
        ] {
            assert_eq!(parsed(json), Ok(hint.clone()), "{json}");
            let written = serde_json::to_string(&hint).expect("written");
            assert_eq!(parsed(&written), Ok(hint), "{written}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for json in [
            "-1",
            "1.5",
            "true",
            "\"10GB\"",
            "\"1.5TiB\"",
            "\"-5\"",
            "\"\"",
            "\"= 5GiB\"",
            "\"s== 5\"",
            "\"<in> 5\"",
            "\"99999999999TiB\"",
        ] {
            assert!(parsed(json).is_err(), "{json}");
        }
        assert!(parsed("\"= 5GiB\"").expect_err("ambiguous").contains("write >= or =="));
    }
}
