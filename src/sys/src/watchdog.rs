//! The machine's hardware watchdog: resets the machine when nobody has fed it for a while.
//!
//! Closing it without a word leaves it running, which is what a kernel that hangs or a feeder that dies is to meet.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use crate::roots::Roots;

mod raw {
    // linux/watchdog.h
    nix::ioctl_read!(get_support, b'W', 0, super::Info);
    nix::ioctl_read!(keep_alive, b'W', 5, libc::c_int);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, libc::c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, libc::c_int);
}

/// `struct watchdog_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Info {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

const _: () = assert!(size_of::<Info>() == 40, "struct watchdog_info, linux/watchdog.h");

#[derive(Debug)]
pub struct Watchdog {
    file: File,
    name: String,
    patience: Duration,
}

impl Watchdog {
    /// Starts it with about this much patience; `None` for a machine without one.
    ///
    /// # Errors
    /// When it is there and cannot be used, because somebody else has it for instance.
    pub fn start(roots: &Roots, patience: Duration) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().write(true).open(roots.dev.join("watchdog")) {
            Ok(file) => file,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut info = Info { options: 0, firmware_version: 0, identity: [0; 32] };
        // SAFETY: WDIOC_GETSUPPORT writes one struct watchdog_info, for which `info` has room.
        unsafe { raw::get_support(file.as_raw_fd(), &raw mut info) }?;
        let mut seconds = libc::c_int::try_from(patience.as_secs()).unwrap_or(libc::c_int::MAX);
        // One that cannot be set keeps its own time, which is asked for next.
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int, which `seconds` is.
        let _ = unsafe { raw::set_timeout(file.as_raw_fd(), &raw mut seconds) };
        // SAFETY: WDIOC_GETTIMEOUT writes one int, for which `seconds` has room.
        if unsafe { raw::get_timeout(file.as_raw_fd(), &raw mut seconds) }.is_err() {
            // Unknown: taken for the shortest that is common.
            seconds = 10;
        }
        let end = info.identity.iter().position(|b| *b == 0).unwrap_or(info.identity.len());
        let name = String::from_utf8_lossy(&info.identity[..end]).into_owned();
        let patience = Duration::from_secs(u64::try_from(seconds).unwrap_or(10).max(1));
        Ok(Some(Self { file, name, patience }))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fed within this, it stays quiet.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// # Errors
    /// When the device is gone.
    pub fn feed(&self) -> io::Result<()> {
        let mut unused = 0;
        // SAFETY: WDIOC_KEEPALIVE takes a pointer to an int, which it may write.
        unsafe { raw::keep_alive(self.file.as_raw_fd(), &raw mut unused) }?;
        Ok(())
    }

    /// Stops it for good, where the kernel lets it be stopped.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn stop(mut self) -> io::Result<()> {
        // The magic character of watchdog-api: closing after it stops the clock.
        self.file.write_all(b"V")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_one_says_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let none = Watchdog::start(&Roots::under(dir.path()), Duration::from_secs(60)).expect("nothing wrong");
        assert!(none.is_none());
    }

    #[test]
    fn what_is_no_watchdog_is_not_used() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        std::fs::create_dir_all(&roots.dev).expect("made");
        std::fs::write(roots.dev.join("watchdog"), "").expect("written");
        assert!(Watchdog::start(&roots, Duration::from_secs(60)).is_err());
    }
}
