//! The kernel's log as it grows (`/dev/kmsg`), and which of its lines report a hardware error.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use crate::roots::Roots;

/// A record has at most 8 KiB (`CONSOLE_EXT_LOG_MAX`), and a shorter buffer is refused.
const RECORD: usize = 8192;
/// In one go: a machine that logs faster than this is not read to an end that never comes.
const MOST: usize = 10_000;
const LONGEST: usize = 240;

#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// What comes from now on.
    ///
    /// # Errors
    /// When there is no log, or it is not for us.
    pub fn from_now(roots: &Roots) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(roots.dev.join("kmsg"))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// What has come since, without waiting. Printable, and not longer than a line.
    pub fn new_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = vec![0; RECORD];
        while lines.len() < MOST {
            match self.0.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => lines.extend(messages(&String::from_utf8_lossy(&buffer[..n]))),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Records were overwritten before they were read; the next read goes on after them.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
                // Nothing more now, or nothing any more: what was read counts.
                Err(_) => break,
            }
        }
        lines
    }
}

/// `6,339,5140900,-;message`, and lines that begin with a blank for its properties.
fn messages(record: &str) -> impl Iterator<Item = String> + '_ {
    record.lines().filter(|line| !line.starts_with(' ')).filter_map(|line| {
        let (_, message) = line.split_once(';')?;
        Some(message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect())
    })
}

/// Machine checks, memory errors, PCI Express errors. Not what a driver says when it starts.
#[must_use]
pub fn is_hardware_error(line: &str) -> bool {
    const SIGNS: [&str; 7] = [
        "[Hardware Error]",
        "Machine check events logged",
        "PCIe Bus Error",
        "Memory failure:",
        "MCE: Killing",
        "Uncorrected hardware memory error",
        "NMI: PCI system error",
    ];
    // EDAC MC0: 1 CE memory read error on CPU_SrcID#0_..., EDAC sbridge MC1: ..., 2 UE ...
    let edac = line.contains("EDAC ")
        && line
            .split([' ', ':'])
            .collect::<Vec<_>>()
            .windows(2)
            .any(|pair| pair[0].parse::<u64>().is_ok() && (pair[1] == "CE" || pair[1] == "UE"));
    edac || SIGNS.iter().any(|sign| line.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    #[test]
    fn errors_are_told_from_greetings() {
        for line in [
            "mce: [Hardware Error]: Machine check events logged",
            "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 7: 8c00004000010090",
            "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x7e38)",
            "EDAC MC1: 2 UE memory scrubbing error on unknown memory",
            "pcieport 0000:00:1c.5: PCIe Bus Error: severity=Corrected, type=Physical Layer",
            "Memory failure: 0x7e38: recovery action for dirty LRU page: Recovered",
        ] {
            assert!(is_hardware_error(line), "{line}");
        }
        for line in [
            "mce: CPU0: Thermal monitoring enabled (TM1)",
            "EDAC MC: Ver: 3.0.0",
            "EDAC MC0: Giving out device to module skx_edac controller Skylake Socket#0 IMC#0",
            "Memory: 3996372K/4193780K available",
            "pcieport 0000:00:1c.5: AER: enabled with IRQ 122",
        ] {
            assert!(!is_hardware_error(line), "{line}");
        }
    }

    #[test]
    fn only_what_is_new_is_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert!(KernelLog::from_now(&roots).is_err());
        fs::create_dir_all(&roots.dev).expect("made");
        fs::write(roots.dev.join("kmsg"), "6,1,10,-;old\n").expect("written");
        let mut log = KernelLog::from_now(&roots).expect("opened");
        assert!(log.new_lines().is_empty());
        let mut file = OpenOptions::new().append(true).open(roots.dev.join("kmsg")).expect("opened");
        write!(file, "2,2,20,-;new\u{1b}[31m\n SUBSYSTEM=cpu\n2,3,21,-;newer\nno record\n").expect("written");
        assert_eq!(log.new_lines(), ["new [31m", "newer"]);
        assert!(log.new_lines().is_empty());
    }
}
