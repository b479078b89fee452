//! What a text of a disk (a serial number, a model, ...) must be.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::operator::{HintError, Operator, split};

/// A comparison with a text. Case and surrounding blanks do not count.
///
/// On the wire a string: the text itself, or an operator and what it compares with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TextHint {
    Equal(String),
    NotEqual(String),
    Less(String),
    AtMost(String),
    AtLeast(String),
    Greater(String),
    Contains(String),
    /// Each of these words, in any order.
    ContainsAll(Vec<String>),
    OneOf(Vec<String>),
}

impl TextHint {
    /// Whether any of the spellings in which the machine gives the text agrees; the first one is the one that is put in
    /// order. A text that the disk does not tell agrees with nothing: "unknown" is not "another than X".
    pub(crate) fn agrees<'a>(&self, spellings: impl IntoIterator<Item = Cow<'a, str>>) -> bool {
        let found: Vec<String> =
            spellings.into_iter().map(|text| folded(&text)).filter(|text| !text.is_empty()).collect();
        let Some(first) = found.first() else { return false };
        let is = |wanted: &String| found.contains(&folded(wanted));
        let holds = |part: &String| {
            let part = folded(part);
            found.iter().any(|text| text.contains(&part))
        };
        let order = |wanted: &String| collated(first).cmp(&collated(&folded(wanted)));
        match self {
            Self::Equal(wanted) => is(wanted),
            Self::NotEqual(wanted) => !is(wanted),
            Self::Less(wanted) => order(wanted) == Ordering::Less,
            Self::AtMost(wanted) => order(wanted) != Ordering::Greater,
            Self::AtLeast(wanted) => order(wanted) != Ordering::Less,
            Self::Greater(wanted) => order(wanted) == Ordering::Greater,
            Self::Contains(part) => holds(part),
            Self::ContainsAll(parts) => parts.iter().all(holds),
            Self::OneOf(wanted) => wanted.iter().any(is),
        }
    }

    /// The texts compared with.
    pub(super) fn values(&self) -> &[String] {
        match self {
            Self::Equal(text)
            | Self::NotEqual(text)
            | Self::Less(text)
            | Self::AtMost(text)
            | Self::AtLeast(text)
            | Self::Greater(text)
            | Self::Contains(text) => std::slice::from_ref(text),
            Self::ContainsAll(texts) | Self::OneOf(texts) => texts,
        }
    }

    /// What follows "not" when a disk differs.
    pub(crate) fn wanted(&self) -> String {
        let list = |texts: &[String]| texts.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(", ");
        match self {
            Self::Equal(text) => format!("{text:?}"),
            Self::NotEqual(text) => format!("other than {text:?}"),
            Self::Less(text) => format!("before {text:?}"),
            Self::AtMost(text) => format!("at most {text:?}"),
            Self::AtLeast(text) => format!("at least {text:?}"),
            Self::Greater(text) => format!("after {text:?}"),
            Self::Contains(text) => format!("with {text:?} in it"),
            Self::ContainsAll(texts) => format!("with all of {} in it", list(texts)),
            Self::OneOf(texts) => format!("one of {}", list(texts)),
        }
    }
}

fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}

/// By which texts are put in order: percent-encoded, as OpenStack does it, so that `s<` draws the same line there and
/// here.
fn collated(folded: &str) -> String {
    use fmt::Write as _;
    folded.bytes().fold(String::with_capacity(folded.len()), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"_.-~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

impl FromStr for TextHint {
    type Err = HintError;

    fn from_str(text: &str) -> Result<Self, HintError> {
        let (operator, values) = split(text)?;
        let one = || values[0].to_owned();
        let all = || values.iter().map(|value| (*value).to_owned()).collect();
        match operator {
            None | Some(Operator::TextEqual) => Ok(Self::Equal(one())),
            Some(Operator::TextNotEqual) => Ok(Self::NotEqual(one())),
            Some(Operator::TextLess) => Ok(Self::Less(one())),
            Some(Operator::TextAtMost) => Ok(Self::AtMost(one())),
            Some(Operator::TextAtLeast) => Ok(Self::AtLeast(one())),
            Some(Operator::TextGreater) => Ok(Self::Greater(one())),
            Some(Operator::In) => Ok(Self::Contains(one())),
            Some(Operator::AllIn) => Ok(Self::ContainsAll(all())),
            Some(Operator::Or) => Ok(Self::OneOf(all())),
            Some(
                number @ (Operator::Equal
                | Operator::NotEqual
                | Operator::AtMost
                | Operator::AtLeast
                | Operator::Less
                | Operator::Greater
                | Operator::BareEqual),
            ) => Err(HintError::OfNumbers(number)),
            Some(Operator::RangeIn) => Err(HintError::Unknown(Operator::RangeIn.to_string())),
        }
    }
}

impl fmt::Display for TextHint {
    /// As on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |f: &mut fmt::Formatter<'_>, operator: Operator, text: &str| write!(f, "{operator} {text}");
        match self {
            // A text that reads as something else needs its operator.
            Self::Equal(text) if text.parse::<Self>().as_ref() == Ok(self) => f.write_str(text),
            Self::Equal(text) => with(f, Operator::TextEqual, text),
            Self::NotEqual(text) => with(f, Operator::TextNotEqual, text),
            Self::Less(text) => with(f, Operator::TextLess, text),
            Self::AtMost(text) => with(f, Operator::TextAtMost, text),
            Self::AtLeast(text) => with(f, Operator::TextAtLeast, text),
            Self::Greater(text) => with(f, Operator::TextGreater, text),
            Self::Contains(text) => with(f, Operator::In, text),
            Self::ContainsAll(texts) => with(f, Operator::AllIn, &texts.join(" ")),
            Self::OneOf(texts) => {
                let each: Vec<String> = texts.iter().map(|text| format!("{} {text}", Operator::Or)).collect();
                f.write_str(&each.join(" "))
            }
        }
    }
}

/// Literally this text, whatever it begins with.
impl From<String> for TextHint {
    fn from(text: String) -> Self {
        Self::Equal(text)
    }
}

impl From<&str> for TextHint {
    fn from(text: &str) -> Self {
        Self::Equal(text.to_owned())
    }
}

impl Serialize for TextHint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TextHint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for TextHint {
    fn schema_name() -> Cow<'static, str> {
        "TextHint".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "description": "The text itself, or an operator in front of it: s==, s!=, s<, s<=, s>=, s>, <in>, <all-in> \
                            (words), <or> (repeated). Case and surrounding blanks do not count.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agrees(hint: &str, found: &str) -> bool {
        hint.parse::<TextHint>().expect(hint).agrees([Cow::Borrowed(found)])
    }

    #[test]
    fn every_operator() {
        for (hint, yes, no) in [
            (" samsung SSD ", "Samsung SSD  ", "Samsung"),
            ("s== a", "A", "b"),
            ("s!= a", "b", " A "),
            ("s< b", "a", "b"),
            ("s<= b", "B", "c"),
            ("s>= b", "b", "a"),
            ("s> b", "C", "b"),
            ("<in> sd 8", "Samsung SSD 860", "SSD-860"),
            ("<all-in> 860 samsung", "Samsung SSD 860", "Samsung SSD 870"),
            ("<or> intel x <or> Samsung", "INTEL X", "intel"),
        ] {
            assert!(agrees(hint, yes), "{hint} on {yes}");
            assert!(!agrees(hint, no), "{hint} on {no}");
            assert!(!agrees(hint, "  "), "{hint} on nothing");
        }
    }

    #[test]
    fn numbers_are_not_compared_with_texts() {
        assert_eq!(">= 5".parse::<TextHint>(), Err(HintError::OfNumbers(Operator::AtLeast)));
        assert_eq!("= S1".parse::<TextHint>(), Err(HintError::OfNumbers(Operator::BareEqual)));
        assert!("<range-in> [ 1 2 ]".parse::<TextHint>().is_err());
    }

    #[test]
    fn a_text_like_an_operator_is_written_with_one() {
        let odd = TextHint::from("<x> y");
        assert_eq!(odd.to_string(), "s== <x> y");
        assert_eq!(TextHint::from("S1").to_string(), "S1");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(text in "((s==|s!=|s<|<in>|<or>|<all-in>) ?)?[a-zA-Z0-9:./_-]{1,8}( [a-z0-9]{1,4})?( <or> x)?") {
            if let Ok(hint) = text.parse::<TextHint>() {
                prop_assert_eq!(hint.to_string().parse::<TextHint>(), Ok(hint));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<TextHint>();
        }
    }
}
