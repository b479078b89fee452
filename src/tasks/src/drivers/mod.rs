//! Drivers that the ramdisk has no room for: which device lacks one, and how it gets it from the add-on.
//!
//! The ramdisk knows of the add-on that was made with it by `/etc/speediso-addon`: the digest, and which PCI device would
//! find a driver there. So a machine can say what it needs before it has a network, and fetch it once it has one.

mod addon;
mod lacking;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use speediso_sys::roots::Roots;

pub use self::addon::{AddonError, bring};
pub use self::lacking::{Lacking, Why, look};

/// What the ramdisk says about the add-on that was made with it.
const FACTS: &str = "/etc/speediso-addon";

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct AddonFacts {
    /// Beside the ramdisk.
    pub file: String,
    /// In hex.
    pub sha256: String,
    pub size: u64,
    /// Bytes of all files.
    pub unpacked: u64,
    /// Release that its modules are of.
    pub kernel: String,
    /// Patterns of modalias by module.
    pub drivers: BTreeMap<String, Vec<String>>,
}

impl AddonFacts {
    /// None in a system that was built without an add-on.
    #[must_use]
    pub fn of_system() -> Option<Self> {
        serde_json::from_slice(&std::fs::read(FACTS).ok()?).ok()
    }

    fn module_for(&self, modalias: &str) -> Option<&str> {
        let drives = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, modalias));
        self.drivers.iter().find(|(_, patterns)| drives(patterns)).map(|(module, _)| module.as_str())
    }
}

/// Whether `text` fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// The running kernel's modules in this system.
fn modules_of(release: &str) -> std::path::PathBuf {
    Path::new("/lib/modules").join(release)
}

/// Memory that may be taken without swapping, in bytes; none if the kernel does not say.
fn available_memory(roots: &Roots) -> Option<u64> {
    let text = std::fs::read_to_string(roots.proc.join("meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_the_kernels() {
        let alias = "pci:v00008086d00001209sv00000000sd00000000bc02sc00i00";
        for pattern in
            ["pci:v00008086d00001209*", "pci:v*d*sv*sd*bc02sc00i00", "pci:v00008086d*sv*sd*bc02sc*i*", "*", alias]
        {
            assert!(fits(pattern, alias), "{pattern}");
        }
        for pattern in
            ["pci:v00008086d0000120A*", "pci:v*d*sv*sd*bc01sc*i*", "pci:v*d*sv*sd*bc02sc00i01", "", "pci:", "usb:*"]
        {
            assert!(!fits(pattern, alias), "{pattern}");
        }
        assert!(!fits("ab*ba", "aba"), "a character counts once");
    }
}
