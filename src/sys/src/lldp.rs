//! A socket that hears and says link layer discovery, on every interface that is up. It brings none up.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use speediso_model::lldp::{ETHERTYPE, Heard, INTERVAL_SECONDS, MULTICAST};

use crate::readable;
use crate::roots::Roots;

/// `linux/if_packet.h`: `struct packet_mreq`.
#[repr(C)]
struct PacketMreq {
    interface: libc::c_int,
    kind: u16,
    length: u16,
    address: [u8; 8],
}

const _: () = assert!(size_of::<PacketMreq>() == 16, "struct packet_mreq");

const SOL_PACKET: libc::c_int = 263;
const PACKET_ADD_MEMBERSHIP: libc::c_int = 1;
const PACKET_ORIGDEV: libc::c_int = 9;
const PACKET_MR_MULTICAST: u16 = 0;
const PACKET_OUTGOING: u8 = 4;

/// The addresses that the standard gives its frames: nearest bridge, nearest bridge but relays, nearest customer bridge.
const GROUPS: [[u8; 6]; 3] = [MULTICAST, [0x01, 0x80, 0xc2, 0, 0, 0x03], [0x01, 0x80, 0xc2, 0, 0, 0x00]];

/// An Ethernet interface that is up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    pub index: i32,
    pub name: String,
    pub mac: [u8; 6],
}

/// Those that stand for a cable. Bonds, bridges and VLANs are left out: their members hear for themselves.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn ports(roots: &Roots) -> io::Result<Vec<Port>> {
    const ARPHRD_ETHER: u16 = 1;
    let made = |name: &str| {
        let dir = roots.sys.join("class/net").join(name);
        let kind = std::fs::read_to_string(dir.join("uevent")).unwrap_or_default();
        dir.join("bonding").exists()
            || dir.join("bridge").exists()
            || kind.lines().any(|l| l.strip_prefix("DEVTYPE=").is_some_and(|t| matches!(t, "vlan" | "bond" | "bridge")))
    };
    let mut ports: Vec<Port> = getifaddrs()?
        .filter(|i| i.flags.contains(InterfaceFlags::IFF_UP) && !i.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(|i| {
            let link = *i.address.as_ref()?.as_link_addr()?;
            let index = i32::try_from(link.ifindex()).ok()?;
            (link.hatype() == ARPHRD_ETHER).then_some(Port { index, mac: link.addr()?, name: i.interface_name })
        })
        .filter(|port| !made(&port.name))
        .collect();
    ports.sort_by_key(|port| port.index);
    Ok(ports)
}

#[derive(Debug)]
pub struct LldpSocket {
    socket: OwnedFd,
    /// Interfaces whose cards were told to let the frames through.
    joined: Vec<i32>,
}

impl LldpSocket {
    /// # Errors
    /// Without the right to open such a socket.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let protocol = libc::c_int::from(ETHERTYPE.to_be());
        // SAFETY: socket takes three numbers. nix has no word for this protocol.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let this = Self { socket, joined: Vec::new() };
        // Of a bond's member we want the member.
        this.set(PACKET_ORIGDEV, &1 as &libc::c_int)?;
        Ok(this)
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
        let value = std::ptr::from_ref(value).cast();
        // SAFETY: setsockopt reads `length` bytes at `value`, which is the size of what it points to.
        let done = unsafe { libc::setsockopt(self.socket.as_raw_fd(), SOL_PACKET, option, value, length) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Lets the card pass the frames on that are addressed to the protocol. Once is enough; when the interface goes, so does
    /// this.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn join(&mut self, port: &Port) -> io::Result<()> {
        if self.joined.contains(&port.index) {
            return Ok(());
        }
        for group in GROUPS {
            let mut address = [0; 8];
            address[..6].copy_from_slice(&group);
            let wanted = PacketMreq { interface: port.index, kind: PACKET_MR_MULTICAST, length: 6, address };
            self.set(PACKET_ADD_MEMBERSHIP, &wanted)?;
        }
        self.joined.push(port.index);
        Ok(())
    }

    /// Forgets the interfaces that are not among these: an index is used again.
    pub fn keep_only(&mut self, ports: &[Port]) {
        self.joined.retain(|index| ports.iter().any(|p| p.index == *index));
    }

    /// # Errors
    /// When the interface is down or gone.
    pub fn send(&self, port: &Port, frame: &[u8]) -> io::Result<()> {
        let mut to = address(port.index);
        to.sll_halen = 6;
        to.sll_addr[..6].copy_from_slice(&MULTICAST);
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
        // SAFETY: sendto reads `frame.len()` bytes of `frame` and `length` bytes of `to`, which is that large.
        let sent = unsafe {
            libc::sendto(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next frame and the index of the interface it came by; `None` when nothing came in time.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive(&self, patience: Duration, frame: &mut [u8]) -> io::Result<Option<(i32, usize)>> {
        let end = Instant::now() + patience;
        loop {
            if let Some(heard) = self.take(frame)? {
                return Ok(Some(heard));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            readable::wait(self.socket.as_fd(), left)?;
        }
    }

    fn take(&self, frame: &mut [u8]) -> io::Result<Option<(i32, usize)>> {
        loop {
            let mut from = address(0);
            let mut length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
            // SAFETY: recvfrom writes at most `frame.len()` bytes to `frame` and at most `length` bytes to `from`, which is
            // that large.
            let got = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            let Ok(got) = usize::try_from(got) else {
                match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    e if e.kind() == io::ErrorKind::Interrupted => continue,
                    // Told once to every socket when an interface goes down.
                    e if e.raw_os_error() == Some(libc::ENETDOWN) => continue,
                    e => return Err(e),
                }
            };
            // What we said ourselves comes by too.
            if from.sll_pkttype != PACKET_OUTGOING {
                return Ok(Some((from.sll_ifindex, got)));
            }
        }
    }
}

fn address(index: i32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or(0),
        sll_protocol: ETHERTYPE.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

/// What the agent that listens in the background keeps for everybody else on this machine.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// Since when it has listened, in seconds of uptime.
    pub since: u64,
    pub heard: Vec<Heard>,
}

const FILE: &str = "lldp.json";

impl Memory {
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, roots: &Roots) -> io::Result<()> {
        std::fs::create_dir_all(&roots.run)?;
        // Whole or not at all: others read it at any time.
        let part = roots.run.join(format!("{FILE}.part"));
        std::fs::write(&part, serde_json::to_vec(self)?)?;
        std::fs::rename(part, roots.run.join(FILE))
    }

    /// `None` where nobody listens.
    #[must_use]
    pub fn read(roots: &Roots) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(roots.run.join(FILE)).ok()?).ok()
    }

    /// Whether everybody who speaks has had the time to.
    #[must_use]
    pub fn is_settled(&self, roots: &Roots) -> bool {
        uptime(roots).is_some_and(|now| now > self.since + INTERVAL_SECONDS)
    }

    /// The switch that the interface is plugged into; the only one there is, where the interface is a
    /// bond. `None` if that cannot be said.
    #[must_use]
    pub fn switch(&self, interface: Option<&str>) -> Option<String> {
        let names = |heard: &[&Heard]| -> Vec<String> {
            let mut names: Vec<String> =
                heard.iter().filter(|h| h.neighbour.forwards()).map(|h| h.neighbour.switch()).collect();
            names.sort();
            names.dedup();
            names
        };
        let all: Vec<&Heard> = self.heard.iter().collect();
        let here: Vec<&Heard> = all.iter().copied().filter(|h| Some(h.interface.as_str()) == interface).collect();
        let found = if here.is_empty() { names(&all) } else { names(&here) };
        <[String; 1]>::try_from(found).ok().map(|[one]| one)
    }
}

/// Whole seconds since the kernel began.
#[must_use]
pub fn uptime(roots: &Roots) -> Option<u64> {
    let text = std::fs::read_to_string(roots.proc.join("uptime")).ok()?;
    text.split(['.', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use speediso_model::lldp::{Capabilities, Capability, Identifier, Neighbour};

    use super::*;

    fn heard(interface: &str, chassis: &str, capability: Capability) -> Heard {
        let neighbour = Neighbour {
            chassis: Identifier { value: chassis.into(), ..Identifier::default() },
            capabilities: Some(Capabilities { supported: vec![], enabled: vec![capability] }),
            ..Neighbour::default()
        };
        Heard { interface: interface.into(), neighbour, raw: vec![(1, "07".into())] }
    }

    #[test]
    fn what_was_heard_is_kept_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        assert_eq!(Memory::read(&roots), None);
        let memory = Memory { since: 10, heard: vec![heard("eth0", "leaf-1", Capability::Bridge)] };
        memory.keep(&roots).unwrap();
        assert_eq!(Memory::read(&roots), Some(memory.clone()));
        std::fs::create_dir_all(&roots.proc).unwrap();
        for (uptime, settled) in [("40.99 1.0\n", false), ("41.01 1.0\n", true)] {
            std::fs::write(roots.proc.join("uptime"), uptime).unwrap();
            assert_eq!(memory.is_settled(&roots), settled, "{uptime}");
        }
        std::fs::write(roots.run.join(FILE), b"{ half").unwrap();
        assert_eq!(Memory::read(&roots), None);
    }

    #[test]
    fn the_switch_is_named_only_if_there_is_one() {
        let leaf = |interface, name| heard(interface, name, Capability::Bridge);
        let memory = Memory { since: 0, heard: vec![leaf("eth0", "a"), leaf("eth1", "b")] };
        assert_eq!(memory.switch(Some("eth1")).as_deref(), Some("b"));
        assert_eq!(memory.switch(Some("bond0")), None, "of two switches nobody knows which");
        let memory = Memory { since: 0, heard: vec![leaf("eth0", "a"), leaf("eth1", "a")] };
        assert_eq!(memory.switch(Some("bond0")).as_deref(), Some("a"));
        let memory = Memory { since: 0, heard: vec![heard("eth0", "machine", Capability::Station)] };
        assert_eq!(memory.switch(Some("eth0")), None, "another machine is no switch");
    }
}
