//! Several disks for one purpose, the members of an array for instance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
use crate::hints::{RootDeviceHints, describe, unusable};
use crate::inventory::Disk;

/// Which disks, by what they are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiskSet {
    /// One disk for each of the hints.
    Each(Vec<RootDeviceHints>),
    /// All free disks that match; there must be exactly so many.
    Matching { hints: RootDeviceHints, count: usize },
}

impl DiskSet {
    /// The hints, for checks that need no machine.
    pub fn hints(&self) -> impl Iterator<Item = &RootDeviceHints> {
        match self {
            Self::Each(hints) => hints.as_slice(),
            Self::Matching { hints, .. } => std::slice::from_ref(hints),
        }
        .iter()
    }

    /// The disks, in the order of the hints, or of the kernel's list.
    ///
    /// # Errors
    /// When hints match none or several, a disk is meant twice, a disk that matches must not be used, or there are not
    /// exactly as many as asked for.
    pub fn resolve<'a>(&self, disks: &'a [Disk]) -> Result<Vec<&'a Disk>, Fault> {
        match self {
            Self::Each(hints) => {
                let mut chosen: Vec<&Disk> = Vec::new();
                for hints in hints {
                    let disk = hints.resolve(disks)?;
                    if chosen.iter().any(|c| c.name == disk.name) {
                        return Err(Fault::new(FaultCode::AmbiguousDisk, format!("{} is named twice", describe(disk))));
                    }
                    chosen.push(disk);
                }
                Ok(chosen)
            }
            Self::Matching { hints, count } => {
                let (matching, others): (Vec<&Disk>, Vec<&Disk>) =
                    disks.iter().partition(|d| !hints.is_empty() && hints.differs(d).is_none());
                if let Some((disk, why)) = matching.iter().find_map(|d| Some((d, unusable(d, hints.allow_removable)?)))
                {
                    return Err(Fault::new(
                        FaultCode::DiskInUse,
                        format!("{} matches {hints}, but {why}", describe(disk)),
                    ));
                }
                if matching.len() == *count {
                    return Ok(matching);
                }
                let code = if matching.len() < *count { FaultCode::NoMatchingDisk } else { FaultCode::AmbiguousDisk };
                let mut fault = Fault::new(
                    code,
                    format!("{} of {} disks match {hints}; {count} are asked for", matching.len(), disks.len()),
                );
                fault.causes = matching
                    .iter()
                    .map(|d| format!("{}: matches", describe(d)))
                    .chain(others.iter().filter_map(|d| Some(format!("{}: {}", describe(d), hints.differs(d)?))))
                    .collect();
                Err(fault)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Use;
    use crate::units::Bytes;

    fn disks() -> Vec<Disk> {
        ["A", "B", "C"]
            .iter()
            .map(|serial| Disk {
                name: format!("/dev/{serial}"),
                serial: (*serial).into(),
                model: "M".into(),
                size: Bytes::gib(1),
                ..Disk::default()
            })
            .collect()
    }

    fn of_model(count: usize) -> DiskSet {
        DiskSet::Matching { hints: RootDeviceHints { model: Some("m".into()), ..RootDeviceHints::default() }, count }
    }

    fn of_serials(serials: &[&str]) -> DiskSet {
        let hints = |s: &&str| RootDeviceHints { serial: Some((*s).into()), ..RootDeviceHints::default() };
        DiskSet::Each(serials.iter().map(hints).collect())
    }

    #[test]
    fn exactly_what_was_asked_or_nothing() {
        let disks = disks();
        let names = |set: DiskSet| set.resolve(&disks).map(|d| d.iter().map(|d| d.name.clone()).collect::<Vec<_>>());
        assert_eq!(names(of_model(3)).expect("three"), ["/dev/A", "/dev/B", "/dev/C"]);
        assert_eq!(names(of_model(2)).expect_err("more").code, FaultCode::AmbiguousDisk);
        assert_eq!(names(of_model(4)).expect_err("fewer").code, FaultCode::NoMatchingDisk);
        assert_eq!(names(of_serials(&["c", "a"])).expect("two"), ["/dev/C", "/dev/A"]);
        assert_eq!(names(of_serials(&["c", "C"])).expect_err("twice").code, FaultCode::AmbiguousDisk);
    }

    #[test]
    fn one_that_is_in_use_refuses_all() {
        let mut disks = disks();
        disks[1].in_use.push(Use::Swap { device: "/dev/B".into() });
        assert_eq!(of_model(3).resolve(&disks).expect_err("in use").code, FaultCode::DiskInUse);
    }
}
