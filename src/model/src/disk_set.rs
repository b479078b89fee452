//! Several disks for one purpose, the members of an array for instance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
use crate::hints::{Pick, RootDeviceHints, describe};
use crate::inventory::Disk;

/// Which disks, by what they are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "there are as few of them as arrays in an order")]
pub enum DiskSet {
    /// One disk for each of the hints.
    Each(Vec<RootDeviceHints>),
    /// All free disks that match; there must be exactly so many. With `pick` in the hints there may be more, of which so
    /// many are taken.
    Matching { hints: RootDeviceHints, count: usize },
    /// As many as there are within bounds, and alike.
    Group(DiskGroup),
}

/// Disks that match, as many as there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskGroup {
    pub hints: RootDeviceHints,
    /// With fewer the order is refused.
    pub at_least: usize,
    /// With more the order is refused, unless the hints say by `pick` which are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<usize>,
    #[serde(default)]
    pub sizes: Sizes,
    /// Disks of different logical sector sizes may be used together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mixed_sector_sizes: bool,
}

/// What disks that are used together must have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Alike {
    pub sizes: Sizes,
    pub mixed_sector_sizes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sizes {
    /// All the same, to the byte.
    #[default]
    Same,
    /// Of every disk as much is used as the smallest has.
    SmallestCounts,
}

impl Alike {
    /// # Errors
    /// `disks-unequal`, with the size and the sector size of each disk.
    pub fn check(self, disks: &[&Disk]) -> Result<(), Fault> {
        let Some(first) = disks.first() else { return Ok(()) };
        let sizes = self.sizes == Sizes::Same && disks.iter().any(|disk| disk.size != first.size);
        let sectors = !self.mixed_sector_sizes && disks.iter().any(|d| d.logical_sectors != first.logical_sectors);
        let what = match (sizes, sectors) {
            (false, false) => return Ok(()),
            (true, false) => "sizes",
            (false, true) => "sector sizes",
            (true, true) => "sizes and sector sizes",
        };
        let mut fault = Fault::new(FaultCode::DisksUnequal, format!("the {} disks have different {what}", disks.len()));
        let line =
            |disk: &&Disk| format!("{}: {} bytes in sectors of {}", describe(disk), disk.size.0, disk.logical_sectors);
        fault.causes = disks.iter().map(line).collect();
        Err(fault)
    }
}

impl DiskSet {
    /// The hints, for checks that need no machine.
    pub fn hints(&self) -> impl Iterator<Item = &RootDeviceHints> {
        match self {
            Self::Each(hints) => hints.as_slice(),
            Self::Matching { hints, .. } | Self::Group(DiskGroup { hints, .. }) => std::slice::from_ref(hints),
        }
        .iter()
    }

    /// How many disks at least, and at most where that is limited.
    #[must_use]
    pub fn bounds(&self) -> (usize, Option<usize>) {
        match self {
            Self::Each(hints) => (hints.len(), Some(hints.len())),
            Self::Matching { count, .. } => (*count, Some(*count)),
            Self::Group(group) => (group.at_least, group.at_most),
        }
    }

    /// What can be said to be wrong without looking at a machine.
    ///
    /// # Errors
    /// In words, for whoever gave the order.
    pub fn check(&self) -> Result<(), String> {
        if let Some(n) = self.hints().position(RootDeviceHints::is_empty) {
            return Err(format!("hints[{n}]: the root device hints are empty"));
        }
        match self {
            Self::Each(hints) if hints.is_empty() => Err("each: no disk is named".into()),
            Self::Matching { count: 0, .. } => Err("count: at least one disk is needed".into()),
            Self::Group(group) if group.at_least == 0 => Err("at_least: at least one disk is needed".into()),
            Self::Group(group) if group.at_most.is_some_and(|most| most < group.at_least) => {
                Err("at_most: is less than at_least".into())
            }
            _ => Ok(()),
        }
    }

    /// The disks: in the order of the hints if there is one for each, else by the path at which they are plugged in, so
    /// that the same machine gives the same order at every boot.
    ///
    /// # Errors
    /// When hints match none or several, a disk is meant twice, a disk that matches must not be used, there are too few
    /// or too many, or they are not alike where they must be.
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
            Self::Matching { hints, count } => take(hints, disks, *count, Some(*count)),
            Self::Group(group) => {
                let chosen = take(&group.hints, disks, group.at_least, group.at_most)?;
                let alike = Alike { sizes: group.sizes, mixed_sector_sizes: group.mixed_sector_sizes };
                alike.check(&chosen)?;
                Ok(chosen)
            }
        }
    }
}

fn take<'a>(
    hints: &RootDeviceHints,
    disks: &'a [Disk],
    at_least: usize,
    at_most: Option<usize>,
) -> Result<Vec<&'a Disk>, Fault> {
    let candidates = hints.candidates(disks)?;
    let fault = |code, message: String| {
        let (explanation, _) = hints.explain(disks);
        let mut fault = Fault::new(code, message);
        fault.causes = explanation.disks.iter().map(|c| format!("{}: {}", c.disk, c.why_member())).collect();
        fault
    };
    let wanted = || match at_most {
        Some(most) if most == at_least => format!("{at_least} are asked for"),
        Some(most) => format!("{at_least} to {most} are asked for"),
        None => format!("at least {at_least} are asked for"),
    };
    let found = candidates.len();
    let described = || format!("{found} of {} disks match {hints}; {}", disks.len(), wanted());
    if found < at_least {
        return Err(fault(FaultCode::NoMatchingDisk, described()));
    }
    let mut chosen = match at_most.filter(|most| found > *most) {
        None => candidates,
        Some(_) if hints.pick == Pick::Only => return Err(fault(FaultCode::AmbiguousDisk, described())),
        Some(most) => hints.pick.first(candidates, most).map_err(|tied| {
            fault(
                FaultCode::AmbiguousDisk,
                format!("{} of {} disks tie for {hints}; {}", tied.len(), disks.len(), wanted()),
            )
        })?,
    };
    chosen.sort_by(|one, other| {
        let place = |disk: &Disk| (disk.by_path.is_none(), disk.by_path.clone(), disk.serial.clone());
        place(one).cmp(&place(other))
    });
    Ok(chosen)
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

    fn group(json: &str) -> DiskSet {
        let set: DiskSet = serde_json::from_str(json).expect(json);
        set.check().expect(json);
        set
    }

    fn place(disks: &mut [Disk], ports: &[&str]) {
        for (disk, port) in disks.iter_mut().zip(ports) {
            disk.by_path = Some((*port).into());
        }
    }

    #[test]
    fn members_stand_in_the_order_of_their_ports() {
        let mut disks = disks();
        place(&mut disks, &["p3", "p1", "p2"]);
        let set = group(r#"{"group":{"hints":{"model":"M"},"at_least":2}}"#);
        let names: Vec<&str> = set.resolve(&disks).expect("three").iter().map(|d| d.serial.as_str()).collect();
        assert_eq!(names, ["B", "C", "A"]);
        let two = group(r#"{"group":{"hints":{"model":"M","pick":"first_by_path"},"at_least":2,"at_most":2}}"#);
        let names: Vec<&str> = two.resolve(&disks).expect("two").iter().map(|d| d.serial.as_str()).collect();
        assert_eq!(names, ["B", "C"]);
        let either = group(r#"{"group":{"hints":{"model":"M","pick":"smallest"},"at_least":1,"at_most":2}}"#);
        assert_eq!(either.resolve(&disks).expect_err("a tie").code, FaultCode::AmbiguousDisk);
        let more = group(r#"{"group":{"hints":{"model":"M"},"at_least":1,"at_most":2}}"#);
        assert_eq!(more.resolve(&disks).expect_err("too many").code, FaultCode::AmbiguousDisk);
        let fewer = group(r#"{"group":{"hints":{"model":"M"},"at_least":4}}"#);
        assert_eq!(fewer.resolve(&disks).expect_err("too few").code, FaultCode::NoMatchingDisk);
    }

    #[test]
    fn unequal_disks_need_to_be_allowed() {
        let mut disks = disks();
        disks[0].size = Bytes::gib(2);
        disks[2].logical_sectors = 4096;
        let code = |json: &str| group(json).resolve(&disks).map(|d| d.len()).map_err(|f| (f.code, f.message));
        let refused = |what: &str| Err((FaultCode::DisksUnequal, format!("the 3 disks have different {what}")));
        assert_eq!(code(r#"{"group":{"hints":{"model":"M"},"at_least":2}}"#), refused("sizes and sector sizes"));
        assert_eq!(
            code(r#"{"group":{"hints":{"model":"M"},"at_least":2,"sizes":"smallest_counts"}}"#),
            refused("sector sizes")
        );
        assert_eq!(
            code(
                r#"{"group":{"hints":{"model":"M"},"at_least":2,"sizes":"smallest_counts","mixed_sector_sizes":true}}"#
            ),
            Ok(3)
        );
    }

    #[test]
    fn impossible_sets_are_errors_of_the_order() {
        for bad in [
            r#"{"each":[]}"#,
            r#"{"each":[{}]}"#,
            r#"{"matching":{"hints":{"model":"M"},"count":0}}"#,
            r#"{"group":{"hints":{"model":"M"},"at_least":3,"at_most":2}}"#,
        ] {
            let set: DiskSet = serde_json::from_str(bad).expect(bad);
            assert!(set.check().is_err(), "{bad}");
        }
        for unread in [r#"{"group":{"hints":{"model":"M"},"at_least":1,"size":"same"}}"#, r#"{"group":{"hints":{}}}"#] {
            assert!(serde_json::from_str::<DiskSet>(unread).is_err(), "{unread}");
        }
    }
}
