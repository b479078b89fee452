//! Secrets of single disks that a wipe may need, and what it may do to the machine for one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WipeTask;
use crate::inventory::Disk;

/// What opens one disk. Each is used on the disk of this serial number and on no other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskKey {
    pub serial: String,
    /// The disk's physical security id, as printed on its label: 32 letters and digits. It gives the right to have the disk
    /// forget everything (`opal_revert`), and no right to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub psid: Option<DiskSecret>,
    /// The ATA password somebody has set. It is taken away for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ata_password: Option<DiskSecret>,
    /// The password is the master password, not the user's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ata_master: bool,
}

/// It travels with the task; it is in no plan, no report and no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DiskSecret(pub String);

impl fmt::Debug for DiskSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How disks whose firmware was frozen at boot may be thawed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unfreeze {
    /// The machine is suspended to memory for a moment, which takes the power from its disks. Whether it wakes up again is
    /// between its firmware and the kernel: one that does not has to be switched off and on.
    Suspend,
}

impl WipeTask {
    const PSID_LENGTH: usize = 32;
    /// Of the field in the command (ACS-4, 7.45).
    const LONGEST_ATA_PASSWORD: usize = 32;

    /// What the task knows of this disk.
    #[must_use]
    pub fn key_of(&self, disk: &Disk) -> Option<&DiskKey> {
        let serial = disk.serial.trim();
        self.keys.iter().find(|key| !serial.is_empty() && key.serial.trim() == serial)
    }

    /// The disk's PSID, without the dashes and blanks that labels have.
    #[must_use]
    pub fn psid_of(&self, disk: &Disk) -> Option<String> {
        Some(plain(&self.key_of(disk)?.psid.as_ref()?.0))
    }

    pub(super) fn check_keys(&self) -> Result<(), String> {
        for (n, key) in self.keys.iter().enumerate() {
            let at = |what: &str| Err(format!("keys[{n}].{what}"));
            if key.serial.trim().is_empty() {
                return at("serial: a key belongs to one disk, named by its serial number");
            }
            if self.keys[..n].iter().any(|other| other.serial.trim() == key.serial.trim()) {
                return at("serial: this disk has a key already");
            }
            if key.psid.is_none() && key.ata_password.is_none() {
                return at("serial: neither psid nor ata_password is given");
            }
            if let Some(DiskSecret(psid)) = &key.psid
                && (plain(psid).len() != Self::PSID_LENGTH || !plain(psid).bytes().all(|b| b.is_ascii_alphanumeric()))
            {
                return at("psid: 32 letters and digits are on the label of a disk that has one");
            }
            if let Some(DiskSecret(password)) = &key.ata_password
                && !(1..=Self::LONGEST_ATA_PASSWORD).contains(&password.len())
            {
                return at("ata_password: 1 to 32 bytes");
            }
            if key.ata_master && key.ata_password.is_none() {
                return at("ata_master: there is no ata_password");
            }
        }
        Ok(())
    }

    /// Redacted tasks are compared, so what stands there is the same for every secret.
    pub(crate) fn redact(&mut self) {
        for secret in self.keys.iter_mut().flat_map(|key| [&mut key.psid, &mut key.ata_password]).flatten() {
            secret.0 = "(not shown)".into();
        }
    }
}

fn plain(psid: &str) -> String {
    psid.chars().filter(|c| *c != '-' && !c.is_whitespace()).collect::<String>().to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wipe::{WipeLevel, WipeTargets};

    fn with(keys: Vec<DiskKey>) -> WipeTask {
        WipeTask { keys, ..WipeTask::new(WipeTargets::AllDisks, WipeLevel::Purge) }
    }

    fn key(serial: &str, psid: Option<&str>, password: Option<&str>) -> DiskKey {
        let secret = |text: &str| DiskSecret(text.into());
        DiskKey { serial: serial.into(), psid: psid.map(secret), ata_password: password.map(secret), ata_master: false }
    }

    const PSID: &str = "abcd-EFGH 1234 5678 9012 3456 7890 WXYZ";

    #[test]
    fn keys_are_of_one_disk_each_and_look_like_keys() {
        let good = with(vec![key("S1", Some(PSID), None), key("S2", None, Some("old"))]);
        assert_eq!(good.check_keys(), Ok(()));
        let disk = |serial: &str| Disk { serial: serial.into(), ..Disk::default() };
        assert_eq!(good.psid_of(&disk(" S1 ")).as_deref(), Some("ABCDEFGH12345678901234567890WXYZ"));
        assert_eq!((good.psid_of(&disk("S2")), good.key_of(&disk("")).is_some()), (None, false));
        for (keys, word) in [
            (vec![key("", Some(PSID), None)], "serial"),
            (vec![key("S1", None, None)], "neither"),
            (vec![key("S1", None, Some("x")), key("S1 ", None, Some("y"))], "already"),
            (vec![key("S1", Some("short"), None)], "psid"),
            (vec![key("S1", None, Some(&"x".repeat(33)))], "ata_password"),
            (vec![DiskKey { ata_master: true, ..key("S1", Some(PSID), None) }], "ata_master"),
        ] {
            let why = with(keys).check_keys().expect_err(word);
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut task = with(vec![key("S1", Some(PSID), Some("hunter2"))]);
        assert!(!format!("{task:?}").contains("hunter2") && !format!("{task:?}").contains("EFGH"));
        task.redact();
        let shown = serde_json::to_string(&task).expect("written");
        assert!(!shown.contains("hunter2") && !shown.contains("EFGH") && shown.contains("S1"), "{shown}");
    }
}
