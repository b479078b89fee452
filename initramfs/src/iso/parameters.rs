//! The parameter partition: one file of text in a FAT file system of its own.

use anyhow::{Context, Result, bail, ensure};
use uuid::Uuid;

use super::{LABEL, MIB, PARAMETER_PARTITION, fat, gpt, serial};

pub const FILE: &str = "speediso.conf";
pub(super) const PARTITION_SIZE: usize = MIB;
/// The agent takes no more.
const LARGEST: usize = 64 * 1024;

/// What a fresh image holds.
pub const TEMPLATE: &str = include_str!("speediso.conf");

/// The keys of the kernel command line that may stand here. The agent judges their values, at boot.
const KEYS: [&str; 4] = ["SPEEDISO=", "systemd.setenv=SPEEDISO=", "ip=", "BOOTIF="];
const PREFIX: &str = "speediso.";
/// They count before this file is read.
const TOO_LATE: [&str; 4] = ["speediso.medium", "speediso.console", "speediso.console_shell", "speediso.debug"];

/// # Errors
/// When the agent would refuse the text for its form. What a value means is the agent's to say.
pub fn check(text: &str) -> Result<()> {
    ensure!(text.len() <= LARGEST, "the parameters have {} bytes; at most {LARGEST} are read", text.len());
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        check_line(line).with_context(|| format!("{FILE}, line {}", number + 1))?;
    }
    Ok(())
}

fn check_line(line: &str) -> Result<()> {
    ensure!(line.matches('"').count().is_multiple_of(2), "a quote is not closed");
    let mut quoted = false;
    for word in line.split(|c: char| {
        quoted ^= c == '"';
        c.is_whitespace() && !quoted
    }) {
        let word = word.trim_start_matches('"');
        let key = word.split('=').next().unwrap_or_default();
        if TOO_LATE.contains(&key) {
            bail!("{key} must stand on the kernel command line: it counts before this file is read");
        }
        let known = word.is_empty() || word.starts_with(PREFIX) || KEYS.iter().any(|known| word.starts_with(known));
        ensure!(known, "{key:?} is no key for this file: those of the kernel command line that are Speediso's are");
    }
    Ok(())
}

pub(super) fn partition(text: &str, id: Uuid) -> Result<Vec<u8>> {
    let volume = fat::Volume { label: LABEL, serial: serial(id), size: PARTITION_SIZE };
    fat::with_files(&volume, &[(FILE, text.as_bytes())]).context("making the parameter partition")
}

/// Replaces the parameters in an image, and with them whatever else was put on their partition.
pub fn put(image: &mut [u8], text: &str) -> Result<()> {
    check(text)?;
    let (at, length, id) = gpt::find(image, PARAMETER_PARTITION)?;
    ensure!(length == PARTITION_SIZE, "the parameter partition has {length} bytes, not {PARTITION_SIZE}");
    image[at..at + length].copy_from_slice(&partition(text, id)?);
    Ok(())
}

/// The parameters in an image, whoever edited them.
pub fn get(image: &[u8]) -> Result<String> {
    let (at, length, _) = gpt::find(image, PARAMETER_PARTITION)?;
    let volume = std::io::Cursor::new(image[at..at + length].to_vec());
    let volume = fatfs::FileSystem::new(volume, fatfs::FsOptions::new()).context("reading the parameter partition")?;
    let mut text = String::new();
    let file = volume.root_dir().open_file(FILE).with_context(|| format!("the parameter partition has no {FILE}"))?;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, LARGEST as u64), &mut text)
        .with_context(|| format!("reading {FILE}"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_our_keys() {
        check(TEMPLATE).unwrap();
        for good in [
            "",
            "\u{feff}# with a mark\r\nspeediso.ssh=off\r\n",
            "SPEEDISO=burnin speediso.scenario=quick",
            "speediso.sshkey=\"ssh-ed25519 AAAA me@host\" ip=dhcp",
            "\"speediso.sshkey=ssh-ed25519 AAAA me@host\"",
        ] {
            check(good).unwrap();
        }
        for bad in ["quiet", "init=/bin/sh", "speediso.medium=x", "speediso.console=plain", "speediso.arm=\"x", "ip"] {
            let error = check(&format!("# a comment\n{bad}\n")).unwrap_err();
            assert!(format!("{error:#}").contains("line 2"), "{bad}: {error:#}");
        }
        assert!(check(&"#".repeat(LARGEST + 1)).is_err());
    }
}
