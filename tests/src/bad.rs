//! Bad disks in one machine: which is bad in what way, what is written to it, and how that must end.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use speediso_lab::nbd::{BadDisk, Rule};
use speediso_lab::{Bus, Disk, Lab, Programs, tool};
use speediso_model::outcome::{Outcome, TaskResult};

use crate::sha256;

pub const MIB: u64 = 1 << 20;
pub const IMAGE_SIZE: u64 = 24 * MIB;
pub const DISK_SIZE: u64 = 32 * MIB;
/// What the disks hold before, between an old system's ends.
const OLD: u8 = 0x11;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Raw,
    Qcow2,
    Manifest,
}

/// One disk image in three formats.
#[derive(Debug)]
pub struct Images {
    pub raw: PathBuf,
    manifest_digest: String,
    qcow2_digest: String,
    raw_digest: String,
}

impl Images {
    /// In `dir`, which is served.
    pub fn make(dir: &Path, programs: &Programs) -> Result<Self> {
        let raw = dir.join("disk.raw");
        let mut bytes = vec![0; usize::try_from(IMAGE_SIZE)?];
        // Different everywhere, with a hole of 2 MiB at 14 MiB.
        let mut noise = 0x9e37_79b9_7f4a_7c15u64;
        for (n, word) in bytes.chunks_exact_mut(8).enumerate() {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            if !(14..16).contains(&((n as u64 * 8) / MIB)) {
                word.copy_from_slice(&noise.to_le_bytes());
            }
        }
        std::fs::write(&raw, bytes)?;
        for args in [&["-Z"][..], &["-n", "1:0:0", "-c", "1:root"]] {
            tool::run(Command::new(tool::find("sgdisk")?).args(args).arg(&raw))?;
        }
        let qcow2 = dir.join("disk.qcow2");
        tool::run(
            Command::new(tool::find("qemu-img")?).args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&qcow2),
        )?;
        tool::run(Command::new(&programs.cli).args(["image", "pack"]).arg(&raw).arg("-o").arg(dir.join("packed")))?;
        Ok(Self {
            raw_digest: sha256(&raw)?,
            qcow2_digest: sha256(&qcow2)?,
            manifest_digest: sha256(&dir.join("packed/manifest.json"))?,
            raw,
        })
    }

    /// A task file that writes it to the disk with this serial number.
    pub fn task_file(&self, kind: Kind, base: &str, machine: &str, serial: &str) -> Value {
        let (file, digest, format) = match kind {
            Kind::Raw => ("disk.raw", &self.raw_digest, "raw"),
            Kind::Qcow2 => ("disk.qcow2", &self.qcow2_digest, "qcow2"),
            Kind::Manifest => ("packed/manifest.json", &self.manifest_digest, "manifest"),
        };
        json!({
            "version": 1,
            "machine": machine,
            "expires": "2100-01-01T00:00:00Z",
            "order": "77777777-7777-4777-8777-777777777777",
            "tasks": [{
                "task": "write_image",
                "device": {"serial": serial},
                "image": {"url": format!("{base}/{file}"), "digest": format!("sha256:{digest}"), "format": format, "compression": "none"},
                "read_back": "full",
            }],
        })
    }
}

/// One disk, and how writing to it must end.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub kind: Kind,
    pub disk: BadDisk,
    pub file: PathBuf,
    bus: Bus,
    hot_plug: bool,
    pub outcome: Outcome,
    /// Of the fault, if there is one.
    pub code: &'static str,
    /// The bytes of which the fault must name some.
    place: Range<u64>,
    /// Its faults hold up whoever waits for it.
    pub in_background: bool,
    pub pulled: bool,
}

impl Case {
    /// A good virtio disk with an old system on it.
    pub fn new(lab: &Lab, name: &'static str, kind: Kind, rules: Vec<Rule>) -> Result<Self> {
        let file = lab.dir().join(format!("{name}.raw"));
        let medium = File::create(&file)?;
        let mut old = vec![OLD; usize::try_from(DISK_SIZE)?];
        old[510..512].copy_from_slice(&[0x55, 0xaa]);
        medium.write_all_at(&old, 0)?;
        Ok(Self {
            name,
            kind,
            disk: BadDisk::start(&file, rules)?,
            file,
            bus: Bus::Virtio,
            hot_plug: false,
            outcome: Outcome::Verified,
            code: "",
            place: 0..0,
            in_background: false,
            pulled: false,
        })
    }

    #[must_use]
    pub fn bus(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    /// Pulled out of the machine as soon as its first rule is met.
    #[must_use]
    pub fn pulled(mut self) -> Self {
        self.hot_plug = true;
        self.pulled = true;
        self.in_background = true;
        self
    }

    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.in_background = true;
        self
    }

    /// It must end like this, with a fault of this code that names some of these bytes.
    #[must_use]
    pub fn ends(mut self, outcome: Outcome, code: &'static str, place: Range<u64>) -> Self {
        (self.outcome, self.code, self.place) = (outcome, code, place);
        self
    }

    pub fn plugged(&self) -> Disk {
        let disk = Disk::nbd(self.disk.socket(), self.name).bus(self.bus);
        if self.hot_plug { disk.hot_plug() } else { disk }
    }

    pub fn exit_code(&self) -> i32 {
        match self.outcome {
            Outcome::Verified => 0,
            Outcome::FailedUnchanged => 1,
            Outcome::FailedChanged => 2,
            Outcome::Unknown => 3,
        }
    }

    pub fn bytes(&self) -> Result<Vec<u8>> {
        std::fs::read(&self.file).with_context(|| format!("reading {}", self.file.display()))
    }

    /// That it ended as it must, named the place, and left nothing that boots.
    pub fn check(&self, said: &str) -> Result<()> {
        let line = said.lines().rev().find(|line| line.starts_with('{')).context("it said no result")?;
        let result: TaskResult = serde_json::from_str(line)?;
        let fault = result.fault.as_ref();
        let code = fault.map_or("", |fault| fault.code.name());
        ensure!((result.outcome, code) == (self.outcome, self.code), "it ended otherwise: {line}");
        let bytes = self.bytes()?;
        let Some(fault) = fault else { return Ok(()) };
        ensure!(!self.disk.met().is_empty(), "no request met a rule");
        ensure!(fault.message.contains("/dev/"), "no disk is named: {fault}");
        let named = region(&fault.message).with_context(|| format!("no region is named: {fault}"))?;
        ensure!(
            named.start < self.place.end && self.place.start < named.end,
            "{named:?} is named, {:?} is bad: {fault}",
            self.place
        );
        let edge = usize::try_from(MIB)?;
        let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        ensure!(zero(&bytes[..edge]), "the start of the disk is not zero");
        ensure!(zero(&bytes[bytes.len() - edge..]), "the end of the disk is not zero");
        Ok(())
    }
}

/// The bytes that a message names: "LENGTH bytes at byte OFFSET", "between bytes FROM and TO", or "at byte OFFSET".
fn region(message: &str) -> Option<Range<u64>> {
    let words: Vec<&str> = message.split([' ', ':']).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let after = |what: &[&str]| words.windows(what.len()).position(|w| w == what).map(|at| at + what.len());
    if let Some(at) = after(&["between", "bytes"]) {
        return Some(number(at)?..number(at + 2)?);
    }
    let at = after(&["at", "byte"])?;
    let offset = number(at)?;
    let length = at.checked_sub(4).and_then(number).unwrap_or(1);
    Some(offset..offset + length)
}

/// How long the machine may take for all of them.
pub const ALL: Duration = Duration::from_secs(240);

#[cfg(test)]
mod tests {
    use super::region;

    #[test]
    fn regions_are_read_from_every_message() {
        for (message, expected) in [
            ("writing 4096 bytes at byte 8192 of /dev/vda", Some(8192..12288)),
            ("writing 4096 bytes at byte 8192 of /dev/vda has not ended for 10 s", Some(8192..12288)),
            ("/dev/vda returns something else than was written between bytes 10 and 20", Some(10..20)),
            ("the start of /dev/vda reads back differently at byte 7", Some(7..8)),
            ("writing at byte 512 of /dev/sda: the disk ends there", Some(512..513)),
            ("the disk is gone", None),
        ] {
            assert_eq!(region(message), expected, "{message}");
        }
    }
}
