//! What is made in a partition or a logical volume.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::write_image::FileSystemKind;

/// As cryptsetup reads it: below that nobody could call it a secret, above it nobody types it.
const KEY_LENGTH: std::ops::RangeInclusive<usize> = 8..=512;

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    FileSystem(Format),
    /// A physical volume of the volume group of this name.
    Lvm(String),
    Luks(Luks),
}

/// A file system, or swap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Format {
    pub kind: FormatKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// By which an installed system finds it: a UUID, or `1234-ABCD` for vfat. A random one when absent. NTFS chooses its
    /// own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatKind {
    Ext4,
    Xfs,
    Btrfs,
    Vfat,
    Swap,
    Ntfs,
}

impl From<FileSystemKind> for FormatKind {
    fn from(kind: FileSystemKind) -> Self {
        match kind {
            FileSystemKind::Ext4 => Self::Ext4,
            FileSystemKind::Xfs => Self::Xfs,
            FileSystemKind::Btrfs => Self::Btrfs,
        }
    }
}

impl FormatKind {
    /// As `blkid` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Vfat => "vfat",
            Self::Swap => "swap",
            Self::Ntfs => "ntfs",
        }
    }

    /// Bytes of a label.
    fn longest_label(self) -> usize {
        match self {
            Self::Ext4 => 16,
            Self::Xfs => 12,
            Self::Btrfs => 255,
            Self::Vfat => 11,
            Self::Swap => 15,
            Self::Ntfs => 32,
        }
    }
}

impl Format {
    pub(super) fn check(&self) -> Result<(), String> {
        let name = self.kind.name();
        if let Some(label) = &self.label {
            let longest = self.kind.longest_label();
            let bad = |c: char| c.is_control() || c == '/';
            if label.is_empty() || label.len() > longest || label.starts_with('-') || label.chars().any(bad) {
                return Err(format!("label: {label:?} is no label for {name} (1 to {longest} bytes)"));
            }
            // What is stored is upper case; a label that comes back different is not the one that was ordered.
            let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || " -_".contains(c);
            if self.kind == FormatKind::Vfat && (!label.chars().all(plain) || label.ends_with(' ')) {
                return Err(format!("label: {label:?}: vfat has capitals, digits, blank, - and _ only"));
            }
            if self.kind == FormatKind::Ntfs && !label.is_ascii() {
                return Err(format!("label: {label:?}: only ASCII for ntfs"));
            }
        }
        let Some(uuid) = &self.uuid else { return Ok(()) };
        let good = match self.kind {
            FormatKind::Vfat => is_fat_serial(uuid),
            FormatKind::Ntfs => return Err("uuid: ntfs chooses its own".into()),
            _ => uuid.len() == 36 && uuid.parse::<Uuid>().is_ok_and(|uuid| !uuid.is_nil()),
        };
        if good { Ok(()) } else { Err(format!("uuid: {uuid:?} is none for {name}")) }
    }

    /// For people: `ext4 "root"`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.label {
            Some(label) => format!("{} {label:?}", self.kind.name()),
            None => self.kind.name().to_owned(),
        }
    }
}

/// `1234-ABCD`
fn is_fat_serial(text: &str) -> bool {
    let hex = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    text.split_once('-').is_some_and(|(high, low)| hex(high) && hex(low))
}

/// Encryption of everything inside (LUKS2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Luks {
    pub key: LuksKey,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// How long unlocking takes on this machine, in milliseconds; what makes guessing expensive. Two seconds when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock_ms: Option<u32>,
    /// A file system, or a physical volume; empty when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Box<Content>>,
}

/// The passphrase. It travels with the task; it is in no plan, no report, no log and no command line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct LuksKey(pub String);

impl fmt::Debug for LuksKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Luks {
    fn check(&self) -> Result<(), String> {
        if !KEY_LENGTH.contains(&self.key.0.len()) || self.key.0.contains(['\n', '\0']) {
            return Err(format!(
                "luks.key: {} to {} bytes without a line break, as one would type them",
                KEY_LENGTH.start(),
                KEY_LENGTH.end()
            ));
        }
        if let Some(label) = &self.label
            && (label.is_empty() || label.len() > 47 || label.chars().any(char::is_control))
        {
            return Err(format!("luks.label: {label:?} is none (1 to 47 bytes)"));
        }
        if self.unlock_ms.is_some_and(|ms| !(10..=60_000).contains(&ms)) {
            return Err("luks.unlock_ms: 10 to 60000".into());
        }
        match self.content.as_deref() {
            Some(Content::Luks(_)) => Err("luks.content: encrypted twice".into()),
            Some(inner) => inner.check().map_err(|e| format!("luks.content.{e}")),
            None => Ok(()),
        }
    }
}

impl Content {
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::FileSystem(format) => format.check().map_err(|e| format!("file_system.{e}")),
            Self::Lvm(_) => Ok(()),
            Self::Luks(luks) => luks.check(),
        }
    }

    /// The volume group that this is a part of.
    #[must_use]
    pub fn volume_group(&self) -> Option<&str> {
        match self {
            Self::FileSystem(_) => None,
            Self::Lvm(group) => Some(group),
            Self::Luks(luks) => luks.content.as_deref().and_then(Self::volume_group),
        }
    }

    /// The file system in it, through an encryption.
    #[must_use]
    pub fn format(&self) -> Option<&Format> {
        match self {
            Self::FileSystem(format) => Some(format),
            Self::Lvm(_) => None,
            Self::Luks(luks) => luks.content.as_deref().and_then(Self::format),
        }
    }

    /// Every UUID that is asked for, in one spelling.
    pub(super) fn uuids(&self) -> Vec<String> {
        let own = match self {
            Self::Luks(luks) => luks.uuid.map(|uuid| uuid.to_string()),
            Self::FileSystem(_) | Self::Lvm(_) => None,
        };
        let inner = self.format().and_then(|format| format.uuid.as_ref()).map(|uuid| uuid.to_lowercase());
        own.into_iter().chain(inner).collect()
    }

    pub(super) fn redact(&mut self) {
        if let Self::Luks(luks) = self {
            // Not its length either. Redacted tasks are compared, so it must be the same for the same task.
            luks.key.0 = "(not shown)".into();
        }
    }

    /// For people: `LUKS2 with ext4 "root"`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::FileSystem(format) => format.describe(),
            Self::Lvm(group) => format!("physical volume of {group}"),
            Self::Luks(luks) => match &luks.content {
                Some(inner) => format!("LUKS2 with {}", inner.describe()),
                None => "LUKS2, empty".into(),
            },
        }
    }
}
