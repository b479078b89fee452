//! Whether a disk that is only read gives the same bytes twice. What it holds nobody knows; but what nobody writes to has to
//! stay as it is, on the medium and on the way from it.
//!
//! Of blocks that are met on the way along the disk the digests are kept; the reads anywhere come back to them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::findings::{Finding, Findings};
use super::medium::Medium;

pub(super) const KIND: &str = "inconsistent_reads";

/// Blocks that are kept of one disk; with 500 disks some 50 MiB.
const MOST: u64 = 2048;

#[derive(Debug)]
pub(super) struct Twice {
    block: usize,
    /// Of so many requests the first block of one is kept.
    every: u64,
    met: AtomicU64,
    kept: Mutex<BTreeMap<u64, u64>>,
    compared: AtomicU64,
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

impl Twice {
    /// For so many requests along the disk.
    pub(super) fn over(requests: u64, block: usize) -> Self {
        Self {
            block,
            every: requests.div_ceil(MOST).max(1),
            met: AtomicU64::new(0),
            kept: Mutex::default(),
            compared: AtomicU64::new(0),
        }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read the first time.
    pub(super) fn meet(&self, offset: u64, bytes: &[u8]) {
        if let Some(block) = bytes.get(..self.block)
            && offset.is_multiple_of(self.block as u64)
            && self.met.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every)
        {
            self.kept().insert(offset, digest(block));
        }
    }

    /// Where to read again.
    pub(super) fn places(&self) -> Vec<u64> {
        self.kept().keys().copied().collect()
    }

    pub(super) fn compared(&self) -> u64 {
        self.compared.load(Ordering::Relaxed)
    }

    /// What was read anywhere: if it was met before, it must be the same.
    pub(super) fn again<M: Medium + ?Sized>(&self, disk: &M, offset: u64, bytes: &[u8], findings: &Findings<'_>) {
        let Some(first) = self.kept().get(&offset).copied().filter(|_| bytes.len() == self.block) else { return };
        self.compared.fetch_add(1, Ordering::Relaxed);
        let second = digest(bytes);
        if first == second {
            return;
        }
        let mut third = speediso_sys::buffer::AlignedBuffer::zeroed(self.block);
        let third = disk.read_at(offset, &mut third).map(|()| digest(&third));
        let what = match third {
            Ok(third) if third == first => "read otherwise once, and as the first time when read again",
            Ok(third) if third == second => "holds something else than when it was first read",
            Ok(_) => "reads otherwise each time",
            Err(_) => "read otherwise than the first time, and cannot be read any more",
        };
        findings.add(Finding { kind: KIND, offset, length: self.block as u64, what: what.to_owned() });
        // Told once: from now on it is compared with what it holds now.
        self.kept().insert(offset, third.unwrap_or(second));
    }
}
