//! Volume groups over partitions.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Content, PartitionSize};
use crate::units::Bytes;

const MOST_VOLUMES: usize = 256;
/// The kernel's limit for `group-volume`, less what doubled dashes may add.
const LONGEST_NAME: usize = 60;
/// lvm(8), VALID NAMES: what it calls its own hidden volumes.
const RESERVED: [&str; 14] = [
    "_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta",
    "_vdata", "_vorigin", "_wcorig",
];

/// LVM over all partitions whose content names this group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeGroup {
    pub name: String,
    /// Made in this order: a thin pool before what is in it, the one that takes the rest last.
    pub volumes: Vec<LogicalVolume>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogicalVolume {
    pub name: String,
    /// Percent are of the whole group. Of a thin volume it is what the volume pretends to have, in bytes.
    pub size: PartitionSize,
    #[serde(default, skip_serializing_if = "VolumeKind::is_linear")]
    pub kind: VolumeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeKind {
    #[default]
    Linear,
    /// The same on so many physical volumes (raid1).
    Mirror(u8),
    ThinPool,
    /// In the thin pool of this name.
    Thin(String),
}

impl VolumeKind {
    fn is_linear(&self) -> bool {
        *self == Self::Linear
    }

    /// As LVM calls it.
    #[must_use]
    pub fn segment_type(&self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Mirror(_) => "raid1",
            Self::ThinPool => "thin-pool",
            Self::Thin(_) => "thin",
        }
    }
}

impl VolumeGroup {
    /// `n_members` is how many partitions name it.
    pub(super) fn check(&self, n_members: usize) -> Result<(), String> {
        check_name(&self.name).map_err(|e| format!("name: {e}"))?;
        if n_members == 0 {
            return Err(format!("{:?}: no partition has lvm {:?} for its content", self.name, self.name));
        }
        if self.volumes.len() > MOST_VOLUMES {
            return Err(format!("volumes: more than {MOST_VOLUMES}"));
        }
        let mut names = BTreeSet::new();
        let mut pools = BTreeSet::new();
        let mut percent = 0;
        let last = self.volumes.iter().rposition(|v| !matches!(v.kind, VolumeKind::Thin(_)));
        for (i, volume) in self.volumes.iter().enumerate() {
            let at = |what: String| format!("volumes[{i}].{what}");
            check_name(&volume.name).map_err(|e| at(format!("name: {e}")))?;
            if !names.insert(&volume.name) {
                return Err(at(format!("name: {:?} twice", volume.name)));
            }
            match (&volume.kind, volume.size) {
                (_, PartitionSize::Bytes(Bytes(0))) | (_, PartitionSize::Percent(0)) => {
                    return Err(at("size: zero".into()));
                }
                (VolumeKind::Thin(pool), PartitionSize::Bytes(_)) if pools.contains(pool) => {}
                (VolumeKind::Thin(pool), PartitionSize::Bytes(_)) => {
                    return Err(at(format!("kind: {pool:?} is no thin pool that stands before it")));
                }
                (VolumeKind::Thin(_), _) => {
                    return Err(at("size: what a thin volume pretends to have, in bytes".into()));
                }
                (_, PartitionSize::Rest) if Some(i) != last => {
                    return Err(at("size: only the last volume can take the rest of the group".into()));
                }
                (_, PartitionSize::Percent(of)) => percent += u32::from(of),
                (_, PartitionSize::Bytes(_) | PartitionSize::Rest) => {}
            }
            match &volume.kind {
                VolumeKind::Mirror(copies) if !(2..=8).contains(copies) || usize::from(*copies) > n_members => {
                    return Err(at(format!("kind: {copies} copies on {n_members} physical volumes")));
                }
                VolumeKind::ThinPool => {
                    pools.insert(volume.name.clone());
                }
                VolumeKind::Linear | VolumeKind::Mirror(_) | VolumeKind::Thin(_) => {}
            }
            match &volume.content {
                Some(_) if volume.kind == VolumeKind::ThinPool => {
                    return Err(at("content: a pool holds volumes, nothing else".into()));
                }
                Some(content) if content.volume_group().is_some() => {
                    return Err(at("content: a volume group inside of another".into()));
                }
                Some(content) => content.check().map_err(|e| at(format!("content.{e}")))?,
                None => {}
            }
        }
        if percent > 100 {
            return Err(format!("volumes: {percent} percent together"));
        }
        Ok(())
    }
}

/// lvm(8), VALID NAMES.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+_.-".contains(&b);
    let is_reserved = name.starts_with("snapshot")
        || name.starts_with("pvmove")
        || RESERVED.iter().any(|reserved| name.contains(reserved));
    if name.is_empty()
        || name.len() > LONGEST_NAME
        || name.starts_with('-')
        || name == "."
        || name == ".."
        || !name.bytes().all(plain)
    {
        return Err(format!("{name:?}: 1 to {LONGEST_NAME} letters, digits and + _ . -, the first one no -"));
    }
    if is_reserved { Err(format!("{name:?} is a name that LVM has for itself")) } else { Ok(()) }
}
