//! Ethernet frames of one interface, as they are on the wire (packet(7)): for looking, and for asking where there is no
//! address to ask from. Nothing that is configured changes: what the socket switches on ends with it.

use std::ffi::c_int;
use std::io::{self, IoSliceMut};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, recvmsg, send, socket,
};

/// Every protocol, `<linux/if_ether.h>`.
const ETH_P_ALL: u16 = 3;
/// `<linux/if_packet.h>`
const PACKET_OUTGOING: u8 = 4;
const PACKET_MR_PROMISC: u16 = 1;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
/// `struct tpacket_auxdata`: four bytes each of status, length and captured length, then mac, net, tci, tpid.
const AUXDATA: usize = 20;
/// `<linux/in.h>` and, of the same value for IPv6, `<linux/in6.h>`.
const IP_PMTUDISC_PROBE: c_int = 3;
const AUXDATA_TCI: usize = 16;

const _: () = assert!(size_of::<libc::tpacket_auxdata>() == AUXDATA);
const _: () = assert!(size_of::<libc::sockaddr_ll>() == 20);
const _: () = assert!(size_of::<libc::packet_mreq>() == 16);

/// What came along with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    pub length: usize,
    /// Of an 802.1Q tag, which the kernel has taken out of the bytes.
    pub vlan: Option<u16>,
    /// This machine sent it.
    pub is_own: bool,
}

/// A socket on one interface. Does not block.
#[derive(Debug)]
pub struct Ether(OwnedFd);

impl Ether {
    /// Hears everything, also what is for others, until it is dropped.
    ///
    /// # Errors
    /// Without the right to (`CAP_NET_RAW`), or for an interface that is no more.
    pub fn open(index: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol it is deaf until it is bound to the one interface.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let index = c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        let on: c_int = 1;
        set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &on)?;
        let everything =
            libc::packet_mreq { mr_ifindex: index, mr_type: PACKET_MR_PROMISC, mr_alen: 0, mr_address: [0; 8] };
        set(&fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &everything)?;
        bind(&fd, index)?;
        Ok(Self(fd))
    }

    /// One frame, cut to the buffer.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Seen> {
        let mut control = nix::cmsg_space!([u8; AUXDATA]);
        let mut parts = [IoSliceMut::new(buffer)];
        let got = recvmsg::<LinkAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
        let vlan = got.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Unknown(unknown)
                if unknown.cmsg_header.cmsg_level == libc::SOL_PACKET
                    && unknown.cmsg_header.cmsg_type == libc::PACKET_AUXDATA =>
            {
                vlan(&unknown.data_bytes)
            }
            _ => None,
        });
        let is_own = got.address.is_some_and(|from| from.pkttype() == PACKET_OUTGOING);
        Ok(Seen { length: got.bytes, vlan, is_own })
    }

    /// Sends a whole frame, its header included.
    ///
    /// # Errors
    /// When the interface is down, or its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
}

impl AsFd for Ether {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Ether {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn vlan(auxdata: &[u8]) -> Option<u16> {
    let status = u32::from_ne_bytes(auxdata.get(..4)?.try_into().ok()?);
    let tci = u16::from_ne_bytes(auxdata.get(AUXDATA_TCI..AUXDATA_TCI + 2)?.try_into().ok()?);
    // The upper four bits are priority and drop eligibility; number 0 carries only a priority.
    (status & TP_STATUS_VLAN_VALID != 0).then_some(tci & 0xfff).filter(|id| *id != 0)
}

/// Lets datagrams out that are larger than the path is thought to be, whole: for finding out how large they may be.
///
/// # Errors
/// What the kernel says.
pub fn send_whole(socket: &impl AsFd, is_v6: bool) -> io::Result<()> {
    let value = IP_PMTUDISC_PROBE;
    if is_v6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &value)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &value)
    }
}

fn bind(fd: &OwnedFd, index: c_int) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("17"),
        sll_protocol: ETH_P_ALL.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("20");
    // SAFETY: bind reads `length` bytes of a sockaddr_ll, which lives until the call returns, and keeps nothing of it.
    // nix makes link addresses only from the kernel's own answers.
    let answer = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `T` is the plain kernel type of the option.
fn set<T>(fd: &impl AsFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: setsockopt reads `length` bytes, the size of the value that the reference keeps alive, and keeps nothing.
    // nix has none of these options.
    let answer =
        unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_from_what_the_kernel_tells_beside_the_frame() {
        let told = |status: u32, tci: u16| {
            let mut bytes = [0; AUXDATA];
            bytes[..4].copy_from_slice(&status.to_ne_bytes());
            bytes[16..18].copy_from_slice(&tci.to_ne_bytes());
            vlan(&bytes)
        };
        assert_eq!(told(TP_STATUS_VLAN_VALID, 0x6064), Some(100), "priority 3, number 100");
        assert_eq!(told(TP_STATUS_VLAN_VALID, 0x6000), None, "a priority alone is no VLAN");
        assert_eq!(told(0, 100), None);
        assert_eq!(vlan(&[0; 7]), None);
    }
}
