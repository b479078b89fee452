//! Memory that stays where it is: anonymous, in huge pages where the kernel has them, on one node, locked.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, munmap};

/// Whole pages of zeroed words.
#[derive(Debug)]
pub struct LockedRegion {
    start: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: the region owns its mapping, as a Box<[u64]> does its memory; nothing else has the pointer.
unsafe impl Send for LockedRegion {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for LockedRegion {}

impl LockedRegion {
    pub const PAGE: usize = 4096;

    /// Takes about `bytes`, rounded down to pages, from `node` if one is named and from nowhere else then.
    ///
    /// # Errors
    /// When there is not so much, or it may not be locked (RLIMIT_MEMLOCK binds those who are not root).
    pub fn take(bytes: usize, node: Option<u32>) -> io::Result<Self> {
        let bytes = bytes - bytes % Self::PAGE;
        let length = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        let region = Self { start, bytes };
        // Huge pages are speed alone; a kernel without them says EINVAL.
        let _ = region.advise(MmapAdvise::MADV_HUGEPAGE);
        // Patterns are of no use in a crash dump.
        let _ = region.advise(MmapAdvise::MADV_DONTDUMP);
        if let Some(node) = node {
            region.bind(node)?;
        }
        // SAFETY: the range is this mapping, whole.
        unsafe { mlock(region.start, bytes) }?;
        Ok(region)
    }

    /// Where a word is in the machine's memory. It stays there, being locked. `None` without the right to know.
    #[must_use]
    pub fn physical(&self, word: usize) -> Option<u64> {
        // Documentation/admin-guide/mm/pagemap.rst: 64 bits a page, the frame in the lower 55, bit 63 if it is there.
        const FRAME: u64 = (1 << 55) - 1;
        let address = self.start.addr().get() + word * size_of::<u64>();
        let page = u64::try_from(address / Self::PAGE).ok()?;
        let mut entry = [0; 8];
        File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut entry, page * 8).ok()?;
        let entry = u64::from_le_bytes(entry);
        let frame = (entry >> 63 == 1).then_some(entry & FRAME).filter(|frame| *frame != 0)?;
        Some(frame * Self::PAGE as u64 + (address % Self::PAGE) as u64)
    }

    fn advise(&self, advice: MmapAdvise) -> io::Result<()> {
        // SAFETY: the range is this mapping; neither advice changes what it holds.
        unsafe { madvise(self.start, self.bytes, advice) }.map_err(io::Error::from)
    }

    /// linux/mempolicy.h: `MPOL_BIND`. Before the first page is there.
    fn bind(&self, node: u32) -> io::Result<()> {
        const MPOL_BIND: libc::c_int = 2;
        const WORD: usize = 64;
        let node = usize::try_from(node).map_err(io::Error::other)?;
        let mut mask = [0_u64; 16];
        let word = mask.get_mut(node / WORD).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (node % WORD);
        // The kernel reads one bit less than it is told.
        let bits = mask.len() * WORD + 1;
        // SAFETY: the range is this mapping; `mask` has the 1024 bits that are read, and outlives the call.
        let result = unsafe {
            libc::syscall(libc::SYS_mbind, self.start.as_ptr(), self.bytes, MPOL_BIND, mask.as_ptr(), bits, 0_u32)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for LockedRegion {
    fn drop(&mut self) {
        // SAFETY: mapped in `take` with this length, and unmapped only here; that unlocks it.
        let _ = unsafe { munmap(self.start, self.bytes) };
    }
}

impl Deref for LockedRegion {
    type Target = [u64];
    fn deref(&self) -> &[u64] {
        // SAFETY: `bytes` readable bytes, page-aligned, zero at first (any bits are a u64), that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes / size_of::<u64>()) }
    }
}

impl DerefMut for LockedRegion {
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: as above, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.bytes / size_of::<u64>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numa;
    use crate::roots::Roots;

    #[test]
    fn what_is_taken_is_locked_and_given_back() {
        let roots = Roots::live();
        let locked = || {
            let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
            let line = status.lines().find_map(|l| l.strip_prefix("VmLck:")).expect("VmLck").trim().to_owned();
            line.trim_end_matches(" kB").parse::<usize>().expect("kB") * 1024
        };
        let before = locked();
        let node = numa::nodes(&roots)[0].number;
        let mut region = LockedRegion::take((8 << 20) + 5, Some(node)).expect("8 MiB, as root");
        assert_eq!(region.len() * 8, 8 << 20);
        assert!(region.iter().all(|word| *word == 0));
        assert!(locked() >= before + (8 << 20));
        let last = region.len() - 1;
        region[last] = 7;
        let (first, second) = (region.physical(0), region.physical(1));
        assert_eq!(first.map(|place| place + 8), second, "one page");
        drop(region);
        assert!(locked() < before + (8 << 20));
        assert!(LockedRegion::take(4095, None).is_err(), "less than a page");
        assert!(LockedRegion::take(1 << 20, Some(900)).is_err(), "no such node");
    }
}
