//! A machine against itself: what was added to it, what is gone, what sits where something else sat, what changed.
//!
//! Only what is known on both sides is compared: a fact that was not read this time is not a change, and a list that could
//! not be read at all says nothing of what was in it.

mod fingerprint;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::Verdict;
use super::{Disk, Interface, Inventory, MemoryModule, Transport, is_real_identifier, unlisted};
use crate::certificate::machine::disk_key;
use crate::fault::{Fault, FaultCode};
use crate::hints::describe;
use crate::id::Epoch;
use crate::lldp;
use crate::units::{Bytes, MIB};

pub use self::fingerprint::Fingerprint;

/// How much it matters to whoever runs the machine. The graver comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// Something is missing or fails: a person should look.
    Alarm,
    /// Worth knowing: somebody did it, or should have.
    Notable,
    #[default]
    #[serde(other)]
    Minor,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Vanished,
    /// Something else is in the same place.
    Swapped,
    Added,
    #[default]
    #[serde(other)]
    Changed,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Disk,
    Memory,
    Processor,
    Interface,
    Firmware,
    Bmc,
    #[default]
    #[serde(other)]
    System,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Change {
    pub importance: Importance,
    pub kind: ChangeKind,
    pub part: Part,
    /// Which one: by this an alarm about it is recognised again.
    pub which: String,
    /// A sentence for people.
    pub text: String,
}

/// What an inventory showed against the one before it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SeenChanges {
    pub seen: jiff::Timestamp,
    /// Of the boot that saw it.
    pub epoch: Epoch,
    /// The graver first.
    pub changes: Vec<Change>,
}

impl Change {
    /// What a person is told at once, if it is that grave.
    #[must_use]
    pub fn alarm(&self, machine: &str) -> Option<Fault> {
        let code = match self.kind {
            ChangeKind::Vanished => FaultCode::HardwareVanished,
            _ => FaultCode::HardwareFailing,
        };
        (self.importance == Importance::Alarm).then(|| Fault::new(code, format!("{machine}: {}", self.text)))
    }
}

/// Everything that differs, the graver first.
#[must_use]
pub fn compare(before: &Inventory, now: &Inventory) -> Vec<Change> {
    let mut found = Found(Vec::new());
    found.disks(before, now);
    found.memory(before, now);
    found.processors(before, now);
    found.interfaces(before, now);
    found.rest(before, now);
    found.0.sort();
    found.0
}

/// Something that is plugged in.
struct Item<'a, T> {
    /// By which it is known wherever it sits.
    identity: String,
    /// Where it sits; empty if that is not known.
    place: String,
    /// With its article: `the disk ...`.
    words: String,
    /// What is gone without anybody wondering.
    may_go: bool,
    it: &'a T,
}

struct Found(Vec<Change>);

impl Found {
    fn put(&mut self, importance: Importance, kind: ChangeKind, part: Part, which: &str, text: String) {
        self.0.push(Change { importance, kind, part, which: which.to_owned(), text });
    }

    /// Pairs those that are the same, tells of the others, and gives the pairs.
    fn plugged<'a, T>(&mut self, part: Part, before: Vec<Item<'a, T>>, now: Vec<Item<'a, T>>) -> Vec<(&'a T, &'a T)> {
        let mut pairs = Vec::new();
        let mut known: BTreeMap<String, Vec<Item<'a, T>>> = BTreeMap::new();
        for item in before {
            known.entry(item.identity.clone()).or_default().push(item);
        }
        let mut new = Vec::new();
        for item in now {
            // Of several with one identity (two paths to one disk) the one in the same place.
            let same = known.get_mut(&item.identity).and_then(|all| {
                let at = all.iter().position(|old| old.place == item.place).or((!all.is_empty()).then_some(0))?;
                Some(all.swap_remove(at))
            });
            match same {
                Some(old) => {
                    if !old.place.is_empty() && !item.place.is_empty() && old.place != item.place {
                        let text = format!("{} has moved from {} to {}", item.words, old.place, item.place);
                        self.put(Importance::Minor, ChangeKind::Changed, part, &item.identity, text);
                    }
                    pairs.push((old.it, item.it));
                }
                None => new.push(item),
            }
        }
        let mut gone: BTreeMap<String, Item<'a, T>> = BTreeMap::new();
        let mut placeless = Vec::new();
        for item in known.into_values().flatten() {
            if item.place.is_empty() || gone.contains_key(&item.place) {
                placeless.push(item);
            } else {
                gone.insert(item.place.clone(), item);
            }
        }
        for item in new {
            if let Some(old) = gone.remove(&item.place) {
                let text = format!("{} is where {} was", item.words, old.words);
                self.put(Importance::Notable, ChangeKind::Swapped, part, &old.identity, text);
            } else {
                let importance = if item.may_go { Importance::Minor } else { Importance::Notable };
                self.put(importance, ChangeKind::Added, part, &item.identity, format!("{} is new", item.words));
            }
        }
        for item in gone.into_values().chain(placeless) {
            let importance = if item.may_go { Importance::Minor } else { Importance::Alarm };
            let place = if item.place.is_empty() { String::new() } else { format!(", {}", item.place) };
            let text = format!("{}{place} is gone", item.words);
            self.put(importance, ChangeKind::Vanished, part, &item.identity, text);
        }
        pairs
    }

    fn disks(&mut self, before: &Inventory, now: &Inventory) {
        if unlisted::DISKS.applies_to(now) || unlisted::DISKS.applies_to(before) {
            return;
        }
        for (old, new) in self.plugged(Part::Disk, disks(before), disks(now)) {
            let (which, words) = (disk_key(new), nameless(new));
            let mut note = |importance, what: String| {
                self.put(importance, ChangeKind::Changed, Part::Disk, &which, format!("the disk {words}: {what}"));
            };
            if differ(&old.firmware, &new.firmware) {
                note(Importance::Notable, format!("its firmware is {} and was {}", new.firmware, old.firmware));
            }
            if old.size != new.size && old.size != Bytes(0) && new.size != Bytes(0) {
                note(Importance::Notable, format!("its size is {} and was {}", new.size, old.size));
            }
            if old.logical_sectors != new.logical_sectors {
                let (a, b) = (new.logical_sectors, old.logical_sectors);
                note(Importance::Minor, format!("its sectors have {a} bytes and had {b}"));
            }
            if let (Some(a), Some(b)) = (old.link, new.link)
                && (slower(a.speed_mtps, b.speed_mtps) || slower(a.width, b.width))
            {
                note(Importance::Notable, format!("its link is {b} and was {a}"));
            }
            if let (Some(a), Some(b)) = (&old.health, &new.health)
                && b.verdict.is_worse_than(a.verdict)
            {
                let importance = if b.verdict == Verdict::Failing { Importance::Alarm } else { Importance::Notable };
                note(importance, format!("its health is {} now: {}", b.verdict.name(), b.reasons.join(", ")));
            }
        }
    }

    fn memory(&mut self, before: &Inventory, now: &Inventory) {
        if before.memory.modules.is_empty() || now.memory.modules.is_empty() {
            // Without tables there is the sum only, and the kernel's own share of it varies by some megabytes.
            let (old, new) = (before.memory.physical_mb, now.memory.physical_mb);
            if old > 0 && new > 0 && old.abs_diff(new) >= 64 {
                let (importance, kind) = if new < old {
                    (Importance::Alarm, ChangeKind::Vanished)
                } else {
                    (Importance::Notable, ChangeKind::Added)
                };
                let size = |mib: u64| Bytes(mib.saturating_mul(MIB));
                let text = format!("the machine has {} of memory and had {}", size(new), size(old));
                self.put(importance, kind, Part::Memory, "memory", text);
            }
            return;
        }
        for (old, new) in self.plugged(Part::Memory, modules(before), modules(now)) {
            if slower(old.speed(), new.speed()) {
                let text = format!(
                    "the memory module in {} runs at {} MT/s and ran at {}",
                    new.slot,
                    new.speed().unwrap_or(0),
                    old.speed().unwrap_or(0)
                );
                self.put(Importance::Notable, ChangeKind::Changed, Part::Memory, &new.slot, text);
            }
        }
    }

    fn processors(&mut self, before: &Inventory, now: &Inventory) {
        let (old, new) = (&before.cpu, &now.cpu);
        // Nothing is known of one side.
        if old.count == 0 || new.count == 0 {
            return;
        }
        let mut put = |importance, kind, text| self.put(importance, kind, Part::Processor, "processors", text);
        if old.socket_count > new.socket_count && new.socket_count > 0 {
            let text = format!("{} of {} processors are left", new.socket_count, old.socket_count);
            put(Importance::Alarm, ChangeKind::Vanished, text);
        } else if new.socket_count > old.socket_count && old.socket_count > 0 {
            let text = format!("there are {} processors and were {}", new.socket_count, old.socket_count);
            put(Importance::Notable, ChangeKind::Added, text);
        } else if (old.count, old.core_count) != (new.count, new.core_count) {
            let text = format!(
                "the processors have {} threads on {} cores and had {} on {}",
                new.count, new.core_count, old.count, old.core_count
            );
            put(Importance::Notable, ChangeKind::Changed, text);
        }
        if differ(&old.model_name, &new.model_name) {
            put(
                Importance::Notable,
                ChangeKind::Swapped,
                format!("the processors are {} and were {}", new.model_name, old.model_name),
            );
        }
    }

    fn interfaces(&mut self, before: &Inventory, now: &Inventory) {
        if unlisted::INTERFACES.applies_to(now) || unlisted::INTERFACES.applies_to(before) {
            return;
        }
        for (old, new) in self.plugged(Part::Interface, interfaces(before), interfaces(now)) {
            let mut note = |importance, what: String| {
                let text = format!("the network interface {} ({}): {what}", new.name, new.own_mac());
                self.put(importance, ChangeKind::Changed, Part::Interface, new.own_mac(), text);
            };
            // One that is down now was not brought up by this boot, and says nothing of its cable.
            if old.has_carrier && new.up && !new.has_carrier {
                note(Importance::Notable, "it has no link any more".to_owned());
            }
            if slower(old.speed_mbps, new.speed_mbps) {
                let (a, b) = (new.speed_mbps.unwrap_or(0), old.speed_mbps.unwrap_or(0));
                note(Importance::Notable, format!("its link has {a} Mbit/s and had {b}"));
            }
            if let (Some(a), Some(b)) = (&old.firmware_version, &new.firmware_version)
                && differ(a, b)
            {
                note(Importance::Notable, format!("its firmware is {b} and was {a}"));
            }
            if let (Some(a), Some(b)) = (old.link, new.link)
                && (slower(a.speed_mtps, b.speed_mtps) || slower(a.width, b.width))
            {
                note(Importance::Notable, format!("its bus is {b} and was {a}"));
            }
            if let (Some(a), Some(b)) = (lldp::switch_of(&old.neighbours), lldp::switch_of(&new.neighbours))
                && !a.is(b)
            {
                note(Importance::Notable, format!("it is plugged into {} and was into {}", b.in_words(), a.in_words()));
            }
        }
    }

    fn rest(&mut self, before: &Inventory, now: &Inventory) {
        let (old, new) = (&before.system_vendor, &now.system_vendor);
        let texts = [
            (Part::System, "serial number of the system", &old.serial_number, &new.serial_number),
            (Part::System, "serial number of the board", &old.board_serial, &new.board_serial),
            (Part::System, "serial number of the chassis", &old.chassis_serial, &new.chassis_serial),
            (Part::Firmware, "version of the firmware", &old.firmware.version, &new.firmware.version),
            (Part::Firmware, "boot mode", &before.boot.current_boot_mode, &now.boot.current_boot_mode),
        ];
        for (part, what, old, new) in texts {
            // Placeholders come and go with firmware versions.
            if differ(old, new) && (part == Part::Firmware || is_real_identifier(old) || is_real_identifier(new)) {
                let kind = if part == Part::System { ChangeKind::Swapped } else { ChangeKind::Changed };
                self.put(Importance::Notable, kind, part, what, format!("the {what} is {new} and was {old}"));
            }
        }
        if let (Some(old), Some(new)) = (before.boot.secure_boot, now.boot.secure_boot)
            && old != new
        {
            let says = |on: bool| if on { "on" } else { "off" };
            let text = format!("Secure Boot is {} and was {}", says(new), says(old));
            self.put(Importance::Notable, ChangeKind::Changed, Part::Firmware, "secure_boot", text);
        }
        if let (Some(old), Some(new)) = (&before.bmc, &now.bmc)
            && differ(&old.firmware, &new.firmware)
        {
            let text = format!("the firmware of the BMC is {} and was {}", new.firmware, old.firmware);
            self.put(Importance::Notable, ChangeKind::Changed, Part::Bmc, "firmware", text);
        }
        if let (Some(old), Some(new)) = (&before.bmc_address, &now.bmc_address)
            && differ(old, new)
        {
            let text = format!("the address of the BMC is {new} and was {old}");
            self.put(Importance::Minor, ChangeKind::Changed, Part::Bmc, "address", text);
        }
    }
}

/// Arrays and loop devices are no hardware.
fn disks(inventory: &Inventory) -> Vec<Item<'_, Disk>> {
    let counts = |d: &&Disk| !matches!(d.tran, Transport::Md | Transport::Loop);
    let place = |d: &Disk| d.by_path.as_deref().map(|p| p.rsplit('/').next().unwrap_or(p).to_owned());
    let all = inventory.disks.iter().filter(counts);
    all.map(|disk| Item {
        identity: disk_key(disk),
        place: place(disk).unwrap_or_default(),
        words: format!("the disk {}", nameless(disk)),
        may_go: disk.removable || disk.tran == Transport::Usb,
        it: disk,
    })
    .collect()
}

fn modules(inventory: &Inventory) -> Vec<Item<'_, MemoryModule>> {
    let all = inventory.memory.modules.iter().filter(|m| m.size_mb > 0);
    all.map(|module| {
        let MemoryModule { slot, part_number, serial_number, size_mb, .. } = module;
        let mut words = format!("the memory module {}", Bytes(size_mb.saturating_mul(MIB)));
        for (name, value) in [("", part_number), ("serial ", serial_number)] {
            if is_real_identifier(value) {
                words.push_str(&format!(" {name}{}", value.trim()));
            }
        }
        let identity = if is_real_identifier(serial_number) {
            format!("{part_number} {serial_number}")
        } else {
            format!("{slot} {part_number} {size_mb}")
        };
        Item { identity, place: slot.clone(), words, may_go: false, it: module }
    })
    .collect()
}

fn interfaces(inventory: &Inventory) -> Vec<Item<'_, Interface>> {
    let all = inventory.interfaces.iter();
    all.map(|nic| {
        let Interface { name, pci_address, driver, .. } = nic;
        let driver = driver.as_deref().map(|d| format!(", {d}")).unwrap_or_default();
        Item {
            identity: nic.own_mac().to_owned(),
            place: pci_address.clone().unwrap_or_default(),
            words: format!("the network interface {name} ({}{driver})", nic.own_mac()),
            // Those of a dock, or of a BMC towards its host.
            may_go: pci_address.is_none(),
            it: nic,
        }
    })
    .collect()
}

/// Without the kernel's name, which is another one at the next boot.
fn nameless(disk: &Disk) -> String {
    let text = describe(disk);
    text.strip_prefix(&disk.name)
        .map_or(text.clone(), |rest| rest.trim().trim_start_matches('(').trim_end_matches(')').to_owned())
}

fn differ(old: &str, new: &str) -> bool {
    let (old, new) = (old.trim(), new.trim());
    !old.is_empty() && !new.is_empty() && old != new
}

fn slower(old: Option<u32>, new: Option<u32>) -> bool {
    matches!((old, new), (Some(old), Some(new)) if new < old)
}

#[cfg(test)]
mod tests;
