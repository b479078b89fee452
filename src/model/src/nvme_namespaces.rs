//! One namespace over the whole of an NVMe controller, in place of whatever namespaces it has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hints::RootDeviceHints;

/// Deletes every namespace of one controller and makes a single one of all its capacity. Everything on them is lost. No
/// erasure in any sense of `wipe`: nothing is said of what could be recovered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NvmeNamespacesTask {
    /// Every namespace of the controller that is a disk of this machine, one for each of the hints: each is a disk that
    /// is lost, so each has to be named. Empty only for a controller that has none left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<RootDeviceHints>,
    /// Serial number of the controller. Needed where no disk tells which one is meant, as after an interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// 512 or 4096. The best format that has such sectors and no metadata is taken.
    pub sector_size: u32,
    /// Permits to delete namespaces that are attached to no controller: nobody can see what they hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detached: bool,
}

impl NvmeNamespacesTask {
    pub(crate) fn check(&self) -> Result<(), String> {
        if !matches!(self.sector_size, 512 | 4096) {
            return Err(format!("sector_size: {}; disks have sectors of 512 or 4096 bytes", self.sector_size));
        }
        match &self.controller {
            Some(serial) if serial.trim().is_empty() => Err("controller: the serial number is empty".into()),
            None if self.devices.is_empty() => {
                Err("devices: no disk is named, and no controller by its serial number either".into())
            }
            _ => Ok(()),
        }
    }
}
