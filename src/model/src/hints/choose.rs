//! From the disks that match to the one that is taken.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RootDeviceHints;
use super::explain::{Considered, Explanation, Verdict};
use super::usable::{Rejection, describe, unusable};
use crate::fault::{Fault, FaultCode};
use crate::inventory::{Disk, Exclusion};

/// Which one, when several match.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// None: several are an error.
    #[default]
    Only,
    /// The smallest; two of one size are an error.
    Smallest,
    /// The largest; two of one size are an error.
    Largest,
    /// The first by `by_path`, as `ls /dev/disk/by-path` shows them: where it is plugged in, the same at every boot.
    FirstByPath,
    /// The smallest, and of several smallest ones the first by path.
    SmallestThenByPath,
    /// The largest, and of several largest ones the first by path.
    LargestThenByPath,
}

impl Pick {
    pub(super) fn is_only(&self) -> bool {
        *self == Self::Only
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Smallest => "smallest",
            Self::Largest => "largest",
            Self::FirstByPath => "first_by_path",
            Self::SmallestThenByPath => "smallest_then_by_path",
            Self::LargestThenByPath => "largest_then_by_path",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        const ALL: [Pick; 6] = [
            Pick::Only,
            Pick::Smallest,
            Pick::Largest,
            Pick::FirstByPath,
            Pick::SmallestThenByPath,
            Pick::LargestThenByPath,
        ];
        ALL.into_iter().find(|pick| pick.name() == name)
    }

    /// Which of two is taken before the other; equal if this rule cannot tell.
    fn order(self, one: &Disk, other: &Disk) -> Ordering {
        let size = || one.size.cmp(&other.size);
        // One that is plugged in nowhere that has a name comes last, and two of them are a tie.
        let place = || (one.by_path.is_none(), &one.by_path).cmp(&(other.by_path.is_none(), &other.by_path));
        match self {
            Self::Only => Ordering::Equal,
            Self::Smallest => size(),
            Self::Largest => size().reverse(),
            Self::FirstByPath => place(),
            Self::SmallestThenByPath => size().then_with(place),
            Self::LargestThenByPath => size().reverse().then_with(place),
        }
    }

    /// The first `count` of the disks.
    ///
    /// # Errors
    /// The disks among which the rule cannot tell.
    pub(crate) fn first(self, mut disks: Vec<&Disk>, count: usize) -> Result<Vec<&Disk>, Vec<&Disk>> {
        disks.sort_by(|one, other| self.order(one, other));
        if let (Some(last), Some(next)) = (count.checked_sub(1).and_then(|last| disks.get(last)), disks.get(count))
            && self.order(last, next) == Ordering::Equal
        {
            let last = *last;
            return Err(disks.into_iter().filter(|disk| self.order(disk, last) == Ordering::Equal).collect());
        }
        disks.truncate(count);
        Ok(disks)
    }
}

/// A disk that is no candidate when one is picked out of several. A disk in use or write-protected is not of these: that
/// it matches says that the order was not meant for this machine as it is now, and the next disk may hold data.
fn steps_aside(code: FaultCode) -> bool {
    matches!(code, FaultCode::DiskRemovable | FaultCode::DiskLiveSystem)
}

impl RootDeviceHints {
    /// The one disk that matches and is free.
    ///
    /// A disk that matches but must not be used (mounted, read-only, ...) is an error of its own even when another one
    /// matches too: the order was then not clear.
    ///
    /// # Errors
    /// When the hints are empty, or match no disk, several of which none is to be picked, or one that must not be used.
    /// The causes say of each disk why it is not the one.
    pub fn resolve<'a>(&self, disks: &'a [Disk]) -> Result<&'a Disk, Fault> {
        self.explain(disks).1
    }

    /// What the hints mean on this machine, and the disk, or why there is none.
    pub fn explain<'a>(&self, disks: &'a [Disk]) -> (Explanation, Result<&'a Disk, Fault>) {
        let mut considered: Vec<Considered> = disks.iter().map(|disk| self.consider(disk)).collect();
        let chosen = self.choose(disks, &considered);
        if let Ok(chosen) = chosen
            && let Some(taken) = considered.iter_mut().find(|c| c.name == chosen.name)
        {
            taken.verdict = Verdict::Taken;
        }
        let summary = match &chosen {
            Ok(_) => {
                let matching = considered.iter().filter(|c| matches!(c.verdict, Verdict::Taken | Verdict::Matches));
                let (n, disks) = (matching.count(), count(disks.len()));
                match self.pick {
                    Pick::Only => format!("{disks} here, 1 matches {self}"),
                    pick => format!("{disks} here, {n} to pick from with {self}; the {} is taken", spoken(pick)),
                }
            }
            Err(fault) => fault.message.clone(),
        };
        (Explanation { summary, disks: considered }, chosen)
    }

    /// Every disk that matches and may be taken, in the order of the list.
    ///
    /// # Errors
    /// When the hints are empty, or a disk matches that is in use or write-protected.
    pub(crate) fn candidates<'a>(&self, disks: &'a [Disk]) -> Result<Vec<&'a Disk>, Fault> {
        self.refuse_empty()?;
        let mut free = Vec::new();
        for disk in disks.iter().filter(|disk| !is_skipped(disk) && self.differs(disk).is_none()) {
            match unusable(disk, self.allow_removable) {
                None => free.push(disk),
                Some(Rejection::Unusable { code, .. }) if steps_aside(code) => {}
                Some(Rejection::Unusable { code, reason }) => return Err(self.hindered(disk, code, &reason)),
                Some(Rejection::Differs { .. }) => {}
            }
        }
        Ok(free)
    }

    fn consider(&self, disk: &Disk) -> Considered {
        let properties = self.properties(disk);
        let hindrance = match unusable(disk, self.allow_removable) {
            Some(Rejection::Unusable { reason, .. }) => Some(reason),
            _ => None,
        };
        // Of a disk that is to be skipped nothing else counts.
        let verdict = match (properties.iter().all(|p| p.agrees), &hindrance) {
            (_, Some(_)) if is_skipped(disk) => Verdict::Excluded,
            (false, _) => Verdict::Differs,
            (true, Some(_)) => Verdict::Excluded,
            (true, None) => Verdict::Matches,
        };
        Considered { name: disk.name.clone(), disk: describe(disk), verdict, properties, reason: hindrance }
    }

    fn choose<'a>(&self, disks: &'a [Disk], considered: &[Considered]) -> Result<&'a Disk, Fault> {
        self.refuse_empty()?;
        let none = || {
            let message = format!("{} here, none matches {self}", count(disks.len()));
            let mut fault = Fault::new(FaultCode::NoMatchingDisk, message);
            fault.causes = considered.iter().map(|c| format!("{}: {}", c.disk, c.why())).collect();
            fault
        };
        let ambiguous = |several: &[&Disk], message: String| {
            let mut fault = Fault::new(FaultCode::AmbiguousDisk, message);
            fault.causes = several.iter().map(|disk| format!("{}: matches", describe(disk))).collect();
            fault
        };
        if self.pick == Pick::Only {
            let matching: Vec<&Disk> =
                disks.iter().filter(|disk| !is_skipped(disk) && self.differs(disk).is_none()).collect();
            return match matching.as_slice() {
                [disk] => match unusable(disk, self.allow_removable) {
                    Some(Rejection::Unusable { code, reason }) => Err(self.hindered(disk, code, &reason)),
                    Some(Rejection::Differs { .. }) | None => Ok(disk),
                },
                [] => Err(none()),
                several => Err(ambiguous(several, format!("{} of {} match {self}", several.len(), count(disks.len())))),
            };
        }
        let candidates = self.candidates(disks)?;
        if candidates.is_empty() {
            return Err(none());
        }
        match self.pick.first(candidates, 1).as_deref() {
            Ok([disk]) => Ok(disk),
            Ok(_) => Err(none()),
            Err(tied) => Err(ambiguous(tied, format!("{} of {} tie for {self}", tied.len(), count(disks.len())))),
        }
    }

    fn hindered(&self, disk: &Disk, code: FaultCode, reason: &str) -> Fault {
        Fault::new(code, format!("{} matches {self}, but {reason}", describe(disk)))
    }

    fn refuse_empty(&self) -> Result<(), Fault> {
        if !self.is_empty() {
            return Ok(());
        }
        Err(Fault::new(
            FaultCode::NoMatchingDisk,
            "the root device hints are empty: a disk must be named by serial, WWN or other properties",
        ))
    }
}

fn is_skipped(disk: &Disk) -> bool {
    matches!(disk.excluded, Some(Exclusion::Skipped { .. }))
}

fn spoken(pick: Pick) -> &'static str {
    match pick {
        Pick::Only => "only one",
        Pick::Smallest => "smallest",
        Pick::Largest => "largest",
        Pick::FirstByPath => "first by path",
        Pick::SmallestThenByPath => "smallest, the first of them by path,",
        Pick::LargestThenByPath => "largest, the first of them by path,",
    }
}

fn count(disks: usize) -> String {
    format!("{disks} disk{}", if disks == 1 { "" } else { "s" })
}
