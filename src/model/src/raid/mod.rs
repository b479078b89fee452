//! Software RAID: which arrays of which disks a machine shall have.

mod geometry;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::geometry::{Slot, lay_out};
use crate::disk_set::DiskSet;
use crate::layout::PartitionKind;
use crate::units::{Bytes, KIB, MIB};

/// Arrays that share a disk must share all of their disks: each of those then gets one and the same partition table,
/// with a partition for each array in the order of the task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RaidTask {
    pub arrays: Vec<RaidArray>,
    /// The disks themselves are the members, without a partition table. Only where one array takes them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_disks: bool,
    /// Whatever is found on the disks goes. Without it a disk on which anything is found refuses the task. An array that
    /// runs is never replaced: it has to be torn down first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Permits disks that differ in size by more than a hundredth; what the larger ones have more stays unused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unequal_sizes: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RaidArray {
    /// By which tasks name it, and what `mdadm` calls it: 1 to 28 of letters, digits, `_`, `-` and `.`, not only digits.
    pub name: String,
    pub level: RaidLevel,
    /// All disks, spares included.
    pub members: DiskSet,
    /// The last so many of the members wait for another one to fail.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spares: usize,
    /// How much of the data goes to one member before the next has its turn; 512 KiB if absent. Not for level 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<Bytes>,
    #[serde(default)]
    pub metadata: RaidMetadata,
    /// Internal if absent, and none for level 0, which cannot have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitmap: Option<RaidBitmap>,
    #[serde(default)]
    pub size: RaidSize,
    /// An array of this UUID is recognised again after a reboot; without it only in the boot that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<uuid::Uuid>,
    /// What the table calls the members' partitions: `raid` if absent. `esp` makes a mirrored EFI system partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PartitionKind>,
    #[serde(default)]
    pub initial_sync: InitialSync,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub enum RaidLevel {
    #[serde(rename = "0")]
    Stripes,
    #[serde(rename = "1")]
    Mirror,
    #[serde(rename = "5")]
    Parity,
    #[serde(rename = "6")]
    DoubleParity,
    /// Two copies, near layout.
    #[serde(rename = "10")]
    StripedMirrors,
}

/// Where a member's superblock stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum RaidMetadata {
    /// At the end: whoever knows nothing of RAID, a firmware for instance, sees the data of a mirror at the start.
    #[serde(rename = "1.0")]
    AtEnd,
    #[serde(rename = "1.1")]
    AtStart,
    /// 4 KiB from the start.
    #[default]
    #[serde(rename = "1.2")]
    NearStart,
}

/// Remembers which parts were being written, so that after a power cut only those are synchronised.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RaidBitmap {
    Internal,
    None,
}

/// What the array offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RaidSize {
    /// At least so much.
    Bytes(Bytes),
    /// What is left of the disks; the last of the arrays on them only.
    #[default]
    Rest,
}

/// Until the members agree, the array does not survive the loss of one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InitialSync {
    /// The task ends when the array is there. The kernel goes on in the background, and the installed system where this
    /// one stopped.
    #[default]
    Deferred,
    /// The task ends when the members agree.
    Watch,
}

impl RaidLevel {
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Stripes => 0,
            Self::Mirror => 1,
            Self::Parity => 5,
            Self::DoubleParity => 6,
            Self::StripedMirrors => 10,
        }
    }

    /// Without spares.
    #[must_use]
    pub fn fewest_members(self) -> usize {
        match self {
            Self::Stripes | Self::Mirror | Self::StripedMirrors => 2,
            Self::Parity => 3,
            Self::DoubleParity => 4,
        }
    }

    #[must_use]
    pub fn is_redundant(self) -> bool {
        self != Self::Stripes
    }
}

impl fmt::Display for RaidLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RAID-{}", self.number())
    }
}

impl RaidMetadata {
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::AtEnd => "1.0",
            Self::AtStart => "1.1",
            Self::NearStart => "1.2",
        }
    }
}

impl RaidArray {
    const DEFAULT_CHUNK: u64 = 512 * KIB;

    /// In bytes; none for a mirror, which has none.
    #[must_use]
    pub fn chunk_size(&self) -> Option<u64> {
        (self.level != RaidLevel::Mirror).then(|| self.chunk.map_or(Self::DEFAULT_CHUNK, |chunk| chunk.0))
    }

    #[must_use]
    pub fn has_bitmap(&self) -> bool {
        match self.bitmap {
            Some(bitmap) => bitmap == RaidBitmap::Internal,
            None => self.level.is_redundant(),
        }
    }

    #[must_use]
    pub fn partition_kind(&self) -> PartitionKind {
        self.kind.clone().unwrap_or(PartitionKind::Raid)
    }

    /// How many of `members` hold data.
    #[must_use]
    pub fn active(&self, members: usize) -> usize {
        members.saturating_sub(self.spares)
    }

    fn check(&self, whole_disks: bool) -> Result<(), String> {
        // The superblock's 32 bytes less "any:", by which every host takes it for its own.
        const LONGEST_NAME: usize = 28;
        const MOST_MEMBERS: usize = 128;
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if self.name.is_empty()
            || self.name.len() > LONGEST_NAME
            || !self.name.bytes().all(is_plain)
            || self.name.starts_with(['.', '-'])
            || self.name.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(format!(
                "name: 1 to {LONGEST_NAME} of letters, digits, '_', '-' and '.', beginning with neither of the last two, not \
                 only digits"
            ));
        }
        self.members.check().map_err(|what| format!("members: {what}"))?;
        let (members, most) = self.members.bounds();
        let fewest = self.level.fewest_members();
        if self.spares > 0 && !self.level.is_redundant() {
            return Err(format!("spares: {} has nothing from which a spare could be filled", self.level));
        }
        if self.active(members) < fewest || most.unwrap_or(members) > MOST_MEMBERS {
            return Err(format!(
                "members: {members} of them, {} spare; {} takes {fewest} to {MOST_MEMBERS} beside its spares",
                self.spares, self.level
            ));
        }
        if self.members.hints().any(|hints| hints.array.is_some()) {
            return Err("members: an array cannot be a member of another".into());
        }
        match self.chunk {
            Some(_) if self.level == RaidLevel::Mirror => return Err("chunk: a mirror has none".into()),
            Some(Bytes(chunk)) if !chunk.is_power_of_two() || !(4 * KIB..=64 * MIB).contains(&chunk) => {
                return Err(format!("chunk: {chunk} is not a power of two between 4 KiB and 64 MiB"));
            }
            _ => {}
        }
        if self.bitmap == Some(RaidBitmap::Internal) && !self.level.is_redundant() {
            return Err(format!("bitmap: {} has nothing to synchronise", self.level));
        }
        if self.initial_sync == InitialSync::Watch && !self.level.is_redundant() {
            return Err(format!("initial_sync: {} has nothing to synchronise", self.level));
        }
        if self.size == RaidSize::Bytes(Bytes(0)) {
            return Err("size: zero".into());
        }
        if self.uuid.is_some_and(|uuid| uuid.is_nil()) {
            return Err("uuid: all zero".into());
        }
        if self.kind.is_some() && whole_disks {
            return Err("kind: whole disks have no partitions".into());
        }
        if self.partition_kind().guid().is_none() {
            return Err("kind: the members' partitions are those of a GPT, which has no such type".into());
        }
        if self.kind == Some(PartitionKind::Esp)
            && (self.level != RaidLevel::Mirror || self.metadata != RaidMetadata::AtEnd || self.spares > 0)
        {
            return Err(
                "kind: the firmware reads an EFI system partition on each disk by itself: level 1, metadata 1.0, \
                        no spares"
                    .into(),
            );
        }
        Ok(())
    }
}

impl RaidTask {
    const MOST_ARRAYS: usize = 64;

    /// What can be said to be wrong without looking at a disk.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.arrays.is_empty() || self.arrays.len() > Self::MOST_ARRAYS {
            return Err(format!("arrays: {} of them; 1 to {} are possible", self.arrays.len(), Self::MOST_ARRAYS));
        }
        for (i, array) in self.arrays.iter().enumerate() {
            array.check(self.whole_disks).map_err(|what| format!("arrays[{i}].{what}"))?;
            let later = &self.arrays[i + 1..];
            // Names end up in one directory of the installed system, which may not tell cases apart.
            if later.iter().any(|other| other.name.eq_ignore_ascii_case(&array.name)) {
                return Err(format!("arrays[{i}].name: {:?} is there twice", array.name));
            }
            if array.uuid.is_some() && later.iter().any(|other| other.uuid == array.uuid) {
                return Err(format!("arrays[{i}].uuid: it is there twice"));
            }
            if let Some(other) = later.iter().find(|other| other.members == array.members) {
                if self.whole_disks {
                    return Err(format!(
                        "whole_disks: {:?} and {:?} cannot both have the whole of the same disks",
                        array.name, other.name
                    ));
                }
                if array.size == RaidSize::Rest {
                    return Err(format!("arrays[{i}].size: only the last array on its disks can take the rest"));
                }
            }
        }
        Ok(())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests;
