//! Which disks are wiped, and which should have been here.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::{Rejection, describe, unusable};
use speediso_model::inventory::Disk;
use speediso_model::outcome::{DeviceResult, Outcome};
use speediso_model::plan::DiskIdentity;
use speediso_model::task::{RecordedDisk, WipeTargets, WipeTask};

pub(crate) fn choose_disks<'a>(devices: &WipeTargets, all: &'a [Disk]) -> Result<Vec<&'a Disk>, Fault> {
    let mut chosen: Vec<&Disk> = Vec::new();
    match devices {
        WipeTargets::Hints(hints) => {
            for hint in hints {
                let disk = hint.resolve(all)?;
                if chosen.iter().any(|c| c.name == disk.name) {
                    return Err(Fault::new(FaultCode::TaskInvalid, format!("{} is named twice", describe(disk))));
                }
                chosen.push(disk);
            }
        }
        WipeTargets::AllDisks => {
            for disk in all.iter().filter(|d| !d.removable && d.array.is_none() && d.excluded.is_none()) {
                // A disk in use is not left out: the order says all, and "all but some" is not what it says.
                if let Some(Rejection::Unusable { code, reason }) = unusable(disk, false) {
                    return Err(Fault::new(code, format!("{}: {reason}", describe(disk))));
                }
                chosen.push(disk);
            }
            if let Some((one, other)) = same_disk_twice(&chosen) {
                return Err(Fault::new(
                    FaultCode::AmbiguousDisk,
                    format!("{} and {} have one WWN: two paths to one disk?", describe(one), describe(other)),
                ));
            }
            if chosen.is_empty() {
                return Err(Fault::new(FaultCode::NoMatchingDisk, "no disk here is fixed and not to be skipped"));
            }
        }
    }
    Ok(chosen)
}

/// Two paths to one disk, wiped at once, would write over each other.
fn same_disk_twice<'a>(disks: &[&'a Disk]) -> Option<(&'a Disk, &'a Disk)> {
    disks.iter().enumerate().find_map(|(i, one)| {
        let wwn = one.wwn.as_ref()?;
        disks[i + 1..].iter().find(|other| other.wwn.as_ref() == Some(wwn)).map(|other| (*one, *other))
    })
}

pub(super) fn absent<'a>(task: &'a WipeTask, all: &'a [Disk]) -> impl Iterator<Item = &'a RecordedDisk> {
    task.expect.iter().filter(|recorded| !all.iter().any(|disk| recorded.is(disk)))
}

/// A disk that was recorded and is not here: its data are somewhere.
pub(super) fn lost_sight_of(disk: &RecordedDisk) -> DeviceResult {
    let fault = Fault::new(
        FaultCode::DiskVanished,
        format!("{disk} was recorded in this machine and is not here: what became of its data nobody can say"),
    )
    .because("find the disk, or take it out of expect if it is known to have been destroyed");
    DeviceResult {
        identity: DiskIdentity {
            serial: disk.serial.clone(),
            wwn: disk.wwn.clone(),
            model: disk.model.clone(),
            size: disk.size,
            logical_sectors: 0,
            diskseq: None,
        },
        seen_as: "absent".into(),
        outcome: Outcome::Unknown,
        changed: None,
        used: "none".into(),
        fault: Some(fault),
        facts: serde_json::Value::Null,
    }
}
