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
    position: BootPosition,
    /// In the order in which the firmware shall try them.
    entries: Vec<Entry>,
    /// Entries of the same label, or for the same loader.
    outdated: Vec<u16>,
    order_before: Vec<u16>,
    order: Vec<u16>,
}

struct Entry {
    label: String,
    target: Target,
    number: u16,
    option: LoadOption,
    /// It is there already, byte for byte.
    is_written: bool,
}

/// Of several entries for one system each but the first says which disk it is for.
fn label_of(label: &str, nth: usize) -> String {
    if nth == 0 { label.to_owned() } else { format!("{label} (disk {})", nth + 1) }
}

impl Change {
    /// One entry for each of the targets.
    pub(super) fn towards(
        roots: &Roots,
        label: &str,
        position: BootPosition,
        targets: Vec<Target>,
    ) -> Result<Self, Fault> {
        let found = efi::boot_entries(roots).map_err(|e| unreadable(&e))?;
        let order_before = efi::boot_order(roots).map_err(|e| unreadable(&e))?;
        let current = efi::boot_current(roots).map_err(|e| unreadable(&e))?;
        let mut entries: Vec<Entry> = Vec::new();
        for (nth, target) in targets.into_iter().enumerate() {
            let label = label_of(label, nth);
            let option = LoadOption::for_file(
                &label,
                target.number,
                target.first_sector,
                target.sectors,
                target.guid,
                &target.loader,
            );
            let ours = found.iter().find(|e| e.option.as_ref() == Some(&option)).map(|e| e.number);
            // A number that is in the order but has no entry may be the firmware's own, kept elsewhere.
            let is_free = |n: &u16| {
                !found.iter().any(|e| e.number == *n)
                    && !order_before.contains(n)
                    && !entries.iter().any(|e| e.number == *n)
            };
            let number = match ours {
                Some(number) => number,
                None => (0..=u16::MAX).find(is_free).ok_or_else(|| {
                    Fault::new(FaultCode::FirmwareVariable, "all 65536 numbers of boot entries are taken")
                })?,
            };
            entries.push(Entry { label, target, number, option, is_written: ours.is_some() });
        }
        let further = format!("{label} (disk ");
        let same_meaning = |other: &LoadOption| {
            other.description == label
                || other.description.starts_with(&further)
                || other.target().is_some_and(|(guid, file)| {
                    entries.iter().any(|e| guid == e.target.guid && file.eq_ignore_ascii_case(&e.target.loader))
                })
        };
        let outdated: Vec<u16> = found
            .iter()
            .filter(|e| !entries.iter().any(|ours| ours.number == e.number))
            .filter(|e| e.option.as_ref().is_some_and(same_meaning))
            .map(|e| e.number)
            .collect();
        let numbers: Vec<u16> = entries.iter().map(|e| e.number).collect();
        let order = ordered(&order_before, &outdated, &numbers, position, current);
        Ok(Self { position, entries, outdated, order_before, order })
    }

    pub(super) fn effects(&self) -> Vec<String> {
        let mut effects: Vec<String> = self
            .entries
            .iter()
            .map(|entry| {
                format!(
                    "{} firmware entry {} {:?} for {} on partition {}, at place {} of the boot order",
                    if entry.is_written { "keep" } else { "write" },
                    efi::boot_name(entry.number),
                    entry.label,
                    entry.target.loader,
                    entry.target.number,
                    self.place(entry),
                )
            })
            .collect();
        effects.extend(self.outdated.iter().map(|n| format!("remove firmware entry {}", efi::boot_name(*n))));
        effects
    }

    /// Counted from one, as people do.
    fn place(&self, entry: &Entry) -> usize {
        self.order.iter().position(|n| *n == entry.number).map_or(0, |i| i + 1)
    }

    fn used(&self) -> String {
        let entries: Vec<String> = self
            .entries
            .iter()
            .map(|entry| {
                format!(
                    "entry {} for {}, at place {}",
                    efi::boot_name(entry.number),
                    entry.target.loader,
                    self.place(entry)
                )
            })
            .collect();
        format!("UEFI: {} of {} ({:?})", entries.join("; "), self.order.len(), self.position)
    }

    /// The new entries are written and in the order before an old one goes, so that at no moment the machine has nothing
    /// to boot from.
    pub(super) fn carry_out(&self, roots: &Roots) -> Ended {
        let mut has_changed = false;
        if let Err(fault) = self.write(roots, &mut has_changed).and_then(|()| self.verify(roots)) {
            let outcome = if has_changed { Outcome::FailedChanged } else { Outcome::FailedUnchanged };
            return Ended::failed(outcome, self.used(), fault);
        }
        let changed = if has_changed { Changed::Changed } else { Changed::AlreadySo };
        let names: Vec<String> = self.entries.iter().map(|e| efi::boot_name(e.number)).collect();
        let first = self.entries.first();
        Ended::verified(
            changed,
            self.used(),
            json!({
                "boot_mode": "uefi",
                "entry": names.first(),
                "entries": names,
                "loader": first.map(|e| e.target.loader.as_str()),
                "partition": first.map(|e| e.target.number),
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
        for entry in self.entries.iter().filter(|entry| !entry.is_written) {
            change(efi::set_boot_entry(roots, entry.number, &entry.option))?;
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
        for ours in &self.entries {
            let name = efi::boot_name(ours.number);
            match entries.iter().find(|e| e.number == ours.number) {
                Some(entry) if entry.option.as_ref() == Some(&ours.option) => {}
                Some(_) => return lost(format!("the firmware changed entry {name} in taking it")),
                None => return lost(format!("the firmware does not have entry {name} after it was written")),
            }
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

/// The order with `numbers` in their place and the outdated ones gone.
fn ordered(
    before: &[u16],
    outdated: &[u16],
    numbers: &[u16],
    position: BootPosition,
    current: Option<u16>,
) -> Vec<u16> {
    let stays = |n: &&u16| !numbers.contains(n) && !outdated.contains(n);
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
    order.splice(place..place, numbers.iter().copied());
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_the_position() {
        use BootPosition::{AfterCurrent, First, Last};
        let before = [1, 2, 3];
        assert_eq!(ordered(&before, &[], &[9], First, Some(2)), [9, 1, 2, 3]);
        assert_eq!(ordered(&before, &[], &[9], Last, Some(2)), [1, 2, 3, 9]);
        assert_eq!(ordered(&before, &[], &[9], AfterCurrent, Some(2)), [1, 2, 9, 3]);
        assert_eq!(ordered(&before, &[], &[9], AfterCurrent, None), [9, 1, 2, 3]);
        assert_eq!(ordered(&before, &[], &[9], AfterCurrent, Some(7)), [9, 1, 2, 3]);
        // The old entry of this disk was booted and goes: the new one takes its place.
        assert_eq!(ordered(&before, &[2], &[9], AfterCurrent, Some(2)), [1, 9, 3]);
        // Doing it again moves nothing.
        assert_eq!(ordered(&[1, 2, 9, 3], &[], &[9], AfterCurrent, Some(2)), [1, 2, 9, 3]);
        assert_eq!(ordered(&[1, 9, 3], &[], &[9], AfterCurrent, Some(9)), [1, 9, 3]);
        assert_eq!(ordered(&[], &[], &[0], AfterCurrent, None), [0]);
        // The disks of a mirror, in their order.
        assert_eq!(ordered(&before, &[], &[9, 8], AfterCurrent, Some(2)), [1, 2, 9, 8, 3]);
        assert_eq!(ordered(&[1, 9, 2, 8, 3], &[], &[9, 8], First, Some(2)), [9, 8, 1, 2, 3]);
    }
}
