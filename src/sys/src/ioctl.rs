//! The block layer's ioctls (`linux/fs.h`), one call per function.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

mod raw {
    // linux/fs.h: _IO(0x12, n), and BLKGETDISKSEQ as _IOR(0x12, 128, __u64). BLKGETSIZE64 and BLKSSZGET are declared
    // with size_t and without a size there, but return u64 and int.
    nix::ioctl_none_bad!(blkrrpart, 0x125f);
    nix::ioctl_none_bad!(blkflsbuf, 0x1261);
    nix::ioctl_read_bad!(blksszget, 0x1268, libc::c_int);
    nix::ioctl_write_ptr_bad!(blkdiscard, 0x1277, [u64; 2]);
    nix::ioctl_read_bad!(blkpbszget, 0x127b, libc::c_uint);
    nix::ioctl_write_ptr_bad!(blkzeroout, 0x127f, [u64; 2]);
    nix::ioctl_read!(blkgetsize64, 0x12, 114, libc::size_t);
    nix::ioctl_read!(blkgetdiskseq, 0x12, 128, u64);
    // linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS; declared with long, the kernel reads and writes an int.
    nix::ioctl_read!(fs_ioc_getflags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(fs_ioc_setflags, b'f', 2, libc::c_long);
}

const _: () = assert!(size_of::<libc::size_t>() == 8, "BLKGETSIZE64 writes a u64");

/// Lets the kernel read the partition table again. Fails with EBUSY while a partition is in use.
pub(crate) fn reread_partitions(file: &File) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument.
    unsafe { raw::blkrrpart(file.as_raw_fd()) }?;
    Ok(())
}

/// Writes out and drops the kernel's cached pages of the device.
pub(crate) fn flush_buffers(file: &File) -> io::Result<()> {
    // SAFETY: BLKFLSBUF takes no argument.
    unsafe { raw::blkflsbuf(file.as_raw_fd()) }?;
    Ok(())
}

pub(crate) fn logical_sector_size(file: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int, for which `size` has room.
    unsafe { raw::blksszget(file.as_raw_fd(), &raw mut size) }?;
    u32::try_from(size).map_err(|_| io::Error::other("negative sector size"))
}

pub(crate) fn physical_sector_size(file: &File) -> io::Result<u32> {
    let mut size: libc::c_uint = 0;
    // SAFETY: BLKPBSZGET writes one unsigned int, for which `size` has room.
    unsafe { raw::blkpbszget(file.as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

pub(crate) fn size_in_bytes(file: &File) -> io::Result<u64> {
    let mut size: libc::size_t = 0;
    // SAFETY: BLKGETSIZE64 writes one u64; size_t is 64 bits wide here (asserted above).
    unsafe { raw::blkgetsize64(file.as_raw_fd(), &raw mut size) }?;
    u64::try_from(size).map_err(io::Error::other)
}

/// Linux 5.15 and later; `None` before.
pub(crate) fn disk_sequence(file: &File) -> Option<u64> {
    let mut seq = 0u64;
    // SAFETY: BLKGETDISKSEQ writes one u64, for which `seq` has room.
    unsafe { raw::blkgetdiskseq(file.as_raw_fd(), &raw mut seq) }.ok()?;
    Some(seq)
}

/// Zeroes a range, by the device's own command where it has one. Reads return zeroes afterwards, whatever it used.
pub(crate) fn zero_out(file: &File, offset: u64, length: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT reads two u64, offset and length.
    unsafe { raw::blkzeroout(file.as_raw_fd(), &[offset, length]) }?;
    Ok(())
}

/// Tells the device that a range is unused. What it reads as afterwards is not defined.
pub(crate) fn discard(file: &File, offset: u64, length: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two u64, offset and length.
    unsafe { raw::blkdiscard(file.as_raw_fd(), &[offset, length]) }?;
    Ok(())
}

pub(crate) fn inode_flags(file: &File) -> io::Result<libc::c_long> {
    let mut flags: libc::c_long = 0;
    // SAFETY: FS_IOC_GETFLAGS writes at most a long, for which `flags` has room.
    unsafe { raw::fs_ioc_getflags(file.as_raw_fd(), &raw mut flags) }?;
    Ok(flags)
}

pub(crate) fn set_inode_flags(file: &File, flags: libc::c_long) -> io::Result<()> {
    // SAFETY: FS_IOC_SETFLAGS reads at most a long, which `flags` is.
    unsafe { raw::fs_ioc_setflags(file.as_raw_fd(), &raw const flags) }?;
    Ok(())
}
