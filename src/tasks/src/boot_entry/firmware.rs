//! What has to change in the firmware's variables, and changing it.

use serde_json::json;
use speediso_model::fault::{Fault, FaultCode};
use speediso_model::outcome::{Changed, Outcome};
use speediso_model::task::BootPosition;
use speediso_sys::efi::{self, EfiError, LoadOption};
use speediso_sys::roots::Roots;

use super::esp::Target;
use crate::single::Ended;

/// From the variables as they are to the variables as they shall be.
pub(super) struct Change {
    label: String,
    position: BootPosition,
    target: Target,
    number: u16,
    option: LoadOption,
    /// The entry is there already, byte for byte.
    is_written: bool,
    /// Entries of the same label, or for the same loader.
    outdated: Vec<u16>,
    order_before: Vec<u16>,
    order: Vec<u16>,
}

impl Change {
    pub(super) fn towards(roots: &Roots, label: &str, position: BootPosition, target: Target) -> Result<Self, Fault> {
        let entries = efi::boot_entries(roots).map_err(|e| unreadable(&e))?;
        let order_before = efi::boot_order(roots).map_err(|e| unreadable(&e))?;
        let current = efi::boot_current(roots).map_err(|e| unreadable(&e))?;
        let option = LoadOption::for_file(
            label,
            target.number,
            target.first_sector,
            target.sectors,
            target.guid,
            &target.loader,
        );
        let same_meaning = |other: &LoadOption| {
            other.description == label
                || other
                    .target()
                    .is_some_and(|(guid, file)| guid == target.guid && file.eq_ignore_ascii_case(&target.loader))
        };
        let ours = entries.iter().find(|e| e.option.as_ref() == Some(&option)).map(|e| e.number);
        let outdated: Vec<u16> = entries
            .iter()
            .filter(|e| Some(e.number) != ours && e.option.as_ref().is_some_and(same_meaning))
            .map(|e| e.number)
            .collect();
        // A number that is in the order but has no entry may be the firmware's own, kept elsewhere.
        let is_free = |n: &u16| !entries.iter().any(|e| e.number == *n) && !order_before.contains(n);
        let number = match ours {
            Some(number) => number,
            None => (0..=u16::MAX).find(is_free).ok_or_else(|| {
                Fault::new(FaultCode::FirmwareVariable, "all 65536 numbers of boot entries are taken")
            })?,
        };
        let order = ordered(&order_before, &outdated, number, position, current);
        Ok(Self {
            label: label.to_owned(),
            position,
            target,
            number,
            option,
            is_written: ours.is_some(),
            outdated,
            order_before,
            order,
        })
    }

    pub(super) fn effects(&self) -> Vec<String> {
        let name = efi::boot_name(self.number);
        let place = self.place();
        let mut effects = vec![format!(
            "{} firmware entry {name} {:?} for {} on partition {}, at place {place} of the boot order",
            if self.is_written { "keep" } else { "write" },
            self.label,
            self.target.loader,
            self.target.number,
        )];
        effects.extend(self.outdated.iter().map(|n| format!("remove firmware entry {}", efi::boot_name(*n))));
        effects
    }

    /// Counted from one, as people do.
    fn place(&self) -> usize {
        self.order.iter().position(|n| *n == self.number).map_or(0, |i| i + 1)
    }

    fn used(&self) -> String {
        format!(
            "UEFI: entry {} for {}, at place {} of {} ({:?})",
            efi::boot_name(self.number),
            self.target.loader,
            self.place(),
            self.order.len(),
            self.position,
        )
    }

    /// The new entry is written and in the order before an old one goes, so that at no moment the machine has nothing
    /// to boot from.
    pub(super) fn carry_out(&self, roots: &Roots) -> Ended {
        let mut has_changed = false;
        if let Err(fault) = self.write(roots, &mut has_changed).and_then(|()| self.verify(roots)) {
            let outcome = if has_changed { Outcome::FailedChanged } else { Outcome::FailedUnchanged };
            return Ended::failed(outcome, self.used(), fault);
        }
        let changed = if has_changed { Changed::Changed } else { Changed::AlreadySo };
        Ended::verified(
            changed,
            self.used(),
            json!({
                "boot_mode": "uefi",
                "entry": efi::boot_name(self.number),
                "loader": self.target.loader,
                "partition": self.target.number,
                "order": self.order.iter().map(|n| format!("{n:04X}")).collect::<Vec<_>>(),
                "removed": self.outdated.iter().map(|n| efi::boot_name(*n)).collect::<Vec<_>>(),
            }),
        )
    }

    fn write(&self, roots: &Roots, has_changed: &mut bool) -> Result<(), Fault> {
        let mut change = |result: Result<(), EfiError>| {
            // A write that failed may have been taken all the same.
            *has_changed = true;
            result.map_err(|e| Fault::from_error(FaultCode::FirmwareVariable, &e))
        };
        if !self.is_written {
            change(efi::set_boot_entry(roots, self.number, &self.option))?;
        }
        if self.order != self.order_before {
            change(efi::set_boot_order(roots, &self.order))?;
        }
        for number in &self.outdated {
            change(efi::delete_boot_entry(roots, *number))?;
        }
        Ok(())
    }

    fn verify(&self, roots: &Roots) -> Result<(), Fault> {
        let lost = |what: String| Err(Fault::new(FaultCode::FirmwareVariable, what));
        let entries = efi::boot_entries(roots).map_err(|e| unreadable(&e))?;
        let name = efi::boot_name(self.number);
        match entries.iter().find(|e| e.number == self.number) {
            Some(entry) if entry.option.as_ref() == Some(&self.option) => {}
            Some(_) => return lost(format!("the firmware changed entry {name} in taking it")),
            None => return lost(format!("the firmware does not have entry {name} after it was written")),
        }
        if let Some(left) = entries.iter().find(|e| self.outdated.contains(&e.number)) {
            return lost(format!("the firmware still has entry {} after its removal", efi::boot_name(left.number)));
        }
        let order = efi::boot_order(roots).map_err(|e| unreadable(&e))?;
        if order != self.order {
            return lost(format!("the boot order reads back as {order:04X?}, not {:04X?}", self.order));
        }
        Ok(())
    }
}

fn unreadable(error: &EfiError) -> Fault {
    Fault::from_error(FaultCode::FirmwareVariable, error)
}

/// The order with `number` in its place and the outdated ones gone.
fn ordered(before: &[u16], outdated: &[u16], number: u16, position: BootPosition, current: Option<u16>) -> Vec<u16> {
    let stays = |n: &&u16| **n != number && !outdated.contains(n);
    let mut order: Vec<u16> = before.iter().filter(stays).copied().collect();
    let place = match position {
        BootPosition::First => 0,
        BootPosition::Last => order.len(),
        // Where the current entry stands, or stood if it goes. A boot that came from nowhere in the order (a one-time
        // choice in the firmware's menu) leaves the first place to the disk.
        BootPosition::AfterCurrent => match before.iter().position(|n| Some(*n) == current) {
            Some(at) => before[..=at].iter().filter(stays).count(),
            None => 0,
        },
    };
    order.insert(place, number);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_the_position() {
        use BootPosition::{AfterCurrent, First, Last};
        let before = [1, 2, 3];
        assert_eq!(ordered(&before, &[], 9, First, Some(2)), [9, 1, 2, 3]);
        assert_eq!(ordered(&before, &[], 9, Last, Some(2)), [1, 2, 3, 9]);
        assert_eq!(ordered(&before, &[], 9, AfterCurrent, Some(2)), [1, 2, 9, 3]);
        assert_eq!(ordered(&before, &[], 9, AfterCurrent, None), [9, 1, 2, 3]);
        assert_eq!(ordered(&before, &[], 9, AfterCurrent, Some(7)), [9, 1, 2, 3]);
        // The old entry of this disk was booted and goes: the new one takes its place.
        assert_eq!(ordered(&before, &[2], 9, AfterCurrent, Some(2)), [1, 9, 3]);
        // Doing it again moves nothing.
        assert_eq!(ordered(&[1, 2, 9, 3], &[], 9, AfterCurrent, Some(2)), [1, 2, 9, 3]);
        assert_eq!(ordered(&[1, 9, 3], &[], 9, AfterCurrent, Some(9)), [1, 9, 3]);
        assert_eq!(ordered(&[], &[], 0, AfterCurrent, None), [0]);
    }
}
