//! Mounting without a place to mount to.
//!
//! `fsmount` (Linux 5.2) gives a descriptor instead of a spot in the tree: nobody else can walk into the file system, and
//! with the last descriptor the mount is gone, whatever happens to us.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

// linux/mount.h.
const FSOPEN_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const FSMOUNT_CLOEXEC: c_uint = 1;
const MOUNT_ATTR_RDONLY: c_uint = 1;
const MOUNT_ATTR_NOSUID: c_uint = 2;
const MOUNT_ATTR_NODEV: c_uint = 4;
const MOUNT_ATTR_NOEXEC: c_uint = 8;

/// The root directory of the file system on `device`, of which nothing is executable, a device or set-uid. Mounted as long
/// as it is open.
pub(crate) fn mount_apart(driver: &CStr, device: &Path, writable: bool) -> io::Result<File> {
    let device = CString::new(device.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: fsopen takes a string that ends in 0 and flags; what it returns is a new descriptor or an error.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, driver.as_ptr(), FSOPEN_CLOEXEC) })?;
    config(&context, FSCONFIG_SET_STRING, Some(c"source"), Some(&device))?;
    if !writable {
        config(&context, FSCONFIG_SET_FLAG, Some(c"ro"), None)?;
    }
    config(&context, FSCONFIG_CMD_CREATE, None, None)?;
    let read_only = if writable { 0 } else { MOUNT_ATTR_RDONLY };
    let attributes = read_only | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    // SAFETY: fsmount takes a descriptor of fsopen's and flags; what it returns is a new descriptor or an error.
    let mount =
        descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })?;
    // The descriptor of the mount itself only names it; a directory can be asked things.
    let root = openat(&mount, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok(File::from(root))
}

fn config(context: &OwnedFd, command: c_uint, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null::<c_char>(), CStr::as_ptr);
    let (key, value) = (pointer(key), pointer(value));
    let none: c_int = 0;
    // SAFETY: key and value are null or strings that end in 0 and live until after the call, as the three commands want them.
    let answer = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, none) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn descriptor(answer: c_long) -> io::Result<OwnedFd> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = c_int::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given it to us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
