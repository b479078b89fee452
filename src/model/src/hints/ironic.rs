//! Root device hints in Ironic's own form, with Ironic's own meaning.
//!
//! A node's `root_device` (in `instance_info` or `properties`) and the entries of `skip_block_devices` are read. They
//! mean what `match_root_device_hints` of ironic-lib makes of them, which a table of its answers holds us to, but for
//! four things, each of them on the side of not writing:
//!
//! - several disks that match are refused; Ironic takes whichever the kernel found first;
//! - a disk that does not tell a property matches no hint about it; Ironic compares with the word `none`;
//! - operators that Ironic accepts and then can never satisfy, or fails on (`<or>` with sizes, numbers compared with
//!   texts), are refused when the order is read;
//! - `name` is refused: `/dev/sda` is another disk after the next boot.

use serde_json::{Map, Value};

use super::operator::{HintError, Operator};
use super::size::SizeHint;
use super::spelling::known_transport;
use super::text::TextHint;
use super::{Pick, RootDeviceHints};
use crate::fault::{Fault, FaultCode};
use crate::units::{Bytes, GIB};

impl RootDeviceHints {
    /// From the object as Ironic stores it.
    ///
    /// # Errors
    /// `task-invalid` with the hint's name: it is unknown, is not of its type, or says nothing that can be held to.
    pub fn from_ironic(hints: &Value) -> Result<Self, Fault> {
        let invalid = |what: String| Fault::new(FaultCode::TaskInvalid, format!("root_device: {what}"));
        let Value::Object(fields) = hints else {
            return Err(invalid(format!("{hints} is not an object of hints")));
        };
        if fields.is_empty() {
            return Err(invalid("the hints are empty".into()));
        }
        Self::from_fields(fields).map_err(invalid)
    }

    /// What Ironic does without any hints: the smallest disk of at least 4 GiB. Of several smallest ones it takes
    /// whichever came first; here that is the first by path, the same at every boot.
    #[must_use]
    pub fn ironic_default() -> Self {
        Self { min_size: Some(Bytes::gib(4)), pick: Pick::SmallestThenByPath, ..Self::default() }
    }

    fn from_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let mut hints = Self::default();
        for (name, value) in fields {
            let text = || {
                let Value::String(text) = value else { return Err(format!("{name}: {value} is not a string")) };
                decoded(text).parse::<TextHint>().map_err(|e| format!("{name}: {}", spoken(&e)))
            };
            match name.as_str() {
                "serial" => hints.serial = Some(text()?),
                "wwn" => hints.wwn = Some(text()?),
                "wwn_with_extension" => hints.wwn_with_extension = Some(text()?),
                "wwn_vendor_extension" => hints.wwn_vendor_extension = Some(text()?),
                "model" => hints.model = Some(text()?),
                "vendor" => hints.vendor = Some(text()?),
                "by_path" => hints.by_path = Some(text()?),
                "hctl" => hints.hctl = Some(text()?),
                "tran" => {
                    hints.transport = Some(known_transport(text()?).map_err(|e| format!("{name}: {e}"))?);
                }
                "size" => hints.size = Some(size(value).map_err(|e| format!("{name}: {}", spoken(&e)))?),
                "rotational" => {
                    let flag = boolean(value).ok_or_else(|| format!("{name}: {value} is neither true nor false"))?;
                    hints.rotational = Some(flag);
                }
                "name" => {
                    return Err(format!(
                        "name: {value} is what a kernel called some disk in one boot, not which disk it is; name it by \
                         serial, wwn or by_path, which `speediso-agent disks` shows"
                    ));
                }
                _ => return Err(format!("{name:?} is not a root device hint")),
            }
        }
        Ok(hints)
    }
}

/// Bare `=` is one of Ironic's own operators, so what is said of it elsewhere does not apply.
fn spoken(error: &HintError) -> String {
    match error {
        HintError::OfNumbers(Operator::BareEqual) => {
            "= compares numbers, and means \"at least\" in OpenStack; leave it out, or write s==".to_owned()
        }
        other => other.to_string(),
    }
}

/// Whole GiB. Ironic divides a disk's bytes by 2^30 before it compares, so 100 is exactly 100 GiB to the byte.
fn size(value: &Value) -> Result<SizeHint, HintError> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(HintError::NotASize(other.to_string())),
    };
    let gib = |text: &str| {
        let bad = || HintError::NotASize(format!("{text} GiB"));
        let whole = (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(text).ok_or_else(bad)?;
        let n = whole.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(bad)?;
        n.checked_mul(GIB).map(Bytes).ok_or_else(bad)
    };
    match SizeHint::parse_with(&text, gib)? {
        // A float is never equal to a string: in Ironic this matches no disk, whatever its size.
        (Some(operator @ Operator::Or), _) => Err(HintError::Unknown(operator.to_string())),
        (_, hint) => Ok(hint),
    }
}

/// As oslo's `bool_from_string` with `strict`.
fn boolean(value: &Value) -> Option<bool> {
    let text = match value {
        Value::Bool(flag) => return Some(*flag),
        Value::String(text) => text.trim().to_ascii_lowercase(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    match text.as_str() {
        "1" | "t" | "true" | "on" | "y" | "yes" => Some(true),
        "0" | "f" | "false" | "off" | "n" | "no" => Some(false),
        _ => None,
    }
}

/// Ironic keeps normalised hints with blanks and the like percent-encoded. Only a text that is encoded through and
/// through is taken for one: a lone `%` in a model's name stays what it is.
fn decoded(text: &str) -> String {
    let is_encoded = text.contains('%')
        && text
            .split_whitespace()
            .all(|word| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-~/%<>=!".contains(&b)));
    let plain = || text.to_owned();
    if !is_encoded {
        return plain();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let Some(byte) = digits.and_then(|d| u8::from_str_radix(d, 16).ok()) else { return plain() };
        bytes.push(byte);
        rest = &after[2..];
    }
    String::from_utf8(bytes).unwrap_or_else(|_| plain())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Disk, Transport};
    use serde::Deserialize;
    use serde_json::json;

    fn read(hints: &Value) -> Result<RootDeviceHints, String> {
        RootDeviceHints::from_ironic(hints).map_err(|fault| fault.message)
    }

    #[test]
    fn every_field_of_ironics() {
        let hints = read(&json!({
            "serial": "s== S1", "wwn": "0x5002538e40f2a1b3", "wwn_with_extension": "0x5002538e40f2a1b3",
            "wwn_vendor_extension": "0x1", "model": "<in> ssd", "vendor": "ATA", "by_path": "/dev/disk/by-path/x",
            "hctl": "<or> 0:0:0:0 <or> 1:0:0:0", "tran": "<or> sata <or> nvme", "rotational": "No", "size": ">= 100",
        }))
        .expect("all of them");
        assert_eq!(hints.size, Some(SizeHint::AtLeast(Bytes::gib(100))));
        assert_eq!(hints.rotational, Some(false));
        assert_eq!(hints.hctl, Some(TextHint::OneOf(vec!["0:0:0:0".into(), "1:0:0:0".into()])));
        assert_eq!(read(&json!({"size": 100})).expect("a number").size, Some(SizeHint::Equal(Bytes::gib(100))));
        assert_eq!(read(&json!({"size": "= 100"})).expect("at least").size, Some(SizeHint::AtLeast(Bytes::gib(100))));
    }

    #[test]
    fn encoded_values_are_read_as_what_they_encode() {
        let model = |text: &str| read(&json!({"model": text})).expect(text).model;
        assert_eq!(model("s== samsung%20ssd%20860"), Some("samsung ssd 860".into()));
        assert_eq!(model("<or> a%20b <or> c"), Some(TextHint::OneOf(vec!["a b".into(), "c".into()])));
        assert_eq!(model("100% flash"), Some("100% flash".into()));
        assert_eq!(model("x%zz"), Some("x%zz".into()));
    }

    #[test]
    fn refusals_name_the_hint_and_the_way_out() {
        for (hints, words) in [
            (json!({}), "empty"),
            (json!([1]), "not an object"),
            (json!({"name": "/dev/sda"}), "by serial, wwn or by_path"),
            (json!({"label": "x"}), "\"label\" is not a root device hint"),
            (json!({"serial": 5}), "serial: 5 is not a string"),
            (json!({"serial": "= 5"}), "write s=="),
            (json!({"size": "10GiB"}), "size: "),
            (json!({"size": 0}), "size: "),
            (json!({"size": 1.5}), "size: "),
            (json!({"size": "<or> 1 <or> 2"}), "<or> is not an operator here"),
            (json!({"size": "s== 1"}), "compares texts"),
            (json!({"rotational": "maybe"}), "neither true nor false"),
            (json!({"tran": "nvm"}), "\"nvm\" is not a way"),
        ] {
            let message = read(&hints).expect_err("refused");
            assert!(message.starts_with("root_device: ") && message.contains(words), "{hints}: {message}");
        }
    }

    #[derive(Deserialize)]
    struct Case {
        hints: Value,
        /// Indices of the disks that ironic-lib matches; absent when it raises an error.
        matches: Option<Vec<usize>>,
    }

    #[derive(Deserialize)]
    struct Oracle {
        disks: Vec<Value>,
        cases: Vec<Case>,
    }

    /// Answers of Ironic's own code, made by `fixtures/ironic_hints.py`.
    #[test]
    fn ironic_says_the_same() {
        let oracle: Oracle = serde_json::from_str(include_str!("fixtures/ironic_hints.json")).expect("the fixture");
        let disks: Vec<Disk> = oracle.disks.iter().map(disk).collect();
        let (mut same, mut refused) = (0, 0);
        for case in &oracle.cases {
            match (RootDeviceHints::from_ironic(&case.hints), &case.matches) {
                (Ok(hints), Some(expected)) => {
                    let found: Vec<usize> = (0..disks.len()).filter(|n| hints.differs(&disks[*n]).is_none()).collect();
                    assert_eq!(&found, expected, "{}", case.hints);
                    same += 1;
                }
                // What it fails on, or can never satisfy, may be refused outright, and nothing else.
                (Err(_), None) => refused += 1,
                (Err(fault), Some(expected)) => {
                    assert!(expected.is_empty(), "{}: {fault}, but ironic matches {expected:?}", case.hints);
                    refused += 1;
                }
                (Ok(_), None) => panic!("ironic refuses {}", case.hints),
            }
        }
        assert!(same >= 3000 && refused >= 50, "{same} compared, {refused} refused");
    }

    /// As Ironic's agent describes it.
    fn disk(ironic: &Value) -> Disk {
        let text = |name: &str| ironic[name].as_str().unwrap_or_default().to_owned();
        let wwn = text("wwn_with_extension");
        Disk {
            serial: text("serial"),
            wwn: Some(wwn.strip_prefix("0x").map_or(wwn.clone(), |digits| format!("naa.{digits}")))
                .filter(|wwn| !wwn.is_empty()),
            model: text("model"),
            vendor: text("vendor"),
            by_path: Some(text("by_path")).filter(|path| !path.is_empty()),
            hctl: Some(text("hctl")).filter(|hctl| !hctl.is_empty()),
            tran: serde_json::from_value(ironic["tran"].clone()).unwrap_or(Transport::Unknown),
            rotational: ironic["rotational"].as_bool().unwrap_or_default(),
            size: Bytes(ironic["size"].as_u64().expect("bytes")),
            ..Disk::default()
        }
    }
}
