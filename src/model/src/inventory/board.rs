//! The machine's own names, and what its tables say is soldered, screwed or plugged into it (SMBIOS, DSP0134).
//!
//! Strings are as the firmware has them, placeholders too: [`is_real_identifier`](super::is_real_identifier) tells them
//! from identities. OEM strings (type 11) are left out on purpose: hypervisors hand secrets over in them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// From SMBIOS types 0, 1, 2 and 3.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SystemVendor {
    pub manufacturer: String,
    pub product_name: String,
    pub version: String,
    pub serial_number: String,
    pub sku_number: String,
    pub family: String,
    /// Canonical form, as `dmidecode` and iPXE print it.
    pub uuid: Option<String>,
    pub board_serial: String,
    pub chassis_serial: String,
    pub asset_tag: String,
    pub firmware: Firmware,
}

/// Type 0.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Firmware {
    pub vendor: String,
    pub version: String,
    /// As the firmware writes it, mostly month/day/year.
    pub build_date: String,
    /// The release number beside the version: `2.17`.
    pub release: Option<String>,
    /// That of the embedded controller.
    pub controller_release: Option<String>,
    pub rom_size: Option<Bytes>,
    /// Where a BIOS begins in memory (`0xe8000`), and how much from there on it keeps.
    pub address: Option<String>,
    pub runtime_size: Option<Bytes>,
    /// The bits of its characteristics, the extension bytes before them: `0x0d03000000003f8b9880`.
    pub characteristics: Option<String>,
    /// Whether it says that it is UEFI, and that it is a virtual machine's.
    pub uefi: Option<bool>,
    pub virtual_machine: Option<bool>,
}

/// Type 2.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Board {
    pub manufacturer: String,
    pub product_name: String,
    pub version: String,
    pub serial_number: String,
    pub asset_tag: String,
    pub location: String,
    /// `Motherboard`, `Server Blade`, ...
    pub kind: Option<String>,
}

/// Type 3.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Chassis {
    pub manufacturer: String,
    /// `Rack Mount Chassis`, `Blade`, ...
    pub kind: Option<String>,
    pub version: String,
    pub serial_number: String,
    pub asset_tag: String,
    pub sku_number: String,
    pub height_units: Option<u8>,
    pub power_cords: Option<u8>,
    /// As the firmware saw them at its start: `Safe`, `Warning`, `Critical`, ...
    pub power_state: Option<String>,
    pub thermal_state: Option<String>,
}

/// Type 9: where a card could be, or is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Slot {
    pub designation: String,
    /// `PCI Express 4 x16`; the number of the specification where it has no short name.
    pub kind: String,
    /// Lanes that are wired.
    pub lanes: Option<u8>,
    pub in_use: Option<bool>,
    pub pci_address: Option<String>,
}

/// Type 41, or type 10 where there are none of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OnboardDevice {
    pub designation: String,
    /// `Ethernet`, `SATA Controller`, ...
    pub kind: Option<String>,
    pub enabled: bool,
    /// Counts the devices of a kind from 1.
    pub instance: Option<u8>,
    pub pci_address: Option<String>,
}

/// Type 39.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PowerSupply {
    pub location: String,
    pub name: String,
    pub manufacturer: String,
    pub serial_number: String,
    pub asset_tag: String,
    pub part_number: String,
    pub revision: String,
    pub max_watts: Option<u16>,
    pub present: Option<bool>,
    pub plugged_in: Option<bool>,
    pub hot_replaceable: Option<bool>,
    /// `OK`, `Critical`, ...
    pub status: Option<String>,
}
