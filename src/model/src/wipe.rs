//! What a wipe is asked to do, and what it has to tell of each device. A certificate is made of the latter and of nothing
//! else, so whatever counts is in it.

mod keys;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hints::RootDeviceHints;
use crate::inventory::Disk;
use crate::inventory::health::DiskHealth;
use crate::units::Bytes;
pub use keys::{DiskKey, DiskSecret, Unfreeze};

/// Which disks a wipe takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WipeTargets {
    /// One disk for each.
    Hints(Vec<RootDeviceHints>),
    /// Every fixed disk. One that is in use or read-only refuses the whole task.
    AllDisks,
}

/// How far a wipe goes, in the sense of NIST SP 800-88.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WipeLevel {
    /// Every addressable sector is overwritten: protects against reading through the normal interface.
    Clear,
    /// Beyond the reach of a laboratory. Needs a method of the device; never replaced by `clear`.
    Purge,
}

/// A pass over the whole disk before the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WipePass {
    Zeroes,
    Random,
}

/// How much of the last pass is read back. Start and end of the disk always are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WipeVerify {
    #[default]
    Full,
    /// This many percent, at random places; the seed is recorded.
    SamplePercent(u8),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WipeTask {
    pub devices: WipeTargets,
    pub level: WipeLevel,
    /// Passes before the last, which always writes a pattern that is known and differs at every sector: reading
    /// zeroes would not prove that anything was written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passes_before: Vec<WipePass>,
    #[serde(default)]
    pub verify: WipeVerify,
    /// Only these methods, the first that the device has. Empty: any, see `docs/wiping.md` for the order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<WipeMethod>,
    /// A level that may be reached instead when the device has no method for `level`. Only what is named here is ever
    /// used instead, and both levels are reported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<WipeLevel>,
    /// Opens host protected areas and device configuration overlays for good, and takes detached namespaces too, or
    /// refuses where it cannot. By default for `purge`; otherwise they are reported as not covered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_areas: Option<bool>,
    /// Disks that were recorded in this machine. One that is not here any more makes the outcome `unknown`: nobody can
    /// say what became of its data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<RecordedDisk>,
    /// What opens disks that somebody has locked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<DiskKey>,
    /// Permits to thaw disks that the firmware has frozen. Without it a method that is frozen is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfreeze: Option<Unfreeze>,
}

/// A disk of an earlier inventory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordedDisk {
    pub serial: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    #[serde(default)]
    pub size: Bytes,
}

impl RecordedDisk {
    /// Of a disk that can be recognised again: one with a serial number or a WWN. Removable ones come and go.
    #[must_use]
    pub fn of(disk: &Disk) -> Option<Self> {
        let named = !disk.serial.trim().is_empty() || disk.wwn.is_some();
        (named && !disk.removable).then(|| Self {
            serial: disk.serial.trim().to_owned(),
            wwn: disk.wwn.clone(),
            model: disk.model.trim().to_owned(),
            size: disk.size,
        })
    }

    /// Whether `disk` is this one. A new size or sector size is no other disk.
    #[must_use]
    pub fn is(&self, disk: &Disk) -> bool {
        let same = |a: &str, b: &str| a.trim().eq_ignore_ascii_case(b.trim());
        if let (Some(one), Some(other)) = (&self.wwn, &disk.wwn)
            && same(one, other)
        {
            return true;
        }
        !self.serial.is_empty()
            && same(&self.serial, &disk.serial)
            && (self.model.is_empty() || same(&self.model, &disk.model))
    }
}

impl fmt::Display for RecordedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} serial {}", self.size, self.model, self.serial)
    }
}

impl WipeTargets {
    /// The hints, if disks are named by hints.
    pub fn hints(&self) -> impl Iterator<Item = &RootDeviceHints> {
        match self {
            Self::Hints(hints) => hints.as_slice(),
            Self::AllDisks => &[],
        }
        .iter()
    }
}

impl WipeLevel {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Purge => "purge",
        }
    }
}

impl WipeTask {
    const MOST_PASSES: usize = 35;

    /// One pass, read back whole, by whatever method reaches the level.
    #[must_use]
    pub fn new(devices: WipeTargets, level: WipeLevel) -> Self {
        Self {
            devices,
            level,
            passes_before: Vec::new(),
            verify: WipeVerify::Full,
            methods: Vec::new(),
            allow: Vec::new(),
            hidden_areas: None,
            expect: Vec::new(),
            keys: Vec::new(),
            unfreeze: None,
        }
    }

    /// Whether areas are taken that the host does not see.
    #[must_use]
    pub fn covers_hidden_areas(&self) -> bool {
        self.hidden_areas.unwrap_or(self.level == WipeLevel::Purge)
    }

    /// What can be said to be wrong without looking at a disk.
    pub(crate) fn check(&self) -> Result<(), String> {
        if matches!(&self.devices, WipeTargets::Hints(hints) if hints.is_empty()) {
            return Err("devices: no disk is named".into());
        }
        if let WipeVerify::SamplePercent(percent) = self.verify
            && !(1..=100).contains(&percent)
        {
            return Err(format!("verify: a sample of {percent} percent"));
        }
        if self.passes_before.len() > Self::MOST_PASSES {
            return Err(format!("passes_before: more than {} passes", Self::MOST_PASSES));
        }
        if let Some(method) = self.methods.iter().find(|m| m.level() < self.level && !self.allow.contains(&m.level())) {
            return Err(format!(
                "methods: {} reaches level {} only; allow: [\"{1}\"] would permit that",
                method.name(),
                method.level().name()
            ));
        }
        let overwrites = self.methods.is_empty() || self.methods.contains(&WipeMethod::Overwrite);
        if !self.passes_before.is_empty() && !overwrites {
            return Err("passes_before: passes belong to the method overwrite, which methods leaves out".into());
        }
        if let Some(disk) = self.expect.iter().find(|d| d.serial.trim().is_empty() && d.wwn.is_none()) {
            return Err(format!("expect: {disk} has neither serial number nor WWN"));
        }
        self.check_keys()
    }
}

/// A way to make the data of a device unreadable, as the standards name them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WipeMethod {
    /// NVMe Sanitize, crypto erase (NVMe base 2.0, 5.24).
    NvmeSanitizeCrypto,
    NvmeSanitizeBlock,
    NvmeSanitizeOverwrite,
    /// NVMe Format NVM with secure erase setting 2 (cryptographic).
    NvmeFormatCrypto,
    /// NVMe Format NVM with secure erase setting 1 (user data).
    NvmeFormatUserData,
    /// ATA SANITIZE DEVICE (ACS-4, 7.36): CRYPTO SCRAMBLE EXT.
    AtaSanitizeCrypto,
    AtaSanitizeBlock,
    AtaSanitizeOverwrite,
    /// ATA SECURITY ERASE UNIT, enhanced.
    AtaSecurityEraseEnhanced,
    /// ATA SECURITY ERASE UNIT, normal.
    AtaSecurityErase,
    /// SCSI SANITIZE (SBC-4): cryptographic erase.
    ScsiSanitizeCrypto,
    ScsiSanitizeBlock,
    ScsiSanitizeOverwrite,
    /// TCG Opal: Revert by the PSID printed on the drive.
    OpalRevert,
    /// Every addressable sector written, by the host.
    Overwrite,
}

/// On what a method of ours has been seen to work. Nothing was tried on real hardware so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TriedOn {
    /// Disks of a virtual machine, judged from outside of it.
    VirtualMachine,
    /// A simulator of ours, written from the specification.
    Simulator,
}

impl WipeMethod {
    pub const ALL: [Self; 15] = [
        Self::NvmeSanitizeBlock,
        Self::NvmeSanitizeCrypto,
        Self::NvmeSanitizeOverwrite,
        Self::NvmeFormatCrypto,
        Self::AtaSanitizeBlock,
        Self::AtaSanitizeCrypto,
        Self::AtaSanitizeOverwrite,
        Self::ScsiSanitizeBlock,
        Self::ScsiSanitizeCrypto,
        Self::ScsiSanitizeOverwrite,
        Self::OpalRevert,
        Self::Overwrite,
        Self::NvmeFormatUserData,
        Self::AtaSecurityEraseEnhanced,
        Self::AtaSecurityErase,
    ];

    /// As on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NvmeSanitizeCrypto => "nvme_sanitize_crypto",
            Self::NvmeSanitizeBlock => "nvme_sanitize_block",
            Self::NvmeSanitizeOverwrite => "nvme_sanitize_overwrite",
            Self::NvmeFormatCrypto => "nvme_format_crypto",
            Self::NvmeFormatUserData => "nvme_format_user_data",
            Self::AtaSanitizeCrypto => "ata_sanitize_crypto",
            Self::AtaSanitizeBlock => "ata_sanitize_block",
            Self::AtaSanitizeOverwrite => "ata_sanitize_overwrite",
            Self::AtaSecurityEraseEnhanced => "ata_security_erase_enhanced",
            Self::AtaSecurityErase => "ata_security_erase",
            Self::ScsiSanitizeCrypto => "scsi_sanitize_crypto",
            Self::ScsiSanitizeBlock => "scsi_sanitize_block",
            Self::ScsiSanitizeOverwrite => "scsi_sanitize_overwrite",
            Self::OpalRevert => "opal_revert",
            Self::Overwrite => "overwrite",
        }
    }

    #[must_use]
    pub fn tried_on(self) -> TriedOn {
        match self {
            Self::Overwrite | Self::NvmeFormatUserData => TriedOn::VirtualMachine,
            _ => TriedOn::Simulator,
        }
    }

    /// The most this method can reach (NIST SP 800-88r2 with IEEE 2883). What was reached is told by the verification.
    #[must_use]
    pub fn level(self) -> WipeLevel {
        match self {
            // IEEE 2883 counts the ATA security erase commands and Format's user data erase as clear: what they do to
            // remapped and reserved areas is left to the maker.
            Self::Overwrite | Self::AtaSecurityErase | Self::AtaSecurityEraseEnhanced | Self::NvmeFormatUserData => {
                WipeLevel::Clear
            }
            _ => WipeLevel::Purge,
        }
    }
}

/// What a wipe found and did on one device: the `facts` of its result.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WipeReport {
    pub asked: WipeLevel,
    /// The level that was reached and verified; none where that cannot be said.
    pub reached: Option<WipeLevel>,
    pub method: WipeMethod,
    /// Every pass or command in order, in words.
    pub steps: Vec<String>,
    /// Everything of the device that can hold data, and whether it was treated.
    pub areas: Vec<WipedArea>,
    pub verification: Verification,
    /// What the device itself said: commands and the status they ended with, raw and in words.
    #[serde(default)]
    pub device_log: Vec<DeviceStatus>,
    pub firmware: String,
    pub begun: jiff::Timestamp,
    pub ended: jiff::Timestamp,
    /// By the monotonic clock.
    pub seconds: f64,
    pub write_mib_per_s: Option<f64>,
    /// MiB/s in equal parts along the disk, from its start.
    #[serde(default)]
    pub speed_profile: Vec<f64>,
    /// Parts that took more than three times the median.
    #[serde(default)]
    pub slow_parts: Vec<usize>,
    /// The drive's own view of its health; none where it has none to tell.
    pub health_before: Option<Health>,
    pub health_after: Option<Health>,
    /// What this method does not reach, in words.
    pub not_covered: Vec<String>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WipedArea {
    pub kind: AreaKind,
    /// `namespace 2`, `host protected area`, ...
    pub name: String,
    pub size: Bytes,
    pub covered: bool,
    /// How it was covered, or why not.
    pub how: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AreaKind {
    /// What the host addresses.
    User,
    /// ATA host protected area, or what the accessible maximum address hides.
    Hpa,
    /// ATA device configuration overlay.
    Dco,
    /// An NVMe namespace, attached or not.
    Namespace,
    BootPartition,
    /// Remapped sectors and over-provisioning.
    Reserved,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    pub kind: VerificationKind,
    /// Read back from the medium and compared.
    pub bytes: Bytes,
    pub sample: Option<Sample>,
    /// Of the known pattern, in hex; none where the device wrote.
    pub pattern_seed: Option<String>,
    pub canaries: Option<Canaries>,
    pub in_words: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerificationKind {
    Full,
    Sample,
    /// The device's own status, with canaries searched for.
    DeviceStatus,
    None,
}

/// Chosen at random; the seed lets others choose the same again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    pub percent: u8,
    pub seed: String,
    /// Length of one piece.
    pub unit: Bytes,
    pub units: u64,
}

/// Marks planted before and searched for after.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Canaries {
    pub seed: String,
    pub planted: u64,
    pub found_after: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeviceStatus {
    pub command: String,
    /// As the device gave it, in hex.
    pub raw: String,
    pub meaning: String,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    pub passed: Option<bool>,
    pub power_on_hours: Option<u64>,
    pub reallocated: Option<u64>,
    pub percentage_used: Option<u8>,
    pub media_errors: Option<u64>,
    pub temperature_c: Option<i32>,
}

impl From<&DiskHealth> for Health {
    fn from(told: &DiskHealth) -> Self {
        Self {
            passed: told.passed,
            power_on_hours: told.power_on_hours,
            reallocated: told.reallocated_sectors,
            percentage_used: told.percentage_used,
            media_errors: told.media_errors,
            temperature_c: told.temperature_c,
        }
    }
}
