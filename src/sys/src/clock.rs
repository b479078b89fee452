//! Time since boot, the name of this boot, and setting the clock.

use std::fs;
use std::io;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use speediso_model::id::BootId;

use crate::roots::Roots;

/// Milliseconds since the kernel started, sleep included. Never steps back, whatever happens to the wall clock.
///
/// # Panics
/// Never on a kernel since 2.6.39, which is when `CLOCK_BOOTTIME` came.
#[must_use]
pub fn uptime_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every kernel since 2.6.39 has CLOCK_BOOTTIME");
    u64::try_from(Duration::from(now).as_millis()).unwrap_or(u64::MAX)
}

/// Which boot this is, by the kernel's own random name for it.
///
/// # Errors
/// When procfs is not there or its content is not a UUID.
pub fn boot_id(roots: &Roots) -> io::Result<BootId> {
    let path = roots.proc.join("sys/kernel/random/boot_id");
    let text = fs::read_to_string(&path)?;
    text.trim().parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} holds {text:?}, not a UUID", path.display()))
    })
}

/// Sets the wall clock, in milliseconds since 1970.
///
/// Setting is all this does: whether the figure can be believed is the caller's to check.
///
/// # Errors
/// Without `CAP_SYS_TIME`, or for a time the kernel cannot represent.
pub fn set(unix_ms: u64) -> io::Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(Duration::from_millis(unix_ms))).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_moves_forward_and_the_boot_has_a_name() {
        let first = uptime_ms();
        std::thread::sleep(Duration::from_millis(5));
        assert!(uptime_ms() >= first + 5);
        let roots = Roots::live();
        assert_eq!(boot_id(&roots).expect("procfs"), boot_id(&roots).expect("procfs"));
    }

    #[test]
    fn a_boot_id_that_is_none_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert_eq!(boot_id(&roots).expect_err("absent").kind(), io::ErrorKind::NotFound);
        fs::create_dir_all(dir.path().join("proc/sys/kernel/random")).expect("made");
        fs::write(dir.path().join("proc/sys/kernel/random/boot_id"), "soon\n").expect("written");
        assert_eq!(boot_id(&roots).expect_err("no UUID").kind(), io::ErrorKind::InvalidData);
    }
}
