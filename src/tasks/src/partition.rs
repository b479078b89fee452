//! Writing a new GPT.

use std::collections::BTreeMap;

use gpt::partition::Partition;
use gpt::partition_types::{self, Type};
use serde_json::json;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::{Action, Plan, PlanDigest};
use speediso_model::task::{PartitionKind, PartitionSize, PartitionSpec, PartitionTask};
use speediso_model::units::{Bytes, MIB};
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;

use crate::ctx::TaskCtx;
use crate::gptedit::{self, EDGE, Edges};
use crate::single::{self, Ended, OnDisk as _};

const KIND: &str = "partition";

/// Where one partition goes, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    start: u64,
    length: u64,
}

impl Extent {
    /// Where its first and its last MiB begin.
    fn edges(&self) -> [u64; 2] {
        [self.start, self.start + self.length - EDGE]
    }
}

/// Places the partitions one after the other at multiples of 1 MiB, which is a multiple of every sector size, physical
/// or logical, and of every erase block that matters.
fn lay_out(size: u64, specs: &[PartitionSpec]) -> Result<Vec<Extent>, Fault> {
    // The backup table takes at most 33 sectors of 512, or 5 of 4096; a whole MiB keeps the end aligned.
    let end = (size / MIB).saturating_sub(1) * MIB;
    let mut at = MIB;
    let mut extents = Vec::new();
    for spec in specs {
        let wanted = match spec.size {
            PartitionSize::Bytes(bytes) => bytes.0.checked_next_multiple_of(MIB).unwrap_or(u64::MAX),
            PartitionSize::Rest => end.saturating_sub(at),
        };
        let next = at.checked_add(wanted).filter(|next| *next <= end && wanted > 0);
        let Some(next) = next else {
            return Err(Fault::new(
                FaultCode::DiskTooSmall,
                format!("partition {:?} does not fit: {} are left", spec.name, Bytes(end.saturating_sub(at))),
            ));
        };
        extents.push(Extent { start: at, length: wanted });
        at = next;
    }
    Ok(extents)
}

pub(crate) fn plan(task: &PartitionTask, ctx: &TaskCtx) -> Result<Plan, Fault> {
    single::plan_for(KIND, &task.device, ctx, |disk| {
        let extents = lay_out(disk.size.0, &task.partitions)?;
        let table = Action { what: "write a new partition table (GPT)".into(), offset: Bytes(0), length: disk.size };
        let partitions = task.partitions.iter().zip(extents).map(|(spec, extent)| Action {
            what: format!("partition {:?}, emptied", spec.name),
            offset: Bytes(extent.start),
            length: Bytes(extent.length),
        });
        Ok(std::iter::once(table).chain(partitions).collect())
    })
}

pub(crate) fn execute(task: &PartitionTask, expected: &PlanDigest, ctx: &TaskCtx) -> TaskResult {
    single::execute_on("GPT", &task.device, expected, ctx, || plan(task, ctx), |disk| run(task, disk, ctx))
}

fn run(task: &PartitionTask, disk: &ClaimedDisk, ctx: &TaskCtx) -> Ended {
    let extents = match lay_out(disk.size(), &task.partitions) {
        Ok(extents) => extents,
        Err(fault) => return Ended::unchanged(fault),
    };
    match is_table(task, &extents, disk).and_then(|is| Ok(is && are_empty(&extents, disk)?)) {
        Ok(true) => {
            return Ended::verified(
                Changed::AlreadySo,
                "GPT and empty partitions, found as ordered",
                json!({"partitions": extents.len()}),
            );
        }
        Ok(false) => {}
        Err(fault) => return Ended::unchanged(fault),
    }
    let edges = match new_table(task, &extents, disk) {
        Ok(edges) => edges,
        Err(fault) => return Ended::unchanged(fault),
    };
    ctx.reporter.step_began("partition");
    match write(task, &extents, &edges, disk) {
        Ok(table_read) => {
            ctx.reporter.step_ended("partition", &format!("{} partitions", extents.len()));
            let facts = json!({"partitions": extents.len(), "kernel_read_the_table": table_read});
            Ended::verified(Changed::Changed, "GPT, read back", facts)
        }
        Err(fault) => Ended::failed(Outcome::FailedChanged, "GPT, not finished", fault),
    }
}

pub(crate) fn type_of(kind: &PartitionKind) -> Type {
    match kind {
        PartitionKind::Linux => partition_types::LINUX_FS,
        PartitionKind::Esp => partition_types::EFI,
        PartitionKind::BiosBoot => partition_types::BIOS,
        PartitionKind::Swap => partition_types::LINUX_SWAP,
        PartitionKind::Raid => partition_types::LINUX_RAID,
        PartitionKind::Lvm => partition_types::LINUX_LVM,
        PartitionKind::Guid(guid) => Type::from(*guid),
    }
}

/// Whether the table on the disk is the one ordered, in everything that the order names.
fn is_table(task: &PartitionTask, extents: &[Extent], claimed: &ClaimedDisk) -> Result<bool, Fault> {
    let sector = claimed.sector_size();
    let Ok(disk) = gptedit::open(Edges::read(claimed)?, sector) else { return Ok(false) };
    let found: Vec<&Partition> = disk.partitions().values().filter(|p| p.is_used()).collect();
    let bytes = |sectors: u64| sectors.checked_mul(sector);
    let same = |(spec, extent): (&PartitionSpec, &Extent), p: &Partition| {
        p.name == spec.name
            && p.part_type_guid.guid == type_of(&spec.kind).guid
            && spec.uuid.is_none_or(|uuid| uuid == p.part_guid)
            && bytes(p.first_lba) == Some(extent.start)
            && p.last_lba.checked_add(1).and_then(bytes) == Some(extent.start + extent.length)
    };
    Ok(gptedit::is_whole(&disk, &mut Edges::read(claimed)?)
        && task.disk_uuid.is_none_or(|uuid| uuid == *disk.guid())
        && found.len() == extents.len()
        && task.partitions.iter().zip(extents).zip(found).all(|(wanted, found)| same(wanted, found)))
}

/// Whether nothing begins or ends in any of them: what was there would come to light again as a file system, RAID
/// member or volume of whoever had the disk before.
fn are_empty(extents: &[Extent], disk: &ClaimedDisk) -> Result<bool, Fault> {
    let mut buffer = AlignedBuffer::zeroed(usize::try_from(EDGE).unwrap_or(1 << 20));
    for offset in extents.iter().flat_map(Extent::edges) {
        disk.read_at(offset, &mut buffer).on(disk)?;
        if buffer.iter().any(|b| *b != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn new_table(task: &PartitionTask, extents: &[Extent], disk: &ClaimedDisk) -> Result<Edges, Fault> {
    let sector = disk.sector_size();
    let table = gptedit::create(disk.size(), sector, task.disk_uuid)?;
    let partitions: BTreeMap<u32, Partition> = (1..)
        .zip(task.partitions.iter().zip(extents))
        .map(|(number, (spec, extent))| {
            let partition = Partition {
                part_type_guid: type_of(&spec.kind),
                part_guid: spec.uuid.unwrap_or_else(uuid::Uuid::new_v4),
                first_lba: extent.start / sector,
                last_lba: (extent.start + extent.length) / sector - 1,
                flags: 0,
                name: spec.name.clone(),
            };
            (number, partition)
        })
        .collect();
    gptedit::finish(table, sector, partitions)
}

fn write(task: &PartitionTask, extents: &[Extent], edges: &Edges, disk: &ClaimedDisk) -> Result<bool, Fault> {
    Edges::zeroed(disk.size()).write(disk)?;
    let zeroes = AlignedBuffer::zeroed(usize::try_from(EDGE).unwrap_or(1 << 20));
    for offset in extents.iter().flat_map(Extent::edges) {
        disk.write_at(offset, &zeroes).on(disk)?;
    }
    disk.flush().on(disk)?;
    edges.write(disk)?;
    let table_read = disk.reread_table().on(disk)?;
    if !is_table(task, extents, disk)? || !are_empty(extents, disk)? {
        return Err(Fault::new(
            FaultCode::VerifyFailed,
            format!("the table of {} or the start of a partition reads back differently", disk.name()),
        ));
    }
    Ok(table_read)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn spec(size: PartitionSize) -> PartitionSpec {
        PartitionSpec { name: "x".into(), kind: PartitionKind::Linux, size, uuid: None }
    }

    proptest! {
        #[test]
        fn partitions_are_aligned_apart_and_inside(size_mib in 3u64..4096, odd in 0u64..2048, wanted in prop::collection::vec(1u64..2 << 30, 1..8), rest: bool) {
            let size = size_mib * MIB + odd * 512;
            let mut specs: Vec<_> = wanted.iter().map(|w| spec(PartitionSize::Bytes(Bytes(*w)))).collect();
            if rest { specs.push(spec(PartitionSize::Rest)); }
            if let Ok(extents) = lay_out(size, &specs) {
                let mut at = MIB;
                for (spec, extent) in specs.iter().zip(&extents) {
                    prop_assert!(extent.start >= at && extent.start % MIB == 0 && extent.length % MIB == 0 && extent.length > 0);
                    if let PartitionSize::Bytes(wanted) = spec.size {
                        prop_assert!(extent.length >= wanted.0 && extent.length < wanted.0 + MIB);
                    }
                    at = extent.start + extent.length;
                }
                prop_assert!(at + 33 * 512 <= size);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(
            lay_out(10 * MIB, &[spec(PartitionSize::Bytes(Bytes(u64::MAX)))]).expect_err("huge").code,
            FaultCode::DiskTooSmall
        );
        assert!(lay_out(10 * MIB, &[spec(PartitionSize::Bytes(Bytes(8 * MIB))), spec(PartitionSize::Rest)]).is_err());
        assert_eq!(
            lay_out(10 * MIB, &[spec(PartitionSize::Rest)]).expect("fits"),
            [Extent { start: MIB, length: 8 * MIB }]
        );
    }
}
