//! What a teardown is asked to do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wipe::WipeTargets;

/// Takes down whatever stands on disks, and clears what anything would assemble, mount or boot again. No wipe: the data
/// stays on the medium.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TeardownTask {
    pub devices: WipeTargets,
    /// Permits to unmount file systems. A mounted one refuses the task otherwise: somebody uses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmount: bool,
    /// Afterwards lets go of the disks that came over a network (NVMe over fabrics).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disconnect: bool,
}

impl TeardownTask {
    /// What can be said to be wrong without looking at a disk.
    pub(crate) fn check(&self) -> Result<(), String> {
        if matches!(&self.devices, WipeTargets::Hints(hints) if hints.is_empty()) {
            return Err("devices: no disk is named".into());
        }
        Ok(())
    }
}
