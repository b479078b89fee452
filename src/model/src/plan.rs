//! What a task would do, written down before it does it.
//!
//! A plan is made from the hints and the machine as it is. Dry run prints it; the start of a destructive task carries
//! its digest; and it is made again on the opened disks before the first write. Two plans with one digest mean the
//! same disks and the same effects.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hints;
use crate::inventory::Disk;
use crate::units::Bytes;

/// By what a disk is recognised again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DiskIdentity {
    pub serial: String,
    pub wwn: Option<String>,
    pub model: String,
    pub size: Bytes,
    pub logical_sectors: u32,
    /// The kernel's count of disks seen since boot; tells apart two disks without serial numbers, and a disk pulled
    /// and another pushed into the same bay.
    pub diskseq: Option<u64>,
}

impl DiskIdentity {
    #[must_use]
    pub fn of(disk: &Disk) -> Self {
        Self {
            serial: disk.serial.trim().to_owned(),
            wwn: disk.wwn.clone(),
            model: disk.model.trim().to_owned(),
            size: disk.size,
            logical_sectors: disk.logical_sectors,
            diskseq: disk.diskseq,
        }
    }
}

impl fmt::Display for DiskIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.size)?;
        if !self.model.is_empty() {
            write!(f, " {}", self.model)?;
        }
        if !self.serial.is_empty() {
            write!(f, " serial {}", self.serial)?;
        }
        if let Some(wwn) = &self.wwn {
            write!(f, " wwn {wwn}")?;
        }
        Ok(())
    }
}

/// One effect on one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Action {
    /// In words: `overwrite with a known pattern and read back`.
    pub what: String,
    pub offset: Bytes,
    pub length: Bytes,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlannedDevice {
    pub identity: DiskIdentity,
    /// The kernel's name when the plan was made. Not part of the digest: names may change, disks may not.
    pub seen_as: String,
    pub actions: Vec<Action>,
    /// What libblkid finds there now and will be lost. Not part of the digest.
    #[serde(default)]
    pub found: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Kind of the task, as in `Task::kind`.
    pub task: String,
    pub destructive: bool,
    pub devices: Vec<PlannedDevice>,
    /// Effects outside of disks: firmware variables, power.
    #[serde(default)]
    pub effects: Vec<String>,
    /// Disks that are here and will not be touched. Not part of the digest.
    #[serde(default)]
    pub untouched: Vec<String>,
}

/// SHA-256 over the canonical form of a plan, in hex.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PlanDigest(pub String);

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Serialize)]
struct Canonical<'a> {
    version: u8,
    task: &'a str,
    destructive: bool,
    devices: Vec<(&'a DiskIdentity, &'a [Action])>,
    effects: &'a [String],
}

impl Plan {
    /// # Panics
    /// Never: the canonical form has string keys and finite numbers only.
    #[must_use]
    pub fn digest(&self) -> PlanDigest {
        let canonical = Canonical {
            version: 1,
            task: &self.task,
            destructive: self.destructive,
            devices: self.devices.iter().map(|d| (&d.identity, d.actions.as_slice())).collect(),
            effects: &self.effects,
        };
        // Struct fields are written in the order of their declaration, so the text is the same every time.
        let text = serde_json::to_vec(&canonical).expect("string keys and finite numbers always serialise");
        PlanDigest(hex(&Sha256::digest(text)))
    }

    /// Names the disks of `all` that the plan leaves alone.
    #[must_use]
    pub fn with_untouched(self, all: &[Disk]) -> Self {
        self.with_untouched_because(all, |_| None)
    }

    /// The same, with why each of them is left alone. What no task may touch has its reason anyway.
    #[must_use]
    pub fn with_untouched_because(mut self, all: &[Disk], why: impl Fn(&Disk) -> Option<String>) -> Self {
        let excluded = |disk: &Disk| {
            disk.excluded.as_ref().and_then(|_| hints::unusable(disk, true)).map(|rejection| rejection.to_string())
        };
        self.untouched = all
            .iter()
            .filter(|d| !self.devices.iter().any(|p| p.identity == DiskIdentity::of(d)))
            .map(|disk| match excluded(disk).or_else(|| why(disk)) {
                Some(reason) => format!("{}: {reason}", hints::describe(disk)),
                None => hints::describe(disk),
            })
            .collect();
        self
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

impl fmt::Display for Plan {
    /// What dry run prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan for {} ({})",
            self.task,
            if self.destructive { "DESTROYS DATA" } else { "destroys nothing" }
        )?;
        for device in &self.devices {
            writeln!(f, "  on {} [{}]", device.seen_as, device.identity)?;
            for found in &device.found {
                writeln!(f, "    holds now: {found}")?;
            }
            for action in &device.actions {
                writeln!(f, "    {} ({} at byte {})", action.what, action.length, action.offset.0)?;
            }
        }
        for effect in &self.effects {
            writeln!(f, "  {effect}")?;
        }
        for disk in &self.untouched {
            writeln!(f, "  not touched: {disk}")?;
        }
        write!(f, "  digest {}", self.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let disk = Disk {
            name: "/dev/vda".into(),
            serial: "S1".into(),
            size: Bytes::gib(1),
            logical_sectors: 512,
            ..Disk::default()
        };
        Plan {
            task: "wipe".into(),
            destructive: true,
            devices: vec![PlannedDevice {
                identity: DiskIdentity::of(&disk),
                seen_as: disk.name,
                actions: vec![Action { what: "overwrite".into(), offset: Bytes(0), length: Bytes::gib(1) }],
                found: vec!["ext4".into()],
            }],
            effects: Vec::new(),
            untouched: Vec::new(),
        }
    }

    #[test]
    fn the_digest_is_about_disks_and_effects_not_names() {
        let first = plan();
        let mut renamed = plan();
        renamed.devices[0].seen_as = "/dev/vdb".into();
        renamed.devices[0].found.clear();
        assert_eq!(first.digest(), renamed.digest());
        let mut swapped = plan();
        swapped.devices[0].identity.diskseq = Some(7);
        assert_ne!(first.digest(), swapped.digest());
        let mut longer = plan();
        longer.devices[0].actions[0].length = Bytes::gib(2);
        assert_ne!(first.digest(), longer.digest());
    }

    #[test]
    fn printed_plan() {
        insta::assert_snapshot!(plan());
    }
}
