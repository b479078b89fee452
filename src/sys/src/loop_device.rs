//! Loop devices: a part of an open file as a block device. The kernel takes each away with its last user.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::ioctl;

/// Where the kernel gives out loop devices.
const CONTROL: &str = "/dev/loop-control";
/// Another may take the free one first.
const TRIES: u32 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    ReadOnly,
    Write,
}

/// A device over `length` bytes of `backing` from `start` on, and its path.
///
/// # Errors
/// When the kernel has no loop devices (module `loop`), or declines.
pub fn attach(backing: &File, start: u64, length: u64, sector: u32, access: Access) -> io::Result<(File, PathBuf)> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    let mut last = io::Error::other("no free loop device");
    for _ in 0..TRIES {
        let path = PathBuf::from(format!("/dev/loop{}", ioctl::free_loop(&control)?));
        let read_only = access == Access::ReadOnly;
        let device = OpenOptions::new().read(true).write(!read_only).custom_flags(libc::O_CLOEXEC).open(&path)?;
        match ioctl::configure_loop(&device, backing, start, length, sector, read_only) {
            Ok(()) => return Ok((device, path)),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => last = e,
            Err(e) => return Err(e),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_part_of_a_file_is_a_device_that_cannot_be_written() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root: loop devices are not tried");
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..8192u32).map(|n| (n / 512).to_le_bytes()[0]).collect();
        std::fs::write(&path, &content).expect("written");
        let file = File::open(&path).expect("opened");
        let (mut device, device_path) = attach(&file, 512, 4096, 512, Access::ReadOnly).expect("attached");
        let mut all = Vec::new();
        device.read_to_end(&mut all).expect("read");
        assert_eq!((all.len(), all[0], all[4095]), (4096, 1, 8));
        // Some kernels refuse when it is opened, some when it is written.
        let write = |mut device: File| device.write_all(&[0xff; 512]).and_then(|()| device.sync_all());
        assert!(OpenOptions::new().write(true).open(device_path).and_then(write).is_err());
        assert!(std::fs::read(&path).expect("read") == content, "the file behind it changed");
    }
}
