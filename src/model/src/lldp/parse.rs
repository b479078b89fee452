//! From bytes to a neighbour.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Aggregation, Autonegotiation, Capabilities, Capability, Identifier, IdentifierKind, Neighbour, Vlan};

/// Why a frame names no neighbour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadFrame {
    #[error("it is not one of this protocol")]
    OtherProtocol,
    #[error("it ends within its TLV number {0}")]
    Truncated(usize),
    #[error("its TLV number {at} is of type {found}; chassis, port and time to live come first, in this order")]
    Order { at: usize, found: u8 },
    #[error("its {0} has an impossible length")]
    Length(&'static str),
    #[error("it names {0} twice")]
    Twice(&'static str),
    #[error("it has more than 255 TLVs")]
    TooMany,
}

/// Types of TLVs (802.1AB-2016, table 8-1).
const END: u8 = 0;
const CHASSIS: u8 = 1;
const PORT: u8 = 2;
const TTL: u8 = 3;
const PORT_DESCRIPTION: u8 = 4;
const SYSTEM_NAME: u8 = 5;
const SYSTEM_DESCRIPTION: u8 = 6;
const CAPABILITIES: u8 = 7;
const MANAGEMENT_ADDRESS: u8 = 8;
const ORGANISATION: u8 = 127;

const IEEE_802_1: [u8; 3] = [0x00, 0x80, 0xc2];
const IEEE_802_3: [u8; 3] = [0x00, 0x12, 0x0f];

const MOST_TLVS: usize = 255;
/// Of each kind that may be repeated.
const MOST_REPEATED: usize = 64;

/// A whole Ethernet frame, from its destination on. The second part of the answer is the TLVs as they came, type and
/// value in hex, the way ironic-python-agent hands them on.
///
/// # Errors
/// When it names no neighbour.
pub fn parse(frame: &[u8]) -> Result<(Neighbour, Vec<(u8, String)>), BadFrame> {
    let body = match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x88, 0xcc, body @ ..] => body,
        _ => return Err(BadFrame::OtherProtocol),
    };
    let mut neighbour = Neighbour::default();
    let mut raw = Vec::new();
    let mut rest = body;
    for at in 0..MOST_TLVS {
        let [high, low, after @ ..] = rest else {
            // Without an end TLV, but with everything that matters: some send that.
            return if at >= 3 && rest.is_empty() { Ok((neighbour, raw)) } else { Err(BadFrame::Truncated(at)) };
        };
        let (kind, length) = (high >> 1, usize::from(high & 1) << 8 | usize::from(*low));
        let (value, next) = after.split_at_checked(length).ok_or(BadFrame::Truncated(at))?;
        match (at, kind) {
            (0, CHASSIS) => neighbour.chassis = chassis(value)?,
            (1, PORT) => neighbour.port = port(value)?,
            (2, TTL) => match value {
                [high, low, ..] => neighbour.ttl_seconds = u16::from_be_bytes([*high, *low]),
                _ => return Err(BadFrame::Length("time to live")),
            },
            (0..=2, found) => return Err(BadFrame::Order { at, found }),
            (_, END) => return Ok((neighbour, raw)),
            (_, CHASSIS) => return Err(BadFrame::Twice("its chassis")),
            (_, PORT) => return Err(BadFrame::Twice("its port")),
            (_, TTL) => return Err(BadFrame::Twice("a time to live")),
            _ => {
                if optional(&mut neighbour, kind, value).is_none() {
                    neighbour.discarded += 1;
                }
            }
        }
        raw.push((kind, crate::plan::hex(value)));
        rest = next;
    }
    Err(BadFrame::TooMany)
}

/// Subtypes of table 8-2.
fn chassis(value: &[u8]) -> Result<Identifier, BadFrame> {
    use IdentifierKind as K;
    let kinds = [K::ChassisComponent, K::InterfaceAlias, K::PortComponent, K::Mac, K::NetworkAddress, K::InterfaceName];
    identifier(value, &kinds).ok_or(BadFrame::Length("chassis"))
}

/// Subtypes of table 8-3.
fn port(value: &[u8]) -> Result<Identifier, BadFrame> {
    use IdentifierKind as K;
    let kinds = [K::InterfaceAlias, K::PortComponent, K::Mac, K::NetworkAddress, K::InterfaceName, K::AgentCircuit];
    identifier(value, &kinds).ok_or(BadFrame::Length("port"))
}

/// `kinds` are those of the subtypes from 1 on. A name has 1 to 255 bytes.
fn identifier(value: &[u8], kinds: &[IdentifierKind]) -> Option<Identifier> {
    let (subtype, name) = value.split_first()?;
    if name.is_empty() || name.len() > 255 {
        return None;
    }
    let kind = subtype.checked_sub(1).and_then(|i| kinds.get(usize::from(i))).copied().unwrap_or_default();
    let value = match (kind, name) {
        (IdentifierKind::Mac, [_, _, _, _, _, _]) => mac(name),
        (IdentifierKind::Mac, _) => return None,
        (IdentifierKind::NetworkAddress, [family, address @ ..]) => network_address(*family, address)?,
        _ => text(name),
    };
    Some(Identifier { kind, value })
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// By the families of IANA: 1 is IPv4, 2 IPv6.
fn network_address(family: u8, address: &[u8]) -> Option<String> {
    match (family, address) {
        (1, _) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).to_string()),
        (2, _) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).to_string()),
        (6, [_, _, _, _, _, _]) => Some(mac(address)),
        _ => (!address.is_empty()).then(|| crate::plan::hex(address)),
    }
}

/// What is not plain text is told in hex: it comes from the wire and is shown on consoles.
fn text(bytes: &[u8]) -> String {
    let trimmed = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    match std::str::from_utf8(trimmed) {
        Ok(text) if !text.chars().any(char::is_control) => text.trim().to_owned(),
        _ => crate::plan::hex(bytes),
    }
}

/// Descriptions may have several lines; they become one.
fn description(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>();
    (bytes.len() <= 255).then(|| line.join(" "))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// `None` for one that is malformed, or repeated where it must not be.
fn optional(neighbour: &mut Neighbour, kind: u8, value: &[u8]) -> Option<()> {
    fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
        if slot.is_some() {
            return None;
        }
        *slot = Some(value);
        Some(())
    }
    match kind {
        PORT_DESCRIPTION => once(&mut neighbour.port_description, description(value)?),
        SYSTEM_NAME => once(&mut neighbour.system_name, description(value)?),
        SYSTEM_DESCRIPTION => once(&mut neighbour.system_description, description(value)?),
        CAPABILITIES => {
            let (supported, enabled) = (be16(value, 0)?, be16(value, 2)?);
            let of = Capability::of;
            once(&mut neighbour.capabilities, Capabilities { supported: of(supported), enabled: of(enabled) })
        }
        MANAGEMENT_ADDRESS => {
            // Length of subtype and address, then those, then an interface number and an object identifier.
            let (length, rest) = value.split_first()?;
            let address = rest.get(..usize::from(*length)).filter(|_| (2..=32).contains(length))?;
            let address = network_address(address[0], &address[1..])?;
            if neighbour.management_addresses.len() < MOST_REPEATED
                && !neighbour.management_addresses.contains(&address)
            {
                neighbour.management_addresses.push(address);
            }
            Some(())
        }
        ORGANISATION => {
            let (organisation, rest) = value.split_at_checked(3)?;
            let (subtype, value) = rest.split_first()?;
            match (<[u8; 3]>::try_from(organisation).ok()?, *subtype) {
                (IEEE_802_1, 1) => once(&mut neighbour.port_vlan, be16(value, 0).filter(|id| *id <= 4095)?),
                (IEEE_802_1, 3) => {
                    let id = be16(value, 0).filter(|id| (1..=4094).contains(id))?;
                    let length = usize::from(*value.get(2)?);
                    let name = text(value.get(3..3 + length).filter(|_| length <= 32)?);
                    if neighbour.vlans.len() < MOST_REPEATED {
                        neighbour.vlans.push(Vlan { id, name });
                    }
                    Some(())
                }
                // The older place of link aggregation, and the newer one.
                (IEEE_802_3, 3) | (IEEE_802_1, 7) => {
                    let status = *value.first()?;
                    let port = value.get(1..5).and_then(|b| <[u8; 4]>::try_from(b).ok())?;
                    let port = u32::from_be_bytes(port);
                    let found = Aggregation { capable: status & 1 != 0, active: status & 2 != 0, port };
                    // Some switches send both.
                    neighbour.aggregation.get_or_insert(found);
                    Some(())
                }
                (IEEE_802_3, 1) => {
                    let status = *value.first()?;
                    let mau_type = be16(value, 3)?;
                    let found = Autonegotiation { supported: status & 1 != 0, enabled: status & 2 != 0, mau_type };
                    once(&mut neighbour.autonegotiation, found)
                }
                (IEEE_802_3, 4) => once(&mut neighbour.max_frame, be16(value, 0)?),
                // Others' are nobody's mistake.
                _ => Some(()),
            }
        }
        // Types 9 to 126 are reserved.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lldp::{Announcement, processed, switch_of};
    use proptest::prelude::*;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let header = u16::from(kind) << 9 | u16::try_from(value.len()).expect("short");
        [&header.to_be_bytes()[..], value].concat()
    }

    fn frame(tlvs: &[Vec<u8>]) -> Vec<u8> {
        let mut frame = vec![1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xcc];
        tlvs.iter().for_each(|t| frame.extend(t));
        frame
    }

    /// What a switch in a rack says, with the parts that matter to us.
    fn leaf() -> Vec<Vec<u8>> {
        vec![
            tlv(1, &[4, 0x00, 0x1c, 0x73, 0xaa, 0xbb, 0xcc]),
            tlv(2, b"\x05Ethernet7/1"),
            tlv(3, &[0, 120]),
            tlv(4, b"to rack 12, unit 7"),
            tlv(5, b"leaf-12.example"),
            tlv(6, b"A switch\r\nversion 4.31\0"),
            tlv(7, &[0, 0x14, 0, 0x14]),
            tlv(8, &[5, 1, 192, 0, 2, 12, 2, 0, 0, 0, 1, 0]),
            tlv(127, &[0, 0x80, 0xc2, 1, 0, 100]),
            tlv(127, b"\x00\x80\xc2\x03\x00\x64\x04prov"),
            tlv(127, &[0, 0x12, 0x0f, 1, 3, 0, 0, 0, 0x1e]),
            tlv(127, &[0, 0x12, 0x0f, 3, 3, 0, 0, 0, 9]),
            tlv(127, &[0, 0x12, 0x0f, 4, 0x24, 0x00]),
            tlv(0, &[]),
        ]
    }

    #[test]
    fn a_switch_is_understood() {
        let (found, raw) = parse(&frame(&leaf())).expect("a neighbour");
        assert_eq!((found.chassis.kind, found.chassis.value.as_str()), (IdentifierKind::Mac, "00:1c:73:aa:bb:cc"));
        assert_eq!((found.port.kind, found.port.value.as_str()), (IdentifierKind::InterfaceName, "Ethernet7/1"));
        assert_eq!(found.system_description.as_deref(), Some("A switch version 4.31"));
        assert_eq!(found.management_addresses, ["192.0.2.12"]);
        assert_eq!((found.port_vlan, found.max_frame), (Some(100), Some(9216)));
        assert_eq!(found.vlans, [Vlan { id: 100, name: "prov".into() }]);
        assert_eq!(found.aggregation, Some(Aggregation { capable: true, active: true, port: 9 }));
        assert!(found.forwards() && found.discarded == 0);
        assert_eq!(found.in_words(), "leaf-12.example port Ethernet7/1 vlan 100");
        // All but the end.
        assert_eq!(raw.len(), leaf().len() - 1);
        assert_eq!(raw[2], (3, "0078".to_owned()));
        let ironic = processed(&found);
        assert_eq!(ironic["switch_port_untagged_vlan_id"], 100);
        assert_eq!(ironic["switch_capabilities_enabled"], serde_json::json!(["Bridge", "Router"]));
        assert_eq!(ironic["switch_port_mtu"], 9216);
    }

    #[test]
    fn what_names_nobody_is_refused() {
        let with = |n: usize, tlv: Vec<u8>| {
            let mut tlvs = leaf();
            tlvs[n] = tlv;
            parse(&frame(&tlvs)).expect_err("no neighbour")
        };
        assert_eq!(with(0, tlv(2, b"\x05x")), BadFrame::Order { at: 0, found: 2 });
        assert_eq!(with(0, tlv(1, &[4, 1, 2, 3])), BadFrame::Length("chassis"));
        assert_eq!(with(1, tlv(2, &[5])), BadFrame::Length("port"));
        assert_eq!(with(2, tlv(3, &[1])), BadFrame::Length("time to live"));
        assert_eq!(with(4, tlv(3, &[0, 1])), BadFrame::Twice("a time to live"));
        assert_eq!(with(13, vec![0xff, 0xff]), BadFrame::Truncated(13));
        assert_eq!(parse(&frame(&leaf()[..2])), Err(BadFrame::Truncated(2)));
        assert_eq!(parse(&[0; 13]), Err(BadFrame::OtherProtocol));
        assert_eq!(parse(&[0; 60]), Err(BadFrame::OtherProtocol));
        let many: Vec<_> = leaf()[..3].iter().cloned().chain((0..300).map(|_| tlv(127, &[1, 2, 3, 4]))).collect();
        assert_eq!(parse(&frame(&many)), Err(BadFrame::TooMany));
    }

    #[test]
    fn a_malformed_option_costs_itself_only() {
        for bad in [
            tlv(7, &[1]),
            tlv(8, &[200, 1, 1]),
            tlv(8, &[5, 1, 1]),
            tlv(9, &[]),
            tlv(127, &[0, 0x80]),
            tlv(127, &[0, 0x80, 0xc2, 1, 0xff, 0xff]),
            tlv(127, b"\x00\x80\xc2\x03\x00\x64\x30prov"),
            tlv(5, b"a second name"),
        ] {
            let mut tlvs = leaf();
            tlvs.insert(5, bad.clone());
            let (found, _) = parse(&frame(&tlvs)).expect("still a neighbour");
            assert_eq!((found.discarded, found.system_name.as_deref()), (1, Some("leaf-12.example")), "{bad:x?}");
        }
        // An escape sequence for somebody's terminal.
        let mut tlvs = leaf();
        tlvs[1] = tlv(2, b"\x05\x1b[2Jport");
        let (found, _) = parse(&frame(&tlvs)).expect("a neighbour");
        assert_eq!(found.port.value, "1b5b324a706f7274");
    }

    #[test]
    fn our_own_frame_names_a_station() {
        let said = Announcement { serial: "CZ3029XKLM", host: "rescue", build: "Speediso build 7", interface: "eno1" };
        let ours = said.frame([2, 0, 0, 0, 0, 7]);
        assert!(ours.len() >= 60, "Ethernet's least length");
        let (found, _) = parse(&ours).expect("a neighbour");
        assert_eq!((found.chassis.value.as_str(), found.port.value.as_str()), ("CZ3029XKLM", "02:00:00:00:00:07"));
        assert_eq!((found.system_name.as_deref(), found.ttl_seconds), (Some("rescue"), 121));
        assert!(!found.forwards());
        let (leaf, _) = parse(&frame(&leaf())).expect("a neighbour");
        assert_eq!(switch_of(&[found.clone(), leaf.clone()]), Some(&leaf), "the other machine is not the switch");
        assert_eq!(
            switch_of(&[leaf.clone(), Neighbour { port: found.port.clone(), ..leaf }]),
            None,
            "which of the two?"
        );
        // Without a serial number worth the name, by the MAC; and whatever is too long is cut.
        let host = "h".repeat(600);
        let ours = Announcement { serial: "Default string", host: &host, build: "", interface: "" }.frame([2; 6]);
        let (found, _) = parse(&ours).expect("a neighbour");
        assert_eq!((found.chassis.kind, found.system_name.map(|n| n.len())), (IdentifierKind::Mac, Some(255)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..1600), lead in any::<bool>()) {
            if lead && bytes.len() > 14 {
                let (start, n) = (frame(&leaf()[..3]), bytes.len());
                bytes[..start.len().min(n)].copy_from_slice(&start[..start.len().min(n)]);
            }
            if let Ok((found, raw)) = parse(&bytes) {
                prop_assert!(raw.len() < 256 && !found.in_words().chars().any(char::is_control));
                prop_assert!(found.switch().len() <= 200);
                prop_assert!(processed(&found).is_object());
                let text = serde_json::to_string(&found).expect("written");
                prop_assert_eq!(serde_json::from_str::<Neighbour>(&text).expect("read back"), found);
            }
        }
    }
}
