//! Buffers between the network and those who wait for it, used again and again.
//!
//! The network's own buffers are copied from at once and given back, so that the HTTP client reads into the same memory
//! each time: with them passed on, half of the time of a write went into new pages.

use std::sync::{Arc, Mutex, PoisonError};

/// Of one buffer. Handing on larger ones means fewer wake-ups; several of them are in flight.
pub(super) const SIZE: usize = 256 << 10;

#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    pub(super) fn empty(&self) -> Piece {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Piece { bytes: used.unwrap_or_else(|| Vec::with_capacity(SIZE)), pool: self.clone() }
    }
}

/// Some of a source's bytes. Its memory goes back to the pool.
pub(super) struct Piece {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Piece {
    /// Takes as many of these bytes as there is room for, and says how many.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(SIZE - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..n]);
        n
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() == SIZE
    }
}

impl std::ops::Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}
