//! A machine's certificate: only when every disk that was ever recorded in it has one, or somebody has said where it is.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CertifiedDevice;
use super::words::is_at_least;
use crate::hints::describe;
use crate::inventory::Disk;
use crate::plan::DiskIdentity;
use crate::wipe::WipeLevel;

/// A disk that was seen in a machine, kept when it is seen no more.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KnownDisk {
    /// By what it is recognised over boots.
    pub key: String,
    /// As it was when it was last seen.
    pub disk: Disk,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// A person's word for where it is, if it is not to be expected any more.
    #[serde(default)]
    pub gone: Option<Gone>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Gone {
    pub why: String,
    pub by: String,
    pub at: Timestamp,
}

/// By what a disk is recognised after a reboot: WWN, else serial number and model, else the place where it is plugged in.
/// Neither its size nor its name: the one changes when hidden areas are opened, the other at every boot.
#[must_use]
pub fn disk_key(disk: &Disk) -> String {
    // Namespaces of one NVMe drive share its serial number; udev's path ends with theirs.
    let namespace = disk.by_path.as_deref().and_then(|p| p.rsplit_once("-nvme-")).map_or("", |(_, n)| n);
    match (&disk.wwn, disk.serial.trim()) {
        (Some(wwn), _) => wwn.clone(),
        (None, "") => format!("at {}", disk.by_path.as_deref().unwrap_or(&disk.name)),
        (None, serial) if namespace.is_empty() => format!("{} {serial}", disk.model.trim()),
        (None, serial) => format!("{} {serial} namespace {namespace}", disk.model.trim()),
    }
}

/// The disk of an inventory that a run's result is about; none if that cannot be said.
#[must_use]
pub fn find<'a>(identity: &DiskIdentity, disks: &'a [Disk]) -> Option<&'a Disk> {
    let same = |d: &&Disk| {
        let of = DiskIdentity::of(d);
        (of.serial, of.wwn, of.model) == (identity.serial.clone(), identity.wwn.clone(), identity.model.clone())
    };
    let mut matching = disks.iter().filter(same);
    match (matching.next(), matching.next()) {
        (Some(one), None) => Some(one),
        (None, _) => None,
        // Disks without numbers of their own: the kernel's count tells them apart, within a boot.
        _ => identity.diskseq.and_then(|seq| disks.iter().find(|d| same(d) && d.diskseq == Some(seq))),
    }
}

/// Why a machine gets no certificate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Incomplete {
    #[error("no disk of it has a certificate from this order")]
    Nothing,
    #[error("recorded in it and without a certificate from this order: {}", .0.join("; "))]
    Missing(Vec<String>),
}

/// What a machine's certificate says of its devices.
#[derive(Clone, PartialEq, Debug)]
pub struct Whole {
    pub devices: Vec<CertifiedDevice>,
    pub left_out: Vec<String>,
    pub reached: WipeLevel,
}

/// From all that was ever recorded in the machine and the certificates of one order, by the keys of their disks.
///
/// # Errors
/// When a disk is missing, with the names of all that are.
pub fn whole(known: &[KnownDisk], certified: &[(String, CertifiedDevice)]) -> Result<Whole, Incomplete> {
    // A disk that was wiped twice is as it was left by the second.
    let last = |key: &str| certified.iter().filter(|(k, _)| k == key).max_by_key(|(_, c)| c.number);
    let (mut left_out, mut missing) = (Vec::new(), Vec::new());
    for known in known.iter().filter(|k| last(&k.key).is_none()) {
        let name = describe(&known.disk);
        match &known.gone {
            Some(gone) => left_out.push(format!("{name}: {} ({}, {})", gone.why, gone.by, gone.at)),
            None if known.disk.removable => left_out.push(format!("{name}: removable, not part of the machine")),
            None => missing.push(format!("{name}, last seen {}", known.last_seen)),
        }
    }
    if !missing.is_empty() {
        return Err(Incomplete::Missing(missing));
    }
    let mut devices: Vec<CertifiedDevice> = certified
        .iter()
        .filter(|(k, c)| last(k).is_some_and(|(_, l)| l.number == c.number))
        .map(|(_, c)| c.clone())
        .collect();
    devices.sort_by_key(|d| d.number);
    if devices.is_empty() {
        return Err(Incomplete::Nothing);
    }
    let purged = devices.iter().all(|d| is_at_least(d.reached, WipeLevel::Purge));
    Ok(Whole { devices, left_out, reached: if purged { WipeLevel::Purge } else { WipeLevel::Clear } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Medium;
    use crate::certificate::document::Digest;
    use crate::certificate::samples::{disk, identity_of};
    use crate::wipe::WipeMethod;

    fn known(serial: &str) -> KnownDisk {
        let disk = Disk { serial: serial.into(), wwn: None, ..disk() };
        let seen = Timestamp::UNIX_EPOCH;
        KnownDisk { key: disk_key(&disk), disk, first_seen: seen, last_seen: seen, gone: None }
    }

    fn certified(number: u64, serial: &str, reached: WipeLevel) -> (String, CertifiedDevice) {
        let known = known(serial);
        let device = CertifiedDevice {
            number,
            document: Digest::none(),
            model: known.disk.model,
            serial: serial.into(),
            size: known.disk.size,
            reached,
            method: WipeMethod::Overwrite,
            medium: Medium::Physical,
        };
        (known.key, device)
    }

    #[test]
    fn a_disk_without_certificate_is_named() {
        let (a, b) = (certified(1, "A", WipeLevel::Clear), certified(2, "B", WipeLevel::Purge));
        let both = [known("A"), known("B")];
        let machine = whole(&both, &[a.clone(), b.clone()]).expect("whole");
        assert_eq!((machine.devices.len(), machine.reached), (2, WipeLevel::Clear));
        let error = whole(&both, std::slice::from_ref(&b)).expect_err("A is missing").to_string();
        assert!(error.contains("serial A") && !error.contains("serial B"), "{error}");
        assert_eq!(whole(&[], &[]), Err(Incomplete::Nothing));
        // Where a person said that it went, or what is plugged in for a while, is told and not asked for.
        let gone = Gone { why: "sent back to the maker".into(), by: "operator".into(), at: Timestamp::UNIX_EPOCH };
        let mut stick = known("STICK");
        stick.disk.removable = true;
        let known = [KnownDisk { gone: Some(gone), ..known("A") }, known("B"), stick];
        let machine = whole(&known, &[b]).expect("accounted for");
        assert_eq!((machine.devices.len(), machine.reached), (1, WipeLevel::Purge));
        assert!(machine.left_out[0].contains("sent back") && machine.left_out[1].contains("removable"));
        // A disk that came back and was wiped counts as itself.
        assert_eq!(whole(&known[..2], &[a, certified(3, "B", WipeLevel::Clear)]).expect("whole").left_out, [""; 0]);
    }

    #[test]
    fn the_last_wipe_of_a_disk_counts() {
        let twice = [certified(1, "A", WipeLevel::Clear), certified(2, "A", WipeLevel::Purge)];
        let machine = whole(&[known("A")], &twice).expect("whole");
        assert_eq!((machine.devices.len(), machine.devices[0].number), (1, 2));
    }

    #[test]
    fn disks_are_recognised_after_a_reboot() {
        let mut a = Disk { by_path: Some("pci-0000:00:04.0-nvme-1".into()), wwn: None, ..disk() };
        let key = disk_key(&a);
        let b = Disk { by_path: Some("pci-0000:00:04.0-nvme-2".into()), ..a.clone() };
        assert_ne!(key, disk_key(&b), "two namespaces");
        (a.name, a.size.0, a.diskseq) = ("/dev/sdx".into(), 1, None);
        assert_eq!(key, disk_key(&a));
        let nameless = Disk { serial: String::new(), wwn: None, ..b };
        assert!(disk_key(&nameless).contains("pci-0000:00:04.0"));
    }

    #[test]
    fn a_result_is_of_one_disk_or_of_none() {
        let one = disk();
        let identity = identity_of(&one);
        let other = Disk { diskseq: Some(10), ..one.clone() };
        assert_eq!(find(&identity, std::slice::from_ref(&other)), Some(&other), "the count changes over boots");
        assert_eq!(find(&identity, &[other.clone(), one.clone()]), Some(&one));
        let unnumbered = DiskIdentity { diskseq: None, ..identity.clone() };
        assert_eq!(find(&unnumbered, &[other, one]), None);
        assert_eq!(find(&identity, &[]), None);
    }
}
