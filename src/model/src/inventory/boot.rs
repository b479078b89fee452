//! How the machine was started, and what its firmware would start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Boot {
    /// `uefi` or `bios`.
    pub current_boot_mode: String,
    /// MAC address of the interface the machine booted from.
    pub pxe_interface: Option<String>,
    pub secure_boot: Option<bool>,
    /// Without a platform key: anybody may enrol one, and Secure Boot protects nothing yet.
    pub setup_mode: Option<bool>,
    /// Of the specification that the firmware claims to follow: `2.70`.
    pub uefi_version: Option<String>,
    /// Who made the UEFI core: `EDK II`.
    pub uefi_vendor: Option<String>,
    /// 32 or 64.
    pub uefi_bits: Option<u8>,
    /// The entry this boot came from: `0003`.
    pub current: Option<String>,
    /// The entry that the next boot alone tries first.
    pub next: Option<String>,
    pub order: Vec<String>,
    pub entries: Vec<FirmwareEntry>,
}

/// A boot entry of UEFI firmware.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FirmwareEntry {
    /// Four hexadecimal digits, as `efibootmgr` prints them.
    pub number: String,
    pub description: String,
    pub active: bool,
    /// The file it starts, where it names one.
    pub file: Option<String>,
    /// The GPT partition that the file is on.
    pub partition: Option<String>,
}
