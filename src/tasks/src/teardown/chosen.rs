//! Which disks are meant. Unlike for other tasks, one that is held is no reason to refuse.

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::hints::{Rejection, describe, unusable};
use speediso_model::inventory::Disk;
use speediso_model::wipe::WipeTargets;

/// A disk, and whether a removable one may be it.
#[derive(Clone, Debug)]
pub(super) struct Chosen<'a> {
    pub(super) disk: &'a Disk,
    pub(super) allow_removable: bool,
}

pub(super) fn choose<'a>(targets: &WipeTargets, all: &'a [Disk]) -> Result<Vec<Chosen<'a>>, Fault> {
    // Everything else (read-only, removable, two that match) is refused as always.
    let freed: Vec<Disk> = all.iter().map(|disk| Disk { in_use: Vec::new(), ..disk.clone() }).collect();
    let mut chosen: Vec<Chosen<'a>> = Vec::new();
    match targets {
        WipeTargets::Hints(hints) => {
            for hint in hints {
                let name = &hint.resolve(&freed)?.name;
                let Some(disk) = all.iter().find(|disk| disk.name == *name) else {
                    return Err(Fault::new(FaultCode::Internal, format!("{name} was chosen and is not there")));
                };
                if let Some(array) = &disk.array {
                    return Err(Fault::new(
                        FaultCode::TaskInvalid,
                        format!("teardown: name the disks that the array {array:?} stands on, not the array"),
                    ));
                }
                if chosen.iter().any(|c| c.disk.name == disk.name) {
                    return Err(Fault::new(FaultCode::TaskInvalid, format!("{} is named twice", describe(disk))));
                }
                chosen.push(Chosen { disk, allow_removable: hint.allow_removable });
            }
        }
        WipeTargets::AllDisks => {
            // As in a wipe: what is nobody's is left alone, which the plan says; arrays come down with their disks.
            let meant = |disk: &Disk| !disk.removable && disk.array.is_none() && disk.excluded.is_none();
            for (disk, freed) in all.iter().zip(&freed).filter(|(disk, _)| meant(disk)) {
                if let Some(Rejection::Unusable { code, reason }) = unusable(freed, false) {
                    return Err(Fault::new(code, format!("{}: {reason}", describe(disk))));
                }
                chosen.push(Chosen { disk, allow_removable: false });
            }
            if chosen.is_empty() {
                return Err(Fault::new(FaultCode::NoMatchingDisk, "no disk here is fixed"));
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests")]
    use super::*;
    use speediso_model::hints::RootDeviceHints;
    use speediso_model::inventory::{Exclusion, Transport, Use};
    use speediso_model::units::Bytes;

    fn disks() -> Vec<Disk> {
        ["A", "B"]
            .iter()
            .map(|serial| Disk {
                name: format!("/dev/{serial}"),
                serial: (*serial).into(),
                size: Bytes::gib(1),
                in_use: vec![Use::Holder { device: format!("/dev/{serial}"), name: "md127".into() }],
                ..Disk::default()
            })
            .collect()
    }

    fn serial(serial: &str) -> RootDeviceHints {
        RootDeviceHints { serial: Some(serial.into()), ..RootDeviceHints::default() }
    }

    #[test]
    fn a_held_disk_is_taken_and_a_bad_one_is_not() {
        let mut disks = disks();
        let named = WipeTargets::Hints(vec![serial("B")]);
        let chosen = choose(&named, &disks).expect("held");
        assert_eq!((chosen[0].disk.name.as_str(), chosen[0].disk.in_use.len()), ("/dev/B", 1));
        assert_eq!(choose(&WipeTargets::AllDisks, &disks).expect("held").len(), 2);
        let twice = WipeTargets::Hints(vec![serial("B"), serial("b")]);
        assert_eq!(choose(&twice, &disks).expect_err("twice").code, FaultCode::TaskInvalid);
        disks[1].read_only = true;
        for targets in [named, WipeTargets::AllDisks] {
            assert_eq!(choose(&targets, &disks).expect_err("read-only").code, FaultCode::DiskReadOnly);
        }
        disks[1].read_only = false;
        disks[1].removable = true;
        assert_eq!(choose(&WipeTargets::AllDisks, &disks).expect("the other").len(), 1);
    }

    #[test]
    fn arrays_and_what_is_skipped_are_not_among_all_disks() {
        let mut disks = disks();
        disks[0].excluded = Some(Exclusion::Skipped { by: "serial=\"A\"".into() });
        let array =
            Disk { name: "/dev/md127".into(), tran: Transport::Md, array: Some("root".into()), ..disks[1].clone() };
        disks.push(Disk { serial: "uuid".into(), ..array });
        let chosen = choose(&WipeTargets::AllDisks, &disks).expect("the other");
        assert_eq!(chosen.iter().map(|c| c.disk.name.as_str()).collect::<Vec<_>>(), ["/dev/B"]);
        let skipped = choose(&WipeTargets::Hints(vec![serial("A")]), &disks).expect_err("skipped");
        // As if it were not there; the causes say why.
        assert_eq!(skipped.code, FaultCode::NoMatchingDisk);
        let array = RootDeviceHints { array: Some("root".into()), ..RootDeviceHints::default() };
        let refused = choose(&WipeTargets::Hints(vec![array]), &disks).expect_err("an array");
        assert_eq!(refused.code, FaultCode::TaskInvalid);
    }
}
