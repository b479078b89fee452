//! Processors in their sockets.

use super::{Structure, words};
use crate::inventory::Socket;

pub(super) fn socket(structure: &Structure<'_>) -> Socket {
    let status = structure.byte(0x18).unwrap_or(0);
    let populated = status & 0x40 != 0;
    // An empty socket's other fields are what the one before it left there.
    let when = |there: bool, text: String| if there { text } else { String::new() };
    let id: [u8; 8] = structure.bytes(0x08).filter(|_| populated).unwrap_or_default();
    Socket {
        designation: structure.text(0x04),
        populated,
        status: words::word(&words::PROCESSOR_STATUS, status & 0x07).filter(|_| populated),
        manufacturer: when(populated, structure.text(0x07)),
        version: when(populated, structure.text(0x10)),
        family: family(structure).filter(|_| populated),
        upgrade: structure.byte(0x19),
        kind: structure.byte(0x05),
        id: when(populated && id != [0; 8], id.map(|byte| format!("{byte:02X}")).join(" ")),
        max_mhz: structure.nonzero(0x14).filter(|_| populated),
        current_mhz: structure.nonzero(0x16).filter(|_| populated),
        external_clock_mhz: structure.nonzero(0x12).filter(|_| populated),
        millivolts: structure.byte(0x11).filter(|_| populated).and_then(millivolts),
        core_count: count(structure, 0x23, 0x2a),
        cores_enabled: count(structure, 0x24, 0x2c),
        thread_count: count(structure, 0x25, 0x2e),
        characteristics: structure.nonzero(0x26),
        serial_number: structure.text(0x20),
        asset_tag: structure.text(0x21),
        part_number: structure.text(0x22),
    }
}

/// 0xfe says that the number needs sixteen bits.
fn family(structure: &Structure<'_>) -> Option<u16> {
    match structure.byte(0x06)? {
        0xfe => structure.word(0x28),
        family => Some(u16::from(family)),
    }
}

/// 0xff likewise; 0 is unknown.
fn count(structure: &Structure<'_>, offset: usize, extended: usize) -> Option<u16> {
    match structure.byte(offset)? {
        0 => None,
        0xff => structure.nonzero(extended).or(Some(0xff)),
        count => Some(u16::from(count)),
    }
}

/// Tenths of a volt if the top bit is set, else one of three that processors had once; several are none in particular.
fn millivolts(raw: u8) -> Option<u16> {
    match raw {
        raw if raw & 0x80 != 0 => Some(u16::from(raw & 0x7f) * 100).filter(|value| *value > 0),
        0x01 => Some(5000),
        0x02 => Some(3300),
        0x04 => Some(2900),
        _ => None,
    }
}
