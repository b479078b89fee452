//! Where arrays stand on their disks: worked out here, to the byte, so that a plan can say it and the kernel's answer can
//! be compared with it. `mdadm` is told every figure and chooses none.

use super::{RaidArray, RaidLevel, RaidMetadata, RaidSize};
use crate::units::{Bytes, MIB};

/// An array's place on each of its disks. In bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Its number in the table; none for a whole disk.
    pub partition: Option<u32>,
    pub start: u64,
    pub length: u64,
    /// From `start` to the data.
    pub data_offset: u64,
    /// How much of it holds data.
    pub component: u64,
    /// What the array offers.
    pub capacity: u64,
}

/// Places arrays one after the other on disks of which the smallest has `disk_size`, at multiples of 1 MiB, which is a
/// multiple of every sector size and of every erase block that matters.
///
/// # Errors
/// With the array that does not fit.
pub fn lay_out(arrays: &[&RaidArray], members: usize, disk_size: u64, whole_disks: bool) -> Result<Vec<Slot>, String> {
    if whole_disks {
        let [array] = arrays else {
            return Err("whole_disks: several arrays cannot have the whole of the same disks".into());
        };
        return Ok(vec![place(array, members, None, 0, disk_size)?]);
    }
    // The backup table takes at most 33 sectors of 512, or 5 of 4096; a whole MiB keeps the end aligned.
    let end = (disk_size / MIB).saturating_sub(1) * MIB;
    let mut at = MIB;
    let mut slots = Vec::new();
    for (number, array) in (1..).zip(arrays) {
        if array.size == RaidSize::Rest && slots.len() + 1 != arrays.len() {
            return Err(format!("array {:?} takes the rest, but is not the last one on its disks", array.name));
        }
        let slot = place(array, members, Some(number), at, end.saturating_sub(at))?;
        at += slot.length;
        slots.push(slot);
    }
    Ok(slots)
}

/// `room` is what may be used from `start` on.
fn place(array: &RaidArray, members: usize, partition: Option<u32>, start: u64, room: u64) -> Result<Slot, String> {
    let active = array.active(members) as u64;
    let unit = array.chunk_size().unwrap_or(MIB).max(MIB);
    let too_small = || format!("array {:?} does not fit: {} are left on each disk", array.name, Bytes(room));
    let (component, length) = match array.size {
        RaidSize::Rest => {
            let component = room.checked_sub(overhead(array.metadata, room)).ok_or_else(too_small)? / unit * unit;
            (component, room)
        }
        RaidSize::Bytes(Bytes(size)) => {
            let each = match array.level {
                RaidLevel::Stripes => size.div_ceil(active),
                RaidLevel::Mirror => size,
                RaidLevel::Parity => size.div_ceil(active - 1),
                RaidLevel::DoubleParity => size.div_ceil(active - 2),
                // Counted in chunks, of which an odd number of members may leave half a one unused.
                RaidLevel::StripedMirrors => {
                    let chunk = array.chunk_size().unwrap_or(MIB);
                    (size.div_ceil(chunk) * 2).div_ceil(active).checked_mul(chunk).ok_or_else(too_small)?
                }
            };
            let component = each.checked_next_multiple_of(unit).ok_or_else(too_small)?;
            let used = component.checked_add(overhead(array.metadata, component)).ok_or_else(too_small)?;
            (component, if partition.is_some() { used } else { room.max(used) })
        }
    };
    if component == 0 || length > room {
        return Err(too_small());
    }
    let data_offset = match array.metadata {
        RaidMetadata::AtEnd => 0,
        RaidMetadata::AtStart | RaidMetadata::NearStart => match array.size {
            RaidSize::Rest => overhead(array.metadata, room),
            RaidSize::Bytes(_) => overhead(array.metadata, component),
        },
    };
    Ok(Slot { partition, start, length, data_offset, component, capacity: capacity(array, active, component) })
}

/// What a member keeps for itself: superblock, bitmap, list of bad blocks, and room to be reshaped later.
fn overhead(metadata: RaidMetadata, size: u64) -> u64 {
    match metadata {
        // Behind the data, where nothing can be reshaped into.
        RaidMetadata::AtEnd => MIB,
        RaidMetadata::AtStart | RaidMetadata::NearStart => (size / 1024).next_multiple_of(MIB).clamp(MIB, 128 * MIB),
    }
}

fn capacity(array: &RaidArray, active: u64, component: u64) -> u64 {
    match array.level {
        RaidLevel::Stripes => component * active,
        RaidLevel::Mirror => component,
        RaidLevel::Parity => component * (active - 1),
        RaidLevel::DoubleParity => component * (active - 2),
        // Of an odd number of members the last chunk may have no room for its copy.
        RaidLevel::StripedMirrors => {
            let chunk = array.chunk_size().unwrap_or(MIB);
            component / chunk * active / 2 * chunk
        }
    }
}
