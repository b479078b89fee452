//! Firmware, system, boards, chassis, and what is on and in them.

use super::{Structure, words};
use crate::inventory::{Board, Chassis, Firmware, OnboardDevice, PowerSupply, Slot, SystemVendor};
use crate::units::{Bytes, GIB, KIB, MIB};

pub(super) fn firmware(structure: &Structure<'_>) -> Firmware {
    let release = |major: usize| match (structure.byte(major), structure.byte(major + 1)) {
        // 0xff: there is none.
        (Some(0xff) | None, _) | (_, Some(0xff) | None) => None,
        // A firmware that counts from 0.0 has not been seen; boards that leave the field alone have.
        (Some(0), Some(0)) => None,
        (Some(major), Some(minor)) => Some(format!("{major}.{minor}")),
    };
    let extension: Option<[u8; 2]> = structure.bytes(0x12);
    let characteristics = structure.qword(0x0a).map(|bits| match extension {
        Some([one, two]) => format!("0x{two:02x}{one:02x}{bits:016x}"),
        None => format!("0x{bits:016x}"),
    });
    // The segment at which it begins; UEFI firmware has none.
    let segment = structure.nonzero(0x06);
    Firmware {
        vendor: structure.text(0x04),
        version: structure.text(0x05),
        build_date: structure.text(0x08),
        release: release(0x14),
        controller_release: release(0x16),
        rom_size: rom_size(structure),
        address: segment.map(|segment| format!("0x{:x}", u32::from(segment) << 4)),
        runtime_size: segment.map(|segment| Bytes((0x1_0000 - u64::from(segment)) << 4)),
        characteristics,
        uefi: extension.map(|[_, two]| two & 0x08 != 0),
        virtual_machine: extension.map(|[_, two]| two & 0x10 != 0),
    }
}

/// In units of 64 KiB less one; 0xff refers to a field of its own, with the unit in its top bits.
fn rom_size(structure: &Structure<'_>) -> Option<Bytes> {
    match (structure.byte(0x09)?, structure.word(0x18)) {
        (0xff, Some(extended)) => match extended >> 14 {
            0 => Some(Bytes(u64::from(extended & 0x3fff) * MIB)),
            1 => Some(Bytes(u64::from(extended & 0x3fff) * GIB)),
            _ => None,
        },
        (size, _) => Some(Bytes((u64::from(size) + 1) * 64 * KIB)),
    }
}

pub(super) fn system(structure: &Structure<'_>, version: (u8, u8), system: &mut SystemVendor) {
    system.manufacturer = structure.text(0x04);
    system.product_name = structure.text(0x05);
    system.version = structure.text(0x06);
    system.serial_number = structure.text(0x07);
    system.uuid = structure.bytes::<16>(0x08).and_then(|raw| uuid(raw, version));
    system.sku_number = structure.text(0x19);
    system.family = structure.text(0x1a);
}

/// As `dmidecode` prints it: since SMBIOS 2.6 the first three fields are little-endian. All ones and all zeros mean
/// that there is none.
fn uuid(raw: [u8; 16], version: (u8, u8)) -> Option<String> {
    if raw.iter().all(|b| *b == 0xff) || raw.iter().all(|b| *b == 0) {
        return None;
    }
    let mut bytes = raw;
    if version >= (2, 6) {
        bytes[0..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
    }
    let hex = |part: &[u8]| crate::plan::hex(part);
    Some(format!(
        "{}-{}-{}-{}-{}",
        hex(&bytes[0..4]),
        hex(&bytes[4..6]),
        hex(&bytes[6..8]),
        hex(&bytes[8..10]),
        hex(&bytes[10..16])
    ))
}

pub(super) fn board(structure: &Structure<'_>) -> Board {
    Board {
        manufacturer: structure.text(0x04),
        product_name: structure.text(0x05),
        version: structure.text(0x06),
        serial_number: structure.text(0x07),
        asset_tag: structure.text(0x08),
        location: structure.text(0x0a),
        kind: structure.byte(0x0d).and_then(|code| words::word(&words::BOARD, code)),
    }
}

pub(super) fn chassis(structure: &Structure<'_>) -> Chassis {
    let state = |offset| structure.byte(offset).and_then(|code| words::word(&words::STATE, code));
    // The number of its name follows a list whose length and width the structure tells.
    let elements = structure.byte(0x13).zip(structure.byte(0x14)).map(|(n, each)| usize::from(n) * usize::from(each));
    Chassis {
        manufacturer: structure.text(0x04),
        // The top bit tells of a lock.
        kind: structure.byte(0x05).and_then(|code| words::word(&words::CHASSIS, code & 0x7f)),
        version: structure.text(0x06),
        serial_number: structure.text(0x07),
        asset_tag: structure.text(0x08),
        sku_number: elements.map(|length| structure.text(0x15 + length)).unwrap_or_default(),
        height_units: structure.byte(0x11).filter(|units| *units != 0),
        power_cords: structure.byte(0x12).filter(|cords| *cords != 0),
        power_state: state(0x0a),
        thermal_state: state(0x0b),
    }
}

pub(super) fn slot(structure: &Structure<'_>) -> Slot {
    let code = structure.byte(0x05).unwrap_or(0);
    let (family, own_lanes) = slot_kind(code);
    // The width counts from 5 (32 bit) over 6 (64 bit) to the lanes.
    let lanes = match structure.byte(0x06) {
        Some(0x08) => Some(1),
        Some(0x09) => Some(2),
        Some(0x0a) => Some(4),
        Some(0x0b) => Some(8),
        Some(0x0c) => Some(12),
        Some(0x0d) => Some(16),
        Some(0x0e) => Some(32),
        _ => None,
    };
    Slot {
        designation: structure.text(0x04),
        kind: match own_lanes {
            Some(lanes) => format!("{family} x{lanes}"),
            None => family,
        },
        lanes,
        in_use: match structure.byte(0x07) {
            Some(3) => Some(false),
            Some(4) => Some(true),
            _ => None,
        },
        pci_address: structure.pci_address(0x0d),
    }
}

/// What the number means, with the lanes that it implies.
fn slot_kind(code: u8) -> (String, Option<u8>) {
    const LANES: [Option<u8>; 6] = [None, Some(1), Some(2), Some(4), Some(8), Some(16)];
    let generation = |first: u8, name: &str| (name.to_owned(), LANES[usize::from(code - first)]);
    match code {
        0x06 => ("PCI".into(), None),
        0x12 => ("PCI-X".into(), None),
        0x14 => ("M.2 Socket 1-DP".into(), None),
        0x15 => ("M.2 Socket 1-SD".into(), None),
        0x16 => ("M.2 Socket 2".into(), None),
        0x17 => ("M.2 Socket 3".into(), None),
        0x1f => ("PCI Express 2 SFF-8639 (U.2)".into(), None),
        0x20 => ("PCI Express 3 SFF-8639 (U.2)".into(), None),
        0x24 => ("PCI Express 4 SFF-8639 (U.2)".into(), None),
        0x25 => ("PCI Express 5 SFF-8639 (U.2)".into(), None),
        0x26 => ("OCP NIC 3.0 Small Form Factor (SFF)".into(), None),
        0x27 => ("OCP NIC 3.0 Large Form Factor (LFF)".into(), None),
        0x28 => ("OCP NIC Prior to 3.0".into(), None),
        0xa5..=0xaa => generation(0xa5, "PCI Express"),
        0xab..=0xb0 => generation(0xab, "PCI Express 2"),
        0xb1..=0xb6 => generation(0xb1, "PCI Express 3"),
        0xb8..=0xbd => generation(0xb8, "PCI Express 4"),
        0xbe..=0xc3 => generation(0xbe, "PCI Express 5"),
        0xc4 => ("PCI Express 6+".into(), None),
        0xc5 => ("EDSFF E1".into(), None),
        0xc6 => ("EDSFF E3".into(), None),
        other => (format!("type 0x{other:02x}"), None),
    }
}

/// Type 10 lists devices in pairs of kind and name, until its end.
pub(super) fn onboard(structure: &Structure<'_>) -> Vec<OnboardDevice> {
    let pairs = structure.formatted.get(4..).unwrap_or_default().chunks_exact(2);
    pairs
        .map(|pair| OnboardDevice {
            designation: structure.string(pair[1]),
            kind: words::word(&words::ONBOARD, pair[0] & 0x7f),
            enabled: pair[0] & 0x80 != 0,
            instance: None,
            pci_address: None,
        })
        .collect()
}

pub(super) fn onboard_extended(structure: &Structure<'_>) -> OnboardDevice {
    let kind = structure.byte(0x05).unwrap_or(0);
    OnboardDevice {
        designation: structure.text(0x04),
        kind: words::word(&words::ONBOARD, kind & 0x7f),
        enabled: kind & 0x80 != 0,
        instance: structure.byte(0x06),
        pci_address: structure.pci_address(0x07),
    }
}

pub(super) fn power_supply(structure: &Structure<'_>) -> PowerSupply {
    let bits = structure.word(0x0e);
    PowerSupply {
        location: structure.text(0x05),
        name: structure.text(0x06),
        manufacturer: structure.text(0x07),
        serial_number: structure.text(0x08),
        asset_tag: structure.text(0x09),
        part_number: structure.text(0x0a),
        revision: structure.text(0x0b),
        max_watts: structure.nonzero(0x0c).filter(|watts| *watts != 0x8000),
        present: bits.map(|bits| bits & 0x02 != 0),
        plugged_in: bits.map(|bits| bits & 0x04 == 0),
        hot_replaceable: bits.map(|bits| bits & 0x01 != 0),
        status: bits.and_then(|bits| words::word(&words::POWER_SUPPLY, u8::try_from(bits >> 7 & 0x07).unwrap_or(0))),
    }
}
