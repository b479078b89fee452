//! By what an order names one partition of a disk.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which partition; the table on the disk must have exactly one such.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionName {
    /// Its place in the table, from 1, as the kernel counts too.
    Number(u32),
    /// Its name in the GPT, which no other partition of the disk may have.
    Label(String),
    /// Its own in the GPT, not that of its kind.
    Uuid(uuid::Uuid),
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "partition {number}"),
            Self::Label(label) => write!(f, "the partition {label:?}"),
            Self::Uuid(uuid) => write!(f, "the partition {uuid}"),
        }
    }
}
