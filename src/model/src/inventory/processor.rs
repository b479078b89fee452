//! Processors: what the kernel runs on, and what the tables say is in the sockets (SMBIOS type 4).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cpu {
    pub model_name: String,
    /// Highest frequency in MHz, as a string like Ironic's.
    pub frequency: String,
    /// Logical processors.
    pub count: u32,
    pub core_count: u32,
    pub socket_count: u32,
    pub threads_per_core: u32,
    pub architecture: String,
    /// `GenuineIntel`
    pub vendor: String,
    pub family: Option<u32>,
    pub model: Option<u32>,
    pub stepping: Option<u32>,
    /// Of all processors, each revision once: more than one is a machine with mixed microcode.
    pub microcode: Vec<String>,
    pub flags: Vec<String>,
    /// Faults of this model that the kernel knows and works around.
    pub bugs: Vec<String>,
    pub frequencies: Frequencies,
    pub caches: Vec<Cache>,
    /// What the kernel says of each known vulnerability.
    pub vulnerabilities: BTreeMap<String, String>,
    /// Lists of the kernel's form: `0-63`. None offline is `null`.
    pub online: Option<String>,
    pub offline: Option<String>,
    /// Runs on a hypervisor itself.
    pub hypervisor: bool,
    pub sockets: Vec<Socket>,
}

/// In MHz, of the first processor.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Frequencies {
    /// At the moment of asking.
    pub current_mhz: Option<u32>,
    pub min_mhz: Option<u32>,
    /// What is guaranteed on all cores.
    pub base_mhz: Option<u32>,
    /// With every boost.
    pub max_mhz: Option<u32>,
}

/// All caches of one level, kind and size.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cache {
    pub level: u8,
    /// `Data`, `Instruction`, `Unified`.
    pub kind: String,
    /// Of each.
    pub size: Bytes,
    /// How many of them the machine has.
    pub count: u32,
    pub ways: Option<u32>,
    pub line_bytes: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Socket {
    pub designation: String,
    pub populated: bool,
    /// `Enabled`, `Disabled By BIOS`, ...
    pub status: Option<String>,
    pub manufacturer: String,
    pub version: String,
    /// The specification's numbers of family, kind of socket and kind of processor (3 is a CPU).
    pub family: Option<u16>,
    pub upgrade: Option<u8>,
    pub kind: Option<u8>,
    /// The processor's own identification, as `dmidecode` prints it.
    pub id: String,
    pub max_mhz: Option<u16>,
    pub current_mhz: Option<u16>,
    pub external_clock_mhz: Option<u16>,
    pub millivolts: Option<u16>,
    pub core_count: Option<u16>,
    pub cores_enabled: Option<u16>,
    pub thread_count: Option<u16>,
    /// Bits of type 4's characteristics.
    pub characteristics: Option<u16>,
    pub serial_number: String,
    pub asset_tag: String,
    pub part_number: String,
}
