//! Kernel modules from files of our own, for what the ramdisk does not bring.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// The running kernel's release, after which its modules are named.
///
/// # Errors
/// When the kernel does not say.
pub fn kernel_release() -> io::Result<String> {
    Ok(nix::sys::utsname::uname()?.release().to_string_lossy().into_owned())
}

/// `Ok` too if the kernel has it already.
///
/// # Errors
/// What the kernel says: another release's module, one whose signature it does not trust, one that lacks another.
pub fn load(file: &Path) -> io::Result<()> {
    load_with(file, c"")
}

/// The same with `options`: `parameter=value`, blanks between them.
///
/// # Errors
/// As above, and for a value that an option of the module does not take. One that it does not know, the kernel passes over.
pub fn load_with(file: &Path, options: &CStr) -> io::Result<()> {
    let module = File::open(file)?;
    let no_flags: c_int = 0;
    // SAFETY: finit_module takes an open descriptor, a string of parameters that ends in 0, and flags; it keeps none of them.
    let answer = unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), options.as_ptr(), no_flags) };
    if answer == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}
