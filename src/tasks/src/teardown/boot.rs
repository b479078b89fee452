//! Boot entries of the firmware that point to partitions of the disks, which will be gone.

use std::fmt;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::inventory::Disk;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::efi::{self, DeviceNode, EfiError, PartitionSignature};
use speediso_sys::peek::Peek;
use speediso_sys::roots::Roots;

use super::chosen::Chosen;
use super::intent::kernel_name;
use crate::ctx::TaskCtx;
use crate::table;

/// An entry that points to a disk.
pub(super) struct Pointing {
    /// As sysfs calls it.
    pub(super) disk: String,
    number: u16,
    label: String,
}

impl fmt::Display for Pointing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "remove firmware entry {} {:?}, which points to {}",
            efi::boot_name(self.number),
            self.label,
            self.disk
        )
    }
}

impl Pointing {
    /// The order first: an order that names what is not there is what some firmware repairs in its own way.
    pub(super) fn remove(&self, roots: &Roots) -> Result<(), Fault> {
        let removed = || -> Result<bool, EfiError> {
            let order = efi::boot_order(roots)?;
            let without: Vec<u16> = order.iter().copied().filter(|number| *number != self.number).collect();
            if without != order {
                efi::set_boot_order(roots, &without)?;
            }
            let next = efi::read(roots, "BootNext", efi::GLOBAL)?.map(|variable| variable.data);
            if next.is_some_and(|data| data == self.number.to_le_bytes()) {
                efi::delete(roots, "BootNext", efi::GLOBAL)?;
            }
            efi::delete_boot_entry(roots, self.number)?;
            let stays = efi::boot_entries(roots)?.iter().any(|entry| entry.number == self.number);
            Ok(!stays && efi::boot_order(roots)? == without)
        };
        let failed = |fault: Fault| fault.because(format!("could not {self}"));
        match removed() {
            Ok(true) => Ok(()),
            Ok(false) => {
                let name = efi::boot_name(self.number);
                Err(failed(Fault::new(FaultCode::FirmwareVariable, format!("the firmware still has entry {name}"))))
            }
            Err(e) => Err(failed(Fault::from_error(FaultCode::FirmwareVariable, &e))),
        }
    }
}

/// Those that point to one of the chosen disks, and to no other.
pub(super) fn pointing(ctx: &TaskCtx, chosen: &[Chosen<'_>], all: &[Disk]) -> Result<Vec<Pointing>, Fault> {
    if !efi::is_uefi(&ctx.roots) {
        return Ok(Vec::new());
    }
    let entries = efi::boot_entries(&ctx.roots).map_err(|e| Fault::from_error(FaultCode::FirmwareVariable, &e))?;
    let signatures = |entry: &efi::BootEntry| -> Vec<PartitionSignature> {
        let nodes = entry.option.iter().flat_map(|option| &option.path);
        nodes
            .filter_map(|node| match node {
                DeviceNode::HardDrive { signature, .. } => Some(signature.clone()),
                _ => None,
            })
            .collect()
    };
    if entries.iter().all(|entry| signatures(entry).is_empty()) {
        return Ok(Vec::new());
    }
    let is_chosen = |disk: &Disk| chosen.iter().any(|c| c.disk.name == disk.name);
    let (ours, others): (Vec<&Disk>, Vec<&Disk>) = all.iter().partition(|disk| is_chosen(disk));
    // A copy of a disk has the same names for its partitions: such an entry works on.
    let elsewhere: Vec<PartitionSignature> = others.iter().flat_map(|disk| partitions(disk, ctx)).collect();
    let mut found = Vec::new();
    for disk in ours {
        let here = partitions(disk, ctx);
        for entry in &entries {
            let points_here = |s: &PartitionSignature| here.contains(s) && !elsewhere.contains(s);
            let is_known = found.iter().any(|known: &Pointing| known.number == entry.number);
            if let Some(option) = entry.option.as_ref().filter(|_| !is_known)
                && signatures(entry).iter().any(points_here)
            {
                let (disk, label) = (kernel_name(&ctx.roots, disk), option.description.clone());
                found.push(Pointing { disk, number: entry.number, label });
            }
        }
    }
    Ok(found)
}

/// By what an entry can name a partition of the disk. A table that cannot be read names none: its entries stay.
fn partitions(disk: &Disk, ctx: &TaskCtx) -> Vec<PartitionSignature> {
    let entries = table::peek(disk, ctx).unwrap_or_default();
    let mut found: Vec<PartitionSignature> =
        entries.iter().map(|entry| PartitionSignature::Gpt(entry.partition.part_guid.to_bytes_le())).collect();
    found.extend(mbr_signature(disk, ctx));
    found
}

fn mbr_signature(disk: &Disk, ctx: &TaskCtx) -> Option<PartitionSignature> {
    let mut sector = AlignedBuffer::zeroed(4096);
    Peek::open(&ctx.roots, disk).and_then(|peek| peek.read_at(0, &mut sector)).ok()?;
    let signature: [u8; 4] = sector.get(440..444)?.try_into().ok()?;
    let is_mbr = sector[510..512] == [0x55, 0xaa] && signature != [0; 4];
    is_mbr.then_some(PartitionSignature::Mbr(signature))
}
