//! A machine's hardware in some dozens of bytes: for where a whole inventory has no room. It tells that a part is another
//! one, or that there are more or fewer of them, and not which.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Part, disks, interfaces, modules};
use crate::inventory::{Inventory, unlisted};
use crate::plan::hex;

/// Parts in a fixed order. What could not be read is not among them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Vec<PartPrint>);

/// A part, how many of it there are, and the beginning of a digest over what identifies them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct PartPrint(Part, usize, String);

impl PartPrint {
    fn of(part: Part, facts: Vec<String>) -> Self {
        Self::counted(part, facts.len(), facts)
    }

    fn counted(part: Part, n: usize, mut facts: Vec<String>) -> Self {
        facts.sort();
        let digest = Sha256::digest(facts.join("\n"));
        Self(part, n, hex(&digest[..8]))
    }
}

impl Fingerprint {
    /// Of what stays as it is from boot to boot: no kernel's names, nothing that is plugged and pulled while it runs.
    #[must_use]
    pub fn of(inventory: &Inventory) -> Self {
        let mut parts = Vec::new();
        if !unlisted::DISKS.applies_to(inventory) {
            let fixed = disks(inventory).into_iter().filter(|disk| !disk.may_go);
            let facts = fixed.map(|d| format!("{} {} {}", d.identity, d.it.size.0, d.it.firmware));
            parts.push(PartPrint::of(Part::Disk, facts.collect()));
        }
        let memory = if inventory.memory.modules.is_empty() {
            // The kernel's own share of it varies by some megabytes.
            vec![format!("{} x 256 MiB", inventory.memory.physical_mb.div_ceil(256))]
        } else {
            modules(inventory).into_iter().map(|m| format!("{} {:?}", m.identity, m.it.speed())).collect()
        };
        parts.push(PartPrint::of(Part::Memory, memory));
        let cpu = &inventory.cpu;
        if cpu.count > 0 {
            let what = format!("{} {}", cpu.model_name, cpu.core_count);
            let n = usize::try_from(cpu.count).unwrap_or(usize::MAX);
            parts.push(PartPrint::counted(Part::Processor, n, vec![what]));
        }
        if !unlisted::INTERFACES.applies_to(inventory) {
            let fixed = interfaces(inventory).into_iter().filter(|nic| !nic.may_go);
            let facts = fixed.map(|n| format!("{} {} {:?}", n.identity, n.place, n.it.firmware_version));
            parts.push(PartPrint::of(Part::Interface, facts.collect()));
        }
        let (system, boot) = (&inventory.system_vendor, &inventory.boot);
        let firmware = format!("{} {} {:?}", system.firmware.version, boot.current_boot_mode, boot.secure_boot);
        parts.push(PartPrint::of(Part::Firmware, vec![firmware]));
        let serials = [&system.serial_number, &system.board_serial, &system.chassis_serial].map(|s| s.trim());
        parts.push(PartPrint::of(Part::System, vec![serials.join("\n")]));
        Self(parts)
    }

    /// Parts that could not be read, which nobody can compare.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let parts = [Part::Disk, Part::Processor, Part::Interface];
        parts.into_iter().filter(|part| !self.0.iter().any(|p| p.0 == *part)).map(name).collect()
    }

    /// What is another one now, in words; nothing when all is as it was. A part that was read only once is told as not
    /// read, which is no change, and no sameness either.
    #[must_use]
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let of = |print: &Self, part| print.0.iter().find(|p| p.0 == part).cloned();
        let mut parts: Vec<Part> = self.0.iter().chain(&now.0).map(|p| p.0).collect();
        parts.sort();
        parts.dedup();
        let change = |part: Part| match (of(self, part), of(now, part)) {
            (Some(old), Some(new)) if old == new => None,
            (Some(old), Some(new)) if old.1 != new.1 => {
                Some(format!("{}: there are {} and were {}", name(part), new.1, old.1))
            }
            (Some(_), Some(_)) => Some(format!("{}: not the same as before", name(part))),
            _ => Some(format!("{}: could not be read in both boots, so nobody can compare", name(part))),
        };
        parts.into_iter().filter_map(change).collect()
    }
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Disk => "disks",
        Part::Memory => "memory modules",
        Part::Processor => "processors",
        Part::Interface => "network interfaces",
        Part::Firmware => "firmware",
        Part::Bmc => "BMC",
        Part::System => "serial numbers of the system",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Disk, Interface};
    use crate::units::Bytes;

    fn machine() -> Inventory {
        let disk = |name: &str, serial: &str| Disk {
            name: name.into(),
            serial: serial.into(),
            size: Bytes::mib(64),
            ..Disk::default()
        };
        let mut machine =
            Inventory { disks: vec![disk("/dev/sda", "A"), disk("/dev/sdb", "B")], ..Inventory::default() };
        machine.cpu.count = 4;
        machine.memory.physical_mb = 2048;
        machine
    }

    #[test]
    fn the_same_machine_has_the_same_print_whatever_its_names_are() {
        let before = Fingerprint::of(&machine());
        let mut again = machine();
        again.disks.reverse();
        again.disks[0].name = "/dev/sdz".into();
        again.memory.physical_mb = 2040;
        assert_eq!(before.changes(&Fingerprint::of(&again)), Vec::<String>::new());
        let kept = serde_json::to_string(&before).expect("written");
        assert!(kept.len() < 300, "{} bytes: {kept}", kept.len());
        assert_eq!(serde_json::from_str::<Fingerprint>(&kept).expect("read"), before);
    }

    #[test]
    fn what_is_gone_swapped_or_unread_is_told() {
        let before = Fingerprint::of(&machine());
        let now = |change: &dyn Fn(&mut Inventory)| {
            let mut machine = machine();
            change(&mut machine);
            before.changes(&Fingerprint::of(&machine))
        };
        assert_eq!(now(&|m| drop(m.disks.pop())), ["disks: there are 1 and were 2"]);
        assert_eq!(now(&|m| m.disks[0].serial = "C".into()), ["disks: not the same as before"]);
        assert_eq!(now(&|m| m.cpu.count = 2), ["processors: there are 2 and were 4"]);
        assert_eq!(now(&|m| m.memory.physical_mb = 1024), ["memory modules: not the same as before"]);
        assert_eq!(now(&|m| m.system_vendor.firmware.version = "2".into()), ["firmware: not the same as before"]);
        let nic = Interface {
            mac_address: "52:54:00:00:00:01".into(),
            pci_address: Some("0000:00:03.0".into()),
            ..Interface::default()
        };
        assert_eq!(now(&|m| m.interfaces.push(nic.clone())), ["network interfaces: there are 1 and were 0"]);
        let unread = now(&|m| m.unread.push(unlisted::DISKS.because("no")));
        assert!(unread[0].contains("could not be read"), "{unread:?}");
        assert!(before.missing().is_empty());
        assert_eq!(Fingerprint::of(&Inventory::default()).missing(), ["processors"]);
    }
}
