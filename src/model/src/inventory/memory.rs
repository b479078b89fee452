//! Memory: what the kernel has, and what the tables say is plugged in (SMBIOS types 16 and 17).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Memory {
    /// What the kernel has, in bytes.
    pub total: Bytes,
    /// What is plugged in according to SMBIOS, in MiB; the kernel's figure where the tables are silent.
    pub physical_mb: u64,
    /// Slots with something in them.
    pub modules: Vec<MemoryModule>,
    pub empty_slots: Vec<EmptySlot>,
    pub arrays: Vec<MemoryArray>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MemoryModule {
    pub slot: String,
    pub bank: String,
    pub size_mb: u64,
    /// What it could do, in millions of transfers per second.
    pub speed_mts: Option<u32>,
    /// What the firmware has set it to.
    pub configured_speed_mts: Option<u32>,
    pub part_number: String,
    pub serial_number: String,
    pub asset_tag: String,
    pub manufacturer: String,
    /// `DDR5`
    pub kind: Option<String>,
    /// `Registered (Buffered)`, `Synchronous`, ...
    pub details: Vec<String>,
    /// `DIMM`, `SODIMM`, ...
    pub form_factor: Option<String>,
    /// `DRAM`, `NVDIMM-P`, ...
    pub technology: Option<String>,
    pub ranks: Option<u8>,
    /// Bits of the bus with and without those for error correction.
    pub total_width: Option<u16>,
    pub data_width: Option<u16>,
    /// Whether it has more bits than data; none where a width is not told.
    pub ecc: Option<bool>,
    pub min_millivolts: Option<u16>,
    pub max_millivolts: Option<u16>,
    pub configured_millivolts: Option<u16>,
    pub firmware_version: String,
    /// Of modules that keep some of it without power.
    pub non_volatile_mb: Option<u64>,
    pub volatile_mb: Option<u64>,
    /// Modules of one number must be alike, and are worked together.
    pub set: Option<u8>,
    /// Of its own structure and of its array, as the tables refer to them.
    pub handle: String,
    pub array: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EmptySlot {
    pub slot: String,
    pub bank: String,
}

/// Type 16: slots that belong together.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MemoryArray {
    pub handle: String,
    pub location: Option<String>,
    pub purpose: Option<String>,
    /// `Multi-bit ECC`, `None`, ...
    pub error_correction: Option<String>,
    pub max_capacity: Option<Bytes>,
    pub slots: Option<u16>,
}
