//! Disks that no task may touch, whatever else it is told.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RootDeviceHints;
use super::choose::Pick;
use crate::inventory::{Disk, Exclusion};

/// Hints, each of which may match any number of disks, or none on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SkipList(pub Vec<RootDeviceHints>);

impl SkipList {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What can be said to be wrong without looking at a machine.
    ///
    /// # Errors
    /// In words, for whoever gave the list.
    pub fn check(&self) -> Result<(), String> {
        for (n, hints) in self.0.iter().enumerate() {
            if hints.is_empty() {
                return Err(format!("skip_block_devices[{n}]: the hints are empty"));
            }
            // A list that skips one of several leaves the others open to be written.
            if hints.pick != Pick::Only {
                return Err(format!("skip_block_devices[{n}]: pick has no meaning here, all that match are skipped"));
            }
        }
        Ok(())
    }

    /// Both lists.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().chain(&other.0).cloned().collect())
    }

    /// Marks what is to be skipped.
    pub fn mark(&self, disks: &mut [Disk]) {
        for disk in disks {
            if let Some(hints) = self.0.iter().find(|hints| !hints.is_empty() && hints.differs(disk).is_none()) {
                disk.excluded = Some(Exclusion::Skipped { by: hints.to_string() });
            }
        }
    }
}

impl fmt::Display for SkipList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&each.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultCode;

    #[test]
    fn what_is_skipped_is_nobodys_choice() {
        let disk = |name: &str, serial: &str| Disk {
            name: name.into(),
            serial: serial.into(),
            model: "M".into(),
            size: crate::units::Bytes::gib(1),
            ..Disk::default()
        };
        let mut disks = [disk("/dev/sda", "A"), disk("/dev/sdb", "B")];
        let skip = SkipList(vec![RootDeviceHints { serial: Some("a".into()), ..RootDeviceHints::default() }]);
        skip.mark(&mut disks);
        let by_model = RootDeviceHints { model: Some("M".into()), ..RootDeviceHints::default() };
        assert_eq!(by_model.resolve(&disks).expect("the other").name, "/dev/sdb");
        let by_serial = RootDeviceHints { serial: Some("A".into()), ..RootDeviceHints::default() };
        let fault = by_serial.resolve(&disks).expect_err("skipped");
        assert_eq!(fault.code, FaultCode::NoMatchingDisk);
        assert!(fault.causes[0].contains("to be skipped (serial=\"a\")"), "{fault}");
    }

    #[test]
    fn a_list_that_means_nothing_is_refused() {
        let read =
            |json: &str| serde_json::from_str::<SkipList>(json).map_err(|e| e.to_string()).and_then(|l| l.check());
        assert_eq!(read(r#"[{"serial":"A"},{"model":"<in> JBOD"}]"#), Ok(()));
        for bad in
            ["[{}]", r#"[{"allow_removable":true}]"#, r#"[{"serial":"A","pick":"smallest"}]"#, r#"[{"name":"sda"}]"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
