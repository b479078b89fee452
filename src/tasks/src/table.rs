//! The partitions of a disk as they are, in bytes.

use gpt::GptDisk;
use gpt::partition::Partition;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::inventory::Disk;
use speediso_model::task::PartitionName;
use speediso_sys::peek::Peek;

use crate::ctx::TaskCtx;
use crate::gptedit::{self, Edges};
use crate::place::Place;

/// One partition of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Its place in the table, from 1.
    pub(crate) number: u32,
    /// In bytes.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) partition: Partition,
}

impl Entry {
    pub(crate) fn label(&self) -> &str {
        &self.partition.name
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// `3 "data" (bytes 1048576 to 2097152)`.
    pub(crate) fn describe(&self) -> String {
        format!("{} {:?} (bytes {} to {})", self.number, self.label(), self.start, self.end)
    }
}

/// In the order of their numbers. An entry that ends before it begins is an error, not an entry.
pub(crate) fn entries(table: &GptDisk<Edges>, sector: u64) -> Result<Vec<Entry>, Fault> {
    let used = table.partitions().iter().filter(|(_, p)| p.is_used());
    used.map(|(number, p)| {
        let bytes = |sectors: u64| sectors.checked_mul(sector);
        let (start, end) = (bytes(p.first_lba), p.last_lba.checked_add(1).and_then(bytes));
        match (start, end) {
            (Some(start), Some(end)) if start < end => Ok(Entry { number: *number, start, end, partition: p.clone() }),
            _ => Err(Fault::new(
                FaultCode::PartitionTable,
                format!("partition {number} begins at sector {} and ends at {}", p.first_lba, p.last_lba),
            )),
        }
    })
    .collect()
}

/// Those of a disk that nobody has claimed yet.
pub(crate) fn peek(disk: &Disk, ctx: &TaskCtx) -> Result<Vec<Entry>, Fault> {
    let seen = Peek::open(&ctx.roots, disk)?;
    let edges = Edges::read_by(seen.disk().size.0, |offset, bytes| seen.read_at(offset, bytes))?;
    of(edges, u64::from(disk.logical_sectors), &disk.name)
}

pub(crate) fn read(disk: Place<'_>) -> Result<Vec<Entry>, Fault> {
    of(Edges::read(disk)?, disk.sector_size(), disk.name())
}

fn of(edges: Edges, sector: u64, name: &str) -> Result<Vec<Entry>, Fault> {
    gptedit::open(edges, sector)
        .and_then(|table| entries(&table, sector))
        .map_err(|fault| fault.because(format!("this is about the table (GPT) that {name} has now")))
}

/// The one that is called so.
pub(crate) fn find<'a>(entries: &'a [Entry], name: &PartitionName) -> Result<&'a Entry, Fault> {
    let is = |entry: &&Entry| match name {
        PartitionName::Number(number) => entry.number == *number,
        PartitionName::Label(label) => entry.label() == label,
        PartitionName::Uuid(uuid) => entry.partition.part_guid == *uuid,
    };
    let found: Vec<&Entry> = entries.iter().filter(is).collect();
    match found.as_slice() {
        [one] => Ok(one),
        _ => {
            let mut fault =
                Fault::new(FaultCode::PartitionTable, format!("{name}: {} partitions are that", found.len()));
            fault.causes = entries.iter().map(|e| format!("there is {}", e.describe())).collect();
            Err(fault)
        }
    }
}
