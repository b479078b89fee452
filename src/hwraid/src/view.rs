//! What a controller's tool shows, in one form for all of them.

use std::fmt;

use serde::Serialize;
use speediso_model::hardware_raid::{DriveInterface, DriveMedia, VolumeLevel};
use speediso_model::units::Bytes;

pub use crate::printed::Size;

/// One controller and all that hangs on it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct View {
    pub controller: Controller,
    /// In the order of their slots.
    pub drives: Vec<Drive>,
    pub volumes: Vec<Volume>,
    pub foreign: Vec<Foreign>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Controller {
    /// By which the tool knows it.
    pub id: String,
    pub model: String,
    pub serial: String,
    pub firmware: String,
    /// Where on the bus it may be, in the kernel's form. Several where the tool's own form can be read in two ways,
    /// none where it does not say.
    pub pci_addresses: Vec<String>,
    pub status: String,
    /// Battery, capacitor and cache, in the tool's words.
    pub cache: Vec<String>,
    /// It keeps data that was never written, of volumes that are gone.
    pub preserved_cache: bool,
    /// All drives are handed through; there is no RAID to configure.
    pub hba_mode: bool,
    /// The volume its firmware boots from, by the volume's id.
    pub boots: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Drive {
    /// Enclosure and slot, as the tool writes them: `252:0`, `1I:1:1`.
    pub slot: String,
    /// How commands name it, where that differs from the slot.
    pub address: String,
    pub serial: String,
    pub wwn: Option<String>,
    pub model: String,
    pub firmware: String,
    /// What a volume can have of it.
    pub size: Size,
    pub media: Option<DriveMedia>,
    pub interface: Option<DriveInterface>,
    /// Logical sector size, where the tool tells.
    pub sector: Option<u32>,
    pub state: DriveState,
    /// The system has a disk of its own for it.
    pub exposed: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DriveState {
    Free,
    /// Handed through to the system as it is.
    Jbod,
    /// Part of a volume.
    Member,
    Spare,
    /// It carries a configuration that this controller did not write or no longer knows.
    Foreign,
    /// In the tool's words.
    Unusable(String),
}

impl fmt::Display for DriveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "free",
            Self::Jbod => "handed through to the system",
            Self::Member => "in a volume",
            Self::Spare => "a spare",
            Self::Foreign => "of a foreign configuration",
            Self::Unusable(said) => said,
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Volume {
    pub id: String,
    pub name: String,
    pub level: Level,
    pub size: Size,
    pub state: VolumeState,
    /// Slots of its members; spares are not among them.
    pub members: Vec<String>,
    /// As the kernel will show it, without a prefix, in lower case.
    pub wwn: Option<String>,
    /// What was read of its write cache, where the tool shows it.
    pub write_back: Option<bool>,
    pub strip_kib: Option<u32>,
}

/// Any level that a controller may already have; only [`VolumeLevel`] can be wished for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Known(VolumeLevel),
    Other(String),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(level) => level.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Whole, or being initialised: usable, and as redundant as it will be.
    Good,
    /// In the tool's words: degraded, offline, ...
    Bad(String),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Foreign {
    /// In the tool's words.
    pub what: String,
}

impl View {
    pub(crate) fn drive(&self, slot: &str) -> Option<&Drive> {
        self.drives.iter().find(|d| d.slot == slot)
    }

    /// `252:0 serial S1, 252:1 serial S2`
    pub(crate) fn named(&self, slots: &[String]) -> String {
        let names: Vec<String> =
            slots.iter().map(|s| self.drive(s).map_or_else(|| s.clone(), ToString::to_string)).collect();
        names.join(", ")
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} serial {}", self.model, self.serial)
    }
}

impl fmt::Display for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} serial {}", self.slot, self.serial)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}", self.id)?;
        if !self.name.is_empty() {
            write!(f, " {:?}", self.name)?;
        }
        write!(f, " ({}, {})", self.level, Bytes(self.size.bytes))
    }
}

/// A WWN without `naa.`, `0x` or capitals, so that the tool's and the kernel's compare.
#[must_use]
pub fn bare_wwn(text: &str) -> Option<String> {
    let lower = text.trim().to_ascii_lowercase();
    let bare = lower.trim_start_matches("naa.").trim_start_matches("0x");
    (bare.len() >= 16 && bare.bytes().all(|b| b.is_ascii_hexdigit()) && bare.bytes().any(|b| b != b'0'))
        .then(|| bare.to_owned())
}
