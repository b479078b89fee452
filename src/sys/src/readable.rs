//! Waiting for a descriptor to have something to read.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// Comes back when there is something, when the time is over, or now and then for a signal.
pub(crate) fn wait(fd: BorrowedFd<'_>, patience: Duration) -> io::Result<()> {
    let mut waiting = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // Rounded up: a wait of less than a millisecond must not become none, again and again.
    let millis = libc::c_int::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX);
    // SAFETY: poll reads and writes as many pollfd as it is told of: one.
    match unsafe { libc::poll(&raw mut waiting, 1, millis) } {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            e => Err(e),
        },
    }
}
