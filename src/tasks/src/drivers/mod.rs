//! A driver for every device: those of the ramdisk at its start, and those that it has no room for: which device lacks
//! one, and how it gets it from the add-on.
//!
//! The ramdisk knows of the add-on that was made with it by `/etc/speediso-addon`: the digest, and which PCI device would
//! find a driver there. So a machine can say what it needs before it has a network, and fetch it once it has one.

mod addon;
mod coldplug;
mod lacking;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use speediso_sys::roots::Roots;

pub use self::addon::{AddonError, bring};
pub use self::coldplug::{Modules, NotLoaded, OpenPack, Wishes};
pub(crate) use self::coldplug::{name_of, plain};
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

/// Whether `text` fits a pattern of depmod's: `*` stands for anything, `?` for one character, `[0-9]` for one of these.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last `*` is, and up to where it stands for text.
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(length) = one_fits(&pattern[p..], text[t]) {
            p += length;
            t += 1;
        } else if let Some((at, until)) = star {
            star = Some((at, until + 1));
            p = at + 1;
            t = until + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// How many characters of the pattern stand for this one.
fn one_fits(pattern: &[u8], c: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => {
            let end = set.iter().position(|c| *c == b']')?;
            let mut set = &set[..end];
            while let Some((first, rest)) = set.split_first() {
                let (last, rest) = match rest {
                    [b'-', last, rest @ ..] => (last, rest),
                    _ => (first, rest),
                };
                if (*first..=*last).contains(&c) {
                    return Some(end + 2);
                }
                set = rest;
            }
            None
        }
        [first, ..] if *first == c => Some(1),
        _ => None,
    }
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
        for pattern in [
            "pci:v00008086d00001209*",
            "pci:v*d*sv*sd*bc02sc00i00",
            "pci:v00008086d*sv*sd*bc02sc*i*",
            "pci:v00008086d0000120[0-9A]sv????????*",
            "pci*:v00008086d0000120[3579]*",
            "*",
            alias,
        ] {
            assert!(fits(pattern, alias), "{pattern}");
        }
        for pattern in
            ["pci:v00008086d0000120A*", "pci:v*d*sv*sd*bc01sc*i*", "pci:v*d*sv*sd*bc02sc00i01", "", "pci:", "usb:*"]
        {
            assert!(!fits(pattern, alias), "{pattern}");
        }
        assert!(!fits("ab*ba", "aba"), "a character counts once");
        assert!(fits("", "") && !fits("?", ""), "nothing is nothing");
    }
}
