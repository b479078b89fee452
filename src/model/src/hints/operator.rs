//! Operators as OpenStack writes them in front of a value: `s== x`, `<in> part`, `>= 100`.

use std::fmt;

/// Why a hint is not one. Found when an order is read, never when it is carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HintError {
    #[error("it is empty")]
    Empty,
    #[error("no value follows {0}")]
    NoValue(Operator),
    #[error("{0} compares numbers; texts are compared by s==, s!=, s<, s<=, s>=, s>, <in>, <all-in> and <or>")]
    OfNumbers(Operator),
    #[error("{0} compares texts; sizes are compared by ==, !=, <, <=, >=, > and <or>")]
    OfTexts(Operator),
    #[error("{0} is not an operator here")]
    Unknown(String),
    #[error("{found} stands inside of {value:?}; an operator stands in front, and only <or> is repeated")]
    Misplaced { found: Operator, value: String },
    #[error("= means \"at least\" in OpenStack and \"exactly\" to everybody else; write >= or ==")]
    BareEqual,
    #[error("{0:?} is not a size: a whole number of bytes, or of KiB, MiB, GiB, TiB or PiB")]
    NotASize(String),
    #[error("{0:?} is not a whole number")]
    NotANumber(String),
    #[error("{0:?} is not a way in which a disk is attached")]
    NotATransport(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operator {
    TextEqual,
    TextNotEqual,
    TextAtMost,
    TextLess,
    TextAtLeast,
    TextGreater,
    In,
    AllIn,
    Or,
    RangeIn,
    Equal,
    NotEqual,
    AtMost,
    AtLeast,
    Less,
    Greater,
    /// OpenStack's old spelling of [`Operator::AtLeast`].
    BareEqual,
}

/// Longer ones first where one begins another.
const SPELLINGS: [(&str, Operator); 17] = [
    ("<all-in>", Operator::AllIn),
    ("<range-in>", Operator::RangeIn),
    ("<in>", Operator::In),
    ("<or>", Operator::Or),
    ("s==", Operator::TextEqual),
    ("s!=", Operator::TextNotEqual),
    ("s<=", Operator::TextAtMost),
    ("s<", Operator::TextLess),
    ("s>=", Operator::TextAtLeast),
    ("s>", Operator::TextGreater),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("=", Operator::BareEqual),
];

impl Operator {
    pub(super) fn spelling(self) -> &'static str {
        SPELLINGS.iter().find(|(_, operator)| *operator == self).map_or("", |(text, _)| text)
    }

    /// The operator that `text` begins with. Case does not matter, nor whether a blank follows.
    fn in_front_of(text: &str) -> Option<Self> {
        let begins = |with: &&str| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        SPELLINGS.iter().find(|(spelling, _)| begins(spelling)).map(|(_, operator)| *operator)
    }

    fn is_bracketed(self) -> bool {
        matches!(self, Self::In | Self::AllIn | Self::Or | Self::RangeIn)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spelling())
    }
}

/// Takes an expression apart: the operator, if there is one, and its values, none of which is empty.
pub(super) fn split(text: &str) -> Result<(Option<Operator>, Vec<&str>), HintError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(HintError::Empty);
    }
    let Some(operator) = Operator::in_front_of(text) else {
        refuse_inner(text)?;
        return Ok((None, vec![text]));
    };
    // `<near> x` is not "less than near> x".
    if operator == Operator::Less
        && let Some((name, _)) = text[1..].split_once('>')
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-')
    {
        return Err(HintError::Unknown(format!("<{name}>")));
    }
    let rest = &text[operator.spelling().len()..];
    let values: Vec<&str> = match operator {
        Operator::Or => split_at_or(rest),
        Operator::AllIn => rest.split_whitespace().collect(),
        _ => vec![rest.trim()],
    };
    if values.is_empty() || values.iter().any(|value| value.is_empty()) {
        return Err(HintError::NoValue(operator));
    }
    for value in &values {
        if let Some(found) = Operator::in_front_of(value) {
            return Err(HintError::Misplaced { found, value: (*value).to_owned() });
        }
        refuse_inner(value)?;
    }
    Ok((Some(operator), values))
}

fn split_at_or(text: &str) -> Vec<&str> {
    let mark = Operator::Or.spelling();
    // Of the same length: only ASCII letters change.
    let lower = text.to_ascii_lowercase();
    let mut values = Vec::new();
    let mut from = 0;
    for (at, _) in lower.match_indices(mark) {
        values.push(text[from..at].trim());
        from = at + mark.len();
    }
    values.push(text[from..].trim());
    values
}

/// No property of a disk has one of the bracketed operators in it; an expression that does was meant otherwise.
fn refuse_inner(value: &str) -> Result<(), HintError> {
    let lower = value.to_ascii_lowercase();
    match SPELLINGS.iter().find(|(spelling, operator)| operator.is_bracketed() && lower.contains(spelling)) {
        Some((_, found)) => Err(HintError::Misplaced { found: *found, value: value.to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_stand_in_front_with_or_without_a_blank() {
        assert_eq!(split(" S1 "), Ok((None, vec!["S1"])));
        assert_eq!(split("s== S1"), Ok((Some(Operator::TextEqual), vec!["S1"])));
        assert_eq!(split("S==S1"), Ok((Some(Operator::TextEqual), vec!["S1"])));
        assert_eq!(split("<in> a b"), Ok((Some(Operator::In), vec!["a b"])));
        assert_eq!(split("<all-in>  a   b"), Ok((Some(Operator::AllIn), vec!["a", "b"])));
        assert_eq!(split("<or> a b <OR>c"), Ok((Some(Operator::Or), vec!["a b", "c"])));
        assert_eq!(split(">=5"), Ok((Some(Operator::AtLeast), vec!["5"])));
        assert_eq!(split("= 5"), Ok((Some(Operator::BareEqual), vec!["5"])));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(split("  "), Err(HintError::Empty));
        assert_eq!(split("s=="), Err(HintError::NoValue(Operator::TextEqual)));
        assert_eq!(split("<or> a <or>"), Err(HintError::NoValue(Operator::Or)));
        assert_eq!(split("<near> x"), Err(HintError::Unknown("<near>".into())));
        for tangled in ["a <or> b", "<in> a <in> b", "s== s== x", "s== >= 5", "<or> <in> a"] {
            assert!(matches!(split(tangled), Err(HintError::Misplaced { .. })), "{tangled}");
        }
    }
}
