//! What volumes a hardware RAID controller shall have, by intent: "a mirror for boot, RAID-10 of the rest for data".
//!
//! The words are close to Ironic's `target_raid_config`, where they mean the same: a volume of `size` at a `level` on a
//! `count` of drives of this `media` and `interface`, or on drives that are named. Which drives those are is decided
//! when a machine is looked at; how a controller is told to is no part of the order.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::{Bytes, MIB};

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HardwareRaidTask {
    /// Which controller; may be left out on a machine that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerHints>,
    /// Unless everything is as wished already: delete every volume, clear every foreign configuration and discard what
    /// the controller's cache keeps for volumes that are gone, then make the new ones. Without it whatever stands stays,
    /// and only drives that are free are taken.
    #[serde(default)]
    pub teardown: bool,
    #[serde(default)]
    pub volumes: Vec<VolumeSpec>,
}

/// By what a controller is recognised; all that is said must be so.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControllerHints {
    /// `0000:3b:00.0`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// By this the volume is found again, so no two have the same. At most 15 letters, digits, `-` and `_`: what the
    /// shortest of the controllers takes.
    pub name: String,
    pub level: VolumeLevel,
    pub disks: DriveChoice,
    #[serde(default)]
    pub size: VolumeSize,
    /// Drives that stand by for this volume alone, of the same kind as its members.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hot_spares: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<WriteCache>,
    /// What lies on one drive before the next begins, in KiB; the controller's own choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_kib: Option<u32>,
    /// The controller's firmware boots from this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub boot: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Levels that every maker means the same by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub enum VolumeLevel {
    #[serde(rename = "0")]
    Raid0,
    #[serde(rename = "1")]
    Raid1,
    #[serde(rename = "5")]
    Raid5,
    #[serde(rename = "6")]
    Raid6,
    #[serde(rename = "10")]
    Raid10,
}

impl VolumeLevel {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raid0 => "0",
            Self::Raid1 => "1",
            Self::Raid5 => "5",
            Self::Raid6 => "6",
            Self::Raid10 => "10",
        }
    }

    /// Why so many drives do not make it.
    ///
    /// # Errors
    /// In words.
    pub fn check_drives(self, n: usize) -> Result<(), &'static str> {
        match self {
            Self::Raid0 if n < 1 => Err("RAID-0 needs a drive"),
            Self::Raid1 if n != 2 => Err("RAID-1 is made of two drives; four and more are RAID-10"),
            Self::Raid5 if n < 3 => Err("RAID-5 needs three drives"),
            Self::Raid6 if n < 4 => Err("RAID-6 needs four drives"),
            Self::Raid10 if n < 4 || n % 2 == 1 => Err("RAID-10 needs an even number of drives, four at least"),
            _ => Ok(()),
        }
    }

    /// How much fits on `n` drives of which the smallest gives `smallest` bytes.
    #[must_use]
    pub fn capacity(self, n: usize, smallest: u64) -> u64 {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        let data = match self {
            Self::Raid0 => n,
            Self::Raid1 => 1,
            Self::Raid5 => n.saturating_sub(1),
            Self::Raid6 => n.saturating_sub(2),
            Self::Raid10 => n / 2,
        };
        smallest.saturating_mul(data)
    }
}

impl fmt::Display for VolumeLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RAID-{}", self.name())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSize {
    /// All that the drives give.
    #[default]
    Rest,
    /// A whole number of MiB, as controllers count.
    Bytes(Bytes),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteCache {
    /// An answered write is on the drives.
    WriteThrough,
    /// An answered write may be in the controller's cache as long as its battery or capacitor is good.
    WriteBack,
}

/// Which drives. Either named by `slots` or `serials`, all of them, or `count` of those that have every property said.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DriveChoice {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// As the controller's tool names them: `252:0`, `1I:1:1`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub serials: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media: Option<DriveMedia>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<DriveInterface>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Bytes>,
    /// Which to take when more have the properties than are needed. Without it that is refused: the order was not clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pick: Option<DrivePick>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DrivePick {
    Smallest,
    Largest,
    /// In the order of the slots.
    First,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriveMedia {
    Hdd,
    Ssd,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriveInterface {
    Sas,
    Sata,
    Nvme,
}

impl DriveChoice {
    /// Whether drives are named one by one.
    #[must_use]
    pub fn names_drives(&self) -> bool {
        !self.slots.is_empty() || !self.serials.is_empty()
    }

    /// How many members that makes.
    #[must_use]
    pub fn members(&self) -> usize {
        self.count.unwrap_or(self.slots.len() + self.serials.len())
    }
}

impl HardwareRaidTask {
    const MOST_VOLUMES: usize = 64;

    /// What can be said to be wrong without looking at a machine.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.volumes.is_empty() && !self.teardown {
            return Err("volumes: none is wished for, and no teardown either".into());
        }
        if self.volumes.len() > Self::MOST_VOLUMES {
            return Err(format!("volumes: more than {}", Self::MOST_VOLUMES));
        }
        if self.volumes.iter().filter(|v| v.boot).count() > 1 {
            return Err("volumes: more than one is to be booted from".into());
        }
        if self.controller.as_ref().is_some_and(|c| *c == ControllerHints::default()) {
            return Err("controller: says neither a PCI address nor a serial number".into());
        }
        for (i, volume) in self.volumes.iter().enumerate() {
            volume.check().map_err(|what| format!("volumes[{i}].{what}"))?;
            if self.volumes[..i].iter().any(|other| other.name.eq_ignore_ascii_case(&volume.name)) {
                return Err(format!("volumes[{i}].name: {:?} is there twice", volume.name));
            }
        }
        Ok(())
    }
}

impl VolumeSpec {
    fn check(&self) -> Result<(), String> {
        // The name becomes an argument of a vendor's program: nothing that any of them could take for an option.
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 15 || self.name.starts_with('-') || !self.name.chars().all(letter)
        {
            return Err(format!("name: {:?} is not 1 to 15 letters, digits, - and _", self.name));
        }
        let disks = &self.disks;
        if disks.names_drives() {
            if disks.count.is_some() || disks.pick.is_some() {
                return Err("disks: drives that are named are neither counted nor picked".into());
            }
            if self.hot_spares > 0 {
                return Err("hot_spares: with named drives nobody says which of them stand by".into());
            }
        } else if disks.count.is_none() {
            return Err("disks: a count, slots or serials are needed".into());
        }
        for name in disks.slots.iter().chain(&disks.serials) {
            if name.is_empty() || name.len() > 40 || !name.chars().all(|c| c.is_ascii_graphic()) {
                return Err(format!("disks: {name:?} is neither a slot nor a serial number"));
            }
        }
        self.level.check_drives(disks.members()).map_err(|what| format!("disks: {what}, not {}", disks.members()))?;
        if self.level == VolumeLevel::Raid0 && self.hot_spares > 0 {
            return Err("hot_spares: nothing can be rebuilt on RAID-0".into());
        }
        if let (Some(min), Some(max)) = (disks.min_size, disks.max_size)
            && min > max
        {
            return Err("disks: min_size is more than max_size".into());
        }
        match self.size {
            VolumeSize::Bytes(size) if size.0 == 0 || size.0 % MIB != 0 => {
                return Err(format!("size: {} bytes is not a whole number of MiB", size.0));
            }
            _ => {}
        }
        match self.strip_kib {
            Some(strip) if !(8..=1024).contains(&strip) || !strip.is_power_of_two() => {
                Err(format!("strip_kib: {strip} is not a power of two from 8 to 1024"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(volumes: &str) -> Result<(), String> {
        let text = format!(r#"{{"teardown":true,"volumes":{volumes}}}"#);
        serde_json::from_str::<HardwareRaidTask>(&text).map_err(|e| e.to_string())?.check()
    }

    #[test]
    fn intents_are_read_strictly() {
        check(
            r#"[{"name":"boot","level":"1","disks":{"count":2,"media":"ssd","pick":"smallest"},"boot":true},
                {"name":"data","level":"10","disks":{"count":6,"media":"hdd","interface":"sas","min_size":1000000000000},
                 "size":{"bytes":1073741824},"hot_spares":1,"cache":"write_back","strip_kib":256}]"#,
        )
        .expect("good");
        for (bad, says) in [
            (r#"[{"name":"a","level":"7","disks":{"count":2}}]"#, "unknown variant `7`"),
            (r#"[{"name":"a","level":"1","disks":{"count":2},"bootable":true}]"#, "bootable"),
            (r#"[{"name":"a","level":"1","disks":{"count":3}}]"#, "two drives"),
            (r#"[{"name":"a","level":"10","disks":{"count":5}}]"#, "even"),
            (r#"[{"name":"a","level":"1","disks":{}}]"#, "a count, slots or serials"),
            (r#"[{"name":"a","level":"1","disks":{"slots":["1:0","1:1"],"pick":"first"}}]"#, "neither counted"),
            (r#"[{"name":"a","level":"1","disks":{"slots":["1:0","1 :1"]}}]"#, "neither a slot"),
            (r#"[{"name":"a; rm -rf","level":"1","disks":{"count":2}}]"#, "name"),
            (r#"[{"name":"-force","level":"1","disks":{"count":2}}]"#, "name"),
            (r#"[{"name":"a","level":"0","disks":{"count":1},"hot_spares":1}]"#, "RAID-0"),
            (r#"[{"name":"a","level":"1","disks":{"count":2},"size":{"bytes":1000000}}]"#, "MiB"),
            (r#"[{"name":"a","level":"1","disks":{"count":2},"strip_kib":100}]"#, "power of two"),
            (r#"[{"name":"a","level":"1","disks":{"count":2}},{"name":"A","level":"1","disks":{"count":2}}]"#, "twice"),
        ] {
            let said = check(bad).expect_err(bad);
            assert!(said.contains(says), "{bad}: {said}");
        }
        assert!(HardwareRaidTask::default().check().is_err(), "neither teardown nor volumes");
        assert!(HardwareRaidTask { teardown: true, ..HardwareRaidTask::default() }.check().is_ok());
    }

    #[test]
    fn the_example_of_the_docs_is_an_order() {
        let docs = include_str!("../../../docs/hardware-raid.md");
        let example = docs.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let mut order: serde_json::Value = serde_json::from_str(example).expect("JSON");
        let kind = order.as_object_mut().and_then(|o| o.remove("task"));
        assert_eq!(kind, Some("hardware_raid".into()));
        let task: HardwareRaidTask = serde_json::from_value(order).expect("as it is read");
        task.check().expect("and carried out");
    }

    #[test]
    fn capacities() {
        for (level, n, capacity) in [
            (VolumeLevel::Raid0, 3, 300),
            (VolumeLevel::Raid1, 2, 100),
            (VolumeLevel::Raid5, 4, 300),
            (VolumeLevel::Raid6, 6, 400),
            (VolumeLevel::Raid10, 6, 300),
        ] {
            assert_eq!(level.capacity(n, 100), capacity, "{level} of {n}");
        }
    }
}
