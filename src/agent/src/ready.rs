//! Waiting for a device file without a thread of its own.

use std::fs::File;
use std::io;

use tokio::io::unix::AsyncFd;

/// The file must have been opened non-blocking.
#[expect(deprecated, reason = "sound for a File, which owns its descriptor; the newer constructor takes unsafe code")]
pub(crate) fn watched(file: File) -> io::Result<AsyncFd<File>> {
    AsyncFd::new(file)
}
