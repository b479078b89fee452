//! Which namespaces there are, and making others (NVMe base 2.0, 5.17, 5.22 and 5.23).

use std::time::Duration;

use super::{ALL_NAMESPACES, LbaFormat, NAMESPACE_ATTACHMENT, NAMESPACE_MANAGEMENT, PAGE, identify, parse_namespace};
use crate::passthrough::{CommandError, Data, NvmeCommand, Passthrough, SOON, le16, le32, le64};

/// The formats that a new namespace may get: what all have in common (NVMe base 2.0, 5.17.2.1).
///
/// # Errors
/// When no answer can be had.
pub fn common_formats(device: &dyn Passthrough) -> Result<Vec<LbaFormat>, CommandError> {
    Ok(parse_namespace(&identify(device, "NVMe Identify common Namespace", 0, ALL_NAMESPACES)?).formats)
}

/// In what steps of bytes the sizes of namespaces with this format should grow (Namespace Granularity List); none where
/// the controller does not tell.
///
/// # Errors
/// When the answer gets lost.
pub fn granularity(device: &dyn Passthrough, format: LbaFormat) -> Result<Option<u64>, CommandError> {
    let page = match identify(device, "NVMe Namespace Granularity List", 0x16, 0) {
        Err(e) if e.declining().is_some() => return Ok(None),
        page => page?,
    };
    // One descriptor for each format, or the first for all; the number of them is told less one.
    let each = le32(&page, 0) & 1 != 0;
    let (index, last) = (if each { usize::from(format.index) } else { 0 }, usize::from(page[4]));
    let at = 32 + 16 * index;
    let (size, capacity) = (le64(&page, at), le64(&page, at + 8));
    Ok((index <= last && size > 0).then_some(size.max(capacity)))
}

/// The controllers to which a namespace is attached.
///
/// # Errors
/// When no answer can be had.
pub fn attached_to(device: &dyn Passthrough, namespace: u32) -> Result<Vec<u16>, CommandError> {
    let page = identify(device, "NVMe list of attached controllers", 0x12, namespace)?;
    let count = usize::from(le16(&page, 0)).min(PAGE / 2 - 1);
    Ok((1..=count).map(|n| le16(&page, 2 * n)).collect())
}

fn list(device: &dyn Passthrough, name: &'static str, cns: u32) -> Result<Vec<u32>, CommandError> {
    let page = identify(device, name, cns, 0)?;
    Ok((0..PAGE).step_by(4).map(|at| le32(&page, at)).take_while(|id| *id != 0).collect())
}

/// Those that have blocks, and whether each is attached to this controller.
///
/// # Errors
/// When no answer can be had.
pub fn namespaces(device: &dyn Passthrough) -> Result<Vec<(u32, bool)>, CommandError> {
    let attached = list(device, "NVMe list of attached namespaces", 0x02)?;
    let allocated = match list(device, "NVMe list of allocated namespaces", 0x10) {
        Ok(list) => list,
        // Without namespace management there is nothing that could be allocated and not attached.
        Err(e) if e.declining().is_some() => attached.clone(),
        Err(e) => return Err(e),
    };
    let mut all: Vec<(u32, bool)> = attached.iter().map(|id| (*id, true)).collect();
    all.extend(allocated.into_iter().filter(|id| !attached.contains(id)).map(|id| (id, false)));
    all.sort_unstable();
    Ok(all)
}

/// Makes a namespace known to the controller, or takes it away from it. Its data stay.
///
/// # Errors
/// When the device declines.
pub fn attach(device: &dyn Passthrough, namespace: u32, controller: u16, attach: bool) -> Result<(), CommandError> {
    let mut list = vec![0; PAGE];
    list[..2].copy_from_slice(&1u16.to_le_bytes());
    list[2..4].copy_from_slice(&controller.to_le_bytes());
    let name = if attach { "NVMe Namespace Attachment, attach" } else { "NVMe Namespace Attachment, detach" };
    let cdw10 = u32::from(!attach);
    let command = NvmeCommand { opcode: NAMESPACE_ATTACHMENT, namespace, cdw10, ..NvmeCommand::default() };
    device.nvme(name, &command, Data::Out(&list), SOON).map(drop)
}

/// Deletes a namespace with everything on it.
///
/// # Errors
/// When the device declines.
pub fn delete_namespace(device: &dyn Passthrough, namespace: u32) -> Result<(), CommandError> {
    const DELETE: u32 = 1;
    let command = NvmeCommand { opcode: NAMESPACE_MANAGEMENT, namespace, cdw10: DELETE, ..NvmeCommand::default() };
    // Some deallocate every block before they answer.
    device.nvme("NVMe Namespace Management, delete", &command, Data::None, Duration::from_mins(10)).map(drop)
}

/// Makes a namespace of so many blocks, for one controller, and gives its number. It is attached to none yet.
///
/// # Errors
/// When the device declines.
pub fn create_namespace(device: &dyn Passthrough, blocks: u64, format: LbaFormat) -> Result<u32, CommandError> {
    const NAME: &str = "NVMe Namespace Management, create";
    let mut page = vec![0; PAGE];
    page[..8].copy_from_slice(&blocks.to_le_bytes());
    // As much capacity as size: nothing is provisioned thinly.
    page[8..16].copy_from_slice(&blocks.to_le_bytes());
    page[26] = format.index & 0x0f | (format.index >> 4 & 3) << 5;
    let command = NvmeCommand { opcode: NAMESPACE_MANAGEMENT, ..NvmeCommand::default() };
    match device.nvme(NAME, &command, Data::Out(&page), Duration::from_mins(10))? {
        0 | ALL_NAMESPACES => Err(CommandError::Nonsense { command: NAME, what: "it names no namespace".into() }),
        id => Ok(id),
    }
}
