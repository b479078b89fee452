//! Making and assembling the arrays of one set of disks, and seeing that they are what was wished.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use gpt::partition::Partition;
use gpt::partition_types::Type;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::outcome::Outcome;
use speediso_model::raid::RaidLevel;
use speediso_model::units::MIB;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::ClaimedDisk;
use speediso_sys::lend::{LentDisk, Node, NodeDirectory};
use speediso_sys::md::{self, KnownArray};
use speediso_sys::tool::ToolError;
use uuid::Uuid;

use super::mdadm::Mdadm;
use super::survey::Group;
use super::sync::look;
use super::wish::Wish;
use crate::ctx::TaskCtx;
use crate::gptedit::{self, EDGE, Edges};
use crate::single::OnDisk as _;

type Failed = (Outcome, Fault);

/// Nothing was written so far.
fn unchanged(fault: Fault) -> Failed {
    (Outcome::FailedUnchanged, fault)
}

fn changed(fault: Fault) -> Failed {
    (Outcome::FailedChanged, fault)
}

/// Tables, empty places for the members, and the arrays in them.
pub(super) fn make(
    group: &Group<'_>,
    disks: Vec<ClaimedDisk>,
    mdadm: &Mdadm,
    ctx: &TaskCtx,
) -> Result<Vec<KnownArray>, Failed> {
    let is_partitioned = group.wishes.iter().any(|wish| wish.slot.partition.is_some());
    let mut tables = Vec::new();
    for disk in &disks {
        tables.push(if is_partitioned { Some(table(&group.wishes, disk).map_err(unchanged)?) } else { None });
    }
    ctx.reporter.step_began("members");
    for (disk, table) in disks.iter().zip(&tables) {
        clear(disk, &group.wishes, table.as_ref()).map_err(changed)?;
    }
    ctx.reporter.step_ended("members", &format!("{} disks emptied", disks.len()));
    let lent = lend(disks).map_err(changed)?;
    let directory = NodeDirectory::make(&ctx.roots).map_err(|e| changed(lending(&e)))?;
    let mut known = Vec::new();
    for wish in &group.wishes {
        let step = format!("array {}", wish.array.name);
        ctx.reporter.step_began(&step);
        let nodes = nodes(wish, &lent, &directory, ctx).map_err(changed)?;
        let device = free_device(ctx).map_err(changed)?;
        let uuid = wish.array.uuid.unwrap_or_else(Uuid::new_v4);
        let made = mdadm
            .create(wish, uuid, &device, &paths(&nodes))
            .map_err(|error| by_tool(&error, wish, Outcome::FailedChanged))
            .and_then(|()| see(wish, uuid, &device, &nodes, &lent, mdadm, ctx));
        known.push(made.map_err(|failed| give_up(failed, &device, mdadm, ctx))?);
        ctx.reporter.step_ended(&step, &format!("/dev/{device}: {}", wish.in_words()));
    }
    Ok(known)
}

/// By the UUIDs that the task names. Changes nothing on the disks.
pub(super) fn assemble(
    group: &Group<'_>,
    disks: Vec<ClaimedDisk>,
    mdadm: &Mdadm,
    ctx: &TaskCtx,
) -> Result<Vec<KnownArray>, Failed> {
    let lent = lend(disks).map_err(unchanged)?;
    let directory = NodeDirectory::make(&ctx.roots).map_err(|e| unchanged(lending(&e)))?;
    let mut known = Vec::new();
    for wish in &group.wishes {
        let nodes = nodes(wish, &lent, &directory, ctx).map_err(unchanged)?;
        let device = free_device(ctx).map_err(unchanged)?;
        let uuid = wish.array.uuid.unwrap_or_default();
        let assembled = mdadm
            .assemble(uuid, &device, &paths(&nodes))
            .map_err(|error| by_tool(&error, wish, Outcome::FailedUnchanged))
            .and_then(|()| {
                see(wish, uuid, &device, &nodes, &lent, mdadm, ctx).map_err(|(outcome, fault)| match outcome {
                    Outcome::FailedChanged => (Outcome::FailedUnchanged, fault),
                    other => (other, fault),
                })
            });
        known.push(assembled.map_err(|failed| give_up(failed, &device, mdadm, ctx))?);
    }
    Ok(known)
}

fn table(wishes: &[Wish<'_>], disk: &ClaimedDisk) -> Result<Edges, Fault> {
    let sector = disk.sector_size();
    let partitions: BTreeMap<u32, Partition> = wishes
        .iter()
        .filter_map(|wish| {
            let partition = Partition {
                part_type_guid: Type::from(wish.array.partition_kind().guid().unwrap_or_default()),
                part_guid: Uuid::new_v4(),
                first_lba: wish.slot.start / sector,
                last_lba: (wish.slot.start + wish.slot.length) / sector - 1,
                flags: 0,
                name: wish.array.name.clone(),
            };
            Some((wish.slot.partition?, partition))
        })
        .collect();
    gptedit::finish(gptedit::create(disk.size(), sector, None)?, sector, partitions)
}

/// Where superblocks of old stand and where the new array begins and ends, so that nothing of before comes to light, not
/// as a member and not in the array.
fn edges_of(wish: &Wish<'_>) -> [u64; 4] {
    let slot = &wish.slot;
    let data = slot.start + slot.data_offset;
    [slot.start, slot.start + slot.length - EDGE, data, data + slot.component - EDGE]
}

fn clear(disk: &ClaimedDisk, wishes: &[Wish<'_>], table: Option<&Edges>) -> Result<(), Fault> {
    Edges::zeroed(disk.size()).write(disk)?;
    let length = usize::try_from(MIB).unwrap_or(1 << 20);
    let mut buffer = AlignedBuffer::zeroed(length);
    for offset in wishes.iter().flat_map(edges_of) {
        disk.write_at(offset, &buffer).on(disk)?;
    }
    disk.flush().on(disk)?;
    for offset in wishes.iter().flat_map(edges_of) {
        disk.read_at(offset, &mut buffer).on(disk)?;
        if buffer.iter().any(|b| *b != 0) {
            return Err(Fault::new(
                FaultCode::ReadBackMismatch,
                format!("{} does not return the zeroes written at byte {offset}", disk.name()),
            ));
        }
    }
    if let Some(table) = table {
        table.write(disk)?;
    }
    // Of a whole disk too: the kernel forgets the partitions that were there.
    let is_read = disk.reread_table().on(disk)?;
    if table.is_some() && !is_read {
        return Err(Fault::new(
            FaultCode::Unsupported,
            format!("the kernel reads no partition table of {}", disk.name()),
        ));
    }
    Ok(())
}

fn lend(disks: Vec<ClaimedDisk>) -> Result<Vec<LentDisk>, Fault> {
    disks
        .into_iter()
        .map(|disk| {
            let name = describe(disk.disk());
            disk.lend()
                .map_err(|e| Fault::from_error(FaultCode::DiskVanished, &e).because(format!("lending {name} to mdadm")))
        })
        .collect()
}

fn lending(error: &io::Error) -> Fault {
    Fault::from_error(FaultCode::Io, error).because("making device nodes for mdadm")
}

fn nodes(wish: &Wish<'_>, lent: &[LentDisk], directory: &NodeDirectory, ctx: &TaskCtx) -> Result<Vec<Node>, Fault> {
    wish.order
        .iter()
        .map(|i| {
            let disk = &lent[*i];
            disk.node(&ctx.roots, directory, wish.part()).map_err(|e| {
                lending(&e).because(format!("member of array {:?} on {}", wish.array.name, describe(disk.disk())))
            })
        })
        .collect()
}

fn paths(nodes: &[Node]) -> Vec<&Path> {
    nodes.iter().map(Node::path).collect()
}

fn free_device(ctx: &TaskCtx) -> Result<String, Fault> {
    md::free_device(&ctx.roots)
        .ok_or_else(|| Fault::new(FaultCode::Unsupported, "all names of md devices that mdadm gives out are taken"))
}

fn by_tool(error: &ToolError, wish: &Wish<'_>, otherwise: Outcome) -> Failed {
    let mut fault = error.fault().because(format!("for array {}", wish.in_words()));
    if error.is_unknown() {
        fault.advice = format!(
            "nobody knows what the members of array {:?} hold: power-cycle the machine, look at the disks with mdadm --examine, \
             then order again with replace",
            wish.array.name
        );
        return (Outcome::Unknown, fault);
    }
    (otherwise, fault)
}

/// An array that is not what it should be is not left running, so that its disks are free for the next attempt.
fn give_up((outcome, mut fault): Failed, device: &str, mdadm: &Mdadm, ctx: &TaskCtx) -> Failed {
    if outcome != Outcome::Unknown
        && ctx.roots.sys.join("block").join(device).exists()
        && let Err(error) = mdadm.stop(device)
    {
        fault.causes.push(format!("/dev/{device} could not be stopped and goes on holding the disks: {error}"));
    }
    (outcome, fault)
}

/// The kernel's array and each member's superblock must be as wished, and the members the disks that were lent.
fn see(
    wish: &Wish<'_>,
    uuid: Uuid,
    device: &str,
    nodes: &[Node],
    lent: &[LentDisk],
    mdadm: &Mdadm,
    ctx: &TaskCtx,
) -> Result<KnownArray, Failed> {
    let found = look(device, ctx)?;
    let numbers: Vec<String> = nodes.iter().map(|node| node.number().to_owned()).collect();
    let mut differences = wish.differs_from(&found, Some(&numbers));
    let mut spares = 0;
    for (node, i) in nodes.iter().zip(&wish.order) {
        let name = describe(lent[*i].disk());
        match mdadm.examine(node.path()).map_err(changed)? {
            Some(superblock) => {
                spares += usize::from(superblock.is_spare);
                let mut of_this = wish.differs_from_superblock(&superblock);
                if superblock.uuid != uuid.simple().to_string() {
                    of_this.push(format!("uuid is {}, not {}", superblock.uuid, uuid.simple()));
                }
                differences.extend(of_this.into_iter().map(|what| format!("superblock of {name}: {what}")));
            }
            None => differences.push(format!("{name} has no superblock")),
        }
    }
    // A new array with one parity is filled as if its last member had been exchanged, which is the quickest way.
    let most = wish.array.spares + usize::from(wish.array.level == RaidLevel::Parity);
    if !(wish.array.spares..=most).contains(&spares) {
        differences.push(format!("{spares} of its members are spares, not {}", wish.array.spares));
    }
    if !differences.is_empty() {
        let mut fault = Fault::new(
            FaultCode::VerifyFailed,
            format!("array {:?} (/dev/{device}) is not what was ordered", wish.array.name),
        );
        fault.causes = differences;
        return Err(changed(fault));
    }
    let io = |e: &io::Error| changed(Fault::from_error(FaultCode::Io, e).because(format!("noting array {device}")));
    let known = KnownArray {
        name: wish.array.name.clone(),
        uuid: uuid.hyphenated().to_string(),
        level: wish.array.level.to_string(),
        device: device.to_owned(),
        diskseq: KnownArray::diskseq_of(&ctx.roots, device).map_err(|e| io(&e))?,
        members: wish.order.iter().map(|i| lent[*i].identity().clone()).collect(),
    };
    known.remember(&ctx.roots).map_err(|e| io(&e))?;
    Ok(known)
}
