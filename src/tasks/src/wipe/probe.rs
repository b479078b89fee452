//! Asking a disk what it can do to forget. Nothing here changes anything.

use speediso_model::abilities::{Abilities, Opal};
use speediso_model::inventory::{Disk, Transport};
use speediso_model::wipe::{Health, WipeMethod};
use speediso_sys::passthrough::{CommandError, Passthrough, ata, health, nvme, scsi};

/// What the disk answers. Whoever does not answer at all can be read and written, and the reason is told.
pub(crate) fn abilities(disk: &Disk, device: &dyn Passthrough) -> Abilities {
    let nothing = |why: &str| Abilities::ReadWrite(why.to_owned());
    let answered = match disk.tran {
        Transport::Loop => return nothing("a loop device is a file and has no commands of its own"),
        Transport::Virtio => return nothing("a virtio disk has no commands of its own"),
        Transport::Md => return nothing("an array has no commands of its own; its member disks are wiped one by one"),
        Transport::Mmc => return nothing("this version issues no commands of SD cards and eMMC"),
        Transport::Usb => return nothing("bridges between USB and a disk do not pass these commands on reliably"),
        Transport::Fc | Transport::Iscsi => {
            return nothing("it is a volume of a storage system, whose disks are not reached from here");
        }
        Transport::Nvme => device.nvme_namespace().and_then(|id| nvme::abilities(device, id)).map(Abilities::Nvme),
        Transport::Sata | Transport::Sas | Transport::Scsi | Transport::Unknown => scsi_or_ata(device),
    };
    answered.unwrap_or_else(|error| nothing(&format!("it cannot be asked: {error}")))
}

fn scsi_or_ata(device: &dyn Passthrough) -> Result<Abilities, CommandError> {
    if scsi::inquiry(device)?.is_ata() {
        ata::abilities(device).map(Abilities::Ata)
    } else {
        scsi::abilities(device).map(Abilities::Scsi)
    }
}

/// The drive's own view; none where it has none to tell.
pub(super) fn health(abilities: &Abilities, device: &dyn Passthrough) -> Option<Health> {
    let told = match abilities {
        Abilities::Nvme(_) => health::nvme(device).ok(),
        Abilities::Ata(_) | Abilities::Scsi(_) => health::scsi_or_ata(device).ok().flatten(),
        Abilities::ReadWrite(_) => None,
    };
    told.as_ref().map(Health::from)
}

/// In a line, for the plan: what may be asked of the disk.
pub(super) fn in_words(abilities: &Abilities) -> String {
    let offers: Vec<&str> =
        WipeMethod::ALL.into_iter().filter(|m| abilities.offers(*m).is_ok()).map(WipeMethod::name).collect();
    let opal = match abilities.opal() {
        Opal::None => String::new(),
        Opal::Unread(why) => format!("; as a self-encrypting disk: unread, {why}"),
        Opal::Has(opal) => format!("; as a self-encrypting disk: {opal}"),
    };
    format!("the disk offers {}{opal}", offers.join(", "))
}
