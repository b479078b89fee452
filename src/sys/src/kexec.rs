//! Another kernel in place of the running one, without the firmware in between.

use std::convert::Infallible;
use std::ffi::{CStr, c_ulong};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sync;

use crate::roots::{Roots, read_line, read_number};

#[cfg(not(target_arch = "aarch64"))]
use libc::SYS_kexec_file_load;
/// `include/uapi/asm-generic/unistd.h`; libc knows it of other machines only.
#[cfg(target_arch = "aarch64")]
#[allow(non_upper_case_globals, reason = "as libc calls it")]
const SYS_kexec_file_load: libc::c_long = 294;

/// Puts kernel, ramdisk and command line where [`start`] finds them. Replaces what was loaded before.
///
/// # Errors
/// `EPERM` without `CAP_SYS_BOOT`, or where kexec is disabled (`kernel.kexec_load_disabled`) or the locked-down kernel does
/// not trust the signature; `ENOEXEC` for what is no kernel; `EBUSY` while another loads one.
pub fn load(kernel: &File, ramdisk: &File, cmdline: &CStr) -> io::Result<()> {
    let length = c_ulong::try_from(cmdline.to_bytes_with_nul().len()).map_err(io::Error::other)?;
    let no_flags: c_ulong = 0;
    // SAFETY: kexec_file_load (kexec_file_load(2), <linux/kexec.h>) takes two open descriptors, the length of a string with
    // its end mark, and the string, which outlives the call; it copies what it takes. libc has no function for it.
    let answer = unsafe {
        libc::syscall(SYS_kexec_file_load, kernel.as_raw_fd(), ramdisk.as_raw_fd(), length, cmdline.as_ptr(), no_flags)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether a kernel is loaded, as the running one says.
#[must_use]
pub fn is_loaded(roots: &Roots) -> bool {
    read_number(&roots.sys.join("kernel/kexec_loaded")) == Some(1)
}

/// How far the running kernel is locked down (`integrity`, `confidentiality`), if it is.
#[must_use]
pub fn lockdown(roots: &Roots) -> Option<String> {
    let line = read_line(&roots.sys.join("kernel/security/lockdown"))?;
    let chosen = line.split('[').nth(1)?.split(']').next()?;
    (chosen != "none").then(|| chosen.to_owned())
}

/// Starts the kernel that is loaded, at once: no service is asked, what file systems hold is flushed.
///
/// # Errors
/// Without `CAP_SYS_BOOT`, or with no kernel loaded. On success it does not return.
pub fn start() -> io::Result<Infallible> {
    sync();
    reboot(RebootMode::RB_KEXEC).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_itself() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        assert!(!is_loaded(&roots) && lockdown(&roots).is_none());
        std::fs::create_dir_all(roots.sys.join("kernel/security")).expect("made");
        std::fs::write(roots.sys.join("kernel/kexec_loaded"), "1\n").expect("written");
        let is = |line: &str| {
            std::fs::write(roots.sys.join("kernel/security/lockdown"), line).expect("written");
            lockdown(&roots)
        };
        assert!(is_loaded(&roots));
        assert_eq!(is("[none] integrity confidentiality\n"), None);
        assert_eq!(is("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
    }

    #[test]
    fn what_is_no_kernel_is_not_loaded() {
        let file = tempfile::tempfile().expect("a temporary file");
        assert!(load(&file, &file, c"console=ttyS0").is_err());
    }
}
