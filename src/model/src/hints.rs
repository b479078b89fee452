//! Root device hints: choosing one disk by what it is, never by what it is called this time.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
use crate::inventory::{Disk, Transport, Use};
use crate::units::Bytes;

/// Properties that a disk must have, all of them. Text is compared without regard to case and surrounding blanks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RootDeviceHints {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hctl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Transport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
    /// Exact size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Bytes>,
    /// An array by its name or UUID. Without this no hints ever match one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// Permits a removable disk; it must still match.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_removable: bool,
}

/// Why a disk is not the one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rejection {
    Differs { property: &'static str, wanted: String, found: String },
    Unusable { code: FaultCode, reason: String },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { property, wanted, found } => write!(f, "{property} is {found}, not {wanted}"),
            Self::Unusable { reason, .. } => f.write_str(reason),
        }
    }
}

impl RootDeviceHints {
    /// Whether anything is asked for at all. Empty hints match no disk: "whichever" is not an order.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { allow_removable: self.allow_removable, ..Self::default() }
    }

    /// Why `disk` does not have the properties asked for; `None` if it has them all.
    #[must_use]
    pub fn differs(&self, disk: &Disk) -> Option<Rejection> {
        let text = |property, wanted: &Option<String>, found: &str| match wanted {
            Some(wanted) if !wanted.trim().eq_ignore_ascii_case(found.trim()) => {
                Some(Rejection::Differs { property, wanted: quoted(wanted), found: quoted(found) })
            }
            _ => None,
        };
        let other = |property, differs: bool, wanted: String, found: String| {
            differs.then_some(Rejection::Differs { property, wanted, found })
        };
        self.differs_as_array(disk)
            .or_else(|| text("serial", &self.serial, &disk.serial))
            .or_else(|| text("wwn", &self.wwn, disk.wwn.as_deref().unwrap_or_default()))
            .or_else(|| text("model", &self.model, &disk.model))
            .or_else(|| text("vendor", &self.vendor, &disk.vendor))
            .or_else(|| text("by_path", &self.by_path, disk.by_path.as_deref().unwrap_or_default()))
            .or_else(|| text("hctl", &self.hctl, disk.hctl.as_deref().unwrap_or_default()))
            .or_else(|| {
                let wanted = self.transport?;
                other("transport", wanted != disk.tran, format!("{wanted:?}"), format!("{:?}", disk.tran))
            })
            .or_else(|| {
                let wanted = self.rotational?;
                other("rotational", wanted != disk.rotational, wanted.to_string(), disk.rotational.to_string())
            })
            .or_else(|| {
                let wanted = self.size?;
                other("size", wanted != disk.size, exact(wanted), exact(disk.size))
            })
            .or_else(|| {
                let wanted = self.min_size?;
                other("size", disk.size < wanted, format!("at least {}", exact(wanted)), exact(disk.size))
            })
            .or_else(|| {
                let wanted = self.max_size?;
                other("size", disk.size > wanted, format!("at most {}", exact(wanted)), exact(disk.size))
            })
    }

    fn differs_as_array(&self, disk: &Disk) -> Option<Rejection> {
        let is_it =
            |name: &str| disk.array.as_deref() == Some(name.trim()) || disk.serial.eq_ignore_ascii_case(name.trim());
        let (wanted, found) = match (&self.array, disk.tran == Transport::Md) {
            (None, false) => return None,
            (Some(name), true) if is_it(name) => return None,
            (None, true) => ("a disk".to_owned(), format!("the array {}", quoted(disk.array.as_deref().unwrap_or("")))),
            (Some(name), true) => (quoted(name), quoted(disk.array.as_deref().unwrap_or(""))),
            (Some(name), false) => (format!("the array {}", quoted(name)), "a disk".to_owned()),
        };
        Some(Rejection::Differs { property: "it", wanted, found })
    }

    /// The one disk that matches and is free.
    ///
    /// A disk that matches but must not be used (mounted, removable, ...) is an error of its own even when another
    /// one matches too: the order was then not clear.
    ///
    /// # Errors
    /// When the hints are empty, or match no disk, several, or one that must not be used. The causes say of each disk
    /// why it is not the one.
    pub fn resolve<'a>(&self, disks: &'a [Disk]) -> Result<&'a Disk, Fault> {
        if self.is_empty() {
            return Err(Fault::new(
                FaultCode::NoMatchingDisk,
                "the root device hints are empty: a disk must be named by serial, WWN or other properties",
            ));
        }
        let mut fault_causes = Vec::new();
        let mut matching = Vec::new();
        for disk in disks {
            match self.differs(disk) {
                Some(rejection) => fault_causes.push(format!("{}: {rejection}", describe(disk))),
                None => matching.push(disk),
            }
        }
        let (code, message) = match matching.as_slice() {
            [disk] => match unusable(disk, self.allow_removable) {
                None => return Ok(disk),
                Some(Rejection::Unusable { code, reason }) => {
                    (code, format!("{} matches {self}, but {reason}", describe(disk)))
                }
                Some(differs @ Rejection::Differs { .. }) => (FaultCode::Internal, differs.to_string()),
            },
            [] => (
                FaultCode::NoMatchingDisk,
                format!("{} disk{} here, none matches {self}", disks.len(), if disks.len() == 1 { "" } else { "s" }),
            ),
            several => {
                fault_causes = several.iter().map(|d| format!("{}: matches", describe(d))).collect();
                (FaultCode::AmbiguousDisk, format!("{} of {} disks match {self}", several.len(), disks.len()))
            }
        };
        let mut fault = Fault::new(code, message);
        fault.causes = fault_causes;
        Err(fault)
    }
}

/// Why a disk must not be written, whatever the hints say.
#[must_use]
pub fn unusable(disk: &Disk, allow_removable: bool) -> Option<Rejection> {
    let refuse = |code, reason: String| Some(Rejection::Unusable { code, reason });
    if let Some(held) = disk.in_use.first() {
        return refuse(
            FaultCode::DiskInUse,
            match held {
                Use::Mounted { device, at } => format!("{device} is mounted at {at}"),
                Use::Swap { device } => format!("{device} is used as swap"),
                Use::Holder { device, name } => format!("{device} is held by {name}"),
            },
        );
    }
    if disk.read_only {
        return refuse(FaultCode::DiskReadOnly, "it is read-only".into());
    }
    if disk.removable && !allow_removable {
        return refuse(FaultCode::DiskRemovable, "it is removable".into());
    }
    if disk.size.0 == 0 {
        return refuse(FaultCode::DiskIo, "it has no medium".into());
    }
    None
}

/// One line by which a person recognises the disk on the shelf.
#[must_use]
pub fn describe(disk: &Disk) -> String {
    let mut text = format!("{} ({}", disk.name, disk.size);
    for part in [&disk.vendor, &disk.model] {
        if !part.is_empty() {
            text.push_str(", ");
            text.push_str(part);
        }
    }
    if !disk.serial.is_empty() {
        text.push_str(", serial ");
        text.push_str(&disk.serial);
    }
    text.push(')');
    text
}

fn quoted(text: &str) -> String {
    if text.trim().is_empty() { "unknown".into() } else { format!("{:?}", text.trim()) }
}

fn exact(size: Bytes) -> String {
    format!("{size} ({} bytes)", size.0)
}

impl fmt::Display for RootDeviceHints {
    /// As given in the order: `serial="S123", min_size=10.0 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let texts = [
            ("serial", &self.serial),
            ("wwn", &self.wwn),
            ("model", &self.model),
            ("vendor", &self.vendor),
            ("by_path", &self.by_path),
            ("hctl", &self.hctl),
            ("array", &self.array),
        ];
        parts.extend(texts.iter().filter_map(|(name, value)| Some(format!("{name}={:?}", value.as_ref()?))));
        parts.extend(self.transport.map(|v| format!("transport={v:?}")));
        parts.extend(self.rotational.map(|v| format!("rotational={v}")));
        parts.extend(self.size.map(|v| format!("size={}", v.0)));
        parts.extend(self.min_size.map(|v| format!("min_size={}", v.0)));
        parts.extend(self.max_size.map(|v| format!("max_size={}", v.0)));
        f.write_str(&parts.join(", "))
    }
}

impl std::str::FromStr for RootDeviceHints {
    type Err = Fault;

    /// The form of the kernel command line: `serial=S123,min_size=10GiB`. Sizes take KiB, MiB, GiB, TiB or bytes.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let bad = |what: String| Fault::new(FaultCode::CmdlineInvalid, what);
        let mut hints = Self::default();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            let (key, value) =
                part.split_once('=').ok_or_else(|| bad(format!("root device hint {part:?} has no value")))?;
            let (key, value) = (key.trim(), value.trim());
            if value.is_empty() {
                return Err(bad(format!("root device hint {key} is empty")));
            }
            let owned = || Some(value.to_owned());
            let flag = || value.parse::<bool>().map_err(|_| bad(format!("{key} is true or false, not {value:?}")));
            let size = || parse_size(value).ok_or_else(|| bad(format!("{key} is a size like 10GiB, not {value:?}")));
            match key {
                "serial" => hints.serial = owned(),
                "wwn" => hints.wwn = owned(),
                "model" => hints.model = owned(),
                "vendor" => hints.vendor = owned(),
                "by_path" => hints.by_path = owned(),
                "hctl" => hints.hctl = owned(),
                "array" => hints.array = owned(),
                "transport" => {
                    let found: Transport = serde_json::from_value(value.to_ascii_lowercase().into())
                        .map_err(|_| bad(format!("transport {value:?} is unknown")))?;
                    if found == Transport::Unknown {
                        return Err(bad(format!("transport {value:?} is unknown")));
                    }
                    hints.transport = Some(found);
                }
                "rotational" => hints.rotational = Some(flag()?),
                "allow_removable" => hints.allow_removable = flag()?,
                "size" => hints.size = Some(size()?),
                "min_size" => hints.min_size = Some(size()?),
                "max_size" => hints.max_size = Some(size()?),
                _ => return Err(bad(format!("root device hint {key:?} is unknown"))),
            }
        }
        Ok(hints)
    }
}

fn parse_size(text: &str) -> Option<Bytes> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor: u64 = match &text[split..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    text[..split].parse::<u64>().ok()?.checked_mul(factor).map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(name: &str, serial: &str, gib: u64) -> Disk {
        Disk {
            name: name.into(),
            serial: serial.into(),
            size: Bytes::gib(gib),
            logical_sectors: 512,
            tran: Transport::Nvme,
            ..Disk::default()
        }
    }

    fn by_serial(serial: &str) -> RootDeviceHints {
        RootDeviceHints { serial: Some(serial.into()), ..RootDeviceHints::default() }
    }

    #[test]
    fn one_match_is_chosen() {
        let disks = [disk("/dev/nvme0n1", "A1", 10), disk("/dev/nvme1n1", "B2", 10)];
        assert_eq!(by_serial(" b2 ").resolve(&disks).expect("one").name, "/dev/nvme1n1");
    }

    #[test]
    fn none_several_and_empty_are_refused_with_reasons() {
        let disks = [disk("/dev/nvme0n1", "A1", 10), disk("/dev/nvme1n1", "A1", 10)];
        assert_eq!(by_serial("A1").resolve(&disks).expect_err("two").code, FaultCode::AmbiguousDisk);
        let none = by_serial("Z").resolve(&disks).expect_err("none");
        assert_eq!(none.code, FaultCode::NoMatchingDisk);
        assert_eq!(none.causes.len(), 2);
        assert!(none.causes[0].contains("serial is \"A1\", not \"Z\""), "{}", none.causes[0]);
        assert_eq!(RootDeviceHints::default().resolve(&disks[..1]).expect_err("empty").code, FaultCode::NoMatchingDisk);
    }

    #[test]
    fn a_disk_without_serial_matches_no_serial() {
        let disks = [disk("/dev/sda", "", 10)];
        assert!(by_serial("A1").resolve(&disks).is_err());
    }

    #[test]
    fn a_matching_disk_in_use_is_refused_not_skipped() {
        let mut disks = [disk("/dev/sda", "A1", 10), disk("/dev/sdb", "B2", 10)];
        disks[0].in_use.push(Use::Mounted { device: "/dev/sda1".into(), at: "/mnt".into() });
        let fault = by_serial("A1").resolve(&disks).expect_err("mounted");
        assert_eq!(fault.code, FaultCode::DiskInUse);
        assert!(fault.message.contains("/dev/sda1 is mounted at /mnt"), "{}", fault.message);
    }

    #[test]
    fn removable_needs_permission() {
        let mut disks = [disk("/dev/sda", "A1", 10)];
        disks[0].removable = true;
        let mut hints = by_serial("A1");
        assert_eq!(hints.resolve(&disks).expect_err("removable").code, FaultCode::DiskRemovable);
        hints.allow_removable = true;
        assert!(hints.resolve(&disks).is_ok());
    }

    #[test]
    fn an_array_is_matched_by_its_own_hint_only() {
        let uuid = "0f3cb2a1-1111-4222-8333-444455556666";
        let array = Disk { tran: Transport::Md, array: Some("root".into()), ..disk("/dev/md127", uuid, 10) };
        let disks = [disk("/dev/sda", "A1", 10), array];
        let named = |name: &str| RootDeviceHints { array: Some(name.into()), ..RootDeviceHints::default() };
        for name in ["root", uuid, &uuid.to_uppercase()] {
            assert_eq!(named(name).resolve(&disks).expect("the array").name, "/dev/md127");
        }
        let larger = RootDeviceHints { min_size: Some(Bytes::gib(1)), ..RootDeviceHints::default() };
        assert_eq!(larger.resolve(&disks).expect("the disk only").name, "/dev/sda");
        assert_eq!(by_serial(uuid).resolve(&disks).expect_err("not by its serial").code, FaultCode::NoMatchingDisk);
        let none = named("data").resolve(&disks).expect_err("another name");
        assert!(none.causes[0].contains("not the array \"data\""), "{none}");
        assert!(none.causes[1].contains("it is \"root\", not \"data\""), "{none}");
        assert_eq!("array=root".parse::<RootDeviceHints>().expect("good"), named("root"));
    }

    #[test]
    fn the_command_line_form_is_strict() {
        let hints: RootDeviceHints = "serial=S1,min_size=10GiB,transport=nvme".parse().expect("good");
        assert_eq!(hints.min_size, Some(Bytes::gib(10)));
        assert_eq!(hints.transport, Some(Transport::Nvme));
        for bad in ["serial", "serial=", "name=sda", "size=10GB", "size=99999999999TiB", "transport=floppy"] {
            assert!(bad.parse::<RootDeviceHints>().is_err(), "{bad}");
        }
    }

    proptest! {
        /// Whatever the topology: what is chosen has every property asked for, is free, and is the only such disk.
        #[test]
        fn what_is_chosen_is_what_was_asked(
            serials in prop::collection::vec("[A-C]{1,2}", 0..6),
            sizes in prop::collection::vec(1u64..4, 6),
            removable in prop::collection::vec(any::<bool>(), 6),
            held in prop::collection::vec(any::<bool>(), 6),
            want_serial in prop::option::of("[A-C]{1,2}"),
            min_gib in prop::option::of(1u64..4),
        ) {
            let disks: Vec<Disk> = serials.iter().enumerate().map(|(i, s)| {
                let mut d = disk(&format!("/dev/sd{i}"), s, sizes[i]);
                d.removable = removable[i];
                if held[i] { d.in_use.push(Use::Swap { device: d.name.clone() }); }
                d
            }).collect();
            let hints = RootDeviceHints { serial: want_serial.clone(), min_size: min_gib.map(Bytes::gib), ..RootDeviceHints::default() };
            let matching = disks.iter().filter(|d| {
                want_serial.as_ref().is_none_or(|s| &d.serial == s) && min_gib.is_none_or(|g| d.size >= Bytes::gib(g))
            }).count();
            if let Ok(chosen) = hints.resolve(&disks) {
                prop_assert_eq!(matching, 1);
                prop_assert!(hints.differs(chosen).is_none());
                prop_assert!(!chosen.removable && chosen.in_use.is_empty());
                prop_assert!(!hints.is_empty());
            }
        }
    }
}
