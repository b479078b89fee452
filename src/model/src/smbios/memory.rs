//! Memory arrays and the devices in their slots.

use super::{Structure, words};
use crate::inventory::{EmptySlot, MemoryArray, MemoryModule};
use crate::units::{Bytes, KIB, MIB};

pub(super) enum Device {
    Module(Box<MemoryModule>),
    Empty(EmptySlot),
    /// Something is there, of unknown size. The slot's name.
    Unknown(String),
}

pub(super) fn device(structure: &Structure<'_>) -> Device {
    let slot = structure.text(0x10);
    let size_mb = match structure.word(0x0c) {
        // No size, or none in KiB.
        None | Some(0 | 0x8000) => return Device::Empty(EmptySlot { slot, bank: structure.text(0x11) }),
        Some(0xffff) => return Device::Unknown(slot),
        // Larger ones have a field of their own.
        Some(0x7fff) => u64::from(structure.dword(0x1c).unwrap_or(0x7fff) & 0x7fff_ffff),
        // The top bit says KiB.
        Some(size) if size & 0x8000 != 0 => u64::from(size & 0x7fff) / 1024,
        Some(size) => u64::from(size),
    };
    let width = |offset| structure.nonzero(offset).filter(|bits| *bits != 0xffff);
    let (total_width, data_width) = (width(0x08), width(0x0a));
    // Since 3.3 a speed that needs more than sixteen bits stands at the end.
    let speed = |offset, extended| match structure.nonzero(offset) {
        Some(0xffff) => structure.dword(extended).filter(|speed| *speed != 0),
        speed => speed.map(u32::from),
    };
    let mebibytes = |offset| match structure.qword(offset) {
        None | Some(0 | u64::MAX) => None,
        Some(bytes) => Some(bytes / MIB),
    };
    Device::Module(Box::new(MemoryModule {
        slot,
        bank: structure.text(0x11),
        size_mb,
        speed_mts: speed(0x15, 0x54),
        configured_speed_mts: speed(0x20, 0x58),
        part_number: structure.text(0x1a),
        serial_number: structure.text(0x18),
        asset_tag: structure.text(0x19),
        manufacturer: structure.text(0x17),
        kind: structure.byte(0x12).and_then(|code| words::word(&words::MEMORY, code)),
        details: words::bits(&words::MEMORY_DETAIL, structure.word(0x13).unwrap_or(0)),
        form_factor: structure.byte(0x0e).and_then(|code| words::word(&words::FORM_FACTOR, code)),
        technology: structure.byte(0x28).and_then(|code| words::word(&words::MEMORY_TECHNOLOGY, code)),
        ranks: structure.byte(0x1b).map(|attributes| attributes & 0x0f).filter(|ranks| *ranks != 0),
        total_width,
        data_width,
        ecc: total_width.zip(data_width).map(|(total, data)| total > data),
        min_millivolts: structure.nonzero(0x22),
        max_millivolts: structure.nonzero(0x24),
        configured_millivolts: structure.nonzero(0x26),
        firmware_version: structure.text(0x2b),
        non_volatile_mb: mebibytes(0x34),
        volatile_mb: mebibytes(0x3c),
        set: structure.byte(0x0f).filter(|set| !matches!(*set, 0 | 0xff)),
        handle: structure.handle(0x02),
        array: structure.handle(0x04),
    }))
}

pub(super) fn array(structure: &Structure<'_>) -> MemoryArray {
    let capacity = match structure.dword(0x07) {
        None | Some(0) => None,
        // 2 TiB and more have a field of their own, in bytes.
        Some(0x8000_0000) => structure.qword(0x0f),
        Some(kib) => Some(u64::from(kib) * KIB),
    };
    MemoryArray {
        handle: structure.handle(0x02),
        location: structure.byte(0x04).and_then(|code| words::word(&words::ARRAY_LOCATION, code)),
        purpose: structure.byte(0x05).and_then(|code| words::word(&words::ARRAY_PURPOSE, code)),
        error_correction: structure.byte(0x06).and_then(|code| words::word(&words::ERROR_CORRECTION, code)),
        max_capacity: capacity.filter(|bytes| *bytes > 0).map(Bytes),
        slots: structure.nonzero(0x0d),
    }
}
