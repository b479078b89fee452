//! The disks' side of a write: one stream of pieces, one or several disks that take it.

use std::sync::LazyLock;
use std::thread;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::task::ReadBack;
use speediso_sys::claim::DiskError;

use super::leg::Leg;
use super::too_large;
use crate::place::Place;

/// Large enough that a disk works at its full rate, small enough to have several in flight in a small machine.
pub(super) const CHUNK: usize = 2 << 20;

/// Disks of which each gets the same. One that fails is left alone; the others go on.
pub(super) struct Target<'a> {
    legs: Vec<Leg<'a>>,
    read_back: ReadBack,
}

impl<'a> Target<'a> {
    /// At least one leg.
    pub(super) fn new(legs: Vec<Leg<'a>>, read_back: ReadBack) -> Self {
        Self { legs, read_back }
    }

    /// Makes sure that none can be started from what was there. `false` if no disk is left.
    pub(super) fn begin(&self) -> bool {
        thread::scope(|scope| {
            for leg in &self.legs {
                scope.spawn(|| leg.clear().unwrap_or_else(|fault| leg.give_up(fault)));
            }
        });
        self.is_working()
    }

    pub(super) fn legs(&self) -> &[Leg<'a>] {
        &self.legs
    }

    /// The smallest place: what the image must fit into.
    pub(super) fn place(&self) -> Place<'a> {
        let mut places = self.legs.iter().map(Leg::place);
        let first = places.next().unwrap_or_else(|| unreachable!("a target has a disk"));
        places.fold(first, |least, place| if place.size() < least.size() { place } else { least })
    }

    /// The only disk, if it is one.
    pub(super) fn single(&self) -> Option<&Leg<'a>> {
        match self.legs.as_slice() {
            [leg] => Some(leg),
            _ => None,
        }
    }

    /// In bytes: a multiple of each disk's.
    pub(super) fn sector_size(&self) -> u64 {
        self.legs.iter().map(|leg| leg.place().sector_size()).max().unwrap_or(4096)
    }

    pub(super) fn check_size(&self, image: u64) -> Result<(), Fault> {
        let place = self.place();
        if image > place.size() { Err(too_large(image, place.size(), place.name())) } else { Ok(()) }
    }

    pub(super) fn check_sector_size(&self, image: Option<u32>) -> Result<(), Fault> {
        self.legs.iter().try_for_each(|leg| check_sector_size(image, leg.place()))
    }

    /// Lets what was written survive a power cut. A disk that cannot is given up.
    pub(super) fn flush(&self) {
        thread::scope(|scope| {
            for leg in self.legs.iter().filter(|leg| leg.broken().is_none()) {
                scope.spawn(|| leg.place().flush().unwrap_or_else(|fault| leg.give_up(fault)));
            }
        });
    }

    /// The fault of a disk error that ended everything: that of the disk that failed last.
    pub(super) fn fault(&self, error: &DiskError) -> Fault {
        let last = self.legs.iter().rev().find_map(Leg::broken);
        last.cloned().unwrap_or_else(|| self.place().disk().fault(error))
    }

    /// On all disks at once; an error only when none is left.
    fn each(&self, act: impl Fn(&Leg<'a>) -> Result<(), DiskError> + Sync) -> Result<(), DiskError> {
        if let [leg] = self.legs.as_slice() {
            return act(leg);
        }
        let one = |leg: &Leg<'a>| act(leg).inspect_err(|error| leg.give_up(leg.place().disk().fault(error)));
        let panicked = |leg: &Leg<'a>| {
            let name = leg.place().name();
            leg.give_up(Fault::new(FaultCode::Internal, format!("the thread that wrote to {name} panicked")));
        };
        let results: Vec<_> = thread::scope(|scope| {
            let working = self.legs.iter().filter(|leg| leg.broken().is_none());
            let threads: Vec<_> = working.map(|leg| (leg, scope.spawn(|| one(leg)))).collect();
            let ended = threads.into_iter().map(|(leg, thread)| thread.join().map_err(|_| panicked(leg)).ok());
            ended.flatten().collect()
        });
        if results.iter().any(Result::is_ok) { Ok(()) } else { results.into_iter().collect() }
    }

    /// Whether any disk is left to write to.
    pub(super) fn is_working(&self) -> bool {
        self.legs.iter().any(|leg| leg.broken().is_none())
    }

    /// Writes what may be written now, and keeps the rest for the end. Whole sectors; any thread, any order.
    pub(super) fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let hash = (self.read_back != ReadBack::None).then(|| blake3::hash(bytes));
        self.each(|leg| leg.put(offset, bytes, hash))
    }

    /// The same of bytes whose hash is known already.
    pub(super) fn put_hashed(&self, offset: u64, bytes: &[u8], hash: blake3::Hash) -> Result<(), DiskError> {
        let hash = (self.read_back != ReadBack::None).then_some(hash);
        self.each(|leg| leg.put(offset, bytes, hash))
    }

    /// Makes a range read as zeroes.
    pub(super) fn zero(&self, start: u64, end: u64) -> Result<(), DiskError> {
        self.each(|leg| {
            let end = end.min(leg.place().size());
            for gap in leg.zero(start.min(end), end)? {
                self.expect_zeroes(leg, gap.start, gap.end);
            }
            Ok(())
        })
    }

    /// Notes what is there already, and must be found there again.
    pub(super) fn expect_hash(&self, leg: &Leg<'a>, offset: u64, length: usize, hash: blake3::Hash) {
        if self.read_back != ReadBack::None {
            leg.expect(offset, length, hash);
        }
    }

    /// The same of zeroes. The range is plain.
    pub(super) fn expect_zeroes(&self, leg: &Leg<'a>, start: u64, end: u64) {
        static ZEROES: LazyLock<blake3::Hash> = LazyLock::new(|| blake3::hash(&vec![0; CHUNK]));
        let mut at = start;
        while self.read_back != ReadBack::None && at < end {
            let length = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let hash = if length == CHUNK { *ZEROES } else { blake3::hash(&vec![0; length]) };
            leg.expect(at, length, hash);
            at += length as u64;
        }
    }
}

/// An image for one sector size written to a disk of another would never start, without an error.
pub(super) fn check_sector_size(image: Option<u32>, place: Place<'_>) -> Result<(), Fault> {
    match image.filter(|image| u64::from(*image) != place.sector_size()) {
        None => Ok(()),
        Some(image) => Err(Fault::new(
            FaultCode::SectorSizeMismatch,
            format!("the image is made for sectors of {image} bytes, {} has {}", place.name(), place.sector_size()),
        )),
    }
}
