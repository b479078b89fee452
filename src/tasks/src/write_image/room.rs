//! What of a disk an image may have: all of it, one partition, or all but what is to be kept.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::plan::Action;
use speediso_model::task::{Grow, PartitionName, WriteImageTask};
use speediso_model::units::{Bytes, MIB};

use super::too_large;
use crate::gptedit::EDGE;
use crate::table::{self, Entry};

/// Made from the table as it is, for the plan and again on the claimed disk; both must be the same.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Room {
    Disk,
    Partition(Entry),
    /// The entries that stay, and those that do not.
    Around {
        kept: Vec<Entry>,
        lost: Vec<Entry>,
    },
}

impl Room {
    /// `read_table` is asked only if it matters what the disk holds.
    pub(super) fn find(
        task: &WriteImageTask,
        read_table: impl FnOnce() -> Result<Vec<Entry>, Fault>,
    ) -> Result<Self, Fault> {
        if let Some(name) = &task.partition {
            return Ok(Self::Partition(table::find(&read_table()?, name)?.clone()));
        }
        if task.keep_partitions.is_empty() {
            return Ok(Self::Disk);
        }
        let entries = read_table()?;
        let wanted = task.keep_partitions.iter().map(|label| PartitionName::Label(label.clone()));
        let kept: Vec<Entry> = wanted.map(|name| table::find(&entries, &name).cloned()).collect::<Result<_, _>>()?;
        let lost = entries.into_iter().filter(|entry| !kept.contains(entry)).collect();
        Ok(Self::Around { kept, lost })
    }

    pub(super) fn actions(&self, task: &WriteImageTask, size: u64, name: &str) -> Result<Vec<Action>, Fault> {
        let (offset, length) = match self {
            Self::Partition(entry) => (entry.start, entry.end - entry.start),
            Self::Disk | Self::Around { .. } => (0, size),
        };
        if length < 2 * EDGE {
            return Err(Fault::new(FaultCode::DiskTooSmall, format!("{name}: {} is less than 2 MiB", Bytes(length))));
        }
        if let Some(image) = task.image.size.filter(|image| image.0 > length) {
            return Err(too_large(image.0, length, name));
        }
        let act = |what: String| Action { what, offset: Bytes(offset), length: Bytes(length) };
        let image = task.image.trust_shown();
        let mut actions = match self {
            Self::Disk => vec![
                act("take the partition table away".into()),
                act(format!("write the image {image} over the whole disk, its start last")),
            ],
            Self::Partition(entry) if let Some(new) = &task.file_system => vec![
                act(format!("empty start and end of partition {} {:?}", entry.number, entry.label())),
                act(format!("make a new {} in it and unpack {image} there", new.kind.name())),
            ],
            Self::Partition(entry) => vec![
                act(format!("empty start and end of partition {} {:?}", entry.number, entry.label())),
                act(format!("write the image {image} over this partition, its start last")),
            ],
            Self::Around { lost, .. } => {
                let mut actions = vec![act("clear the boot code; the partition table stays until the end".into())];
                actions.extend(lost.iter().map(|entry| Action {
                    what: format!("lose partition {} {:?}", entry.number, entry.label()),
                    offset: Bytes(entry.start),
                    length: Bytes(entry.end - entry.start),
                }));
                actions.push(act(format!("write the image {image} around what is kept, its table last")));
                actions
            }
        };
        match task.grow {
            Grow::No => {}
            Grow::Partition => actions.push(act("grow the last partition".into())),
            Grow::FileSystem if task.partition.is_some() => actions.push(act("grow its file system".into())),
            Grow::FileSystem => actions.push(act("grow the last partition and its file system".into())),
        }
        if let Self::Around { kept, .. } = self {
            actions.extend(kept.iter().map(|entry| Action {
                what: format!("KEEP partition {} {:?} {}", entry.number, entry.label(), entry.partition.part_guid),
                offset: Bytes(entry.start),
                length: Bytes(entry.end - entry.start),
            }));
        }
        Ok(actions)
    }

    /// The partitions that stay.
    pub(super) fn kept(&self) -> &[Entry] {
        match self {
            Self::Around { kept, .. } => kept,
            Self::Disk | Self::Partition(_) => &[],
        }
    }

    /// How far the last partition of a disk of this size may reach: whole MiB, and never into the last one, which holds
    /// the backup of the table.
    pub(super) fn grown_end(task: &WriteImageTask, size: u64) -> u64 {
        size.saturating_sub(EDGE + task.leave_free.map_or(0, |free| free.0)) / MIB * MIB
    }
}
