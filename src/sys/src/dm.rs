//! Device mapper (`linux/dm-ioctl.h`), as far as taking down needs it: what a mapped device is made of, and removing it.
//!
//! Devices are always meant by their number, never by their name: a name is whatever its maker liked.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use crate::roots::Roots;

/// `linux/dm-ioctl.h`: `struct dm_ioctl`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

const _: () = assert!(size_of::<Header>() == 312, "struct dm_ioctl");

const DATA: usize = 8192;

/// What the ioctls take and give: the header and its data, one after the other.
#[repr(C)]
struct Request {
    header: Header,
    data: [u8; DATA],
}

const _: () = assert!(size_of::<Request>() == 312 + DATA && std::mem::offset_of!(Request, data) == 312);

mod raw {
    // linux/dm-ioctl.h. The numbers carry the size of the header alone.
    const MAGIC: u8 = 0xfd;
    nix::ioctl_readwrite_bad!(
        dev_remove,
        nix::request_code_readwrite!(MAGIC, 4, size_of::<super::Header>()),
        super::Request
    );
    nix::ioctl_readwrite_bad!(
        table_status,
        nix::request_code_readwrite!(MAGIC, 12, size_of::<super::Header>()),
        super::Request
    );
    nix::ioctl_readwrite_bad!(
        target_msg,
        nix::request_code_readwrite!(MAGIC, 14, size_of::<super::Header>()),
        super::Request
    );
}

/// `DM_NOFLUSH_FLAG`: asking must not make a pool write.
const NO_FLUSH: u32 = 1 << 11;

/// The descriptor through which device mapper is spoken to.
#[derive(Debug)]
pub(crate) struct Control(File);

impl Control {
    /// # Errors
    /// When the kernel has no device mapper, or has not loaded it: then there are no mapped devices either.
    pub(crate) fn open(roots: &Roots) -> io::Result<Self> {
        let path = roots.dev.join("mapper/control");
        Ok(Self(OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path)?))
    }

    /// The kinds of its targets, each once: `crypt`, `linear`, `multipath`, ...
    ///
    /// Asked for as status and not as table, in which the key of an encrypted device would stand.
    pub(crate) fn targets(&self, device: u64) -> io::Result<Vec<String>> {
        let mut request = request(device, NO_FLUSH, &[]);
        // SAFETY: `request` is a dm_ioctl followed by as much room as its data_size says, and lives through the call.
        unsafe { raw::table_status(self.0.as_raw_fd(), &raw mut *request) }?;
        let start =
            usize::try_from(request.header.data_start).unwrap_or(usize::MAX).saturating_sub(size_of::<Header>());
        let mut kinds = kinds(request.data.get(start..).unwrap_or_default(), request.header.target_count);
        kinds.sort();
        kinds.dedup();
        Ok(kinds)
    }

    /// # Errors
    /// `EBUSY` while anybody has it open, `ENXIO` when it is gone.
    pub(crate) fn remove(&self, device: u64) -> io::Result<()> {
        let mut request = request(device, 0, &[]);
        // SAFETY: `request` is a dm_ioctl followed by as much room as its data_size says, and lives through the call.
        unsafe { raw::dev_remove(self.0.as_raw_fd(), &raw mut *request) }?;
        Ok(())
    }

    /// Lets a multipath device that waits for a path to come back fail what it was asked instead.
    pub(crate) fn fail_without_path(&self, device: u64) -> io::Result<()> {
        // struct dm_target_msg: the sector by which the target is found, then the text.
        let mut message = [0; 8].to_vec();
        message.extend(b"fail_if_no_path\0");
        let mut request = request(device, 0, &message);
        // SAFETY: `request` is a dm_ioctl followed by as much room as its data_size says, and lives through the call.
        unsafe { raw::target_msg(self.0.as_raw_fd(), &raw mut *request) }?;
        Ok(())
    }
}

fn request(device: u64, flags: u32, data: &[u8]) -> Box<Request> {
    const HEADER: u32 = 312;
    const WHOLE: u32 = HEADER + 8192;
    let header = Header {
        version: [4, 0, 0],
        data_size: WHOLE,
        data_start: HEADER,
        target_count: 0,
        open_count: 0,
        flags,
        event_nr: 0,
        padding: 0,
        dev: device,
        name: [0; 128],
        uuid: [0; 129],
        data: [0; 7],
    };
    let mut request = Box::new(Request { header, data: [0; DATA] });
    request.data[..data.len()].copy_from_slice(data);
    request
}

/// From `struct dm_target_spec`s (40 bytes each, its kind in the last 16), of which each says where the next begins.
fn kinds(data: &[u8], count: u32) -> Vec<String> {
    const SPEC: usize = 40;
    let mut kinds = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let Some(spec) = data.get(at..).and_then(|rest| rest.get(..SPEC)) else { break };
        let kind: Vec<u8> = spec[24..].iter().copied().take_while(|byte| *byte != 0).collect();
        kinds.push(String::from_utf8_lossy(&kind).into_owned());
        let next = u32::from_ne_bytes([spec[20], spec[21], spec[22], spec[23]]);
        // Counted from the first; what did not fit into the room is not told.
        match usize::try_from(next) {
            Ok(next) if next > at => at = next,
            _ => break,
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::kinds;

    fn spec(kind: &str, next: u32) -> Vec<u8> {
        let mut spec = vec![0; 20];
        spec.extend(next.to_ne_bytes());
        spec.extend(kind.as_bytes());
        spec.resize(40, 0);
        spec
    }

    #[test]
    fn targets_are_read_and_no_further_than_they_go() {
        let mut data = spec("linear", 48);
        data.resize(48, 0);
        data.extend(spec("thin-pool", 96));
        assert_eq!(kinds(&data, 2), ["linear", "thin-pool"]);
        assert_eq!(kinds(&data, 9), ["linear", "thin-pool"], "the third is not there");
        assert_eq!(kinds(&spec("crypt", 0), 5), ["crypt"], "no way on");
        assert!(kinds(&[], 3).is_empty());
    }
}
