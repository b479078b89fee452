//! What we say of ourselves, so that the switch's own list of neighbours names the machine.

use super::{Capability, ETHERTYPE, INTERVAL_SECONDS};
use crate::inventory::is_real_identifier;

/// The nearest bridge: no switch passes it on.
pub const MULTICAST: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];

/// Ethernet's shortest frame, without its check sum.
const SHORTEST: usize = 60;
/// Of any text.
const LONGEST: usize = 255;

#[derive(Clone, Copy, Debug)]
pub struct Announcement<'a> {
    /// The machine's; placeholders are not sent.
    pub serial: &'a str,
    pub host: &'a str,
    /// What runs here.
    pub build: &'a str,
    pub interface: &'a str,
}

impl Announcement<'_> {
    /// A whole Ethernet frame.
    #[must_use]
    pub fn frame(&self, mac: [u8; 6]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(SHORTEST);
        frame.extend(MULTICAST);
        frame.extend(mac);
        frame.extend(ETHERTYPE.to_be_bytes());
        // Subtype 7, of our own choice, or 4, a MAC address.
        match self.serial.trim() {
            serial if is_real_identifier(serial) => tlv(&mut frame, 1, &[b"\x07", cut(serial)].concat()),
            _ => tlv(&mut frame, 1, &[b"\x04", &mac[..]].concat()),
        }
        tlv(&mut frame, 2, &[b"\x03", &mac[..]].concat());
        // Four intervals and a second (802.1AB-2016, 9.2.5.22): three frames in a row may be lost.
        let ttl = u16::try_from(4 * INTERVAL_SECONDS + 1).unwrap_or(u16::MAX);
        tlv(&mut frame, 3, &ttl.to_be_bytes());
        for (kind, text) in [(4, self.interface), (5, self.host), (6, self.build)] {
            if !text.is_empty() {
                tlv(&mut frame, kind, cut(text));
            }
        }
        let station = Capability::BITS.iter().position(|c| *c == Capability::Station).map_or(0, |bit| 1u16 << bit);
        tlv(&mut frame, 7, &[station.to_be_bytes(), station.to_be_bytes()].concat());
        tlv(&mut frame, 0, &[]);
        frame.resize(frame.len().max(SHORTEST), 0);
        frame
    }
}

/// At a character's boundary, and short enough for an identifier behind its subtype too.
fn cut(text: &str) -> &[u8] {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

fn tlv(frame: &mut Vec<u8>, kind: u8, value: &[u8]) {
    // Seven bits of type, nine of length; every value here has at most 256 bytes.
    let header = u16::from(kind) << 9 | u16::try_from(value.len()).unwrap_or(0) & 0x1ff;
    frame.extend(header.to_be_bytes());
    frame.extend(value);
}
