//! The partition table as it is to be: the image's, with what is kept, the last partition grown, its backup at the end
//! of this disk.

use std::collections::BTreeMap;

use gpt::partition::Partition;
use speediso_image::gptgeometry;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::{Grow, WriteImageTask};

use super::room::Room;
use crate::gptedit::{self, Edges};
use crate::place::Place;
use crate::table::{self, Entry};

/// Start and end of the disk, and what the table says of its last partition.
pub(super) struct Finished {
    pub(super) edges: Edges,
    /// None without a GPT.
    pub(super) last: Option<Last>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Last {
    pub(super) number: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    /// How much longer than in the image.
    pub(super) grown: u64,
}

/// `edges` are the image's.
pub(super) fn finish(task: &WriteImageTask, room: &Room, edges: Edges, place: Place<'_>) -> Result<Finished, Fault> {
    let has_table = gptgeometry::sector_size(&edges.head).is_some();
    if !has_table && room.kept().is_empty() && task.grow == Grow::No {
        return Ok(Finished { edges, last: None });
    }
    if !has_table {
        return Err(Fault::new(
            FaultCode::PartitionTable,
            "the image has no GPT: nothing in it can be grown, and nothing kept beside it",
        ));
    }
    let sector = place.sector_size();
    let table = gptedit::open(edges, sector)?;
    let mut partitions = table.partitions().clone();
    let image = table::entries(&table, sector)?;
    for kept in room.kept() {
        let number = number_for(kept, &image, &partitions)?;
        partitions.insert(number, kept.partition.clone());
    }
    let last = grow(task, room, &mut partitions, place)?;
    Ok(Finished { edges: gptedit::finish(table, sector, partitions)?, last })
}

/// Under which number a kept partition goes on: that of the image's own of the same label and place; else its old one,
/// or the first that is free.
fn number_for(kept: &Entry, image: &[Entry], taken: &BTreeMap<u32, Partition>) -> Result<u32, Fault> {
    let conflict = |other: &Entry| {
        Fault::new(
            FaultCode::PartitionTable,
            format!("the image has partition {} where {} is to be kept", other.describe(), kept.describe()),
        )
    };
    if let Some(same) = image.iter().find(|e| e.label() == kept.label()) {
        let agrees = (same.start, same.end) == (kept.start, kept.end);
        return if agrees { Ok(same.number) } else { Err(conflict(same)) };
    }
    if let Some(other) = image.iter().find(|e| e.overlaps(kept)) {
        return Err(conflict(other));
    }
    let is_free = |number: &u32| taken.get(number).is_none_or(|p| !p.is_used());
    let numbers = std::iter::once(kept.number).chain(1..=128);
    numbers.into_iter().find(is_free).ok_or_else(|| {
        Fault::new(FaultCode::PartitionTable, format!("the image's table has no room for {}", kept.describe()))
    })
}

/// The last partition, grown if that is ordered.
fn grow(
    task: &WriteImageTask,
    room: &Room,
    partitions: &mut BTreeMap<u32, Partition>,
    place: Place<'_>,
) -> Result<Option<Last>, Fault> {
    let sector = place.sector_size();
    let used = partitions.iter_mut().filter(|(_, p)| p.is_used());
    let Some((number, last)) = used.max_by_key(|(_, p)| p.first_lba) else { return Ok(None) };
    if task.grow != Grow::No
        && let Some(kept) = room.kept().iter().find(|kept| kept.start / sector >= last.first_lba)
    {
        return Err(Fault::new(
            FaultCode::PartitionTable,
            format!("partition {} is the last one and to be kept: it cannot be grown", kept.describe()),
        ));
    }
    let old = last.last_lba;
    let end = Room::grown_end(task, place.size()) / sector;
    if task.grow != Grow::No && end > old + 1 {
        last.last_lba = end - 1;
    }
    let bytes = |sectors: u64| sectors.saturating_mul(sector);
    Ok(Some(Last {
        number: *number,
        start: bytes(last.first_lba),
        end: bytes(last.last_lba + 1),
        grown: bytes(last.last_lba - old),
    }))
}
