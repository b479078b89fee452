//! `docs/hardware.md`: which hardware works with what, from what the modules and Debian's `pci.ids` say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};

use crate::assemble;
use crate::contents::Kind;
use crate::firmware::module_info;
use crate::manifest::Manifest;
use crate::modules::{Kernel, Module};
use crate::packages;
use crate::supply::Supply;

/// Names of devices that are told for one module; the ids below are complete.
const NAMES: usize = 4;

const HEAD: &str = "# Which hardware works with what\n\n\
<!-- Made by `make hardware-doc` from the kernel package, the manifests and pci.ids. A test compares it: do not edit. -->\n\n\
Everything here is a statement of the drivers, not a trial: what was tried is said on the other pages. `lspci -nn` in any\n\
Linux, or `speediso-agent inventory`, tells a device's id (`14e4:168e`); search for it below. A module that is listed\n\
here is loaded when its device is there. A machine whose device has no driver in the ramdisk says so on its console, with\n\
the module of the add-on that has one ([builds.md](builds.md#the-add-on)). What is on neither list needs a module more in a\n\
site's manifest ([builds.md](builds.md#a-sites-own-manifest)).\n";

/// The page.
pub fn page(ramdisk: &Manifest, addon: &Manifest, supply: &Supply) -> Result<String> {
    let names = PciNames::of(supply)?;
    let base = assemble::packages_of(&only_modules(ramdisk), supply)?;
    let more = assemble::packages_of(&only_modules(addon), supply)?;
    let present: BTreeSet<String> = base.kernel.modules.iter().map(Module::name).collect();
    // Where each file is that a module may name.
    let firmware: BTreeMap<&str, &str> = more
        .contents
        .0
        .iter()
        .filter(|part| part.kind == Kind::Firmware)
        .flat_map(|part| part.files.iter().map(|file| (file.trim_start_matches("lib/firmware/"), part.name.as_str())))
        .collect();

    let mut page = format!("{HEAD}\nKernel {}.\n\n# In the ramdisk\n", base.kernel.release);
    page.push_str(&section(ramdisk, &base.kernel, &BTreeSet::new(), &names, |_| String::new())?);
    page.push_str(&format!(
        "\n# In the add-on\n\nThe firmware is of Debian's component `non-free-firmware`; its licences lie beside each build \
         (`{}`).\n",
        crate::addon::LICENCES
    ));
    let needs = |wanted: &[String]| {
        let packages: BTreeSet<&str> = wanted.iter().filter_map(|name| firmware.get(name.as_str()).copied()).collect();
        let packages: Vec<&str> = packages.into_iter().collect();
        if packages.is_empty() { String::new() } else { format!("; firmware from {}", packages.join(", ")) }
    };
    page.push_str(&section(addon, &more.kernel, &present, &names, needs)?);
    Ok(page)
}

fn only_modules(manifest: &Manifest) -> Manifest {
    Manifest { programs: vec![], libraries: vec![], files: vec![], ..manifest.clone() }
}

/// One table for each group, with the ids of each module behind it.
fn section(
    manifest: &Manifest,
    kernel: &Kernel,
    elsewhere: &BTreeSet<String>,
    names: &PciNames,
    firmware: impl Fn(&[String]) -> String,
) -> Result<String> {
    let mut aliases: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (pattern, module) in kernel.aliases() {
        aliases.entry(module).or_default().push(pattern);
    }
    let mut text = String::new();
    for group in &manifest.modules {
        let mut rows = String::new();
        let mut ids = String::new();
        // What a group's modules need is listed if it drives devices of its own.
        for module in kernel.modules.iter().filter(|module| module.group == group.group) {
            let name = module.name();
            let Some(patterns) = aliases.get(name.as_str()) else { continue };
            let devices = Devices::of(patterns);
            if devices.is_empty() {
                continue;
            }
            let data = fs::read(&module.file).with_context(|| format!("reading {}", module.file.display()))?;
            let info = module_info(&data)?;
            let value = |key: &str| info.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value.as_str());
            let wanted: Vec<String> =
                info.iter().filter(|(key, _)| key == "firmware").map(|(_, value)| value.clone()).collect();
            let also = if elsewhere.contains(&name) { "; works from the ramdisk without" } else { "" };
            let says = value("description").replace('|', "/").replace('\n', " ");
            rows.push_str(&format!(
                "| `{name}` | {} | {}{}{also} |\n",
                says.trim(),
                devices.told(names),
                firmware(&wanted)
            ));
            if !devices.ids.is_empty() {
                let all: Vec<String> =
                    devices.ids.iter().map(|(vendor, device)| format!("{vendor}:{device}")).collect();
                ids.push_str(&format!("- `{name}`: {}\n", all.join(" ")));
            }
        }
        if rows.is_empty() {
            continue;
        }
        text.push_str(&format!(
            "\n## {}\n\n{}.\n\n| module | says of itself | devices |\n|---|---|---|\n{rows}",
            group.group,
            capital(&group.reason)
        ));
        if !ids.is_empty() {
            text.push_str(&format!("\n<details><summary>PCI ids</summary>\n\n{ids}\n</details>\n"));
        }
    }
    Ok(text)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The devices that a module's aliases name.
#[derive(Default)]
struct Devices {
    /// Vendor and device, in lower-case hex.
    ids: BTreeSet<(String, String)>,
    /// Whatever its maker, a class of PCI devices: `010802`.
    classes: BTreeSet<String>,
    vendors: BTreeSet<String>,
    /// Other buses, by how many patterns there are.
    others: BTreeMap<String, usize>,
}

impl Devices {
    fn of(patterns: &[&str]) -> Self {
        let mut devices = Self::default();
        for pattern in patterns {
            match pattern.split_once(':') {
                Some(("pci", rest)) => devices.add_pci(rest),
                Some((
                    bus @ ("usb" | "virtio" | "vmbus" | "xen" | "acpi" | "dmi" | "mdio" | "scsi" | "hid" | "platform"
                    | "of"),
                    _,
                )) => {
                    *devices.others.entry(bus.to_owned()).or_default() += 1;
                }
                _ => {}
            }
        }
        devices
    }

    /// `v00008086d00001229sv*sd*bc*sc*i*`
    fn add_pci(&mut self, rest: &str) {
        let hex = |at: usize| rest.get(at..at + 8).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let id = |text: &str| text[4..].to_ascii_lowercase();
        if let (Some(vendor), Some(device)) = (hex(1), hex(10)) {
            self.ids.insert((id(vendor), id(device)));
            return;
        }
        if let Some(vendor) = hex(1) {
            self.vendors.insert(id(vendor));
            return;
        }
        let field = |key: &str| {
            let at = rest.find(key)? + key.len();
            rest.get(at..at + 2).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        if let Some(base) = field("bc") {
            let interface = rest.rsplit('i').next().map(|i| i.trim_end_matches('*')).filter(|i| i.len() == 2);
            let class = [Some(base), field("sc"), interface];
            self.classes.insert(class.into_iter().flatten().collect::<String>().to_ascii_lowercase());
        }
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.classes.is_empty() && self.vendors.is_empty() && self.others.is_empty()
    }

    fn told(&self, names: &PciNames) -> String {
        let mut parts = Vec::new();
        if !self.classes.is_empty() {
            let classes: Vec<&str> = self.classes.iter().map(String::as_str).collect();
            parts.push(format!("any PCI device of class {}", classes.join(", ")));
        }
        for vendor in &self.vendors {
            parts.push(format!("any of {}, by class", names.vendor(vendor)));
        }
        let vendors: BTreeSet<&str> = self.ids.iter().map(|(vendor, _)| vendor.as_str()).collect();
        for vendor in vendors {
            let of_vendor = self.ids.iter().filter(|(v, _)| v == vendor);
            let mut told = Vec::new();
            let mut count = 0;
            for (_, device) in of_vendor {
                count += 1;
                if let Some(name) = names.device(vendor, device)
                    && !told.contains(&name)
                {
                    told.push(name);
                }
            }
            let rest = told.len().saturating_sub(NAMES);
            told.truncate(NAMES);
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            let list = if told.is_empty() { String::new() } else { format!(": {}{more}", told.join(", ")) };
            let ids = if count == 1 { "id" } else { "ids" };
            parts.push(format!("{} ({count} {ids}){list}", names.vendor(vendor)));
        }
        parts.extend(self.others.iter().map(|(bus, count)| format!("{bus} (patterns: {count})")));
        parts.join("; ").replace('|', "/")
    }
}

/// Debian's table of names.
struct PciNames {
    vendors: BTreeMap<String, String>,
    devices: BTreeMap<(String, String), String>,
}

impl PciNames {
    fn of(supply: &Supply) -> Result<Self> {
        let package = supply.resolve(&["pci.ids"])?.pop().context("apt gave no package pci.ids")?;
        let file = packages::find_in(&package.unpacked(supply.cache())?, "/usr/share/misc/pci.ids")?;
        Ok(Self::parse(&String::from_utf8_lossy(
            &fs::read(&file).with_context(|| format!("reading {}", file.display()))?,
        )))
    }

    fn parse(text: &str) -> Self {
        let (mut vendors, mut devices) = (BTreeMap::new(), BTreeMap::new());
        let mut vendor = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            if line.starts_with("\t\t") {
                continue;
            }
            let Some((id, name)) = line.trim_start().split_once("  ") else { continue };
            if line.starts_with('\t') {
                devices.insert((vendor.clone(), id.to_owned()), name.trim().to_owned());
            } else if id.len() == 4 {
                id.clone_into(&mut vendor);
                vendors.insert(vendor.clone(), name.trim().to_owned());
            } else {
                // Classes follow the vendors.
                break;
            }
        }
        Self { vendors, devices }
    }

    fn vendor(&self, id: &str) -> String {
        self.vendors.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    fn device(&self, vendor: &str, device: &str) -> Option<String> {
        self.devices.get(&(vendor.to_owned(), device.to_owned())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str = "# remark\n8086  Intel Corporation\n\t1229  82557/8/9/0/1 Ethernet Pro 100\n\t\t8086 0001  EtherExpress\n\t1889  Ethernet Virtual Function\n14e4  Broadcom\nC 01  Mass storage controller\n\t06  SATA controller\n";

    #[test]
    fn devices_are_told_by_maker_and_name() {
        let names = PciNames::parse(IDS);
        let devices = Devices::of(&[
            "pci:v00008086d00001229sv*sd*bc*sc*i*",
            "pci:v00008086d0000FFFFsv00001234sd*bc*sc*i*",
            "pci:v*d*sv*sd*bc01sc06i01*",
            "usb:v0BDAp8152d*dc*dsc*dp*ic*isc*ip*in*",
            "fs-ext4",
        ]);
        assert_eq!(
            devices.told(&names),
            "any PCI device of class 010601; Intel Corporation (2 ids): 82557/8/9/0/1 Ethernet Pro 100; usb (patterns: 1)"
        );
        assert_eq!(devices.ids.iter().next_back(), Some(&("8086".to_owned(), "ffff".to_owned())));
        assert!(Devices::of(&["fs-ext4", "crypto-xts"]).is_empty());
    }
}
