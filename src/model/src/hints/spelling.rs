//! A disk's texts in every spelling under which somebody may know them.
//!
//! The kernel, udev and Ironic write the same thing differently. A hint agrees when it agrees with one of the spellings;
//! that can only make a hint match more disks, and more than one is refused.

use std::borrow::Cow;

use super::operator::HintError;
use super::text::TextHint;
use crate::inventory::{Disk, Transport};

pub(super) type Spellings<'a> = Vec<Cow<'a, str>>;

pub(super) fn one(text: &str) -> Spellings<'_> {
    vec![Cow::Borrowed(text)]
}

pub(super) fn optional(text: Option<&str>) -> Spellings<'_> {
    text.map(Cow::Borrowed).into_iter().collect()
}

/// The parts of an NAA name as udev has them: vendor's part and extension, in hex.
fn naa(wwn: &str) -> Option<(&str, &str)> {
    let digits = wwn.strip_prefix("naa.")?;
    if digits.len() < 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some(digits.split_at(16))
}

/// `0x5002538e40f2a1b3` (udev's `ID_WWN`, Ironic) and `naa.5002538e40f2a1b3` (the kernel).
pub(super) fn wwn(disk: &Disk) -> Spellings<'_> {
    let Some(wwn) = disk.wwn.as_deref() else { return Vec::new() };
    let short = naa(wwn).map(|(short, _)| Cow::Owned(format!("0x{short}")));
    short.into_iter().chain([Cow::Borrowed(wwn)]).collect()
}

/// udev's `ID_WWN_WITH_EXTENSION`: all digits of an NAA name.
pub(super) fn wwn_with_extension(disk: &Disk) -> Spellings<'_> {
    let Some(wwn) = disk.wwn.as_deref() else { return Vec::new() };
    let long = naa(wwn).map(|(short, extension)| Cow::Owned(format!("0x{short}{extension}")));
    long.into_iter().chain([Cow::Borrowed(wwn)]).collect()
}

/// udev's `ID_WWN_VENDOR_EXTENSION`: the last 16 digits of an NAA name that has 32.
pub(super) fn wwn_vendor_extension(disk: &Disk) -> Spellings<'_> {
    let extension = disk.wwn.as_deref().and_then(naa).map(|(_, extension)| extension);
    extension.filter(|digits| !digits.is_empty()).map(|digits| Cow::Owned(format!("0x{digits}"))).into_iter().collect()
}

/// What stands where a vendor should for want of one, beside the vendor: Ironic knows disks by that.
pub(super) fn vendor(disk: &Disk) -> Spellings<'_> {
    match (disk.vendor.as_str(), disk.tran) {
        ("", Transport::Sata) => one("ATA"),
        ("", Transport::Virtio) => one("0x1af4"),
        (vendor, _) => one(vendor),
    }
}

/// With and without `/dev/disk/by-path/`; and the links that udev makes beside its first one, for ATA disks (without
/// the number of the device at its port) and for virtio disks.
pub(super) fn by_path(disk: &Disk) -> Spellings<'_> {
    let Some(path) = disk.by_path.as_deref() else { return Vec::new() };
    let bare = path.rsplit('/').next().unwrap_or(path);
    let folder = &path[..path.len() - bare.len()];
    let mut spellings = vec![Cow::Borrowed(path), Cow::Borrowed(bare)];
    let mut also = |name: String| {
        spellings.push(Cow::Owned(format!("{folder}{name}")));
        spellings.push(Cow::Owned(name));
    };
    if let Some((controller, port)) = bare.rsplit_once("-ata-")
        && let Some((port, _)) = port.split_once('.')
    {
        also(format!("{controller}-ata-{port}"));
    }
    if disk.tran == Transport::Virtio && bare.starts_with("pci-") {
        also(format!("virtio-{bare}"));
    }
    spellings
}

/// Ours first, then those of `lsblk`, which Ironic asks.
const TRANSPORTS: [(Transport, &[&str]); 10] = [
    (Transport::Nvme, &["nvme"]),
    (Transport::Sata, &["sata", "ata"]),
    (Transport::Sas, &["sas"]),
    (Transport::Scsi, &["scsi", "spi"]),
    (Transport::Virtio, &["virtio"]),
    (Transport::Usb, &["usb"]),
    (Transport::Mmc, &["mmc"]),
    (Transport::Loop, &["loop"]),
    (Transport::Fc, &["fc", "fcoe"]),
    (Transport::Iscsi, &["iscsi"]),
];

pub(super) fn transport(disk: &Disk) -> Spellings<'_> {
    let names = TRANSPORTS.iter().find(|(transport, _)| *transport == disk.tran).map(|(_, names)| *names);
    names.unwrap_or_default().iter().copied().map(Cow::Borrowed).collect()
}

/// Only ways that there are: a misspelt one would never match, or rule nothing out.
pub(super) fn known_transport(hint: TextHint) -> Result<TextHint, HintError> {
    if !matches!(hint, TextHint::Equal(_) | TextHint::NotEqual(_) | TextHint::OneOf(_)) {
        return Ok(hint);
    }
    let known = |name: &String| {
        let name = name.trim().to_ascii_lowercase();
        TRANSPORTS.iter().any(|(_, names)| names.contains(&name.as_str()))
    };
    match hint.values().iter().find(|name| !known(name)) {
        Some(unknown) => Err(HintError::NotATransport(unknown.clone())),
        None => Ok(hint),
    }
}

impl From<Transport> for TextHint {
    fn from(transport: Transport) -> Self {
        let names = TRANSPORTS.iter().find(|(known, _)| *known == transport).map(|(_, names)| *names);
        Self::Equal(names.and_then(|names| names.first()).copied().unwrap_or("unknown").to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(wwn: &str, by_path: &str, tran: Transport) -> Disk {
        Disk { wwn: Some(wwn.into()), by_path: Some(by_path.into()), tran, ..Disk::default() }
    }

    #[test]
    fn world_wide_names_as_udev_and_as_the_kernel_write_them() {
        let short = with("naa.5002538e40f2a1b3", "", Transport::Sata);
        assert_eq!(wwn(&short), ["0x5002538e40f2a1b3", "naa.5002538e40f2a1b3"]);
        assert_eq!(wwn_with_extension(&short)[0], "0x5002538e40f2a1b3");
        assert!(wwn_vendor_extension(&short).is_empty());
        let volume = with("naa.600508b1001c1234567890abcdef0011", "", Transport::Sas);
        assert_eq!(wwn(&volume)[0], "0x600508b1001c1234");
        assert_eq!(wwn_with_extension(&volume)[0], "0x600508b1001c1234567890abcdef0011");
        assert_eq!(wwn_vendor_extension(&volume), ["0x567890abcdef0011"]);
        assert_eq!(wwn(&with("eui.0025385a71b0a0c1", "", Transport::Nvme)), ["eui.0025385a71b0a0c1"]);
    }

    #[test]
    fn paths_by_all_of_their_links() {
        let ata = with("", "/dev/disk/by-path/pci-0000:00:1f.2-ata-3.0", Transport::Sata);
        assert!(by_path(&ata).contains(&"pci-0000:00:1f.2-ata-3".into()), "{:?}", by_path(&ata));
        assert!(by_path(&ata).contains(&"/dev/disk/by-path/pci-0000:00:1f.2-ata-3.0".into()));
        let virtio = with("", "/dev/disk/by-path/pci-0000:00:04.0", Transport::Virtio);
        assert!(by_path(&virtio).contains(&"/dev/disk/by-path/virtio-pci-0000:00:04.0".into()));
    }
}
