//! What the kernel counts of hardware errors: machine check exceptions, and memory errors by the EDAC drivers.

use std::collections::BTreeMap;
use std::fs;

use crate::roots::{Roots, read_number};

/// Since the kernel started, or between two readings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// `None` where the kernel counts none.
    pub mce: Option<u64>,
    /// By memory controller: `mc0`.
    pub controllers: BTreeMap<String, MemoryErrors>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryErrors {
    pub corrected: u64,
    pub uncorrected: u64,
}

#[must_use]
pub fn read(roots: &Roots) -> Counts {
    let interrupts = fs::read_to_string(roots.proc.join("interrupts")).unwrap_or_default();
    let mut controllers = BTreeMap::new();
    for entry in fs::read_dir(roots.sys.join("devices/system/edac/mc")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_controller = name.strip_prefix("mc").is_some_and(|n| n.parse::<u32>().is_ok());
        let count = |file| read_number(&entry.path().join(file));
        if is_controller && let (Some(corrected), Some(uncorrected)) = (count("ce_count"), count("ue_count")) {
            controllers.insert(name, MemoryErrors { corrected, uncorrected });
        }
    }
    Counts { mce: exceptions(&interrupts), controllers }
}

/// All processors' together, from the line that begins with `MCE:`.
fn exceptions(interrupts: &str) -> Option<u64> {
    let line = interrupts.lines().find_map(|line| line.trim_start().strip_prefix("MCE:"))?;
    Some(line.split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok()).sum())
}

impl Counts {
    /// What came after `before`. A counter that was reset counts from its new beginning as nothing.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let controllers = self.controllers.iter().map(|(name, now)| {
            let was = before.controllers.get(name).copied().unwrap_or_default();
            let new = MemoryErrors {
                corrected: now.corrected.saturating_sub(was.corrected),
                uncorrected: now.uncorrected.saturating_sub(was.uncorrected),
            };
            (name.clone(), new)
        });
        Self {
            mce: self.mce.map(|now| now.saturating_sub(before.mce.unwrap_or(0))),
            controllers: controllers.collect(),
        }
    }

    /// In words, each that is not 0.
    #[must_use]
    pub fn faults(&self) -> Vec<(String, u64)> {
        let mce = self.mce.map(|n| ("machine check exceptions".to_owned(), n));
        let memory = self.controllers.iter().flat_map(|(name, errors)| {
            [
                (format!("corrected memory errors at {name}"), errors.corrected),
                (format!("uncorrected memory errors at {name}"), errors.uncorrected),
            ]
        });
        mce.into_iter().chain(memory).filter(|(_, n)| *n > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_between_two_readings() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert_eq!(read(&roots), Counts::default());
        let mc = dir.path().join("sys/devices/system/edac/mc/mc0");
        fs::create_dir_all(&mc).expect("made");
        fs::create_dir_all(mc.with_file_name("power")).expect("made");
        fs::create_dir_all(dir.path().join("proc")).expect("made");
        let put = |mce: &str, corrected: &str| {
            let text = format!(
                "           CPU0       CPU1\n  0:  7  0  IO-APIC\nMCE: {mce}   Machine check exceptions\nMCP: 9 9\n"
            );
            fs::write(dir.path().join("proc/interrupts"), text).expect("written");
            fs::write(mc.join("ce_count"), corrected).expect("written");
            fs::write(mc.join("ue_count"), "0\n").expect("written");
        };
        put("1  2", "5\n");
        let before = read(&roots);
        assert_eq!(before.mce, Some(3));
        assert!(before.since(&before).faults().is_empty());
        put("1  4", "8\n");
        let new = read(&roots).since(&before);
        assert_eq!(
            new.faults(),
            [("machine check exceptions".to_owned(), 2), ("corrected memory errors at mc0".to_owned(), 3)]
        );
        put("0  0", "0\n");
        assert!(read(&roots).since(&before).faults().is_empty(), "a reset is no error");
    }
}
