//! Echo requests (ping), of any size and never in pieces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rand::Rng as _;
use speediso_sys::ether;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// Headers of IPv4 and ICMP, and of IPv6 and ICMPv6.
const OVERHEAD_V4: u32 = 28;
const OVERHEAD_V6: u32 = 48;
const ICMP: usize = 8;
const NONCE: usize = 8;
/// Of a datagram.
const LARGEST: u32 = 65_535;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Echo {
    Answered(Duration),
    /// A router on the way, or our own interface, said that it is too large.
    TooLarge,
    Silence,
}

/// The smallest packet that makes sense.
pub(super) fn smallest(to: IpAddr) -> u32 {
    overhead(to) + 56
}

fn overhead(to: IpAddr) -> u32 {
    if to.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 }
}

/// Sends one packet of `size` bytes, IP header and all. `scope` is the interface of a link-local address.
pub(super) async fn echo(to: IpAddr, scope: u32, size: u32, limit: Duration) -> io::Result<Echo> {
    let until = Instant::now() + limit;
    let (socket, is_raw) = open(to.is_ipv4())?;
    ether::send_whole(&socket, to.is_ipv6())?;
    let peer = match to {
        IpAddr::V4(four) => SocketAddr::new(four.into(), 0),
        IpAddr::V6(six) => SocketAddrV6::new(six, 0, 0, if six.is_unicast_link_local() { scope } else { 0 }).into(),
    };
    socket.connect(peer).await?;
    let nonce: [u8; NONCE] = rand::rng().random();
    let request = request(to.is_ipv4(), nonce, size.min(LARGEST).saturating_sub(overhead(to)));
    let sent = Instant::now();
    match socket.send(&request).await {
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => return Ok(Echo::TooLarge),
        other => other?,
    };
    // The headers are enough, and the rest is cut off.
    let mut packet = [0; 128];
    loop {
        let length = match timeout_at(until, socket.recv(&mut packet)).await {
            Err(_) => return Ok(Echo::Silence),
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EMSGSIZE) => return Ok(Echo::TooLarge),
            Ok(received) => received?,
        };
        if is_answer(&packet[..length], to.is_ipv4(), is_raw, nonce) {
            return Ok(Echo::Answered(sent.elapsed()));
        }
    }
}

/// What any user may have first, where the system permits it; else what needs the right to raw sockets.
fn open(is_v4: bool) -> io::Result<(UdpSocket, bool)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (family, protocol) =
        if is_v4 { (AddressFamily::Inet, SockProtocol::Icmp) } else { (AddressFamily::Inet6, SockProtocol::IcmpV6) };
    let (fd, is_raw) = match socket(family, SockType::Datagram, flags, protocol) {
        Ok(fd) => (fd, false),
        Err(_) => (socket(family, SockType::Raw, flags, protocol)?, true),
    };
    // It is no UDP, but connect, send and receive are the same calls.
    Ok((UdpSocket::from_std(std::net::UdpSocket::from(fd))?, is_raw))
}

fn request(is_v4: bool, nonce: [u8; NONCE], payload: u32) -> Vec<u8> {
    let mut message = vec![if is_v4 { 8 } else { 128 }, 0, 0, 0];
    message.extend(&nonce[..2]);
    message.extend([0, 1]);
    message.extend(nonce);
    let payload = usize::try_from(payload).unwrap_or(0).max(NONCE);
    message.resize(ICMP + payload, 0x5a);
    if is_v4 {
        // Of ICMPv6 the kernel makes it, whose sum covers addresses that are not known here.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|w| u64::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded above")
}

fn is_answer(packet: &[u8], is_v4: bool, is_raw: bool, nonce: [u8; NONCE]) -> bool {
    // A raw IPv4 socket gives the IP header too.
    let header = if is_v4 && is_raw { packet.first().map_or(0, |b| usize::from(b & 0xf) * 4) } else { 0 };
    let Some(message) = packet.get(header..) else { return false };
    let kind = if is_v4 { 0 } else { 129 };
    message.first() == Some(&kind) && message.get(ICMP..ICMP + NONCE) == Some(&nonce[..])
}

/// How large a packet gets through, found by sending some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PathMtu {
    /// Not even small ones are answered.
    NoAnswer,
    /// As much as the interface carries.
    Whole(u32),
    /// Less, and whoever is in between says so: connections adapt.
    Told(u32),
    /// Less, and larger packets vanish without a word.
    BlackHole(u32),
}

/// Sizes of well-known ways of losing some: tunnels, PPPoE, jumbo on one side only.
const SIZES: [u32; 14] = [9000, 8000, 4000, 2000, 1500, 1492, 1480, 1460, 1450, 1420, 1400, 1350, 1280, 576];
const TRY: Duration = Duration::from_millis(700);

pub(super) async fn path_mtu(to: IpAddr, scope: u32, interface: u32) -> io::Result<PathMtu> {
    let Echo::Answered(took) = twice(to, scope, smallest(to)).await? else { return Ok(PathMtu::NoAnswer) };
    // On a long way an answer takes its time: what is not there yet is not lost.
    let patience = (took * 2).clamp(TRY / 3, TRY);
    let is_told = match twice(to, scope, interface).await? {
        Echo::Answered(_) => return Ok(PathMtu::Whole(interface)),
        Echo::TooLarge => true,
        Echo::Silence => false,
    };
    let sizes = SIZES.into_iter().filter(|size| *size < interface && *size > smallest(to));
    let fits = |size| async move { Ok::<_, io::Error>(matches!(twice(to, scope, size).await?, Echo::Answered(_))) };
    let mut answers = Vec::new();
    if is_told {
        // What a router says of one packet reaches every raw socket that speaks with this address: one at a time.
        for size in sizes {
            answers.push((size, fits(size).await?));
            if answers.last().is_some_and(|(_, fits)| *fits) {
                break;
            }
        }
    } else {
        let tries = sizes.map(|size| async move { Ok::<_, io::Error>((size, fits(size).await?)) });
        answers = futures_util::future::try_join_all(tries).await?;
    }
    let mut most = answers.iter().filter(|(_, is)| *is).map(|(size, _)| *size).max().unwrap_or(smallest(to));
    let mut too_much =
        answers.iter().filter(|(size, is)| !is && *size > most).map(|(s, _)| *s).min().unwrap_or(interface);
    // To the byte: what an operator enters as MTU somewhere.
    while too_much - most > 1 {
        let middle = most + (too_much - most) / 2;
        match echo(to, scope, middle, patience).await? {
            Echo::Answered(_) => most = middle,
            Echo::TooLarge | Echo::Silence => too_much = middle,
        }
    }
    Ok(if is_told { PathMtu::Told(most) } else { PathMtu::BlackHole(most) })
}

/// One lost packet is no finding.
async fn twice(to: IpAddr, scope: u32, size: u32) -> io::Result<Echo> {
    match echo(to, scope, size, TRY).await? {
        Echo::Silence => echo(to, scope, size, TRY).await,
        answer => Ok(answer),
    }
}

/// The address that would be used towards another, which tells the interface too.
pub(super) async fn source(to: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // Sends nothing: the kernel only looks for the way.
    socket.connect(to).await?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_size_that_was_asked_for() {
        let nonce = [7; NONCE];
        let message = request(true, nonce, 1500 - OVERHEAD_V4);
        assert_eq!(message.len() + 20, 1500);
        assert_eq!(checksum(&message), 0, "the sum over itself");
        let mut answer = message.clone();
        answer[0] = 0;
        assert!(is_answer(&answer, true, false, nonce));
        let with_header = [&[0x45; 20][..], &answer].concat();
        assert!(is_answer(&with_header, true, true, nonce));
        assert!(!is_answer(&answer, true, false, [8; NONCE]), "another's");
        assert!(!is_answer(&message, true, false, nonce), "our own question");
        assert!(!is_answer(&[0x4f], true, true, nonce), "cut short");
    }
}
