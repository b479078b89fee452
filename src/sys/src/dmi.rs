//! SMBIOS tables (DSP0134), read as the untrusted input they are: boards ship tables that are cut short, that claim
//! more structures than there are, and whose strings are not there.
//!
//! Every step of the walk moves forward by at least the four bytes of a structure's header plus its two terminators,
//! so no table can make it loop; everything read is checked against the structure's own length.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use speediso_model::inventory::{Firmware, MemoryModule, SystemVendor};

use crate::roots::{Roots, read_line};

/// Real tables have a few KiB, large servers some tens.
const TABLE_LIMIT: u64 = 1 << 20;
/// More DIMMs than any board has; a table that lists more is not believed further.
const MODULE_LIMIT: usize = 1024;
const TEXT_LIMIT: usize = 128;

/// Structure types of DSP0134 section 7.
const BIOS: u8 = 0;
const SYSTEM: u8 = 1;
const BASEBOARD: u8 = 2;
const CHASSIS: u8 = 3;
const MEMORY_DEVICE: u8 = 17;
const END_OF_TABLE: u8 = 127;

/// What the tables say, and what they did not.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Dmi {
    pub system: SystemVendor,
    pub modules: Vec<MemoryModule>,
    /// Why something is missing, in words.
    pub problems: Vec<String>,
}

/// The machine's identity and its memory modules; see [`examine`] for what could not be read.
#[must_use]
pub fn read(roots: &Roots) -> (SystemVendor, Vec<MemoryModule>) {
    let dmi = examine(roots);
    (dmi.system, dmi.modules)
}

/// Reads the tables; where they are closed to us (they are root's), the few fields that the kernel shows to everybody.
#[must_use]
pub fn examine(roots: &Roots) -> Dmi {
    let tables = roots.sys.join("firmware/dmi/tables");
    let read = |name| read_bounded(&tables.join(name)).map_err(|e| format!("{}: {e}", tables.join(name).display()));
    match (read("smbios_entry_point"), read("DMI")) {
        (Ok(entry), Ok(table)) => parse(&entry, &table),
        (Err(problem), _) | (_, Err(problem)) => {
            let mut dmi = from_kernel(&roots.sys.join("class/dmi/id"));
            dmi.problems.push(format!("SMBIOS tables could not be read: {problem}"));
            dmi
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(TABLE_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The kernel's own digest of the tables. Serial numbers and the UUID are readable by root only there too.
fn from_kernel(dir: &Path) -> Dmi {
    let text = |name: &str| read_line(&dir.join(name)).map(|t| clean(t.as_bytes())).unwrap_or_default();
    let uuid = text("product_uuid").to_ascii_lowercase();
    Dmi {
        system: SystemVendor {
            manufacturer: text("sys_vendor"),
            product_name: text("product_name"),
            serial_number: text("product_serial"),
            uuid: (!uuid.is_empty()).then_some(uuid),
            board_serial: text("board_serial"),
            chassis_serial: text("chassis_serial"),
            asset_tag: text("chassis_asset_tag"),
            firmware: Firmware {
                vendor: text("bios_vendor"),
                version: text("bios_version"),
                build_date: text("bios_date"),
            },
        },
        ..Dmi::default()
    }
}

/// SMBIOS version from an entry point of any of the three kinds.
fn version(entry: &[u8]) -> Option<(u8, u8)> {
    if entry.starts_with(b"_SM3_") {
        Some((*entry.get(7)?, *entry.get(8)?))
    } else if entry.starts_with(b"_SM_") {
        Some((*entry.get(6)?, *entry.get(7)?))
    } else if entry.starts_with(b"_DMI_") {
        // Packed decimal: 0x24 is 2.4.
        let packed = *entry.get(14)?;
        Some((packed >> 4, packed & 0x0f))
    } else {
        None
    }
}

/// Parses an entry point and a table, whatever they hold.
#[must_use]
pub fn parse(entry: &[u8], table: &[u8]) -> Dmi {
    let mut dmi = Dmi::default();
    let version = version(entry).unwrap_or_else(|| {
        dmi.problems.push("SMBIOS entry point is of no known kind; read as version 2.8".into());
        (2, 8)
    });
    let mut walk = Walk { rest: table, damage: None };
    // The first structure of a kind is the machine's own; multi-node chassis list their siblings after it.
    let mut seen = [false; 4];
    for structure in &mut walk {
        let first = seen.get_mut(usize::from(structure.kind)).is_some_and(|s| !std::mem::replace(s, true));
        match structure.kind {
            BIOS if first => {
                dmi.system.firmware = Firmware {
                    vendor: structure.text(0x04),
                    version: structure.text(0x05),
                    build_date: structure.text(0x08),
                };
            }
            SYSTEM if first => {
                dmi.system.manufacturer = structure.text(0x04);
                dmi.system.product_name = structure.text(0x05);
                dmi.system.serial_number = structure.text(0x07);
                dmi.system.uuid = structure.bytes::<16>(0x08).and_then(|raw| uuid(raw, version));
            }
            BASEBOARD if first => dmi.system.board_serial = structure.text(0x07),
            CHASSIS if first => {
                dmi.system.chassis_serial = structure.text(0x07);
                dmi.system.asset_tag = structure.text(0x08);
            }
            MEMORY_DEVICE if dmi.modules.len() < MODULE_LIMIT => dmi.modules.extend(memory_module(&structure)),
            _ => {}
        }
    }
    dmi.problems.extend(walk.damage.map(|damage| format!("SMBIOS table is damaged: {damage}; read up to there")));
    if !seen[usize::from(SYSTEM)] {
        dmi.problems.push("SMBIOS table does not describe the system".into());
    }
    dmi
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
    let hex = |part: &[u8]| speediso_model::plan::hex(part);
    Some(format!(
        "{}-{}-{}-{}-{}",
        hex(&bytes[0..4]),
        hex(&bytes[4..6]),
        hex(&bytes[6..8]),
        hex(&bytes[8..10]),
        hex(&bytes[10..16])
    ))
}

/// A populated slot; empty ones and sizes the firmware does not know give nothing.
fn memory_module(structure: &Structure<'_>) -> Option<MemoryModule> {
    let size_mb = match structure.word(0x0c)? {
        0 | 0xffff => return None,
        0x7fff => u64::from(structure.dword(0x1c)? & 0x7fff_ffff),
        // The top bit says KiB.
        size if size & 0x8000 != 0 => u64::from(size & 0x7fff) / 1024,
        size => u64::from(size),
    };
    // The larger fields are for those that do not fit.
    let speed = |at, larger| match structure.word(at) {
        None | Some(0) => None,
        Some(0xffff) => structure.dword(larger),
        Some(speed) => Some(u32::from(speed)),
    };
    Some(MemoryModule {
        slot: structure.text(0x10),
        size_mb,
        speed_mts: speed(0x15, 0x54),
        configured_speed_mts: speed(0x20, 0x58),
        manufacturer: structure.text(0x17),
        serial_number: structure.text(0x18),
        part_number: structure.text(0x1a),
    })
}

/// One structure: the formatted part, and the strings after it.
struct Structure<'a> {
    kind: u8,
    formatted: &'a [u8],
    strings: &'a [u8],
}

impl Structure<'_> {
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.formatted.get(offset..offset + N)?.try_into().ok()
    }

    fn word(&self, offset: usize) -> Option<u16> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    fn dword(&self, offset: usize) -> Option<u32> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    /// The string whose number stands at `offset`; empty if there is none.
    fn text(&self, offset: usize) -> String {
        let Some(number @ 1..) = self.formatted.get(offset).copied() else { return String::new() };
        self.strings.split(|b| *b == 0).nth(usize::from(number) - 1).map(clean).unwrap_or_default()
    }
}

/// Printable ASCII, trimmed, of bounded length: these strings end on consoles and in orders.
fn clean(raw: &[u8]) -> String {
    let printable = |b: &u8| if (b' '..=b'~').contains(b) { char::from(*b) } else { '.' };
    raw.iter().take(TEXT_LIMIT).map(printable).collect::<String>().trim().to_owned()
}

struct Walk<'a> {
    rest: &'a [u8],
    damage: Option<&'static str>,
}

impl<'a> Iterator for Walk<'a> {
    type Item = Structure<'a>;

    fn next(&mut self) -> Option<Structure<'a>> {
        let rest = std::mem::take(&mut self.rest);
        // Firmware may leave out the end marker; a table that ends at a structure's end is whole.
        let (kind, length) = match rest {
            [] => return None,
            [kind, length, ..] => (*kind, usize::from(*length)),
            [_] => {
                self.damage = Some("a structure's header is cut short");
                return None;
            }
        };
        if kind == END_OF_TABLE {
            return None;
        }
        if length < 4 {
            self.damage = Some("a structure is shorter than its header");
            return None;
        }
        let Some((formatted, after)) = rest.split_at_checked(length) else {
            self.damage = Some("a structure reaches past the end");
            return None;
        };
        let Some(end) = after.windows(2).position(|pair| pair == [0, 0]) else {
            self.damage = Some("a structure's strings reach past the end");
            return None;
        };
        self.rest = &after[end + 2..];
        Some(Structure { kind, formatted, strings: &after[..end] })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            self.with(END_OF_TABLE, 4, &[], &[]).0
        }
    }

    const UUID: [u8; 16] =
        [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];

    fn system(serial: &str) -> Table {
        Table::default()
            .with(BIOS, 0x18, &[(4, &[1]), (5, &[2]), (8, &[3])], &["Firm & Co", "1.2.3", "02/29/2024"])
            .with(SYSTEM, 0x1b, &[(4, &[1]), (5, &[2]), (7, &[3]), (8, &UUID)], &["Maker", "Server 9000 ", serial])
            .with(BASEBOARD, 0x0f, &[(7, &[1])], &["BOARD1"])
            .with(CHASSIS, 0x15, &[(7, &[1]), (8, &[2])], &["CHASSIS1", "Rack 7"])
    }

    #[test]
    fn a_server_is_described() {
        let table = system("SN-4711")
            .with(
                MEMORY_DEVICE,
                0x5c,
                &[
                    (0x0c, &[0xff, 0x7f]),
                    (0x10, &[1]),
                    (0x15, &[0x80, 0x0c]),
                    (0x17, &[2]),
                    (0x18, &[3]),
                    (0x1a, &[4]),
                    (0x1c, &65536u32.to_le_bytes()),
                    (0x20, &2933u16.to_le_bytes()),
                ],
                &["DIMM_A1", "Chipmaker", "0BADCAFE", "M393A8G40 "],
            )
            .with(MEMORY_DEVICE, 0x22, &[(0x10, &[1])], &["DIMM_A2"])
            .with(MEMORY_DEVICE, 0x22, &[(0x0c, &[0x00, 0x40]), (0x10, &[1])], &["DIMM_A3"])
            .with(MEMORY_DEVICE, 0x15, &[(0x0c, &[0x00, 0x84])], &[])
            .end();
        let dmi = parse(&SM3_3_2, &table);
        assert_eq!(dmi.problems, Vec::<String>::new());
        let s = &dmi.system;
        assert_eq!(
            (s.manufacturer.as_str(), s.product_name.as_str(), s.serial_number.as_str()),
            ("Maker", "Server 9000", "SN-4711")
        );
        assert_eq!(s.uuid.as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
        assert_eq!(
            (s.board_serial.as_str(), s.chassis_serial.as_str(), s.asset_tag.as_str()),
            ("BOARD1", "CHASSIS1", "Rack 7")
        );
        assert_eq!(
            s.firmware,
            Firmware { vendor: "Firm & Co".into(), version: "1.2.3".into(), build_date: "02/29/2024".into() }
        );
        // The empty slot is no module; 0x8400 is 1024 KiB.
        assert_eq!(
            dmi.modules.iter().map(|m| (m.slot.as_str(), m.size_mb)).collect::<Vec<_>>(),
            [("DIMM_A1", 65536), ("DIMM_A3", 16384), ("", 1)]
        );
        assert_eq!((dmi.modules[0].speed_mts, dmi.modules[0].configured_speed_mts), (Some(3200), Some(2933)));
        assert_eq!(dmi.modules[0].part_number, "M393A8G40");
    }

    #[test]
    fn the_uuid_follows_the_version() {
        let table = system("x").end();
        let v2_4 = *b"_SM_\0\x1f\x02\x04\0\0\0\0\0\0\0\0_DMI_\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(parse(&v2_4, &table).system.uuid.as_deref(), Some("33221100-5544-7766-8899-aabbccddeeff"));
        let v2_6 = *b"_SM_\0\x1f\x02\x06\0\0\0\0\0\0\0\0_DMI_\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(parse(&v2_6, &table).system.uuid.as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
        for absent in [[0u8; 16], [0xff; 16]] {
            let table = Table::default().with(SYSTEM, 0x1b, &[(8, &absent)], &[]).end();
            assert_eq!(parse(&SM3_3_2, &table).system.uuid, None);
        }
    }

    #[test]
    fn damage_keeps_what_came_before_it() {
        let whole = system("SN-4711").0;
        let zero_length = [whole.clone(), vec![SYSTEM, 0, 0, 0, 0, 0]].concat();
        let past_the_end = [whole.clone(), vec![MEMORY_DEVICE, 0x54, 0, 0, 1]].concat();
        let endless_strings = [whole.clone(), vec![MEMORY_DEVICE, 4, 0, 0], b"no end".to_vec()].concat();
        let header_cut = [whole.clone(), vec![MEMORY_DEVICE]].concat();
        for (table, word) in [
            (zero_length, "shorter than its header"),
            (past_the_end, "reaches past the end"),
            (endless_strings, "strings reach past"),
            (header_cut, "cut short"),
        ] {
            let dmi = parse(&SM3_3_2, &table);
            assert_eq!(dmi.system.serial_number, "SN-4711");
            assert!(dmi.problems.len() == 1 && dmi.problems[0].contains(word), "{:?}", dmi.problems);
        }
        // No end marker, but nothing cut: whole.
        assert_eq!(parse(&SM3_3_2, &whole).problems, Vec::<String>::new());
    }

    #[test]
    fn strings_that_are_not_there_are_empty() {
        let table = Table::default()
            .with(SYSTEM, 0x1b, &[(4, &[200]), (5, &[0]), (7, &[1])], &["\u{1b}[2J\u{7}evil"])
            // Too short to hold a serial number at all.
            .with(BASEBOARD, 0x05, &[], &["lonely"])
            .end();
        let dmi = parse(&SM3_3_2, &table);
        assert_eq!(dmi.system.manufacturer, "");
        assert_eq!(dmi.system.product_name, "");
        assert_eq!(dmi.system.serial_number, ".[2J.evil", "no control character reaches a console");
        assert_eq!(dmi.system.board_serial, "");
    }

    #[test]
    fn only_the_first_system_is_this_machine() {
        let table = system("FIRST").with(SYSTEM, 0x1b, &[(7, &[1])], &["SECOND"]).end();
        assert_eq!(parse(&SM3_3_2, &table).system.serial_number, "FIRST");
    }

    #[test]
    fn without_tables_the_kernels_fields_are_used_and_the_gap_is_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let id = dir.path().join("sys/class/dmi/id");
        std::fs::create_dir_all(&id).expect("made");
        std::fs::write(id.join("sys_vendor"), "Maker\n").expect("written");
        std::fs::write(id.join("bios_date"), "02/29/2024\n").expect("written");
        let dmi = examine(&Roots::under(dir.path()));
        assert_eq!(dmi.system.manufacturer, "Maker");
        assert_eq!(dmi.system.firmware.build_date, "02/29/2024");
        assert_eq!(dmi.system.uuid, None);
        assert!(dmi.problems[0].contains("could not be read"), "{:?}", dmi.problems);
        // And through the files where they are.
        let tables = dir.path().join("sys/firmware/dmi/tables");
        std::fs::create_dir_all(&tables).expect("made");
        std::fs::write(tables.join("smbios_entry_point"), SM3_3_2).expect("written");
        std::fs::write(tables.join("DMI"), system("SN-1").end()).expect("written");
        assert_eq!(read(&Roots::under(dir.path())).0.serial_number, "SN-1");
    }

    proptest! {
        /// Any bytes at all: an answer, soon, with printable text and a bounded number of modules.
        #[test]
        fn any_table_is_survived(entry in prop::collection::vec(any::<u8>(), 0..40), table in prop::collection::vec(any::<u8>(), 0..2048)) {
            check(&parse(&entry, &table))?;
        }

        /// A good table with some bytes flipped gets further in.
        #[test]
        fn a_flipped_table_is_survived(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
            let mut table = system("SN").with(MEMORY_DEVICE, 0x5c, &[(0x0c, &[0, 1]), (0x10, &[1])], &["A1"]).end();
            for (at, value) in flips {
                let at = at.index(table.len());
                table[at] = value;
            }
            table.truncate(cut.index(table.len() + 1));
            check(&parse(&SM3_3_2, &table))?;
        }
    }

    fn check(dmi: &Dmi) -> Result<(), TestCaseError> {
        prop_assert!(dmi.modules.len() <= MODULE_LIMIT);
        let s = &dmi.system;
        for text in
            [&s.manufacturer, &s.product_name, &s.serial_number, &s.board_serial, &s.chassis_serial, &s.asset_tag]
        {
            prop_assert!(text.len() <= TEXT_LIMIT && text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
        }
        Ok(())
    }
}
