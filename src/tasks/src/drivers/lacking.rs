//! Network and storage devices that nothing drives.

use std::fmt;
use std::fs;
use std::path::Path;

use speediso_sys::module;
use speediso_sys::roots::{Roots, read_line};

use super::{AddonFacts, fits, modules_of};

/// A PCI function that a person would miss.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lacking {
    /// `0000:00:04.0`
    pub address: String,
    pub what: &'static str,
    /// `8086:1209`
    pub id: String,
    pub why: Why,
}

/// Why it has no driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// This module of the add-on would drive it.
    InAddon(String),
    /// This module is here and did not take it.
    NotTaken(String),
    /// Neither has one.
    Nowhere { addon: bool },
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, what, id, why } = self;
        write!(f, "{address} ({what}, {id}) has no driver: ")?;
        match why {
            Why::InAddon(module) => write!(
                f,
                "not in this ramdisk, but in its add-on ({module}); what to do: boot with addon.img as a second ramdisk. It is \
                 fetched by itself if another network card leads to where the boot files are"
            ),
            Why::NotTaken(module) => write!(
                f,
                "the module {module} is for it and did not take it; what to do: look for its reason in the kernel log \
                 (dmesg | grep {address}); one that asks for a firmware file finds it in the add-on"
            ),
            Why::Nowhere { addon: true } => write!(
                f,
                "neither this ramdisk nor its add-on has one; what to do: name its module in a site's manifest and build again"
            ),
            Why::Nowhere { addon: false } => write!(
                f,
                "this system has none and knows of no add-on; what to do: build the ramdisk with --addon, or name the device's \
                 module in a site's manifest"
            ),
        }
    }
}

/// Network cards and storage controllers without a driver, in the order of their addresses.
#[must_use]
pub fn look(roots: &Roots, addon: Option<&AddonFacts>) -> Vec<Lacking> {
    let release = module::kernel_release().unwrap_or_default();
    let aliases = fs::read_to_string(modules_of(&release).join("modules.alias")).unwrap_or_default();
    let Ok(entries) = fs::read_dir(roots.sys.join("bus/pci/devices")) else { return Vec::new() };
    let mut lacking: Vec<Lacking> = entries
        .flatten()
        .filter_map(|entry| one(&entry.path(), entry.file_name().to_str()?, addon, &aliases))
        .collect();
    lacking.sort_by(|a, b| a.address.cmp(&b.address));
    lacking
}

fn one(dir: &Path, address: &str, addon: Option<&AddonFacts>, aliases: &str) -> Option<Lacking> {
    let hex = |file: &str| u32::from_str_radix(read_line(&dir.join(file))?.trim_start_matches("0x"), 16).ok();
    // PCI Code and ID Assignment Specification, 1: base class and subclass.
    let what = match (hex("class")? >> 16, hex("class")? >> 8 & 0xff) {
        (0x02, _) => "network card",
        (0x01, _) => "storage controller",
        (0x0c, 0x04) => "Fibre Channel adapter",
        _ => return None,
    };
    if dir.join("driver").exists() {
        return None;
    }
    let modalias = read_line(&dir.join("modalias"))?;
    let ours = aliases.lines().find_map(|line| {
        let (pattern, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
        fits(pattern, &modalias).then_some(module)
    });
    let why = match (ours, addon) {
        (Some(module), _) => Why::NotTaken(module.to_owned()),
        (None, Some(addon)) => match addon.module_for(&modalias) {
            Some(module) => Why::InAddon(module.to_owned()),
            None => Why::Nowhere { addon: true },
        },
        (None, None) => Why::Nowhere { addon: false },
    };
    let id = format!("{:04x}:{:04x}", hex("vendor")?, hex("device")?);
    Some(Lacking { address: address.to_owned(), what, id, why })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    use super::*;

    fn function(root: &Path, address: &str, class: &str, ids: (&str, &str), driver: bool) {
        let dir = root.join("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&dir).expect("made");
        let modalias = format!(
            "pci:v0000{}d0000{}sv00000000sd00000000bc{}sc{}i00",
            ids.0.to_uppercase(),
            ids.1.to_uppercase(),
            &class[2..4],
            &class[4..6]
        );
        for (file, text) in [
            ("class", class),
            ("vendor", &format!("0x{}", ids.0)),
            ("device", &format!("0x{}", ids.1)),
            ("modalias", &modalias),
        ] {
            fs::write(dir.join(file), format!("{text}\n")).expect("written");
        }
        if driver {
            symlink("/", dir.join("driver")).expect("linked");
        }
    }

    #[test]
    fn each_device_is_told_with_what_helps() {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots::under(dir.path());
        assert!(look(&roots, None).is_empty(), "a machine without PCI lacks nothing");
        function(dir.path(), "0000:00:02.0", "0x020000", ("8086", "1209"), false);
        function(dir.path(), "0000:00:03.0", "0x020000", ("8086", "100e"), true);
        function(dir.path(), "0000:00:04.0", "0x010700", ("abcd", "0001"), false);
        function(dir.path(), "0000:00:05.0", "0x030000", ("1234", "1111"), false);
        let addon = AddonFacts {
            file: "addon.img".into(),
            sha256: String::new(),
            size: 0,
            unpacked: 0,
            kernel: "6.1".into(),
            drivers: BTreeMap::from([("e100".into(), vec!["pci:v00008086d00001209*".into()])]),
        };
        let found = look(&roots, Some(&addon));
        assert_eq!(
            found.iter().map(|l| (l.address.as_str(), l.id.as_str(), l.why.clone())).collect::<Vec<_>>(),
            [
                ("0000:00:02.0", "8086:1209", Why::InAddon("e100".into())),
                ("0000:00:04.0", "abcd:0001", Why::Nowhere { addon: true }),
            ]
        );
        let said = found[0].to_string();
        assert!(
            said.starts_with("0000:00:02.0 (network card, 8086:1209) has no driver") && said.contains("(e100)"),
            "{said}"
        );
        let taken = one(
            &dir.path().join("sys/bus/pci/devices/0000:00:02.0"),
            "0000:00:02.0",
            Some(&addon),
            "alias pci:v00008086d00001209sv*sd*bc*sc*i* e100\n",
        );
        assert_eq!(taken.map(|l| l.why), Some(Why::NotTaken("e100".into())));
    }
}
