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
    // linux/loop.h.
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, super::LoopConfig);
    // fs/ext4/ext4.h: EXT4_IOC_RESIZE_FS; xfs_fs.h: XFS_IOC_FSGROWFSDATA; linux/btrfs.h: BTRFS_IOC_RESIZE.
    nix::ioctl_write_ptr!(ext4_ioc_resize_fs, b'f', 16, u64);
    nix::ioctl_write_ptr!(xfs_ioc_fsgrowfsdata, b'X', 110, super::XfsGrowData);
    nix::ioctl_write_ptr!(btrfs_ioc_resize, 0x94, 3, super::BtrfsVolArgs);
}

/// linux/loop.h: `struct loop_config`, of which only these are used; what is not named is 0.
#[repr(C)]
pub(crate) struct LoopConfig {
    fd: u32,
    block_size: u32,
    // From here struct loop_info64.
    device_inode_rdevice: [u64; 3],
    offset: u64,
    size_limit: u64,
    number_and_encryption: [u32; 3],
    flags: u32,
    names_and_key: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopConfig>() == 304, "struct loop_config");

/// `xfs_fs.h`: `struct xfs_growfs_data`.
#[repr(C)]
pub(crate) struct XfsGrowData {
    new_blocks: u64,
    inode_percent: u32,
    padding: u32,
}

/// linux/btrfs.h: `struct btrfs_ioctl_vol_args`.
#[repr(C)]
pub(crate) struct BtrfsVolArgs {
    fd: i64,
    name: [u8; 4088],
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

/// The number of a loop device that nobody uses, made if there is none. Another may take it first.
pub(crate) fn free_loop(control: &File) -> io::Result<i32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument.
    Ok(unsafe { raw::loop_ctl_get_free(control.as_raw_fd()) }?)
}

/// Lays the loop device over a part of what `backing` has open. It goes with its last user.
pub(crate) fn configure_loop(
    device: &File,
    backing: &File,
    offset: u64,
    length: u64,
    sector: u32,
    read_only: bool,
) -> io::Result<()> {
    const LO_FLAGS_READ_ONLY: u32 = 1;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    let config = LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?,
        block_size: sector,
        device_inode_rdevice: [0; 3],
        offset,
        size_limit: length,
        number_and_encryption: [0; 3],
        flags: LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 },
        names_and_key: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one loop_config, which `config` is laid out as (its size is asserted above).
    unsafe { raw::loop_configure(device.as_raw_fd(), &raw const config) }?;
    Ok(())
}

/// `directory` is any of the mounted file system.
pub(crate) fn ext4_resize(directory: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64.
    unsafe { raw::ext4_ioc_resize_fs(directory.as_raw_fd(), &raw const blocks) }?;
    Ok(())
}

pub(crate) fn xfs_grow_data(directory: &File, blocks: u64, inode_percent: u32) -> io::Result<()> {
    let wanted = XfsGrowData { new_blocks: blocks, inode_percent, padding: 0 };
    // SAFETY: XFS_IOC_FSGROWFSDATA reads one xfs_growfs_data, which `wanted` is laid out as.
    unsafe { raw::xfs_ioc_fsgrowfsdata(directory.as_raw_fd(), &raw const wanted) }?;
    Ok(())
}

/// A file system on one device, up to the end of that.
pub(crate) fn btrfs_resize_to_max(directory: &File) -> io::Result<()> {
    let mut wanted = BtrfsVolArgs { fd: 0, name: [0; 4088] };
    wanted.name[..3].copy_from_slice(b"max");
    // SAFETY: BTRFS_IOC_RESIZE reads one btrfs_ioctl_vol_args, which `wanted` is laid out as; its name ends in 0.
    unsafe { raw::btrfs_ioc_resize(directory.as_raw_fd(), &raw const wanted) }?;
    Ok(())
}
