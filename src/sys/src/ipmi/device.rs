//! The kernel's way to the BMC: `/dev/ipmi0`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use super::{Ipmi, IpmiError, Request};
use crate::readable;
use crate::roots::Roots;

mod raw {
    // linux/ipmi.h
    nix::ioctl_read!(send_command, b'i', 13, super::Req);
    nix::ioctl_readwrite!(receive_truncated, b'i', 11, super::Recv);
}

/// `struct ipmi_system_interface_addr`.
#[repr(C)]
struct Address {
    kind: libc::c_int,
    channel: libc::c_short,
    lun: u8,
}

const _: () = assert!(size_of::<Address>() == 8, "struct ipmi_system_interface_addr");

/// `struct ipmi_msg`.
#[repr(C)]
struct Message {
    function: u8,
    command: u8,
    length: u16,
    data: *mut u8,
}

/// `struct ipmi_req`.
#[repr(C)]
pub(super) struct Req {
    address: *mut Address,
    address_length: libc::c_uint,
    id: libc::c_long,
    message: Message,
}

const _: () = assert!(size_of::<Req>() == 40, "struct ipmi_req on a machine of 64 bits");

/// `struct ipmi_recv`.
#[repr(C)]
pub(super) struct Recv {
    kind: libc::c_int,
    address: *mut u8,
    address_length: libc::c_uint,
    id: libc::c_long,
    message: Message,
}

const _: () = assert!(size_of::<Recv>() == 48, "struct ipmi_recv on a machine of 64 bits");

const SYSTEM_INTERFACE: libc::c_int = 0x0c;
const BMC_CHANNEL: libc::c_short = 0x0f;
const RESPONSE: libc::c_int = 1;
/// The kernel's own patience is 5 s for each of some tries.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST: usize = 272;

#[derive(Debug)]
pub struct IpmiDevice {
    file: File,
    next: AtomicI64,
}

impl IpmiDevice {
    /// `None` for a machine without one, or whose kernel has no driver for it.
    ///
    /// # Errors
    /// When it cannot be opened, for want of rights for instance.
    pub fn open(roots: &Roots) -> Result<Option<Self>, IpmiError> {
        for name in ["ipmi0", "ipmi/0", "ipmidev/0"] {
            let path = roots.dev.join(name);
            match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => return Ok(Some(Self { file, next: AtomicI64::new(1) })),
                Err(e)
                    if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENXIO | libc::ENODEV)) => {}
                Err(e) => return Err(IpmiError::Open(path.display().to_string(), e)),
            }
        }
        Ok(None)
    }

    fn send(&self, request: Request, id: i64) -> io::Result<()> {
        let (function, command, lun) = request.command();
        let mut data = request.data();
        let mut address = Address { kind: SYSTEM_INTERFACE, channel: BMC_CHANNEL, lun };
        let mut req = Req {
            address: &raw mut address,
            address_length: 8,
            id,
            message: Message {
                function,
                command,
                length: u16::try_from(data.len()).map_err(io::Error::other)?,
                data: data.as_mut_ptr(),
            },
        };
        // SAFETY: IPMICTL_SEND_COMMAND reads one ipmi_req, which `req` is laid out as (its size is asserted), the
        // `address_length` bytes of the address that it points to, and the `length` bytes of data; all outlive the call.
        unsafe { raw::send_command(self.file.as_raw_fd(), &raw mut req) }?;
        Ok(())
    }

    /// The answer with its completion code, and the number of its request; `None` when there is none yet.
    fn receive(&self) -> io::Result<Option<(i64, Vec<u8>)>> {
        let mut data = vec![0; LONGEST];
        // Room for any kind of address.
        let mut address = [0u64; 8];
        let mut recv = Recv {
            kind: 0,
            address: address.as_mut_ptr().cast(),
            address_length: 64,
            id: 0,
            message: Message {
                function: 0,
                command: 0,
                length: u16::try_from(LONGEST).map_err(io::Error::other)?,
                data: data.as_mut_ptr(),
            },
        };
        // SAFETY: IPMICTL_RECEIVE_MSG_TRUNC reads and writes one ipmi_recv, which `recv` is laid out as (its size is
        // asserted), and writes at most `address_length` bytes of address and `length` of data, for which there is room.
        match unsafe { raw::receive_truncated(self.file.as_raw_fd(), &raw mut recv) } {
            // EMSGSIZE: cut to what there was room for.
            Ok(_) | Err(nix::errno::Errno::EMSGSIZE) => {}
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        data.truncate(usize::from(recv.message.length).min(LONGEST));
        // Events and commands from elsewhere are not for us.
        Ok(Some(if recv.kind == RESPONSE { (recv.id, data) } else { (0, Vec::new()) }))
    }
}

impl Ipmi for IpmiDevice {
    fn ask(&self, request: Request) -> Result<Vec<u8>, IpmiError> {
        let failed = |e| IpmiError::Ask(request, e);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(request, id).map_err(failed)?;
        let end = Instant::now() + PATIENCE;
        loop {
            while let Some((answered, mut data)) = self.receive().map_err(failed)? {
                // An answer that was given up before.
                if answered != id {
                    continue;
                }
                if data.is_empty() {
                    return Err(IpmiError::Short(request));
                }
                let rest = data.split_off(1);
                return if data[0] == 0 { Ok(rest) } else { Err(IpmiError::Declined { request, code: data[0] }) };
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(IpmiError::Silent(request));
            }
            readable::wait(self.file.as_fd(), left).map_err(failed)?;
        }
    }
}
