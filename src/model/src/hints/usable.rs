//! Disks that are never written, whatever the hints say, and why.

use std::fmt;

use crate::fault::FaultCode;
use crate::inventory::{Disk, Exclusion, Transport, Use};

/// Why a disk is not the one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rejection {
    Differs { property: &'static str, wanted: String, found: String },
    Unusable { code: FaultCode, reason: String },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { property, wanted, found } => write!(f, "{property} is {found}, not {wanted}"),
            Self::Unusable { reason, .. } => f.write_str(reason),
        }
    }
}

/// Why a disk must not be written, whatever the hints say.
#[must_use]
pub fn unusable(disk: &Disk, allow_removable: bool) -> Option<Rejection> {
    let refuse = |code, reason: String| Some(Rejection::Unusable { code, reason });
    match &disk.excluded {
        Some(Exclusion::Skipped { by }) => {
            return refuse(FaultCode::DiskSkipped, format!("it is to be skipped ({by})"));
        }
        Some(Exclusion::LiveSystem { how }) => {
            return refuse(FaultCode::DiskLiveSystem, format!("this system was started from it ({how})"));
        }
        None => {}
    }
    if let Some(held) = disk.in_use.first() {
        return refuse(
            FaultCode::DiskInUse,
            match held {
                Use::Mounted { device, at } => format!("{device} is mounted at {at}"),
                Use::Swap { device } => format!("{device} is used as swap"),
                Use::Holder { device, name } => format!("{device} is held by {name}"),
            },
        );
    }
    if is_virtual_media(disk) {
        return refuse(FaultCode::DiskLiveSystem, "it is virtual media of the machine's management controller".into());
    }
    if disk.read_only {
        return refuse(FaultCode::DiskReadOnly, "it is read-only".into());
    }
    if disk.removable && !allow_removable {
        return refuse(FaultCode::DiskRemovable, "it is removable".into());
    }
    if disk.size.0 == 0 {
        return refuse(FaultCode::DiskIo, "it has no medium".into());
    }
    None
}

/// A file on somebody's workstation that a management controller shows as a USB disk. Some say that they are removable
/// and some do not; all say what they are.
fn is_virtual_media(disk: &Disk) -> bool {
    let named = |word: &str| [&disk.vendor, &disk.model].iter().any(|text| text.to_ascii_lowercase().contains(word));
    disk.tran == Transport::Usb && ["virtual", "idrac", "lcdrive"].into_iter().any(named)
}

/// One line by which a person recognises the disk on the shelf.
#[must_use]
pub fn describe(disk: &Disk) -> String {
    let mut text = format!("{} ({}", disk.name, disk.size);
    for part in [&disk.vendor, &disk.model] {
        if !part.is_empty() {
            text.push_str(", ");
            text.push_str(part);
        }
    }
    if !disk.serial.is_empty() {
        text.push_str(", serial ");
        text.push_str(&disk.serial);
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    #[test]
    fn virtual_media_is_never_a_disk_even_if_removable_ones_are_allowed() {
        let media = Disk {
            vendor: "AMI".into(),
            model: "Virtual HDisk0".into(),
            tran: Transport::Usb,
            size: Bytes::gib(1),
            ..Disk::default()
        };
        let code = |disk: &Disk| match unusable(disk, true) {
            Some(Rejection::Unusable { code, .. }) => Some(code),
            _ => None,
        };
        assert_eq!(code(&media), Some(FaultCode::DiskLiveSystem));
        // A disk of a virtual machine is a disk.
        assert_eq!(code(&Disk { tran: Transport::Scsi, ..media }), None);
    }
}
