//! Writing behind the back of whoever makes the bytes: a thread of its own, a few buffers that go to and fro.

use std::io;
use std::sync::mpsc;
use std::thread;

use speediso_model::fault::{Fault, FaultCode};
use speediso_model::image::ImageSource;
use speediso_sys::buffer::AlignedBuffer;
use speediso_sys::claim::DiskError;

use super::source::source_fault;
use super::target::{CHUNK, Target};

/// One being filled, one being written, one to smooth the difference.
const BUFFERS: usize = 3;

/// Why writing stopped.
pub(super) enum WriteError {
    Source(io::Error),
    Disk(DiskError),
    Refused(Fault),
}

impl WriteError {
    pub(super) fn fault(self, image: &ImageSource, target: &Target<'_>) -> Fault {
        match self {
            Self::Source(error) => source_fault(&error, image),
            Self::Disk(error) => target.fault(&error),
            Self::Refused(fault) => fault,
        }
    }
}

struct Filled {
    buffer: AlignedBuffer,
    offset: u64,
    length: usize,
}

/// The writing thread, as the one who fills sees it.
pub(super) struct Writer {
    full: mpsc::SyncSender<Filled>,
    empty: mpsc::Receiver<AlignedBuffer>,
    sector: usize,
}

/// The writer ended early: its own error is the one that counts.
pub(super) struct Gone;

impl Writer {
    /// An empty buffer of [`CHUNK`] bytes, once there is one.
    pub(super) fn buffer(&self) -> Result<AlignedBuffer, Gone> {
        self.empty.recv().map_err(|_| Gone)
    }

    /// Has the first `length` bytes written at `offset`. An image may end within a sector; the sector is filled up with
    /// zeroes.
    pub(super) fn write(&self, offset: u64, mut buffer: AlignedBuffer, length: usize) -> Result<(), Gone> {
        let whole = length.next_multiple_of(self.sector).min(buffer.len());
        buffer[length..whole].fill(0);
        self.full.send(Filled { buffer, offset, length: whole }).map_err(|_| Gone)
    }
}

/// Runs `fill` with a writer and returns once everything is written.
pub(super) fn write_behind<T>(
    target: &Target<'_>,
    fill: impl FnOnce(&Writer) -> Result<Result<T, Gone>, WriteError>,
) -> Result<T, WriteError> {
    thread::scope(|scope| {
        let (full, to_write) = mpsc::sync_channel::<Filled>(BUFFERS);
        let (done, empty) = mpsc::channel::<AlignedBuffer>();
        for _ in 0..BUFFERS {
            // The receiver is in this function: it cannot be gone.
            let _ = done.send(AlignedBuffer::zeroed(CHUNK));
        }
        let thread = scope.spawn(move || {
            for Filled { buffer, offset, length } in to_write {
                target.put(offset, &buffer[..length])?;
                // The filling side may have ended already; then nobody needs the buffer.
                let _ = done.send(buffer);
            }
            Ok(())
        });
        let sector = usize::try_from(target.sector_size()).unwrap_or(CHUNK);
        let writer = Writer { full, empty, sector };
        let filled = fill(&writer);
        drop(writer);
        let panicked = || WriteError::Refused(Fault::new(FaultCode::Internal, "the writing thread panicked"));
        thread.join().map_err(|_| panicked())?.map_err(WriteError::Disk)?;
        // A writer that is gone without an error has panicked.
        filled?.map_err(|Gone| panicked())
    })
}
