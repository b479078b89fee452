//! How the firmware boots from a mirror: it knows nothing of it and reads each member by itself.

use std::fs::File;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::describe;
use speediso_model::inventory::Disk;
use speediso_sys::md::{self, MdArray, MdMember};
use speediso_sys::roots::{Roots, read_number};

use super::esp::{self, Target};
use super::open;
use crate::ctx::TaskCtx;

/// What the firmware shall load, from each member.
pub(super) fn targets(
    file: &File,
    array: &Disk,
    loader: Option<&str>,
    all: &[Disk],
    ctx: &TaskCtx,
) -> Result<Vec<Target>, Fault> {
    let members = check_readable_by_firmware(array, ctx)?;
    let partitions: Vec<(&MdMember, Option<u32>)> =
        members.iter().map(|member| (member, partition_number(&ctx.roots, member))).collect();
    if partitions.iter().all(|(_, number)| number.is_none()) {
        // Whole disks: one table, so one partition of one GUID on all of them, which one entry finds on any.
        return Ok(vec![esp::find(file, array, loader)?]);
    }
    let loader = esp::find_bare(file, array, loader)?;
    partitions
        .into_iter()
        .map(|(member, number)| {
            let name = md::disk_of(&ctx.roots, &member.number);
            let path = name.map(|name| ctx.roots.dev.join(name.replace('!', "/")).display().to_string());
            let (Some(disk), Some(number)) = (all.iter().find(|d| Some(&d.name) == path.as_ref()), number) else {
                return Err(Fault::new(
                    FaultCode::DiskVanished,
                    format!("the disk of member {} of {} is not here", member.device, describe(array)),
                ));
            };
            esp::partition(&open(disk, ctx)?, disk, number, &loader)
        })
        .collect()
}

/// The members, if each of them looks to the firmware like a disk or partition of its own.
pub(super) fn check_readable_by_firmware(array: &Disk, ctx: &TaskCtx) -> Result<Vec<MdMember>, Fault> {
    let device = array.name.rsplit('/').next().unwrap_or_default();
    let found = MdArray::read(&ctx.roots, device).map_err(|e| {
        Fault::from_error(FaultCode::Io, &e).because(format!("looking for the members of {}", describe(array)))
    })?;
    if found.level != "raid1" || found.metadata != "1.0" {
        return Err(Fault::new(
            FaultCode::Unsupported,
            format!(
                "{} is {} with metadata {}: a firmware reads only a mirror (raid1) with its superblock at the end (1.0)",
                describe(array),
                found.level,
                found.metadata
            ),
        ));
    }
    Ok(found.members.into_iter().filter(|m| m.slot.is_some() && !m.is("faulty")).collect())
}

fn partition_number(roots: &Roots, member: &MdMember) -> Option<u32> {
    let number = read_number(&roots.sys.join("dev/block").join(&member.number).join("partition"))?;
    u32::try_from(number).ok()
}
