//! What was wrong with a disk, by kind and place: all of it counted, so much of it named that a report stays readable.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use speediso_model::fault::{Fault, FaultCode};

use super::mismatch::Wrong;

/// Places that are named one by one.
const NAMED: usize = 100;
/// Requests that fail before a disk is given up: each may take the drive half a minute.
const MOST_ERRORS: u64 = 64;
/// Stretches of wrong sectors that are told apart, so that none is counted twice: some 3 MiB of memory. A disk with more of
/// them is given up.
const MOST_STRETCHES: usize = 50_000;

/// One place and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) kind: &'static str,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) what: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Failed requests, and wrong sectors: of these each once for each kind, however often it was found.
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) places: Vec<Finding>,
    errors: u64,
    wrong: BTreeMap<&'static str, Stretches>,
}

impl Found {
    pub(super) fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    /// Sectors that were not as they had been written.
    pub(super) fn mismatches(&self) -> u64 {
        self.wrong.keys().map(|kind| self.count(kind)).sum()
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }
}

/// Parts of a disk that do not touch one another, by where they begin.
#[derive(Clone, Debug, Default)]
struct Stretches(BTreeMap<u64, u64>);

impl Stretches {
    /// `false` if it is in there already.
    fn add(&mut self, from: u64, to: u64) -> bool {
        let before = self.0.range(..=from).next_back().map(|(from, to)| (*from, *to));
        if before.is_some_and(|(_, end)| end > from) {
            return false;
        }
        let begin = match before {
            Some((begin, end)) if end == from => begin,
            _ => from,
        };
        let end = self.0.remove(&to).unwrap_or(to);
        self.0.insert(begin, end);
        true
    }
}

/// Filled by all threads of one disk; each is told at once.
pub(super) struct Findings<'a> {
    found: Mutex<Found>,
    tell: &'a (dyn Fn(&Finding) + Sync),
}

impl<'a> Findings<'a> {
    pub(super) fn new(tell: &'a (dyn Fn(&Finding) + Sync)) -> Self {
        Self { found: Mutex::default(), tell }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(self) -> Found {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, finding: Finding) {
        (self.tell)(&finding);
        let mut found = self.found();
        *found.counts.entry(finding.kind).or_default() += 1;
        // Damage often goes on in the next sector: that is one place, told with the words of its first.
        let before = |place: &&mut Finding| place.kind == finding.kind && place.offset + place.length == finding.offset;
        if let Some(place) = found.places.iter_mut().find(before) {
            place.length += finding.length;
        } else if found.places.len() < NAMED {
            found.places.push(finding);
        }
    }

    pub(super) fn wrong(&self, wrong: &Wrong) {
        const SECTOR: u64 = 512;
        let Wrong { offset, mismatch } = wrong;
        let kind = mismatch.kind();
        // Random writes and the last pass find the same sector again and again.
        if self.found().wrong.entry(kind).or_default().add(*offset, offset + SECTOR) {
            self.add(Finding { kind, offset: *offset, length: SECTOR, what: mismatch.to_string() });
        }
    }

    /// `Err` once there are more wrong stretches than can be told apart.
    pub(super) fn bearable(&self, device: &str) -> Result<(), Fault> {
        let stretches: usize = self.found().wrong.values().map(|kind| kind.0.len()).sum();
        if stretches <= MOST_STRETCHES {
            return Ok(());
        }
        let message = format!("{device} is wrong in more than {MOST_STRETCHES} separate places, and was given up");
        Err(Fault::new(FaultCode::DiskIo, message))
    }

    /// A stretch that could not be read or written. `Err` once there are too many of them.
    pub(super) fn failed(
        &self,
        kind: &'static str,
        device: &str,
        offset: u64,
        length: u64,
        what: String,
    ) -> Result<(), Fault> {
        self.add(Finding { kind, offset, length, what });
        let mut found = self.found();
        found.errors += 1;
        if found.errors >= MOST_ERRORS {
            let message = format!("{device} failed {MOST_ERRORS} requests, the last {length} bytes at byte {offset}");
            return Err(Fault::new(FaultCode::DiskIo, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn every_sector_is_new_once(order in prop::collection::vec(0u64..60, 1..300)) {
            let (mut stretches, mut all) = (Stretches::default(), BTreeSet::new());
            for sector in order {
                prop_assert_eq!(stretches.add(sector, sector + 1), all.insert(sector));
            }
            let covered: Vec<u64> = stretches.0.iter().flat_map(|(from, to)| *from..*to).collect();
            prop_assert_eq!(covered, all.into_iter().collect::<Vec<_>>());
            let ends: Vec<u64> = stretches.0.iter().flat_map(|(from, to)| [*from, *to]).collect();
            prop_assert!(ends.is_sorted_by(|a, b| a < b), "they do not touch");
        }
    }
}
