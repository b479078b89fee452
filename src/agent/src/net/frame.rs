//! The few frames that are sent and understood without a socket of their protocol: where there is no address to speak
//! from, or nobody's configuration may be touched. What comes in is whatever is on the wire: nothing is read
//! beyond its end, and what is not understood is nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// All routers on the link, and what Ethernet makes of it (RFC 2464 section 7).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_ROUTERS_MAC: Mac = [0x33, 0x33, 0, 0, 0, 2];
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const LLDP: u16 = 0x88cc;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// What a frame says, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard<'a> {
    /// Somebody says that `address` is at `mac`.
    Arp {
        mac: Mac,
        address: Ipv4Addr,
    },
    /// To a DHCP client; from which hardware address.
    Dhcp {
        from: Mac,
        message: &'a [u8],
    },
    /// ICMPv6, from its type on, and who sent it.
    RouterAdvertisement {
        from: Ipv6Addr,
        message: &'a [u8],
    },
    Lldp(&'a [u8]),
    Other,
}

pub(crate) fn read(frame: &[u8]) -> Heard<'_> {
    understood(frame).unwrap_or(Heard::Other)
}

fn understood(frame: &[u8]) -> Option<Heard<'_>> {
    let (header, body) = frame.split_first_chunk::<14>()?;
    let from: Mac = header[6..12].try_into().ok()?;
    match u16::from_be_bytes([header[12], header[13]]) {
        ARP => arp(body),
        IPV4 => {
            // Version 4, its length in words of four bytes.
            let header_length = usize::from(body.first()? & 0xf) * 4;
            let total = usize::from(u16::from_be_bytes([*body.get(2)?, *body.get(3)?]));
            let fragment = u16::from_be_bytes([*body.get(6)?, *body.get(7)?]) & 0x3fff;
            if body[0] >> 4 != 4 || header_length < 20 || fragment != 0 || *body.get(9)? != UDP {
                return None;
            }
            let udp = body.get(header_length..total)?;
            let to = u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]);
            if to != CLIENT_PORT {
                return None;
            }
            Some(Heard::Dhcp { from, message: udp.get(8..)? })
        }
        IPV6 => {
            let (ip, rest) = body.split_first_chunk::<40>()?;
            let length = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            // A router on this link, not one that forged its way here (RFC 4861 section 6.1.2): nothing lowered 255.
            if ip[6] != ICMPV6 || ip[7] != 255 || *rest.first()? != ROUTER_ADVERTISEMENT {
                return None;
            }
            let from: [u8; 16] = ip[8..24].try_into().ok()?;
            Some(Heard::RouterAdvertisement { from: from.into(), message: rest.get(..length)? })
        }
        LLDP => Some(Heard::Lldp(body)),
        _ => None,
    }
}

fn arp(body: &[u8]) -> Option<Heard<'_>> {
    let body = body.first_chunk::<28>()?;
    // IPv4 over Ethernet; a question tells as much as an answer about who asks.
    let is_plain = body[..6] == [0, 1, 8, 0, 6, 4] && matches!(body[6..8], [0, 1 | 2]);
    let address = Ipv4Addr::new(body[14], body[15], body[16], body[17]);
    // A probe asks without claiming an address.
    let mac = body[8..14].try_into().ok()?;
    (is_plain && !address.is_unspecified()).then_some(Heard::Arp { mac, address })
}

fn ethernet(to: Mac, from: Mac, kind: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(400);
    frame.extend(to);
    frame.extend(from);
    frame.extend(kind.to_be_bytes());
    frame
}

/// Asks who has `target`. With 0.0.0.0 as `own` it is a probe, which enters nobody's table (RFC 5227 section 2.1.1).
pub(crate) fn arp_request(mac: Mac, own: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(own.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// A DHCP message from nobody to everybody.
pub(crate) fn dhcp(mac: Mac, message: &[u8]) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(8 + message.len()).ok()?;
    let total = udp_length.checked_add(20)?;
    let mut ip = vec![0x45, 0x10];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    ip.extend(Ipv4Addr::UNSPECIFIED.octets());
    ip.extend(Ipv4Addr::BROADCAST.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(BROADCAST, mac, IPV4);
    frame.extend(ip);
    frame.extend(CLIENT_PORT.to_be_bytes());
    frame.extend(SERVER_PORT.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    // No checksum: IPv4 permits it, and every DHCP server reads it.
    frame.extend([0, 0]);
    frame.extend(message);
    Some(frame)
}

/// Asks routers to advertise now.
pub(crate) fn router_solicitation(mac: Mac, own: Option<Ipv6Addr>) -> Vec<u8> {
    let own = own.unwrap_or(Ipv6Addr::UNSPECIFIED);
    let mut icmp = vec![ROUTER_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    if !own.is_unspecified() {
        // Source link-layer address, one unit of eight bytes.
        icmp.extend([1, 1]);
        icmp.extend(mac);
    }
    let length = u16::try_from(icmp.len()).unwrap_or(8);
    let pseudo = [0, 0, 0, 0, 0, 0, 0, ICMPV6];
    let mut pseudo_length = pseudo;
    pseudo_length[2..4].copy_from_slice(&length.to_be_bytes());
    let sum = checksum(&[&own.octets(), &ALL_ROUTERS.octets(), &pseudo_length, &icmp]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(ALL_ROUTERS_MAC, mac, IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    frame.extend([ICMPV6, 255]);
    frame.extend(own.octets());
    frame.extend(ALL_ROUTERS.octets());
    frame.extend(icmp);
    frame
}

/// The Internet's (RFC 1071), over parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words.map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded & 0xffff).expect("masked")
}

/// Who is at the other end of the cable, from an LLDP frame (IEEE 802.1AB): system name or chassis, and port.
pub(crate) fn neighbour(mut body: &[u8]) -> Option<(String, String)> {
    let (mut chassis, mut port, mut name, mut port_text) = (None, None, None, None);
    // A length of nine bits behind a type of seven.
    while let [high, low, rest @ ..] = body {
        let length = usize::from(u16::from_be_bytes([high & 1, *low]));
        let (value, rest) = rest.split_at_checked(length)?;
        match high >> 1 {
            0 => break,
            1 => chassis = Some(identifier(value, 4)),
            2 => port = Some(identifier(value, 3)),
            4 => port_text = Some(shown(value)),
            5 => name = Some(shown(value)),
            _ => {}
        }
        body = rest;
    }
    Some((name.or(chassis)?, port_text.filter(|text| !text.is_empty()).or(port)?))
}

/// A subtype, then a hardware address where the subtype is `mac`, else text.
fn identifier(value: &[u8], mac: u8) -> String {
    match value {
        [subtype, address @ ..] if *subtype == mac && address.len() == 6 => mac_text(address),
        [_, text @ ..] => shown(text),
        [] => String::new(),
    }
}

/// For a console: nothing in it moves the cursor.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(64).collect()
}

pub(crate) fn mac_text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_question_is_heard_as_a_claim_and_a_probe_is_not() {
        let address = Ipv4Addr::new(192, 0, 2, 9);
        let frame = arp_request(MAC, address, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(read(&frame), Heard::Arp { mac: MAC, address });
        assert_eq!(read(&arp_request(MAC, Ipv4Addr::UNSPECIFIED, address)), Heard::Other);
    }

    #[test]
    fn checksums_are_the_internets() {
        // A header's sum over itself, the sum included, is zero.
        let frame = dhcp(MAC, &[1; 300]).expect("small");
        assert_eq!(checksum(&[&frame[14..34]]), 0);
        let frame = router_solicitation(MAC, Some("fe80::1".parse().expect("good")));
        let icmp = &frame[54..];
        let pseudo = [0, 0, 0, 16, 0, 0, 0, ICMPV6];
        assert_eq!(checksum(&[&frame[22..54], &pseudo, icmp]), 0);
        assert_eq!(read(&frame), Heard::Other, "a question is no advertisement");
    }

    #[test]
    fn a_switch_is_named_by_its_best_name() {
        let tlv = |kind: u8, value: &[u8]| [&[kind << 1, u8::try_from(value.len()).expect("small")], value].concat();
        let chassis = tlv(1, &[4, 2, 0, 0, 0, 0, 9]);
        let port = tlv(2, b"\x05Eth1/7");
        assert_eq!(
            neighbour(&[chassis.clone(), port.clone()].concat()),
            Some(("02:00:00:00:00:09".into(), "Eth1/7".into()))
        );
        let named = [chassis, port, tlv(4, b"to node7"), tlv(5, b"leaf-\x1b[2J3"), tlv(0, &[])].concat();
        assert_eq!(neighbour(&named), Some(("leaf-[2J3".into(), "to node7".into())));
        assert_eq!(neighbour(&[2, 200, 1]), None);
    }

    proptest! {
        #[test]
        fn any_frame_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in prop_oneof![Just(ARP), Just(IPV4), Just(IPV6), Just(LLDP)]) {
            let _ = read(&bytes);
            let mut frame = ethernet(BROADCAST, MAC, kind);
            frame.extend(&bytes);
            let _ = read(&frame);
            let _ = neighbour(&bytes);
        }
    }
}
