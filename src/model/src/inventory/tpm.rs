//! The Trusted Platform Module.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tpm {
    /// `2.0` or `1.2`.
    pub version: Option<String>,
    /// The four letters of its maker: `IFX`, `STM`, `IBM`.
    pub manufacturer: Option<String>,
    pub vendor_string: Option<String>,
    pub firmware_version: Option<String>,
    /// Of the specification's library: `1.38`.
    pub specification: Option<String>,
    /// `tpm_crb`, `tpm_tis`, ...
    pub driver: Option<String>,
    pub description: Option<String>,
    /// `/dev/tpm0`, `/dev/tpmrm0`
    pub device_nodes: Vec<String>,
    /// Hashes of which it has platform configuration registers.
    pub pcr_banks: Vec<String>,
}
