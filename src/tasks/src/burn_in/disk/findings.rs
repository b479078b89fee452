//! What was wrong with a disk, by kind and place: all of it counted, so much of it named that a report stays readable.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use speediso_model::fault::{Fault, FaultCode};

use super::mismatch::Wrong;

/// Places that are named one by one.
const NAMED: usize = 100;
/// Requests that fail before a disk is given up: each may take the drive half a minute.
const MOST_ERRORS: u64 = 64;

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
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) places: Vec<Finding>,
    errors: u64,
}

impl Found {
    pub(super) fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    /// Sectors that were not as they had been written.
    pub(super) fn mismatches(&self) -> u64 {
        self.counts.iter().filter(|(kind, _)| !kind.ends_with("_errors")).map(|(_, n)| n).sum()
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
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

    fn add(&self, finding: Finding) {
        (self.tell)(&finding);
        let mut found = self.found();
        *found.counts.entry(finding.kind).or_default() += 1;
        if finding.kind.ends_with("_errors") {
            found.errors += 1;
        }
        // Damage often goes on in the next sector: that is one place, told with the words of its first.
        let before = |place: &&mut Finding| place.kind == finding.kind && place.offset + place.length == finding.offset;
        if let Some(place) = found.places.iter_mut().find(before) {
            place.length += finding.length;
        } else if found.places.len() < NAMED {
            found.places.push(finding);
        }
    }

    pub(super) fn wrong(&self, wrong: &Wrong) {
        let Wrong { offset, mismatch } = wrong;
        self.add(Finding { kind: mismatch.kind(), offset: *offset, length: 512, what: mismatch.to_string() });
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
        if self.found().errors >= MOST_ERRORS {
            let message = format!("{device} failed {MOST_ERRORS} requests, the last {length} bytes at byte {offset}");
            return Err(Fault::new(FaultCode::DiskIo, message));
        }
        Ok(())
    }
}
