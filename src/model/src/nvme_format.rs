//! Giving an NVMe namespace another sector size, before an image of that sector size is written to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hints::RootDeviceHints;

/// Everything on the disk is lost. No erasure in any sense of `wipe`: nothing is said of what could be recovered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NvmeFormatTask {
    pub device: RootDeviceHints,
    /// 512 or 4096. The best format of the disk that has such sectors and no metadata is taken.
    pub sector_size: u32,
}

impl NvmeFormatTask {
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.sector_size {
            512 | 4096 => Ok(()),
            other => Err(format!("sector_size: {other}; disks have sectors of 512 or 4096 bytes")),
        }
    }
}
