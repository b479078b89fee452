//! A bill of materials: what a machine must have. A hard gate, and every unmet line is told.
//!
//! What cannot be read is not met: "unknown" is never taken for "as ordered".

mod judge;
mod number;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::number::NumberHint;
use crate::hints::{Pick, RootDeviceHints, SizeHint, TextHint};

/// What a machine is held against. Whatever is not named does not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expectation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<ExpectedSystem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<ExpectedCpus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ExpectedMemory>,
    /// Each line is counted by itself: one disk may count for several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<ExpectedDisks>,
    /// A disk that no line of `disks` names is one too many. Removable ones do not count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_other_disks: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_health: Option<ExpectedHealth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<ExpectedInterfaces>,
    /// Of disks and network cards on their buses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<ExpectedLinks>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedSystem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_name: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<TextHint>,
    /// BIOS or UEFI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware_version: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc_firmware: Option<TextHint>,
    /// `uefi` or `bios`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedCpus {
    /// Sockets in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<NumberHint>,
    /// Of all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<NumberHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NumberHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<TextHint>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExpectedMemory {
    /// What is plugged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules: Option<NumberHint>,
    /// Each module has the size of the others.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub equal_size: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_size: Option<SizeHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_number: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<TextHint>,
    /// Each module runs as fast as it can.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub full_speed: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedDisks {
    pub count: NumberHint,
    /// As in root device hints: all of these properties.
    #[serde(rename = "match", default)]
    pub having: RootDeviceHints,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedInterfaces {
    pub count: NumberHint,
    #[serde(rename = "match", default)]
    pub having: InterfaceHints,
}

/// Properties that a network interface must have, all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InterfaceHints {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<TextHint>,
    /// PCI ids: `0x8086`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<TextHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<NumberHint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<bool>,
    /// The switch's name or chassis, as LLDP has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<TextHint>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedHealth {
    /// No disk says that it fails, and each that can tell has told.
    NoneFailing,
    /// Each disk that can tell is well; a suspect one is not.
    AllGood,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExpectedLinks {
    /// Every lane the device has is in use.
    FullWidth,
    /// And each as fast as the device can.
    FullSpeed,
}

impl Expectation {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether neighbours must have been heard before it can be judged.
    #[must_use]
    pub fn names_switches(&self) -> bool {
        self.interfaces.iter().any(|line| line.having.switch.is_some())
    }

    /// # Errors
    /// What is wrong with it, whatever the machine.
    pub fn check(&self) -> Result<(), String> {
        if self.is_empty() {
            return Err("expect: nothing is expected; leave it out".to_owned());
        }
        for (n, disks) in self.disks.iter().enumerate() {
            let hints = &disks.having;
            if hints.pick != Pick::default() || hints.allow_removable {
                return Err(format!(
                    "expect.disks[{n}].match: pick and allow_removable choose disks; here they are counted"
                ));
            }
            if hints.array.is_some() {
                return Err(format!("expect.disks[{n}].match: an array is not hardware"));
            }
        }
        if self.no_other_disks && self.disks.is_empty() {
            return Err("expect.no_other_disks: no line of disks says which they are".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
