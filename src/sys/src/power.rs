//! Ending this boot.

use std::convert::Infallible;
use std::io;

use nix::sys::reboot::{RebootMode, reboot as kernel_reboot};
use nix::unistd::sync;

/// Flushes what the kernel still holds and restarts the machine.
///
/// Nobody is asked and no service is stopped: whatever had to be delivered must have been.
///
/// # Errors
/// Without `CAP_SYS_BOOT`. On success it does not return.
pub fn reboot() -> io::Result<Infallible> {
    end(RebootMode::RB_AUTOBOOT)
}

/// Flushes what the kernel still holds and cuts the power.
///
/// # Errors
/// Without `CAP_SYS_BOOT`. On success it does not return.
pub fn power_off() -> io::Result<Infallible> {
    end(RebootMode::RB_POWER_OFF)
}

fn end(mode: RebootMode) -> io::Result<Infallible> {
    sync();
    kernel_reboot(mode).map_err(io::Error::from)
}
