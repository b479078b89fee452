//! Holding an inventory against what is expected.

use std::borrow::Cow;

use super::{
    Expectation, ExpectedCpus, ExpectedDisks, ExpectedHealth, ExpectedLinks, ExpectedMemory, ExpectedSystem,
    InterfaceHints, NumberHint,
};
use crate::hints::{TextHint, describe};
use crate::inventory::health::Verdict;
use crate::inventory::link::Link;
use crate::inventory::{Cpu, Disk, Interface, Inventory, Memory, Transport, unlisted};
use crate::lldp;
use crate::units::{Bytes, MIB};

/// Lines of what is not met.
struct Unmet(Vec<String>);

impl Expectation {
    /// Every line that this machine does not meet; none if it is as expected.
    #[must_use]
    pub fn unmet(&self, machine: &Inventory) -> Vec<String> {
        let mut unmet = Unmet(Vec::new());
        if let Some(system) = &self.system {
            unmet.system(system, machine);
        }
        if let Some(cpus) = &self.cpus {
            unmet.cpus(cpus, &machine.cpu);
        }
        if let Some(memory) = &self.memory {
            unmet.memory(memory, &machine.memory);
        }
        let asks_disks = !self.disks.is_empty() || self.disk_health.is_some();
        if asks_disks && unlisted::DISKS.applies_to(machine) {
            unmet.say("the disks could not be listed, so nothing is known of them");
        } else {
            unmet.disks(&self.disks, self.no_other_disks, machine);
            if let Some(health) = self.disk_health {
                unmet.health(health, machine);
            }
        }
        if !self.interfaces.is_empty() && unlisted::INTERFACES.applies_to(machine) {
            unmet.say("the network interfaces could not be listed, so nothing is known of them");
        } else {
            for line in &self.interfaces {
                unmet.interfaces(&line.count, &line.having, &machine.interfaces);
            }
        }
        if let Some(links) = self.links {
            unmet.links(links, machine);
        }
        unmet.0
    }
}

fn physical(machine: &Inventory) -> impl Iterator<Item = &Disk> {
    machine.disks.iter().filter(|d| !d.removable && !matches!(d.tran, Transport::Md | Transport::Loop))
}

impl Unmet {
    fn say(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    fn text(&mut self, what: &str, wanted: Option<&TextHint>, found: &str) {
        if let Some(wanted) = wanted
            && !wanted.agrees([Cow::Borrowed(found)])
        {
            let is = if found.trim().is_empty() { "is not known".to_owned() } else { format!("is {:?}", found.trim()) };
            self.say(format!("the {what} {is}, expected {}", wanted.wanted()));
        }
    }

    /// `found` is 0 where nothing is known: no machine has none of these.
    fn number(&mut self, what: &str, wanted: Option<&NumberHint>, found: u64) {
        let Some(wanted) = wanted else { return };
        if found == 0 {
            self.say(format!("the {what} is not known, expected {}", wanted.wanted()));
        } else if !wanted.agrees(found) {
            self.say(format!("the {what} is {found}, expected {}", wanted.wanted()));
        }
    }

    fn system(&mut self, expected: &ExpectedSystem, machine: &Inventory) {
        let system = &machine.system_vendor;
        self.text("manufacturer of the system", expected.manufacturer.as_ref(), &system.manufacturer);
        self.text("product name", expected.product_name.as_ref(), &system.product_name);
        self.text("serial number of the system", expected.serial_number.as_ref(), &system.serial_number);
        self.text("firmware version", expected.firmware_version.as_ref(), &system.firmware.version);
        let bmc = machine.bmc.as_ref().map_or("", |bmc| &bmc.firmware);
        self.text("firmware version of the BMC", expected.bmc_firmware.as_ref(), bmc);
        self.text("boot mode", expected.boot_mode.as_ref(), &machine.boot.current_boot_mode);
        if let Some(wanted) = expected.secure_boot {
            let says = |on: bool| if on { "on" } else { "off" };
            match machine.boot.secure_boot {
                Some(found) if found == wanted => {}
                Some(found) => self.say(format!("Secure Boot is {}, expected {}", says(found), says(wanted))),
                // A BIOS has none, which is as good as off.
                None if machine.boot.current_boot_mode == "bios" && !wanted => {}
                None => self.say(format!("whether Secure Boot is on is not known, expected {}", says(wanted))),
            }
        }
    }

    fn cpus(&mut self, expected: &ExpectedCpus, cpu: &Cpu) {
        self.number("number of processors", expected.count.as_ref(), cpu.socket_count.into());
        self.number("number of cores", expected.cores.as_ref(), cpu.core_count.into());
        self.number("number of threads", expected.threads.as_ref(), cpu.count.into());
        self.text("processor model", expected.model.as_ref(), &cpu.model_name);
    }

    fn memory(&mut self, expected: &ExpectedMemory, memory: &Memory) {
        if let Some(wanted) = &expected.size {
            let found = Bytes(memory.physical_mb.saturating_mul(MIB));
            if found == Bytes(0) {
                self.say(format!("the size of the memory is not known, expected {}", wanted.wanted()));
            } else if !wanted.agrees(found) {
                self.say(format!("the memory has {found}, expected {}", wanted.wanted()));
            }
        }
        let modules: Vec<_> = memory.modules.iter().filter(|m| m.size_mb > 0).collect();
        self.number("number of memory modules", expected.modules.as_ref(), modules.len() as u64);
        let each = expected.equal_size
            || expected.full_speed
            || expected.module_size.is_some()
            || expected.part_number.is_some()
            || expected.manufacturer.is_some();
        if each && modules.is_empty() {
            self.say("the memory modules are not known: the SMBIOS tables do not list them");
            return;
        }
        // The first is the measure.
        if let (true, Some(first)) = (expected.equal_size, modules.first()) {
            for other in modules.iter().filter(|m| m.size_mb != first.size_mb) {
                let (a, b) = (Bytes(other.size_mb.saturating_mul(MIB)), Bytes(first.size_mb.saturating_mul(MIB)));
                self.say(format!(
                    "the memory module in {} has {a}, that in {} {b}, expected equal sizes",
                    other.slot, first.slot
                ));
            }
        }
        for module in &modules {
            let slot = &module.slot;
            if let Some(wanted) = &expected.module_size {
                let found = Bytes(module.size_mb.saturating_mul(MIB));
                if !wanted.agrees(found) {
                    self.say(format!("the memory module in {slot} has {found}, expected {}", wanted.wanted()));
                }
            }
            let part = format!("part number of the memory module in {slot}");
            self.text(&part, expected.part_number.as_ref(), &module.part_number);
            let maker = format!("manufacturer of the memory module in {slot}");
            self.text(&maker, expected.manufacturer.as_ref(), &module.manufacturer);
            if expected.full_speed {
                match (module.configured_speed_mts, module.speed_mts) {
                    (Some(now), Some(could)) if now >= could => {}
                    (Some(now), Some(could)) => {
                        self.say(format!("the memory module in {slot} runs at {now} MT/s, expected its {could}"));
                    }
                    _ => self
                        .say(format!("the speed of the memory module in {slot} is not known, expected its full one")),
                }
            }
        }
    }

    fn disks(&mut self, expected: &[ExpectedDisks], no_other: bool, machine: &Inventory) {
        let has = |line: &ExpectedDisks, disk: &Disk| line.having.is_empty() || line.having.differs(disk).is_none();
        for line in expected {
            let found = physical(machine).filter(|d| has(line, d)).count() as u64;
            if line.count.agrees(found) {
                continue;
            }
            let what =
                if line.having.is_empty() { "disks".to_owned() } else { format!("disks with {}", words(&line.having)) };
            self.say(format!("there are {found} {what}, expected {}", line.count.wanted()));
            // Why the others are none helps whoever has to find the right one.
            for disk in physical(machine) {
                if let Some(why) = line.having.differs(disk) {
                    self.say(format!("  {}: {why}", describe(disk)));
                }
            }
        }
        if no_other {
            for disk in physical(machine).filter(|d| !expected.iter().any(|line| has(line, d))) {
                self.say(format!("no line expects the disk {}", describe(disk)));
            }
        }
    }

    fn health(&mut self, expected: ExpectedHealth, machine: &Inventory) {
        for disk in physical(machine) {
            let Some(health) = &disk.health else { continue };
            let met = match expected {
                ExpectedHealth::NoneFailing => matches!(health.verdict, Verdict::Good | Verdict::Suspect),
                ExpectedHealth::AllGood => health.verdict == Verdict::Good,
            };
            if !met {
                let why = health.reasons.join(", ");
                self.say(format!("the health of the disk {} is {}: {why}", describe(disk), health.verdict.name()));
            }
        }
    }

    fn interfaces(&mut self, count: &NumberHint, hints: &InterfaceHints, all: &[Interface]) {
        let differences: Vec<_> = all.iter().map(|nic| (nic, hints.differs(nic))).collect();
        let found = differences.iter().filter(|(_, why)| why.is_none()).count() as u64;
        if count.agrees(found) {
            return;
        }
        let what = match words(hints) {
            words if words.is_empty() => "network interfaces".to_owned(),
            words => format!("network interfaces with {words}"),
        };
        self.say(format!("there are {found} {what}, expected {}", count.wanted()));
        for (nic, why) in differences {
            if let Some(why) = why {
                self.say(format!("  {} ({}): {why}", nic.name, nic.mac_address));
            }
        }
    }

    fn links(&mut self, expected: ExpectedLinks, machine: &Inventory) {
        let disks = physical(machine).filter_map(|d| Some((format!("the disk {}", describe(d)), d.link?)));
        let nics = machine
            .interfaces
            .iter()
            .filter_map(|n| Some((format!("the network interface {} ({})", n.name, n.mac_address), n.link?)));
        for (what, link) in disks.chain(nics) {
            let full = |has: fn(&Link) -> Option<bool>| has(&link) != Some(false);
            let met = match expected {
                ExpectedLinks::FullWidth => full(Link::has_full_width),
                ExpectedLinks::FullSpeed => full(Link::has_full_width) && full(Link::has_full_speed),
            };
            if !met {
                self.say(format!("{what} is attached by {link}"));
            }
        }
    }
}

impl InterfaceHints {
    /// The first property that is another one, with what was found.
    fn differs(&self, nic: &Interface) -> Option<String> {
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        let switch = lldp::switch_of(&nic.neighbours);
        let switches: Vec<Cow<'_, str>> = switch
            .into_iter()
            .flat_map(|s| [s.system_name.clone().unwrap_or_default(), s.chassis.value.clone()])
            .map(Cow::Owned)
            .collect();
        let one = |text: String| vec![Cow::Owned(text)];
        let texts = [
            ("mac_address", &self.mac_address, one(nic.mac_address.clone())),
            ("driver", &self.driver, one(or_empty(&nic.driver))),
            ("firmware", &self.firmware, one(or_empty(&nic.firmware_version))),
            ("vendor", &self.vendor, one(or_empty(&nic.vendor))),
            ("product", &self.product, one(or_empty(&nic.product))),
            ("switch", &self.switch, switches),
        ];
        for (name, wanted, found) in texts {
            if let Some(wanted) = wanted {
                let first = found.first().map(ToString::to_string).filter(|t| !t.trim().is_empty());
                if !wanted.agrees(found) {
                    let found = first.map_or_else(|| "not known".to_owned(), |text| format!("{text:?}"));
                    return Some(format!("{name} is {found}, not {}", wanted.wanted()));
                }
            }
        }
        if let Some(wanted) = &self.speed_mbps {
            match nic.speed_mbps {
                Some(found) if wanted.agrees(found.into()) => {}
                Some(found) => return Some(format!("speed_mbps is {found}, not {}", wanted.wanted())),
                None => return Some(format!("speed_mbps is not known, not {}", wanted.wanted())),
            }
        }
        match self.carrier {
            Some(true) if !nic.up => Some("it is down, so that its link is not known".to_owned()),
            Some(true) if !nic.has_carrier => Some("it has no link".to_owned()),
            Some(false) if nic.has_carrier => Some("it has a link".to_owned()),
            _ => None,
        }
    }
}

/// The hints as they were written.
fn words(hints: &impl serde::Serialize) -> String {
    let Ok(serde_json::Value::Object(map)) = serde_json::to_value(hints) else { return String::new() };
    let one = |(name, value): (&String, &serde_json::Value)| match value {
        serde_json::Value::String(text) => format!("{name} {text}"),
        other => format!("{name} {other}"),
    };
    map.iter().map(one).collect::<Vec<_>>().join(", ")
}
