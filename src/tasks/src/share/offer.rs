//! What this machine can give of one image.

use std::sync::{Arc, Mutex, PoisonError};

use speediso_image::manifest::{Chunk, Index, Manifest};
use speediso_model::share::SegmentMap;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::DiskError;
use speediso_sys::reader::DiskReader;

use super::Layout;

/// Why chunks were not given.
#[derive(Debug, thiserror::Error)]
pub enum NotGiven {
    /// Not yet, not at all, or not in one request.
    #[error("these chunks are not held here")]
    NotHeld,
    #[error("reading them back")]
    Disk(#[from] DiskError),
    /// The disk holds something else there by now, which never leaves the machine.
    #[error("chunk {0} does not read back as it was written")]
    Changed(u64),
}

#[derive(Debug)]
pub struct Offer {
    manifest: Arc<Manifest>,
    index: Arc<Index>,
    layout: Arc<Layout>,
    /// `None` once the disk is not to be read any more.
    disk: Mutex<Option<Arc<DiskReader>>>,
    have: Mutex<SegmentMap>,
}

impl Offer {
    pub(super) fn new(
        manifest: Arc<Manifest>,
        index: Arc<Index>,
        layout: Arc<Layout>,
        disk: DiskReader,
        have: SegmentMap,
    ) -> Self {
        Self { manifest, index, layout, disk: Mutex::new(Some(Arc::new(disk))), have: Mutex::new(have) }
    }

    #[must_use]
    pub fn have(&self) -> SegmentMap {
        self.have.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn add(&self, segment: usize) {
        self.have.lock().unwrap_or_else(PoisonError::into_inner).insert(segment);
    }

    /// Gives nothing any more. What is being read still ends, and is not sent.
    pub fn close(&self) {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Of chunks on the disk: what a request for one job needs at most.
    #[must_use]
    pub fn largest_request(&self) -> usize {
        usize::try_from(self.manifest.chunk_size()).unwrap_or(usize::MAX).max(2 << 20)
    }

    /// Reads chunks back, each of which has the hash that the manifest names. Blocks.
    ///
    /// # Errors
    /// When they are not here, or not any more.
    pub fn read(&self, first: u64, last: u64) -> Result<Vec<AlignedBuffer>, NotGiven> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(NotGiven::NotHeld)?;
        let segment = self.layout.segment_of(first, last).ok_or(NotGiven::NotHeld)?;
        if !self.have.lock().unwrap_or_else(PoisonError::into_inner).contains(segment) {
            return Err(NotGiven::NotHeld);
        }
        (first..=last)
            .map(|chunk| {
                let Chunk::Data { hash, .. } = self.index.chunk(chunk) else { return Err(NotGiven::NotHeld) };
                let range = self.manifest.disk_range(chunk);
                let length = usize::try_from(range.end - range.start).unwrap_or(0);
                let mut buffer = AlignedBuffer::zeroed(length);
                disk.read_at(range.start, &mut buffer, length)?;
                if blake3::hash(&buffer) != hash {
                    // Whoever changes the disk now may change more of it.
                    self.have.lock().unwrap_or_else(PoisonError::into_inner).remove(segment);
                    return Err(NotGiven::Changed(chunk));
                }
                Ok(buffer)
            })
            .collect()
    }
}
