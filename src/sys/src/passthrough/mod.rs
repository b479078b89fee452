//! Commands to a disk itself, past the block layer: NVMe admin commands and SCSI commands (ATA ones travel inside those).
//!
//! [`Passthrough`] carries the bytes; [`nvme`], [`ata`] and [`scsi`] know what they mean. A claimed disk carries any
//! command, a disk that is only looked at ([`Peek`](crate::peek::Peek)) only [`questions`]. The third carrier is the
//! simulator of the tasks' tests, which takes the same bytes apart again, so that what is issued here is checked against
//! the specifications and not against itself.

pub mod ata;
pub mod health;
pub(crate) mod linux;
pub mod nvme;
pub mod opal;
pub mod questions;
pub mod scsi;
mod scsi_log;
pub mod self_test;
mod sense;
mod smart;

use std::io;
use std::time::Duration;

pub use sense::Sense;

/// What goes along with a command.
#[derive(Debug)]
pub enum Data<'a> {
    None,
    In(&'a mut [u8]),
    Out(&'a [u8]),
}

impl Data<'_> {
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::In(bytes) => bytes.len(),
            Self::Out(bytes) => bytes.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An NVMe admin command (NVMe base specification 2.0, figure 87).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NvmeCommand {
    pub opcode: u8,
    pub namespace: u32,
    pub cdw10: u32,
    pub cdw11: u32,
    pub cdw12: u32,
    pub cdw13: u32,
    pub cdw14: u32,
    pub cdw15: u32,
}

/// How a device answered a SCSI command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScsiAnswer {
    /// GOOD is 0, CHECK CONDITION 2.
    pub status: u8,
    pub sense: Option<Sense>,
}

/// Why a command did not do what it is for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Nobody can take such commands to this disk: it is virtual, or behind something that does not let them through.
    #[error("{command}: no such commands reach this disk")]
    NoWay {
        command: &'static str,
        #[source]
        source: io::Error,
    },
    /// The device itself declined or failed.
    #[error("{command}: the device says {meaning} ({raw})")]
    Declined { command: &'static str, raw: String, meaning: String, kind: Declining },
    /// The answer did not arrive: what the device did is not known.
    #[error("{command}: no answer arrived")]
    Lost {
        command: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{command}: the answer makes no sense: {what}")]
    Nonsense { command: &'static str, what: String },
}

/// What a caller may make of a refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Declining {
    /// It does not know the command, or not with these fields.
    Unsupported,
    /// Not now: a sanitize or format is going on.
    Busy,
    /// The last sanitize failed and has to be repeated before anything else.
    SanitizeFailed,
    Other,
}

impl CommandError {
    #[must_use]
    pub fn declining(&self) -> Option<Declining> {
        match self {
            Self::Declined { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// As the device gave it, for the log.
    #[must_use]
    pub fn raw(&self) -> String {
        match self {
            Self::Declined { raw, .. } => raw.clone(),
            Self::NoWay { source, .. } | Self::Lost { source, .. } => {
                source.raw_os_error().map_or_else(|| source.to_string(), |errno| format!("errno {errno}"))
            }
            Self::Nonsense { what, .. } => what.clone(),
        }
    }
}

/// Carries commands to one disk and waits for their end.
pub trait Passthrough: Sync {
    /// Gives dword 0 of the completion.
    ///
    /// # Errors
    /// [`CommandError::Declined`] for any status but success.
    fn nvme(
        &self,
        name: &'static str,
        command: &NvmeCommand,
        data: Data<'_>,
        limit: Duration,
    ) -> Result<u32, CommandError>;

    /// The number of the namespace that this disk is. The kernel's name does not say it: it counts as it finds.
    ///
    /// # Errors
    /// When it is no NVMe disk; an NVMe controller by itself is none.
    fn nvme_namespace(&self) -> Result<u32, CommandError> {
        Err(no_disk("NVMe namespace id"))
    }

    /// Gives whatever the device answered, CHECK CONDITION too: what it means depends on the command.
    ///
    /// # Errors
    /// When no answer arrived; always, of an NVMe controller by itself.
    fn scsi(
        &self,
        name: &'static str,
        _cdb: &[u8],
        _data: Data<'_>,
        _limit: Duration,
    ) -> Result<ScsiAnswer, CommandError> {
        Err(no_disk(name))
    }
}

fn no_disk(command: &'static str) -> CommandError {
    CommandError::NoWay { command, source: io::Error::other("a controller takes NVMe commands only") }
}

/// For commands that only look something up.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

/// Printable characters without blanks at the ends.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().filter(|b| (0x20..0x7f).contains(*b)).map(|b| char::from(*b)).collect::<String>().trim().to_owned()
}
