//! What partitions disks shall have, and what in them. `docs/partitioning.md` says what each field does.

mod content;
mod kind;
mod lvm;

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::content::{Content, Format, FormatKind, Luks, LuksKey};
pub use self::kind::{PartitionFlag, PartitionKind};
pub use self::lvm::{LogicalVolume, VolumeGroup, VolumeKind};
use crate::hints::RootDeviceHints;
use crate::partition::PartitionName;
use crate::units::Bytes;

const MOST_DISKS: usize = 64;
const MOST_PARTITIONS: usize = 128;
/// Primary ones: there are no logical ones here.
const MOST_IN_MBR: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartitionSize {
    Bytes(Bytes),
    /// Of everything on the disk that is not kept, whatever the other partitions take.
    Percent(u8),
    /// What the others leave; one partition only, and with kept ones the last.
    Rest,
}

impl fmt::Display for PartitionSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Percent(of) => write!(f, "{of} %"),
            Self::Rest => f.write_str("the rest"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    #[default]
    Gpt,
    /// Up to four partitions, below 2^32 sectors; for machines that boot nothing else.
    Mbr,
}

impl TableKind {
    fn is_gpt(&self) -> bool {
        *self == Self::Gpt
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionSpec {
    /// Name in the table, at most 36 UTF-16 units. An MBR has no place for it.
    pub name: String,
    pub kind: PartitionKind,
    pub size: PartitionSize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Its place in the table; the first free one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<PartitionFlag>,
    /// Nothing when absent: its first and its last MiB are zeroes then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

impl PartitionSpec {
    #[must_use]
    pub fn new(name: impl Into<String>, kind: PartitionKind, size: PartitionSize) -> Self {
        Self { name: name.into(), kind, size, uuid: None, number: None, flags: Vec::new(), content: None }
    }
}

/// How it is seen that a kept partition did not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepCheck {
    /// BLAKE3 over all of it up to 1 GiB; above, over both ends and a sample whose seed is reported.
    #[default]
    Sample,
    Full,
}

impl KeepCheck {
    fn is_sample(&self) -> bool {
        *self == Self::Sample
    }
}

/// One disk of the task.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskLayout {
    pub device: RootDeviceHints,
    #[serde(default, skip_serializing_if = "TableKind::is_gpt")]
    pub table: TableKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_uuid: Option<Uuid>,
    /// Partitions that stay, to the byte, under their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<PartitionName>,
    pub partitions: Vec<PartitionSpec>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionTask {
    pub device: RootDeviceHints,
    #[serde(default, skip_serializing_if = "TableKind::is_gpt")]
    pub table: TableKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_uuid: Option<Uuid>,
    /// Partitions that stay, to the byte, under their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<PartitionName>,
    #[serde(default, skip_serializing_if = "KeepCheck::is_sample")]
    pub keep_check: KeepCheck,
    pub partitions: Vec<PartitionSpec>,
    /// Further disks, for what lies over several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_disks: Vec<DiskLayout>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_groups: Vec<VolumeGroup>,
}

impl PartitionTask {
    /// A new GPT on one disk.
    #[must_use]
    pub fn new(device: RootDeviceHints, partitions: Vec<PartitionSpec>) -> Self {
        Self {
            device,
            table: TableKind::Gpt,
            disk_uuid: None,
            keep: Vec::new(),
            keep_check: KeepCheck::default(),
            partitions,
            more_disks: Vec::new(),
            volume_groups: Vec::new(),
        }
    }

    /// Every disk, the first one first.
    #[must_use]
    pub fn disks(&self) -> Vec<DiskLayout> {
        let first = DiskLayout {
            device: self.device.clone(),
            table: self.table,
            disk_uuid: self.disk_uuid,
            keep: self.keep.clone(),
            partitions: self.partitions.clone(),
        };
        std::iter::once(first).chain(self.more_disks.iter().cloned()).collect()
    }

    /// The hints of every disk.
    pub fn devices(&self) -> impl Iterator<Item = &RootDeviceHints> {
        std::iter::once(&self.device).chain(self.more_disks.iter().map(|disk| &disk.device))
    }

    /// Everything that is made in a partition or a volume.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        let partitions = self.partitions.iter().chain(self.more_disks.iter().flat_map(|disk| &disk.partitions));
        let volumes = self.volume_groups.iter().flat_map(|group| &group.volumes);
        partitions.filter_map(|p| p.content.as_ref()).chain(volumes.filter_map(|v| v.content.as_ref()))
    }

    /// Takes the keys out.
    pub(crate) fn redact(&mut self) {
        let partitions = self.partitions.iter_mut().chain(self.more_disks.iter_mut().flat_map(|d| &mut d.partitions));
        let volumes = self.volume_groups.iter_mut().flat_map(|group| &mut group.volumes);
        let contents = partitions.map(|p| &mut p.content).chain(volumes.map(|v| &mut v.content));
        contents.flatten().for_each(Content::redact);
    }

    /// What can be said to be wrong without looking at a disk.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.more_disks.len() >= MOST_DISKS {
            return Err(format!("more_disks: more than {MOST_DISKS} disks"));
        }
        let disks = self.disks();
        for (n, disk) in disks.iter().enumerate() {
            let at = |e: String| if n == 0 { e } else { format!("more_disks[{}].{e}", n - 1) };
            disk.check().map_err(at)?;
        }
        let mut groups = BTreeSet::new();
        for (i, group) in self.volume_groups.iter().enumerate() {
            if !groups.insert(group.name.as_str()) {
                return Err(format!("volume_groups[{i}].name: {:?} twice", group.name));
            }
            let is_member = |content: &&Content| content.volume_group() == Some(&group.name);
            let n_members = self.contents().filter(is_member).count();
            group.check(n_members).map_err(|e| format!("volume_groups[{i}].{e}"))?;
        }
        if let Some(unknown) = self.contents().filter_map(Content::volume_group).find(|name| !groups.contains(name)) {
            return Err(format!("volume_groups: {unknown:?} is none, but a partition is to be part of it"));
        }
        self.check_uuids(&disks)
    }

    /// Two of one UUID are found as either.
    fn check_uuids(&self, disks: &[DiskLayout]) -> Result<(), String> {
        let tables = disks.iter().flat_map(|disk| {
            let partitions = disk.partitions.iter().filter_map(|p| p.uuid);
            disk.disk_uuid.into_iter().chain(partitions).map(|uuid| uuid.to_string())
        });
        let mut seen = BTreeSet::new();
        for uuid in tables.chain(self.contents().flat_map(Content::uuids)) {
            if !seen.insert(uuid.clone()) {
                return Err(format!("uuid: {uuid} is given twice"));
            }
        }
        Ok(())
    }
}

impl DiskLayout {
    fn check(&self) -> Result<(), String> {
        let most = if self.table.is_gpt() { MOST_PARTITIONS } else { MOST_IN_MBR };
        let n = self.partitions.len() + self.keep.len();
        if n == 0 || n > most {
            return Err(format!("partitions: {n} of them; 1 to {most} are possible in a {}", self.table.name()));
        }
        if !self.table.is_gpt() {
            self.check_mbr()?;
        }
        for (i, name) in self.keep.iter().enumerate() {
            if self.keep[..i].contains(name) {
                return Err(format!("keep[{i}]: {name} twice"));
            }
            if *name == PartitionName::Number(0) {
                return Err(format!("keep[{i}].number: counted from 1"));
            }
        }
        let mut numbers = BTreeSet::new();
        for (i, p) in self.partitions.iter().enumerate() {
            p.check().map_err(|e| format!("partitions[{i}].{e}"))?;
            if let Some(number) = p.number
                && (number == 0 || number as usize > most || !numbers.insert(number))
            {
                return Err(format!("partitions[{i}].number: {number} twice, or not from 1 to {most}"));
            }
        }
        self.check_sizes()
    }

    fn check_sizes(&self) -> Result<(), String> {
        let rests = self.partitions.iter().filter(|p| p.size == PartitionSize::Rest).count();
        let last_is_rest = self.partitions.last().is_some_and(|p| p.size == PartitionSize::Rest);
        if rests > 1 {
            return Err("partitions: only one can take the rest".into());
        }
        if rests == 1 && !last_is_rest && !self.keep.is_empty() {
            return Err("partitions: beside kept ones only the last can take the rest".into());
        }
        let percent: u32 = self
            .partitions
            .iter()
            .map(|p| match p.size {
                PartitionSize::Percent(of) => u32::from(of),
                PartitionSize::Bytes(_) | PartitionSize::Rest => 0,
            })
            .sum();
        if percent > 100 { Err(format!("partitions: {percent} percent together")) } else { Ok(()) }
    }

    /// What an MBR has no place for is refused rather than left out.
    fn check_mbr(&self) -> Result<(), String> {
        if self.disk_uuid.is_some() {
            return Err("disk_uuid: an MBR has none".into());
        }
        if let Some(name) = self.keep.iter().find(|name| !matches!(name, PartitionName::Number(_))) {
            return Err(format!("keep: {name}: in an MBR partitions have numbers only"));
        }
        let mut active = 0;
        for (i, p) in self.partitions.iter().enumerate() {
            if p.kind.mbr().is_none_or(|byte| matches!(byte, 0 | 0x05 | 0x0f | 0x85 | 0xee)) {
                return Err(format!("partitions[{i}].kind: an MBR has no such type here"));
            }
            if p.uuid.is_some() {
                return Err(format!("partitions[{i}].uuid: an MBR has none"));
            }
            if p.flags.iter().any(|flag| *flag != PartitionFlag::LegacyBoot) {
                return Err(format!("partitions[{i}].flags: an MBR has legacy_boot only"));
            }
            active += usize::from(!p.flags.is_empty());
        }
        if active > 1 { Err("partitions: more than one has the flag legacy_boot".into()) } else { Ok(()) }
    }
}

impl PartitionSpec {
    fn check(&self) -> Result<(), String> {
        if self.name.encode_utf16().count() > 36 || self.name.chars().any(char::is_control) {
            return Err("name: more than 36 characters, or control characters".into());
        }
        match self.size {
            PartitionSize::Bytes(Bytes(0)) => return Err("size: zero".into()),
            PartitionSize::Percent(of) if !(1..=100).contains(&of) => return Err(format!("size: {of} percent")),
            PartitionSize::Bytes(_) | PartitionSize::Percent(_) | PartitionSize::Rest => {}
        }
        if self.uuid.is_some_and(|uuid| uuid.is_nil()) || self.kind == PartitionKind::Guid(Uuid::nil()) {
            return Err("uuid: all zeroes mean that there is no partition".into());
        }
        let Some(content) = &self.content else { return Ok(()) };
        content.check().map_err(|e| format!("content.{e}"))?;
        match (&self.kind, content) {
            (PartitionKind::Esp, Content::FileSystem(Format { kind: FormatKind::Vfat, .. })) => Ok(()),
            (PartitionKind::Esp, _) => Err("content: firmware reads vfat only".into()),
            (PartitionKind::BiosBoot | PartitionKind::Msr, _) => {
                Err("content: whom this partition is for writes it without a file system".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
