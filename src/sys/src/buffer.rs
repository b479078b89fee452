//! Memory that the kernel can hand to a disk without copying.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Enough for every disk's O_DIRECT: sectors of 512 and of 4096 bytes.
pub const ALIGNMENT: usize = 4096;

/// Zeroed bytes at an address that is a multiple of [`ALIGNMENT`].
#[derive(Debug)]
pub struct AlignedBuffer {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its memory, as a Box<[u8]> does; nothing else has the pointer.
unsafe impl Send for AlignedBuffer {}
// SAFETY: through a shared reference it is only read.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// # Panics
    /// If `length` is zero, or beyond what an allocation can be.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        assert!(length > 0, "an empty buffer serves nobody");
        let layout = Layout::from_size_align(length, ALIGNMENT).expect("lengths here are a few MiB");
        // SAFETY: the layout's size is not zero (asserted above).
        let Some(start) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { handle_alloc_error(layout) };
        Self { start, layout }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `start` points to `size` initialised bytes (zeroed at first) that live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}
