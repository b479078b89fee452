//! Root device hints: choosing one disk by what it is, never by what it is called this time.
//!
//! Hints are read into a closed type, so that an operator that does not exist is an error of the order and not of its
//! run. `docs/disks.md` is for whoever writes them.

mod choose;
mod explain;
mod ironic;
mod line;
mod operator;
mod size;
mod skip;
mod spelling;
mod text;
mod usable;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

pub use self::choose::Pick;
pub use self::explain::{Considered, Explanation, Property, Verdict};
pub use self::operator::{HintError, Operator};
pub use self::size::SizeHint;
pub use self::skip::SkipList;
pub use self::text::TextHint;
pub use self::usable::{Rejection, describe, unusable};
use crate::inventory::{Disk, Transport};
use crate::units::Bytes;

/// Properties that a disk must have, all of them. Text is compared without regard to case and surrounding blanks.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RootDeviceHints {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<TextHint>,
    /// As the kernel (`naa.5002538e40f2a1b3`) or as udev writes it (`0x5002538e40f2a1b3`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn: Option<TextHint>,
    /// All 32 digits, where `wwn` is the first 16 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn_with_extension: Option<TextHint>,
    /// The last 16 digits of 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wwn_vendor_extension: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<TextHint>,
    /// The firmware's revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<TextHint>,
    /// Where it is plugged in: udev's name, with or without `/dev/disk/by-path/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_path: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hctl: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "transport")]
    pub transport: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeHint>,
    /// Bytes, or with a unit: `10GiB`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "bound")]
    pub min_size: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "bound")]
    pub max_size: Option<Bytes>,
    /// An array by its name or UUID. Without this no hints ever match one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// Permits a removable disk; it must still match.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_removable: bool,
    /// Which one, when several match.
    #[serde(skip_serializing_if = "Pick::is_only")]
    pub pick: Pick,
}

fn transport<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TextHint>, D::Error> {
    let hint = Option::<TextHint>::deserialize(deserializer)?;
    hint.map(spelling::known_transport).transpose().map_err(de::Error::custom)
}

/// One size, without an operator.
fn bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    match Option::<SizeHint>::deserialize(deserializer)? {
        None => Ok(None),
        Some(SizeHint::Equal(size)) => Ok(Some(size)),
        Some(other) => Err(de::Error::custom(format!("{other}: a size without an operator is needed here"))),
    }
}

type Spelled = fn(&Disk) -> spelling::Spellings<'_>;

impl RootDeviceHints {
    /// Whether anything is asked for at all. Empty hints match no disk: "whichever" is not an order.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { allow_removable: self.allow_removable, pick: self.pick, ..Self::default() }
    }

    /// The first property of `disk` that is not as asked for; `None` if it has them all.
    #[must_use]
    pub fn differs(&self, disk: &Disk) -> Option<Rejection> {
        let property = self.properties(disk).into_iter().find(|property| !property.agrees)?;
        Some(Rejection::Differs { property: property.name, wanted: property.wanted, found: property.found })
    }

    /// Texts asked for, and where a disk has them.
    fn texts(&self) -> [(&'static str, &Option<TextHint>, Spelled); 10] {
        [
            ("serial", &self.serial, |disk| spelling::one(&disk.serial)),
            ("wwn", &self.wwn, spelling::wwn),
            ("wwn_with_extension", &self.wwn_with_extension, spelling::wwn_with_extension),
            ("wwn_vendor_extension", &self.wwn_vendor_extension, spelling::wwn_vendor_extension),
            ("model", &self.model, |disk| spelling::one(&disk.model)),
            ("vendor", &self.vendor, spelling::vendor),
            ("firmware", &self.firmware, |disk| spelling::one(&disk.firmware)),
            ("by_path", &self.by_path, spelling::by_path),
            ("hctl", &self.hctl, |disk| spelling::optional(disk.hctl.as_deref())),
            ("transport", &self.transport, spelling::transport),
        ]
    }

    /// Everything that is asked for, held against a disk.
    fn properties(&self, disk: &Disk) -> Vec<Property> {
        let mut properties: Vec<Property> = self.as_array(disk).into_iter().collect();
        for (name, hint, spelled) in self.texts() {
            let Some(hint) = hint else { continue };
            let spellings = spelled(disk);
            let found = quoted(spellings.first().map_or("", |text| text));
            let agrees = hint.agrees(spellings);
            properties.push(Property { name, agrees, wanted: hint.wanted(), found });
        }
        if let Some(wanted) = self.rotational {
            properties.push(Property {
                name: "rotational",
                agrees: wanted == disk.rotational,
                wanted: wanted.to_string(),
                found: disk.rotational.to_string(),
            });
        }
        let bounds = [self.size.clone(), self.min_size.map(SizeHint::AtLeast), self.max_size.map(SizeHint::AtMost)];
        properties.extend(bounds.into_iter().flatten().map(|hint| Property {
            name: "size",
            agrees: hint.agrees(disk.size),
            wanted: hint.wanted(),
            found: exact(disk.size),
        }));
        properties
    }
}

impl RootDeviceHints {
    /// Whether it is an array or a disk that is meant; nothing where that goes without saying.
    fn as_array(&self, disk: &Disk) -> Option<Property> {
        let is_array = disk.tran == Transport::Md;
        let called = || format!("the array {}", quoted(disk.array.as_deref().unwrap_or_default()));
        let found = if is_array { called() } else { "a disk".to_owned() };
        let (agrees, wanted) = match &self.array {
            None if !is_array => return None,
            None => (false, "a disk".to_owned()),
            Some(name) => {
                let name = name.trim();
                let is_it = disk.array.as_deref() == Some(name) || disk.serial.eq_ignore_ascii_case(name);
                (is_array && is_it, format!("the array {}", quoted(name)))
            }
        };
        Some(Property { name: "it", agrees, wanted, found })
    }
}

fn quoted(text: &str) -> String {
    if text.trim().is_empty() { "unknown".into() } else { format!("{:?}", text.trim()) }
}

fn exact(size: Bytes) -> String {
    format!("{size} ({} bytes)", size.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultCode;
    use crate::inventory::Use;
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
        assert!(none.causes[0].contains("it is a disk, not the array \"data\""), "{none}");
        assert!(none.causes[1].contains("it is the array \"root\", not the array \"data\""), "{none}");
        assert_eq!("array=root".parse::<RootDeviceHints>().expect("good"), named("root"));
        assert_eq!(named("root").to_string(), "array=\"root\"");
    }

    #[test]
    fn one_of_several_is_picked_by_rule_and_ties_are_refused() {
        let mut disks = [disk("/dev/sda", "A", 20), disk("/dev/sdb", "B", 10), disk("/dev/sdc", "C", 10)];
        for (disk, port) in disks.iter_mut().zip(["2", "3", "1"]) {
            disk.by_path = Some(format!("/dev/disk/by-path/pci-0000:00:1f.2-ata-{port}.0"));
        }
        let picked = |pick, min: u64| {
            let hints = RootDeviceHints { min_size: Some(Bytes::gib(min)), pick, ..RootDeviceHints::default() };
            hints.resolve(&disks).map(|d| d.serial.clone()).map_err(|fault| (fault.code, fault.causes.len()))
        };
        assert_eq!(picked(Pick::Largest, 1), Ok("A".into()));
        assert_eq!(picked(Pick::Smallest, 15), Ok("A".into()));
        assert_eq!(picked(Pick::Smallest, 5), Err((FaultCode::AmbiguousDisk, 2)));
        assert_eq!(picked(Pick::FirstByPath, 5), Ok("C".into()));
        assert_eq!(picked(Pick::SmallestThenByPath, 5), Ok("C".into()));
        assert_eq!(picked(Pick::Smallest, 50), Err((FaultCode::NoMatchingDisk, 3)));
        assert_eq!(RootDeviceHints::ironic_default().resolve(&disks).map(|d| d.serial.as_str()), Ok("C"));
        let pick_alone = RootDeviceHints { pick: Pick::Smallest, ..RootDeviceHints::default() };
        assert!(pick_alone.resolve(&disks).is_err(), "nothing is asked for");
    }

    /// The next disk may hold what the one in use would not have lost.
    #[test]
    fn picking_steps_over_sticks_and_not_over_disks_in_use() {
        let mut disks = [disk("/dev/sda", "A", 8), disk("/dev/sdb", "B", 10), disk("/dev/sdc", "C", 20)];
        let smallest = RootDeviceHints::ironic_default();
        disks[0].removable = true;
        assert_eq!(smallest.resolve(&disks).expect("not the stick").serial, "B");
        disks[1].read_only = true;
        assert_eq!(smallest.resolve(&disks).expect_err("write-protected").code, FaultCode::DiskReadOnly);
        disks[1].read_only = false;
        disks[1].in_use.push(Use::Swap { device: "/dev/sdb".into() });
        assert_eq!(smallest.resolve(&disks).expect_err("in use").code, FaultCode::DiskInUse);
    }

    #[test]
    fn the_resolver_explains_itself() {
        let mut disks = [disk("/dev/sda", "A", 8), disk("/dev/sdb", "B", 10), disk("/dev/sdc", "C", 20)];
        disks[2].removable = true;
        let hints: RootDeviceHints = "serial=<or> A <or> C,size>=9GiB".parse().expect("good");
        insta::assert_snapshot!("explained_none", hints.explain(&disks).0);
        let hints: RootDeviceHints = "size>=9GiB,pick=largest".parse().expect("good");
        insta::assert_snapshot!("explained_largest", hints.explain(&disks).0);
        let hints: RootDeviceHints = "transport=nvme".parse().expect("good");
        insta::assert_snapshot!("explained_several", hints.explain(&disks).0);
    }

    #[test]
    fn a_bad_operator_is_an_error_of_the_order() {
        for bad in [
            r#"{"serial":">= 5"}"#,
            r#"{"serial":""}"#,
            r#"{"model":"a <or> b"}"#,
            r#"{"size":"<in> 5"}"#,
            r#"{"size":"5 GB"}"#,
            r#"{"min_size":">= 5GiB"}"#,
            r#"{"transport":"floppy"}"#,
            r#"{"transport":"unknown"}"#,
            r#"{"pick":"any"}"#,
            r#"{"name":"/dev/sda"}"#,
        ] {
            assert!(serde_json::from_str::<RootDeviceHints>(bad).is_err(), "{bad}");
        }
        let hints: RootDeviceHints =
            serde_json::from_str(r#"{"serial":"S1","size":10737418240,"min_size":"10GiB"}"#).expect("as ever");
        assert_eq!(hints.min_size, Some(Bytes::gib(10)));
        let written = serde_json::to_string(&hints).expect("written");
        assert_eq!(written, r#"{"serial":"S1","size":10737418240,"min_size":10737418240}"#);
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
            let hints = RootDeviceHints { serial: want_serial.as_deref().map(Into::into), min_size: min_gib.map(Bytes::gib), ..RootDeviceHints::default() };
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
