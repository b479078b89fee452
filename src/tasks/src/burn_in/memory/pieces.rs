//! Taking memory in pieces, and giving it back when the machine runs short.

use std::sync::{Mutex, PoisonError};

use speediso_model::units::{Bytes, MIB};
use speediso_sys::numa;
use speediso_sys::region::LockedRegion;
use speediso_sys::roots::Roots;

use super::super::live::Live;
use super::share::Portion;

/// Large enough for huge pages and few system calls, small enough to stop in time.
const PIECE: u64 = 256 * MIB;

/// Keeps account of what may be taken.
pub(super) struct Ledger<'a> {
    roots: &'a Roots,
    reserve: u64,
    /// Permitted, and not yet seen in the kernel's figures.
    underway: Mutex<u64>,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(roots: &'a Roots, reserve: u64) -> Self {
        Self { roots, reserve, underway: Mutex::new(0) }
    }

    fn permits(&self, bytes: u64) -> bool {
        let mut underway = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        let available = numa::available(self.roots).map_or(0, |a| a.available);
        let fits = available.saturating_sub(*underway) >= bytes.saturating_add(self.reserve);
        *underway += if fits { bytes } else { 0 };
        fits
    }

    fn is_taken(&self, bytes: u64) {
        *self.underway.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
    }

    /// Others need what was left to them.
    pub(super) fn is_short(&self) -> bool {
        numa::available(self.roots).is_some_and(|a| a.available < self.reserve / 2)
    }
}

pub(super) struct Pieces(Vec<LockedRegion>);

impl Pieces {
    pub(super) fn take(portion: &Portion, ledger: &Ledger<'_>, live: &Live<'_>, notices: &mut Vec<String>) -> Self {
        let mut pieces = Vec::new();
        let mut left = portion.bytes;
        while left > 0 && !live.is_over() {
            let bytes = left.min(PIECE);
            if !ledger.permits(bytes) {
                notices.push(format!("node {}: {} fewer were taken, to keep the reserve", portion.node, Bytes(left)));
                break;
            }
            let taken = usize::try_from(bytes)
                .map_err(std::io::Error::other)
                .and_then(|bytes| LockedRegion::take(bytes, portion.bind.then_some(portion.node)));
            ledger.is_taken(bytes);
            match taken {
                Ok(region) => pieces.push(region),
                Err(error) => {
                    notices.push(format!("node {}: {} could not be had: {error}", portion.node, Bytes(left)));
                    break;
                }
            }
            left -= bytes;
        }
        Self(pieces)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|region| size_of_val::<[u64]>(region) as u64).sum()
    }

    pub(super) fn each(&mut self, downwards: bool) -> Box<dyn Iterator<Item = &mut LockedRegion> + '_> {
        if downwards { Box::new(self.0.iter_mut().rev()) } else { Box::new(self.0.iter_mut()) }
    }

    pub(super) fn give_back_if_short(&mut self, ledger: &Ledger<'_>, notices: &mut Vec<String>) {
        if ledger.is_short()
            && let Some(region) = self.0.pop()
        {
            let bytes = Bytes(size_of_val::<[u64]>(&region) as u64);
            notices.push(format!("the system ran short of memory: {bytes} were given back, and are tested no longer"));
        }
    }
}
