use proptest::prelude::*;

use super::*;
use crate::units::Bytes;

const SM3_3_2: [u8; 24] = *b"_SM3_\0\x18\x03\x02\0\x01\0\0\x10\0\0\0\0\0\0\0\0\0\0";

/// Builds a table as firmware lays it out.
#[derive(Default)]
struct Table(Vec<u8>);

impl Table {
    fn with(mut self, kind: u8, length: u8, fields: &[(usize, &[u8])], strings: &[&str]) -> Self {
        let start = self.0.len();
        self.0.extend([kind, length, 0, 0]);
        self.0.resize(start + usize::from(length), 0);
        for (offset, bytes) in fields {
            self.0[start + offset..start + offset + bytes.len()].copy_from_slice(bytes);
        }
        for text in strings {
            self.0.extend(text.as_bytes());
            self.0.push(0);
        }
        self.0.extend(if strings.is_empty() { &[0, 0][..] } else { &[0][..] });
        self
    }

    fn end(self) -> Vec<u8> {
        self.with(kind::END, 4, &[], &[]).0
    }
}

const UUID: [u8; 16] = [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

fn system(serial: &str) -> Table {
    Table::default()
        .with(kind::BIOS, 0x18, &[(4, &[1]), (5, &[2]), (8, &[3])], &["Firm & Co", "1.2.3", "02/29/2024"])
        .with(kind::SYSTEM, 0x1b, &[(4, &[1]), (5, &[2]), (7, &[3]), (8, &UUID)], &["Maker", "Server 9000 ", serial])
        .with(kind::BASEBOARD, 0x0f, &[(7, &[1])], &["BOARD1"])
        .with(kind::CHASSIS, 0x15, &[(7, &[1]), (8, &[2])], &["CHASSIS1", "Rack 7"])
}

#[test]
fn a_server_is_described() {
    let table = system("SN-4711")
        .with(
            kind::MEMORY_DEVICE,
            0x5c,
            &[
                (0x04, &[0x00, 0x10]),
                (0x08, &[72, 0]),
                (0x0a, &[64, 0]),
                (0x0c, &[0xff, 0x7f]),
                (0x0e, &[9]),
                (0x10, &[1]),
                (0x11, &[5]),
                (0x12, &[0x1a]),
                (0x13, &[0x80, 0x20]),
                (0x15, &[0x80, 0x0c]),
                (0x17, &[2]),
                (0x18, &[3]),
                (0x1a, &[4]),
                (0x1b, &[2]),
                (0x1c, &65536u32.to_le_bytes()),
                (0x20, &2933u16.to_le_bytes()),
                (0x26, &1200u16.to_le_bytes()),
            ],
            &["DIMM_A1", "Chipmaker", "0BADCAFE", "M393A8G40 ", "P0 Channel A"],
        )
        .with(kind::MEMORY_DEVICE, 0x22, &[(0x10, &[1]), (0x11, &[2])], &["DIMM_A2", "P0 Channel B"])
        .with(kind::MEMORY_DEVICE, 0x22, &[(0x0c, &[0x00, 0x40]), (0x10, &[1])], &["DIMM_A3"])
        .with(kind::MEMORY_DEVICE, 0x15, &[(0x0c, &[0x00, 0x84])], &[])
        .with(kind::MEMORY_DEVICE, 0x15, &[(0x0c, &[0xff, 0xff]), (0x10, &[1])], &["DIMM_A4"])
        .with(
            kind::MEMORY_ARRAY,
            0x17,
            &[(4, &[3, 3, 6]), (7, &[0, 0, 0, 0x80]), (0x0d, &[4, 0]), (0x0f, &[0, 0, 0, 0, 0, 4])],
            &[],
        )
        .end();
    let smbios = parse(&SM3_3_2, &table);
    assert_eq!(smbios.problems, ["the firmware does not know how large the memory in DIMM_A4 is"]);
    let s = &smbios.system;
    assert_eq!(
        (s.manufacturer.as_str(), s.product_name.as_str(), s.serial_number.as_str()),
        ("Maker", "Server 9000", "SN-4711")
    );
    assert_eq!(s.uuid.as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
    assert_eq!(
        (s.board_serial.as_str(), s.chassis_serial.as_str(), s.asset_tag.as_str()),
        ("BOARD1", "CHASSIS1", "Rack 7")
    );
    let f = &s.firmware;
    assert_eq!((f.vendor.as_str(), f.version.as_str(), f.build_date.as_str()), ("Firm & Co", "1.2.3", "02/29/2024"));
    // 0x8400 is 1024 KiB.
    assert_eq!(
        smbios.modules.iter().map(|m| (m.slot.as_str(), m.size_mb)).collect::<Vec<_>>(),
        [("DIMM_A1", 65536), ("DIMM_A3", 16384), ("", 1)]
    );
    assert_eq!(smbios.empty_slots, [EmptySlot { slot: "DIMM_A2".into(), bank: "P0 Channel B".into() }]);
    let module = &smbios.modules[0];
    assert_eq!((module.speed_mts, module.configured_speed_mts), (Some(3200), Some(2933)));
    assert_eq!((module.part_number.as_str(), module.bank.as_str()), ("M393A8G40", "P0 Channel A"));
    assert_eq!((module.kind.as_deref(), module.form_factor.as_deref()), (Some("DDR4"), Some("DIMM")));
    assert_eq!(module.details, ["Synchronous", "Registered (Buffered)"]);
    assert_eq!((module.ecc, module.ranks, module.configured_millivolts), (Some(true), Some(2), Some(1200)));
    assert_eq!((smbios.modules[1].ecc, smbios.modules[1].configured_speed_mts), (None, None));
    let array = &smbios.arrays[0];
    assert_eq!(array.error_correction.as_deref(), Some("Multi-bit ECC"));
    assert_eq!((array.max_capacity, array.slots), (Some(Bytes(4 << 40)), Some(4)));
}

#[test]
fn sockets_empty_ones_too() {
    let table = system("x")
        .with(
            kind::PROCESSOR,
            0x32,
            &[
                (0x04, &[1]),
                (0x05, &[3, 0xfe]),
                (0x08, &[0x11, 0x0f, 0xa1, 0, 0xff, 0xfb, 0x8b, 0x17]),
                (0x10, &[2, 0x8c]),
                (0x14, &3800u16.to_le_bytes()),
                (0x18, &[0x41]),
                (0x23, &[0xff, 0xff, 0xff]),
                (0x28, &[0x01, 0x01]),
                (0x2a, &[0x80, 0x01, 0x80, 0x01, 0x00, 0x03]),
            ],
            &["CPU1", "Example 9965"],
        )
        .with(kind::PROCESSOR, 0x32, &[(0x04, &[1]), (0x10, &[2]), (0x14, &[1, 1])], &["CPU2", "left over"])
        .end();
    let sockets = parse(&SM3_3_2, &table).sockets;
    let [full, empty] = sockets.as_slice() else { panic!("{sockets:?}") };
    assert_eq!((full.designation.as_str(), full.populated, full.status.as_deref()), ("CPU1", true, Some("Enabled")));
    assert_eq!((full.core_count, full.cores_enabled, full.thread_count), (Some(384), Some(384), Some(768)));
    assert_eq!((full.family, full.millivolts, full.max_mhz), (Some(0x101), Some(1200), Some(3800)));
    assert_eq!(full.id, "11 0F A1 00 FF FB 8B 17");
    assert_eq!((empty.populated, empty.version.as_str(), empty.max_mhz), (false, "", None));
}

#[test]
fn cards_slots_and_power() {
    let table = system("x")
        .with(kind::SLOT, 0x11, &[(4, &[1, 0xb6, 0x0d, 4]), (0x0d, &[0, 0, 0x3b, 0x08])], &["PCIe Slot 1"])
        .with(kind::SLOT, 0x11, &[(4, &[1, 0xa9, 0x0b, 3]), (0x0d, &[0, 0, 0xff, 0xff])], &["PCIe Slot 2"])
        .with(kind::SLOT, 0x0d, &[(4, &[1, 0x77])], &["strange"])
        .with(kind::ONBOARD, 8, &[(4, &[0x85, 1, 0x03, 2])], &["old LAN", "old VGA"])
        .with(
            kind::POWER_SUPPLY,
            0x16,
            &[(5, &[1, 2, 3, 4, 0, 5, 0]), (0x0c, &1400u16.to_le_bytes()), (0x0e, &[0x83, 0x01])],
            &["PSU 1", "PWR", "Maker", "PS123", "D1400"],
        )
        .with(kind::POWER_SUPPLY, 0x16, &[(0x0c, &0x8000u16.to_le_bytes()), (0x0e, &[0x04, 0])], &[])
        .end();
    let smbios = parse(&SM3_3_2, &table);
    let slots: Vec<_> =
        smbios.slots.iter().map(|s| (s.kind.as_str(), s.lanes, s.in_use, s.pci_address.as_deref())).collect();
    assert_eq!(
        slots,
        [
            ("PCI Express 3 x16", Some(16), Some(true), Some("0000:3b:01.0")),
            ("PCI Express x8", Some(8), Some(false), None),
            ("type 0x77", None, None, None),
        ]
    );
    let onboard: Vec<_> =
        smbios.onboard_devices.iter().map(|d| (d.designation.as_str(), d.kind.as_deref(), d.enabled)).collect();
    assert_eq!(onboard, [("old LAN", Some("Ethernet"), true), ("old VGA", Some("Video"), false)]);
    let [first, second] = smbios.power_supplies.as_slice() else { panic!("{:?}", smbios.power_supplies) };
    assert_eq!(
        (first.serial_number.as_str(), first.max_watts, first.status.as_deref()),
        ("PS123", Some(1400), Some("OK"))
    );
    assert_eq!((first.present, first.plugged_in, first.hot_replaceable), (Some(true), Some(true), Some(true)));
    assert_eq!((second.max_watts, second.present, second.plugged_in), (None, Some(false), Some(false)));
}

#[test]
fn the_newer_list_of_onboard_devices_wins() {
    let table = system("x")
        .with(kind::ONBOARD, 6, &[(4, &[0x85, 1])], &["LAN"])
        .with(kind::ONBOARD_EXTENDED, 11, &[(4, &[1, 0x85, 1]), (7, &[0, 0, 0x03, 0x09])], &["NIC 1"])
        .end();
    let devices = parse(&SM3_3_2, &table).onboard_devices;
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].pci_address.as_deref(), Some("0000:03:01.1"));
}

#[test]
fn the_uuid_follows_the_version() {
    let table = system("x").end();
    let v2_4 = *b"_SM_\0\x1f\x02\x04\0\0\0\0\0\0\0\0_DMI_\0\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(parse(&v2_4, &table).system.uuid.as_deref(), Some("33221100-5544-7766-8899-aabbccddeeff"));
    let v2_6 = *b"_SM_\0\x1f\x02\x06\0\0\0\0\0\0\0\0_DMI_\0\0\0\0\0\0\0\0\0\0\0";
    assert_eq!(parse(&v2_6, &table).system.uuid.as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
    for absent in [[0u8; 16], [0xff; 16]] {
        let table = Table::default().with(kind::SYSTEM, 0x1b, &[(8, &absent)], &[]).end();
        assert_eq!(parse(&SM3_3_2, &table).system.uuid, None);
    }
}

#[test]
fn damage_keeps_what_came_before_it() {
    let whole = system("SN-4711").0;
    let zero_length = [whole.clone(), vec![kind::SYSTEM, 0, 0, 0, 0, 0]].concat();
    let past_the_end = [whole.clone(), vec![kind::MEMORY_DEVICE, 0x54, 0, 0, 1]].concat();
    let endless_strings = [whole.clone(), vec![kind::MEMORY_DEVICE, 4, 0, 0], b"no end".to_vec()].concat();
    let header_cut = [whole.clone(), vec![kind::MEMORY_DEVICE]].concat();
    for (table, word) in [
        (zero_length, "shorter than its header"),
        (past_the_end, "reaches past the end"),
        (endless_strings, "strings reach past"),
        (header_cut, "cut short"),
    ] {
        let smbios = parse(&SM3_3_2, &table);
        assert_eq!(smbios.system.serial_number, "SN-4711");
        assert!(smbios.problems.len() == 1 && smbios.problems[0].contains(word), "{:?}", smbios.problems);
    }
    // No end marker, but nothing cut: whole.
    assert_eq!(parse(&SM3_3_2, &whole).problems, Vec::<String>::new());
}

#[test]
fn strings_that_are_not_there_are_empty() {
    let table = Table::default()
        .with(kind::SYSTEM, 0x1b, &[(4, &[200]), (5, &[0]), (7, &[1])], &["\u{1b}[2J\u{7}evil"])
        // Too short to hold a serial number at all.
        .with(kind::BASEBOARD, 0x05, &[], &["lonely"])
        .end();
    let smbios = parse(&SM3_3_2, &table);
    assert_eq!(smbios.system.manufacturer, "");
    assert_eq!(smbios.system.product_name, "");
    assert_eq!(smbios.system.serial_number, ".[2J.evil", "no control character reaches a console");
    assert_eq!(smbios.system.board_serial, "");
}

#[test]
fn only_the_first_system_is_this_machine() {
    let table = system("FIRST").with(kind::SYSTEM, 0x1b, &[(7, &[1])], &["SECOND"]).end();
    assert_eq!(parse(&SM3_3_2, &table).system.serial_number, "FIRST");
}

#[test]
fn a_table_that_never_stops_listing_is_believed_so_far() {
    let mut table = system("x");
    for _ in 0..LIMIT + 7 {
        table = table.with(kind::MEMORY_DEVICE, 0x22, &[(0x0c, &[0, 1])], &[]);
    }
    assert_eq!(parse(&SM3_3_2, &table.end()).modules.len(), LIMIT);
}

proptest! {
    /// Any bytes at all: an answer, soon, with printable text and a bounded number of everything.
    #[test]
    fn any_table_is_survived(entry in prop::collection::vec(any::<u8>(), 0..40), table in prop::collection::vec(any::<u8>(), 0..2048)) {
        check(&parse(&entry, &table))?;
    }

    /// Structures of every kind and length with any content get further in.
    #[test]
    fn any_structure_is_survived(structures in prop::collection::vec((0u8..46, 4u8..100, prop::collection::vec(any::<u8>(), 100)), 0..20)) {
        let mut table = Vec::new();
        for (kind, length, bytes) in structures {
            table.extend([kind, length]);
            table.extend(&bytes[2..usize::from(length)]);
            table.extend(b"one\0two\0\xff\x1b\0\0");
        }
        check(&parse(&SM3_3_2, &table))?;
    }

    /// A good table with some bytes flipped.
    #[test]
    fn a_flipped_table_is_survived(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        let mut table = system("SN").with(kind::MEMORY_DEVICE, 0x5c, &[(0x0c, &[0, 1]), (0x10, &[1])], &["A1"]).end();
        for (at, value) in flips {
            let at = at.index(table.len());
            table[at] = value;
        }
        table.truncate(cut.index(table.len() + 1));
        check(&parse(&SM3_3_2, &table))?;
    }
}

fn check(smbios: &Smbios) -> Result<(), TestCaseError> {
    let counts = [
        smbios.boards.len(),
        smbios.chassis.len(),
        smbios.sockets.len(),
        smbios.modules.len(),
        smbios.empty_slots.len(),
        smbios.arrays.len(),
        smbios.slots.len(),
        smbios.onboard_devices.len(),
        smbios.power_supplies.len(),
    ];
    prop_assert!(counts.iter().all(|count| *count <= LIMIT), "{counts:?}");
    let text = format!("{smbios:?}");
    prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
    Ok(())
}
