//! What is on a disk before the task.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::{PartitionName, TableKind};

use super::arrange::Span;
use super::mbr::{Mbr, Record};
use super::medium::Medium;
use super::superblock::{self, Found, PROBE};
use crate::gptedit;
use crate::table::{self, Entry};

/// As much of a partition as is read to recognise it; small ones are shorter.
#[derive(Clone, Debug)]
pub(super) struct Old {
    pub(super) table: Table,
    pub(super) partitions: Vec<Partition>,
    /// What stands on the disk without a table.
    pub(super) whole: Option<Found>,
}

#[derive(Clone, Debug)]
pub(super) enum Table {
    None,
    Gpt,
    Mbr(Mbr),
    /// There is one, or what is left of it, and this is wrong with it.
    Broken(Fault),
}

/// One partition of the old table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Partition {
    pub(super) number: u32,
    pub(super) span: Span,
    pub(super) raw: Raw,
    pub(super) holds: Option<Found>,
}

/// As the table has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Raw {
    Gpt(gpt::partition::Partition),
    Mbr(Record),
}

impl Partition {
    /// `2 "data" (ext4 "data" 0f3c...)`
    pub(super) fn describe(&self) -> String {
        let holds = self.holds.as_ref().map_or_else(|| "nothing known".to_owned(), ToString::to_string);
        match &self.raw {
            Raw::Gpt(entry) => format!("{} {:?} ({holds})", self.number, entry.name),
            Raw::Mbr(_) => format!("{} ({holds})", self.number),
        }
    }

    fn is_called(&self, name: &PartitionName) -> bool {
        match (name, &self.raw) {
            (PartitionName::Number(number), _) => self.number == *number,
            (PartitionName::Label(label), Raw::Gpt(entry)) => entry.name == *label,
            (PartitionName::Uuid(uuid), Raw::Gpt(entry)) => entry.part_guid == *uuid,
            (PartitionName::Label(_) | PartitionName::Uuid(_), Raw::Mbr(_)) => false,
        }
    }
}

impl Old {
    pub(super) fn read(medium: Medium<'_>) -> Result<Self, Fault> {
        let sector = medium.sector();
        let edges = medium.edges()?;
        let mbr = Mbr::read(&edges.head);
        // A damaged primary table with a good backup is a table, too; gptedit takes either.
        let at = usize::try_from(sector).unwrap_or(512);
        let is_header = |bytes: Option<&[u8]>| bytes.is_some_and(|b| b.starts_with(b"EFI PART"));
        let tail = edges.tail.len() - at;
        let has_gpt = is_header(edges.head.get(at..)) || is_header(edges.tail.get(tail..));
        let (table, mut partitions) = if has_gpt {
            match gptedit::open(edges, sector).and_then(|gpt| table::entries(&gpt, sector)) {
                Ok(entries) => (Table::Gpt, entries.into_iter().map(Partition::from).collect()),
                Err(fault) => (Table::Broken(fault), Vec::new()),
            }
        } else {
            match mbr {
                Some(mbr) if mbr.records.iter().any(Option::is_some) => {
                    let partitions = of_mbr(&mbr, sector);
                    (Table::Mbr(mbr), partitions)
                }
                _ => (Table::None, Vec::new()),
            }
        };
        let size = medium.size();
        for partition in &mut partitions {
            // A table may say anything; what lies outside is not looked at.
            if partition.span.end <= size && partition.span.length() >= sector {
                partition.holds = superblock::recognise(&medium.start_of(partition.span, PROBE)?);
            }
        }
        let whole = match table {
            Table::None => superblock::recognise(&medium.start_of(Span { start: 0, end: size }, PROBE)?),
            Table::Gpt | Table::Mbr(_) | Table::Broken(_) => None,
        };
        Ok(Self { table, partitions, whole })
    }

    /// Those that are to stay, in the order of their numbers.
    pub(super) fn kept(&self, names: &[PartitionName], kind: TableKind, disk: &str) -> Result<Vec<Partition>, Fault> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let refuse = |why: String| Fault::new(FaultCode::PartitionTable, format!("keep on {disk}: {why}"));
        match (&self.table, kind) {
            (Table::Gpt, TableKind::Gpt) => {}
            (Table::Mbr(mbr), TableKind::Mbr) if mbr.is_extended() => {
                return Err(refuse("its MBR has logical partitions, which are not kept by this task".into()));
            }
            (Table::Mbr(_), TableKind::Mbr) => {}
            (Table::Broken(fault), _) => return Err(refuse("its table is damaged".into()).because(fault.to_string())),
            (Table::None, _) => return Err(refuse("it has no partition table".into())),
            (Table::Gpt, TableKind::Mbr) => return Err(refuse("it has a GPT; an MBR is asked for".into())),
            (Table::Mbr(_), TableKind::Gpt) => return Err(refuse("it has an MBR; a GPT is asked for".into())),
        }
        let mut kept: Vec<Partition> = Vec::new();
        for name in names {
            let found: Vec<&Partition> = self.partitions.iter().filter(|p| p.is_called(name)).collect();
            let [one] = found.as_slice() else {
                let mut fault = refuse(format!("{name}: {} partitions are that", found.len()));
                fault.causes = self.partitions.iter().map(|p| format!("there is {}", p.describe())).collect();
                return Err(fault);
            };
            if kept.contains(one) {
                return Err(refuse(format!("{name} is one that was named before")));
            }
            if let Some(other) = self.partitions.iter().find(|p| p.number != one.number && p.span.overlaps(one.span)) {
                return Err(refuse(format!("{} and {} overlap", one.describe(), other.describe())));
            }
            kept.push((*one).clone());
        }
        kept.sort_by_key(|partition| partition.number);
        Ok(kept)
    }
}

impl From<Entry> for Partition {
    fn from(entry: Entry) -> Self {
        let span = Span { start: entry.start, end: entry.end };
        Self { number: entry.number, span, raw: Raw::Gpt(entry.partition), holds: None }
    }
}

fn of_mbr(mbr: &Mbr, sector: u64) -> Vec<Partition> {
    let used = (1..).zip(&mbr.records).filter_map(|(number, record)| Some((number, (*record)?)));
    used.map(|(number, record)| {
        let start = u64::from(record.first) * sector;
        let span = Span { start, end: start + u64::from(record.count) * sector };
        Partition { number, span, raw: Raw::Mbr(record), holds: None }
    })
    .collect()
}
