//! Which build of the ramdisk this is: in the motd, in `--version`, in the inventory, in every report.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The content of `/etc/speediso-build` in the ramdisk.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct BuildInfo {
    /// Counts up with every build that differs from the one before.
    pub number: u64,
    /// Version of the agent inside.
    #[serde(default)]
    pub version: String,
    /// Release of the kernel beside it.
    #[serde(default)]
    pub kernel: String,
    /// Seconds since 1970: no clock can rightly be earlier than this.
    #[serde(default)]
    pub built: u64,
}

impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "build {} (agent {}, kernel {})", self.number, self.version, self.kernel)
    }
}
