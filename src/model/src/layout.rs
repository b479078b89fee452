//! What partitions a disk shall have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hints::RootDeviceHints;
use crate::units::Bytes;

/// What a partition is for; decides its type GUID.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionKind {
    Linux,
    Esp,
    BiosBoot,
    Swap,
    Raid,
    Lvm,
    /// Any other type.
    Guid(uuid::Uuid),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionSize {
    Bytes(Bytes),
    /// What is left; the last partition only.
    Rest,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionSpec {
    /// Name in the table, at most 36 UTF-16 units.
    pub name: String,
    pub kind: PartitionKind,
    pub size: PartitionSize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<uuid::Uuid>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionTask {
    pub device: RootDeviceHints,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_uuid: Option<uuid::Uuid>,
    pub partitions: Vec<PartitionSpec>,
}

impl PartitionTask {
    /// What can be said to be wrong without looking at a disk.
    pub(crate) fn check(&self) -> Result<(), String> {
        check_partitions(&self.partitions)
    }
}

fn check_partitions(partitions: &[PartitionSpec]) -> Result<(), String> {
    if partitions.is_empty() || partitions.len() > 128 {
        return Err(format!("partitions: {} of them; 1 to 128 are possible", partitions.len()));
    }
    for (i, p) in partitions.iter().enumerate() {
        if p.name.encode_utf16().count() > 36 || p.name.chars().any(char::is_control) {
            return Err(format!("partitions[{i}].name: more than 36 characters, or control characters"));
        }
        match p.size {
            PartitionSize::Rest if i + 1 != partitions.len() => {
                return Err(format!("partitions[{i}].size: only the last partition can take the rest"));
            }
            PartitionSize::Bytes(size) if size.0 == 0 => return Err(format!("partitions[{i}].size: zero")),
            _ => {}
        }
    }
    Ok(())
}
