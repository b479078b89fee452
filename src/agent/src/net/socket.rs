//! A UDP socket on the DHCP client's port of one interface.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};
use tokio::net::UdpSocket;

use super::link::Nic;

const CLIENT_PORT: u16 = 68;
pub(super) const SERVER_PORT: u16 = 67;
pub(super) const EVERYBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT);

/// Opens it. Bound to the interface, so that it hears and sends there only, and works before there is an address.
pub(super) fn open(nic: &Nic) -> io::Result<UdpSocket> {
    admit_broadcasts(Path::new("/proc"), &nic.name);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, SockProtocol::Udp)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Broadcast, &true)?;
    setsockopt(&fd, sockopt::BindToDevice, &OsString::from(&nic.name))?;
    let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT));
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address)?;
    UdpSocket::from_std(std::net::UdpSocket::from(fd))
}

/// An interface without an address drops every packet if the kernel checks where packets come from; the check is off
/// by default and some distributions turn it on.
fn admit_broadcasts(proc: &Path, nic: &str) {
    for whose in ["all", nic] {
        let path = proc.join("sys/net/ipv4/conf").join(whose).join("rp_filter");
        let is_so = std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == "0");
        if !is_so && let Err(error) = std::fs::write(&path, "0") {
            tracing::debug!(path = %path.display(), %error, "ignoring a network setting that could not be made");
        }
    }
}
