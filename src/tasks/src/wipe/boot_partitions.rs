//! Boot partitions of an NVMe controller: no erasure by the device reaches them. The host writes them over, with the same
//! kind of pattern as a disk, and reads them back.

use speediso_model::abilities::NvmeAbilities;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::units::Bytes;
use speediso_sys::passthrough::nvme;

use super::log::{Log, asked};
use super::pattern::{Kind, Pattern};
use super::target::Target;
use crate::ctx::{Meter, TaskCtx};

const PIECE: usize = 4096;

/// Whether they are written over, and how or why not. They belong to the controller, so to every disk behind it.
pub(super) fn covered(able: &NvmeAbilities, hidden: bool) -> (bool, &'static str) {
    match (hidden, able.others.iter().any(|other| other.attached)) {
        (true, false) => (true, "written by the host as firmware is, and read back"),
        (true, true) => (false, "of a controller that has another disk of this machine, too"),
        (false, _) => (false, "the task did not ask for it (hidden_areas)"),
    }
}

/// Both, if the task covers them. Returns what was done, in words.
pub(super) fn overwrite(
    able: &NvmeAbilities,
    hidden: bool,
    device: &dyn Target,
    ctx: &TaskCtx,
    log: &mut Log,
) -> Result<Vec<String>, Fault> {
    let Some(size) = able.boot_partition.filter(|_| covered(able, hidden).0) else { return Ok(Vec::new()) };
    let name = device.name();
    let granularity = asked(name, nvme::controller(device))?.download_granularity;
    let mut steps = Vec::new();
    for which in 0..2 {
        let pattern = Pattern { kind: Kind::Overwrite, seed: rand::random() };
        let command = format!("NVMe Firmware Commit, boot partition {which}");
        let written = nvme::write_boot_partition(device, which, size, granularity, |at, bytes| pattern.fill(at, bytes));
        log.changing(name, &command, written).map_err(|fault| {
            fault
                .because(format!("boot partition {which} ({size}) could not be written over"))
                .because("take its protection away, or leave it (`hidden_areas`: false), which the report then says")
        })?;
        let mut meter = Meter::new(ctx, "reading a boot partition back", name, Some(size.0));
        let mut bytes = vec![0; PIECE];
        for at in (0..size.0).step_by(PIECE) {
            ctx.cancel.check()?;
            asked(name, nvme::read_boot_partition(device, which, at, &mut bytes))?;
            if let Some(at) = pattern.first_difference(at, &bytes) {
                let what =
                    format!("{name} does not return at byte {at} of boot partition {which} what was written there");
                return Err(Fault::new(FaultCode::ReadBackMismatch, what));
            }
            meter.at(at + PIECE as u64);
        }
        steps.push(format!(
            "boot partition {which} ({}) overwritten and read back (seed {:016x})",
            Bytes(size.0),
            pattern.seed
        ));
    }
    Ok(steps)
}
