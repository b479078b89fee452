//! A disk's layout with every place and number settled: what was ordered, on the disk as it is.

use std::collections::{BTreeMap, BTreeSet};

use gpt::partition_types::Type;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::layout::DiskLayout;
use speediso_model::task::{PartitionSpec, TableKind};
use speediso_model::units::MIB;
use speediso_sys::topology::Topology;

use super::arrange::{Grain, Span, arrange};
use super::format;
use super::mbr::{self, Mbr, Record};
use super::medium::Medium;
use super::old::{Old, Partition, Raw, Table};
use crate::gptedit::{self, EDGE, Edges};

/// One disk of the task.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) table: TableKind,
    disk_uuid: Option<uuid::Uuid>,
    pub(super) entries: Vec<New>,
    pub(super) kept: Vec<Partition>,
    /// Those of the old table that go.
    pub(super) lost: Vec<Partition>,
    pub(super) grain: u64,
}

/// A partition to be made.
#[derive(Clone, Debug)]
pub(super) struct New {
    pub(super) number: u32,
    pub(super) span: Span,
    pub(super) spec: PartitionSpec,
}

impl Wish {
    /// Refuses what cannot be made on this disk.
    pub(super) fn new(layout: &DiskLayout, old: &Old, topology: Topology, medium: Medium<'_>) -> Result<Self, Fault> {
        let sector = medium.sector();
        let kept = old.kept(&layout.keep, layout.table, medium.name())?;
        let grain = Grain::of(topology, sector);
        // A whole MiB at either end: it holds the table, and is written as a whole.
        let usable = Span { start: EDGE, end: (medium.size() / MIB).saturating_sub(1) * MIB };
        let sizes: Vec<_> = layout.partitions.iter().map(|p| p.size).collect();
        let spans: Vec<Span> = kept.iter().map(|p| p.span).collect();
        if let Some(outside) = kept.iter().find(|p| p.span.end > medium.size()) {
            return Err(Fault::new(
                FaultCode::PartitionTable,
                format!("keep: partition {} reaches beyond the end of {}", outside.describe(), medium.name()),
            ));
        }
        let places = arrange(usable, grain, &spans, &sizes)
            .map_err(|fault| fault.because(format!("this is about {}", medium.name())))?;
        let numbers = numbers(layout, &kept)?;
        let entries: Vec<New> = layout
            .partitions
            .iter()
            .zip(places)
            .zip(numbers)
            .map(|((spec, span), number)| New { number, span, spec: spec.clone() })
            .collect();
        for new in &entries {
            if let Some(content) = &new.spec.content {
                format::check(content, new.span.length(), sector, &new.spec.kind)
                    .map_err(|fault| fault.because(format!("partition {} of {}", new.number, medium.name())))?;
            }
        }
        let lost = old.partitions.iter().filter(|p| !kept.contains(p)).cloned().collect();
        let wish = Self { table: layout.table, disk_uuid: layout.disk_uuid, entries, kept, lost, grain: grain.size };
        if wish.table == TableKind::Mbr {
            wish.records(sector)?;
        }
        Ok(wish)
    }

    /// Start and end of the disk with the new table.
    pub(super) fn edges(&self, medium: Medium<'_>) -> Result<Edges, Fault> {
        let sector = medium.sector();
        match self.table {
            TableKind::Gpt => {
                let table = if self.kept.is_empty() {
                    gptedit::create(medium.size(), sector, self.disk_uuid)?
                } else {
                    let mut table = gptedit::open(medium.edges()?, sector)?;
                    if let Some(uuid) = self.disk_uuid {
                        table.update_guid(Some(uuid));
                    }
                    table
                };
                gptedit::finish(table, sector, self.gpt_entries(sector))
            }
            TableKind::Mbr => {
                let mut edges = if self.kept.is_empty() { Edges::zeroed(medium.size()) } else { medium.edges()? };
                let disk_id = match Mbr::read(&edges.head) {
                    Some(mbr) if !self.kept.is_empty() => mbr.disk_id,
                    // PARTUUIDs are made of it; 0 is none.
                    _ => rand::random::<u32>().max(1),
                };
                Mbr { disk_id, records: self.records(sector)? }.write(&mut edges.head);
                Ok(edges)
            }
        }
    }

    fn gpt_entries(&self, sector: u64) -> BTreeMap<u32, gpt::partition::Partition> {
        let kept = self.kept.iter().filter_map(|p| match &p.raw {
            Raw::Gpt(entry) => Some((p.number, entry.clone())),
            Raw::Mbr(_) => None,
        });
        let new = self.entries.iter().map(|new| {
            let entry = gpt::partition::Partition {
                part_type_guid: Type::from(new.spec.kind.guid().unwrap_or_default()),
                part_guid: new.spec.uuid.unwrap_or_else(uuid::Uuid::new_v4),
                first_lba: new.span.start / sector,
                last_lba: new.span.end / sector - 1,
                flags: new.flags(),
                name: new.spec.name.clone(),
            };
            (new.number, entry)
        });
        kept.chain(new).collect()
    }

    fn records(&self, sector: u64) -> Result<[Option<Record>; 4], Fault> {
        let mut records = [None; 4];
        let kept = self.kept.iter().filter_map(|p| match &p.raw {
            Raw::Mbr(record) => Some(Ok((p.number, *record))),
            Raw::Gpt(_) => None,
        });
        let new = self.entries.iter().map(|new| {
            let kind = new.spec.kind.mbr().unwrap_or_default();
            let record = mbr::record(new.span.start, new.span.length(), sector, kind, !new.spec.flags.is_empty())?;
            Ok((new.number, record))
        });
        for numbered in kept.chain(new) {
            let (number, record) = numbered?;
            let place = usize::try_from(number).ok().and_then(|n| records.get_mut(n.checked_sub(1)?));
            *place
                .ok_or_else(|| Fault::new(FaultCode::PartitionTable, format!("an MBR has no partition {number}")))? =
                Some(record);
        }
        if records.iter().flatten().filter(|record| record.active).count() > 1 {
            return Err(Fault::new(FaultCode::PartitionTable, "more than one partition would be the active one"));
        }
        Ok(records)
    }

    /// Whether the table on the disk is the one ordered, whole, in everything that the order names.
    pub(super) fn is_table(&self, medium: Medium<'_>) -> Result<bool, Fault> {
        Ok(self.table_differs(medium)?.is_empty())
    }

    /// In what the table is not the one ordered.
    pub(super) fn table_differs(&self, medium: Medium<'_>) -> Result<Vec<String>, Fault> {
        match self.table {
            TableKind::Gpt => self.gpt_differs(medium),
            TableKind::Mbr => {
                let (edges, sector) = (medium.edges()?, medium.sector());
                let is_gpt = edges.head.get(usize::try_from(sector).unwrap_or(512)..);
                let is_gpt = is_gpt.is_some_and(|b| b.starts_with(b"EFI PART"));
                let Some(found) = Mbr::read(&edges.head).filter(|_| !is_gpt) else {
                    return Ok(vec!["it has no MBR of its own".into()]);
                };
                let wanted = self.records(sector)?;
                let pairs = (1..).zip(found.records.iter().zip(&wanted)).filter(|(_, (found, wanted))| found != wanted);
                Ok(pairs.map(|(number, _)| format!("partition {number} in its MBR is another, or none")).collect())
            }
        }
    }

    fn gpt_differs(&self, medium: Medium<'_>) -> Result<Vec<String>, Fault> {
        let sector = medium.sector();
        let Ok(gpt) = gptedit::open(medium.edges()?, sector) else { return Ok(vec!["it has no whole GPT".into()]) };
        let mut differs = Vec::new();
        if !gptedit::is_whole(&gpt, &mut medium.edges()?) {
            differs.push("one copy of its GPT is damaged or stands elsewhere".to_owned());
        }
        if let Some(wanted) = self.disk_uuid.filter(|wanted| wanted != gpt.guid()) {
            differs.push(format!("the UUID of its GPT is {} instead of {wanted}", gpt.guid()));
        }
        let found: BTreeMap<u32, &gpt::partition::Partition> =
            gpt.partitions().iter().filter(|(_, p)| p.is_used()).map(|(n, p)| (*n, p)).collect();
        let wanted = self.gpt_entries(sector);
        let extra = found.iter().filter(|(number, _)| !wanted.contains_key(number));
        differs.extend(extra.map(|(number, found)| format!("it has a partition {number} {:?}", found.name)));
        // What the order leaves open may be as it is.
        let is_open = |number| self.entries.iter().any(|new| new.number == number && new.spec.uuid.is_none());
        for (number, wanted) in &wanted {
            let Some(found) = found.get(number) else {
                differs.push(format!("it has no partition {number}"));
                continue;
            };
            let facts = [
                ("kind", found.part_type_guid.guid == wanted.part_type_guid.guid),
                ("start", found.first_lba == wanted.first_lba),
                ("end", found.last_lba == wanted.last_lba),
                ("list of flags", found.flags == wanted.flags),
                ("name", found.name == wanted.name),
                ("UUID", found.part_guid == wanted.part_guid || is_open(*number)),
            ];
            let others = facts.iter().filter(|(_, is_so)| !is_so);
            differs.extend(others.map(|(what, _)| format!("partition {number} has another {what}")));
        }
        Ok(differs)
    }
}

/// Whether nothing begins or ends there: what was would come to light again as a file system, RAID member or volume of
/// whoever had the disk before.
pub(super) fn is_empty(span: Span, medium: Medium<'_>) -> Result<bool, Fault> {
    let edge = EDGE.min(span.length());
    for start in [span.start, span.end - edge] {
        let bytes = medium.start_of(Span { start, end: start + edge }, usize::MAX)?;
        if bytes.iter().any(|b| *b != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl New {
    fn flags(&self) -> u64 {
        self.spec.flags.iter().fold(0, |bits, flag| bits | flag.bit())
    }

    /// `1 "root" (ext4 "root")`
    pub(super) fn describe(&self) -> String {
        let content = self.spec.content.as_ref().map_or_else(|| "empty".to_owned(), |c| c.describe());
        format!("partition {} {:?}: {content}", self.number, self.spec.name)
    }
}

/// Those that are asked for, then for each of the others the first that is free.
fn numbers(layout: &DiskLayout, kept: &[Partition]) -> Result<Vec<u32>, Fault> {
    let mut taken: BTreeSet<u32> = kept.iter().map(|p| p.number).collect();
    for spec in &layout.partitions {
        if let Some(number) = spec.number
            && !taken.insert(number)
        {
            return Err(Fault::new(
                FaultCode::PartitionTable,
                format!("partition {number} is to be kept, and {:?} is to have its number", spec.name),
            ));
        }
    }
    let mut numbers = Vec::new();
    for spec in &layout.partitions {
        let number = spec.number.or_else(|| (1..).find(|number| !taken.contains(number))).unwrap_or(u32::MAX);
        taken.insert(number);
        numbers.push(number);
    }
    Ok(numbers)
}

/// What a plan says of the old table.
pub(super) fn what_was(old: &Old, wish: &Wish) -> Vec<String> {
    let table = match &old.table {
        Table::None => old.whole.as_ref().map(|found| format!("{found}, without a partition table: will be lost")),
        Table::Broken(fault) => Some(format!("a damaged partition table ({}): will be lost", fault.message)),
        Table::Gpt | Table::Mbr(_) => None,
    };
    let kept = wish.kept.iter().map(|p| format!("partition {}: stays", p.describe()));
    let lost = wish.lost.iter().map(|p| format!("partition {}: will be lost", p.describe()));
    table.into_iter().chain(kept).chain(lost).collect()
}
