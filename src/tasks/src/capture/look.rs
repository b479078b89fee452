//! What is on the disk, and which part of it is meant.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use speediso_image::used::{Partition, ReadAt, Survey, Table, TableError, TableKind, survey, survey_partition};
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_model::partition::PartitionName;

/// How closely one looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Table,
    FreeSpace,
}

/// Reading all bitmaps of a large disk takes seconds; a disk that takes longer than this does not answer.
const PATIENCE: Duration = Duration::from_secs(180);

pub(super) struct Looked {
    /// Of the disk.
    pub(super) range: Range<u64>,
    /// The manifest's: that of a GPT that goes with the image.
    pub(super) sector_size: Option<u32>,
    /// Counted from the start of the range.
    pub(super) survey: Survey,
}

impl Looked {
    pub(super) fn free(&self) -> u64 {
        self.survey.free.total()
    }

    /// For people.
    pub(super) fn lines(&self) -> Vec<String> {
        let doubt = self.survey.table_doubt.iter().map(|doubt| format!("all of the disk is kept: {doubt}"));
        doubt.chain(self.survey.found.iter().map(ToString::to_string)).collect()
    }
}

/// Before the disk is claimed, for a plan. A disk that hangs holds up a thread, but not the plan.
pub(super) fn unclaimed(disk: &Disk, partition: Option<&PartitionName>, depth: Depth) -> Result<Looked, Fault> {
    let (done, looked) = mpsc::channel();
    let (seen, partition) = (disk.clone(), partition.cloned());
    let look = move || {
        let looked = File::open(&seen.name)
            .map_err(|e| unreadable(&seen, &e))
            .and_then(|file| at(&file, &seen, partition.as_ref(), depth));
        // Nobody may be waiting any more.
        let _ = done.send(looked);
    };
    std::thread::Builder::new()
        .name("look".into())
        .spawn(look)
        .map_err(|e| Fault::from_error(FaultCode::Internal, &e))?;
    looked.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let message = format!("{} could not be read within {} s", describe(disk), PATIENCE.as_secs());
        Err(Fault::new(FaultCode::DiskHung, message))
    })
}

fn unreadable(disk: &Disk, error: &io::Error) -> Fault {
    Fault::new(FaultCode::DiskIo, format!("reading {}", describe(disk))).because(error.to_string())
}

pub(super) fn at(
    bytes: &dyn ReadAt,
    disk: &Disk,
    partition: Option<&PartitionName>,
    depth: Depth,
) -> Result<Looked, Fault> {
    let table = Table::read(bytes, disk.logical_sectors);
    let nothing = || Survey { free: <_>::default(), found: Vec::new(), table_doubt: None };
    let table = match (table, partition) {
        (Err(TableError::Read(error)), _) => return Err(unreadable(disk, &error)),
        (Err(error), Some(_)) => {
            return Err(Fault::new(FaultCode::PartitionTable, format!("{}: {error}", describe(disk))));
        }
        (Ok(table), _) => Some(table),
        (Err(_), None) => None,
    };
    if let (Some(name), Some(table)) = (partition, &table) {
        let partition = choose(table, name, disk)?;
        let survey = if depth == Depth::Table { nothing() } else { survey_partition(bytes, partition) };
        return Ok(Looked { range: partition.range.clone(), sector_size: None, survey });
    }
    let survey = match depth {
        Depth::Table => nothing(),
        Depth::FreeSpace => survey(bytes, disk.logical_sectors).map_err(|e| unreadable(disk, &e))?,
    };
    let is_gpt = table.is_some_and(|table| table.kind == TableKind::Gpt);
    let sector_size = (is_gpt && [512, 4096].contains(&disk.logical_sectors)).then_some(disk.logical_sectors);
    Ok(Looked { range: 0..disk.size.0, sector_size, survey })
}

fn choose<'a>(table: &'a Table, name: &PartitionName, disk: &Disk) -> Result<&'a Partition, Fault> {
    let named = |partition: &&Partition| match name {
        PartitionName::Number(number) => partition.number == *number,
        PartitionName::Label(label) => partition.name == *label,
        PartitionName::Uuid(uuid) => partition.uuid == Some(*uuid),
    };
    let found: Vec<&Partition> = table.partitions.iter().filter(named).collect();
    if let [partition] = found.as_slice() {
        return Ok(partition);
    }
    let message = format!("{name}: {} of {} ({}) are that", found.len(), describe(disk), table.kind.name());
    let mut fault = Fault::new(FaultCode::PartitionTable, message);
    fault.causes = table
        .partitions
        .iter()
        .map(|partition| {
            let uuid = partition.uuid.map(|uuid| format!(", {uuid}")).unwrap_or_default();
            format!("there is partition {} {:?}{uuid}", partition.number, partition.name)
        })
        .collect();
    Err(fault)
}
