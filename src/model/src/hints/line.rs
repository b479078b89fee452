//! Hints in one line, as they stand on the kernel's and other command lines: `serial=S1,size>=100GiB`.
//!
//! A comma ends a hint; a value with a comma in it needs the JSON form.

use std::fmt;
use std::str::FromStr;

use super::operator::HintError;
use super::size::{SizeHint, parse_size};
use super::spelling::known_transport;
use super::text::TextHint;
use super::{Pick, RootDeviceHints};
use crate::fault::{Fault, FaultCode};

impl FromStr for RootDeviceHints {
    type Err = Fault;

    fn from_str(line: &str) -> Result<Self, Fault> {
        let mut hints = Self::default();
        for part in line.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            hints.take(part).map_err(|what| Fault::new(FaultCode::CmdlineInvalid, what))?;
        }
        Ok(hints)
    }
}

/// `size>=100GiB` -> `size`, `>=`, `100GiB`. With `=` the value may bring an operator of its own.
fn parts(part: &str) -> Option<(&str, &str, &str)> {
    let at = part.find(['=', '<', '>', '!'])?;
    let (name, rest) = part.split_at(at);
    let operator = ["==", "!=", "<=", ">=", "=", "<", ">"].into_iter().find(|operator| rest.starts_with(operator))?;
    Some((name.trim(), operator, rest[operator.len()..].trim()))
}

impl RootDeviceHints {
    fn take(&mut self, part: &str) -> Result<(), String> {
        let (name, operator, value) = parts(part).ok_or_else(|| format!("root device hint {part:?} has no value"))?;
        if value.is_empty() {
            return Err(format!("root device hint {name} is empty"));
        }
        let wrong = |e: HintError| format!("root device hint {name}: {e}");
        let text = || {
            let text = if operator == "=" { value.to_owned() } else { format!("s{operator} {value}") };
            text.parse::<TextHint>().map_err(wrong)
        };
        let size = || {
            let text = if operator == "=" { value.to_owned() } else { format!("{operator} {value}") };
            text.parse::<SizeHint>().map_err(wrong)
        };
        let plain = || {
            if operator == "=" { Ok(value) } else { Err(format!("root device hint {name} is given with =")) }
        };
        let flag =
            || plain()?.parse::<bool>().map_err(|_| format!("root device hint {name} is true or false, not {value:?}"));
        let bound = || plain().and_then(|value| parse_size(value).map_err(wrong));
        match name {
            "serial" => self.serial = Some(text()?),
            "wwn" => self.wwn = Some(text()?),
            "wwn_with_extension" => self.wwn_with_extension = Some(text()?),
            "wwn_vendor_extension" => self.wwn_vendor_extension = Some(text()?),
            "model" => self.model = Some(text()?),
            "vendor" => self.vendor = Some(text()?),
            "firmware" => self.firmware = Some(text()?),
            "by_path" => self.by_path = Some(text()?),
            "hctl" => self.hctl = Some(text()?),
            "transport" => self.transport = Some(text().and_then(|hint| known_transport(hint).map_err(wrong))?),
            "array" => self.array = Some(plain()?.to_owned()),
            "rotational" => self.rotational = Some(flag()?),
            "allow_removable" => self.allow_removable = flag()?,
            "size" => self.size = Some(size()?),
            "min_size" => self.min_size = Some(bound()?),
            "max_size" => self.max_size = Some(bound()?),
            "pick" => {
                let pick = plain()?;
                self.pick = Pick::named(pick).ok_or_else(|| format!("root device hint pick: {pick:?} is unknown"))?;
            }
            "name" => {
                return Err(format!(
                    "root device hint name: {value:?} is what a kernel called some disk in one boot, not which disk it \
                     is; name it by serial, wwn or by_path"
                ));
            }
            _ => return Err(format!("root device hint {name:?} is unknown")),
        }
        Ok(())
    }
}

impl fmt::Display for RootDeviceHints {
    /// For people: `serial="S123", min_size=10737418240`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self
            .texts()
            .into_iter()
            .filter_map(|(name, hint, _)| Some(format!("{name}={:?}", hint.as_ref()?.to_string())))
            .collect();
        parts.extend(self.array.as_ref().map(|name| format!("array={name:?}")));
        parts.extend(self.rotational.map(|v| format!("rotational={v}")));
        parts.extend(self.size.as_ref().map(|hint| match hint {
            SizeHint::Equal(_) | SizeHint::OneOf(_) => format!("size={hint}"),
            compared => format!("size{}", compared.to_string().replace(' ', "")),
        }));
        parts.extend(self.min_size.map(|v| format!("min_size={}", v.0)));
        parts.extend(self.max_size.map(|v| format!("max_size={}", v.0)));
        parts.extend((!self.pick.is_only()).then(|| format!("pick={}", self.pick.name())));
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    #[test]
    fn the_line_and_the_object_say_the_same() {
        for (line, json) in [
            ("serial=S1,min_size=10GiB,transport=nvme", r#"{"serial":"S1","min_size":10737418240,"transport":"nvme"}"#),
            ("size>=100GiB , pick=smallest", r#"{"size":">= 100GiB","pick":"smallest"}"#),
            ("size=<or> 1GiB <or> 2GiB", r#"{"size":"<or> 1GiB <or> 2GiB"}"#),
            ("size<2TiB,rotational=false", r#"{"size":"< 2TiB","rotational":false}"#),
            ("model=<in> SSD 860,serial!=S1", r#"{"model":"<in> SSD 860","serial":"s!= S1"}"#),
            ("serial==S1,firmware=2B6Q", r#"{"serial":"S1","firmware":"2B6Q"}"#),
            (
                "by_path=pci-0000:00:1f.2-ata-1,allow_removable=true",
                r#"{"by_path":"pci-0000:00:1f.2-ata-1","allow_removable":true}"#,
            ),
        ] {
            let object: RootDeviceHints = serde_json::from_str(json).expect(json);
            assert_eq!(line.parse::<RootDeviceHints>().expect(line), object);
        }
    }

    #[test]
    fn the_line_is_strict() {
        let hints: RootDeviceHints = "serial=S1,min_size=10GiB".parse().expect("good");
        assert_eq!(hints.min_size, Some(Bytes::gib(10)));
        for bad in [
            "serial",
            "serial=",
            "name=sda",
            "size=10GB",
            "size=99999999999TiB",
            "transport=floppy",
            "pick=any",
            "pick>smallest",
            "min_size>=5",
            "rotational!=true",
            "serial=>= 5",
            "transport!=nvm",
            "colour=red",
        ] {
            assert!(bad.parse::<RootDeviceHints>().is_err(), "{bad}");
        }
    }
}
