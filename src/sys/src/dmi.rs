//! The SMBIOS tables' files. What is in them is [`speediso_model::smbios`]'s to say.

use std::path::Path;

use speediso_model::inventory::{Board, Chassis, Firmware, MemoryModule, SystemVendor};
use speediso_model::smbios::{self, Smbios};

use crate::roots::Roots;
use crate::sysfs;

/// Real tables have a few KiB, large servers some tens.
const TABLE_LIMIT: u64 = 1 << 20;

/// The machine's identity and its memory modules; see [`examine`] for what could not be read.
#[must_use]
pub fn read(roots: &Roots) -> (SystemVendor, Vec<MemoryModule>) {
    let smbios = examine(roots);
    (smbios.system, smbios.modules)
}

/// Reads the tables; where they are closed to us (they are root's), the few fields that the kernel shows to everybody.
#[must_use]
pub fn examine(roots: &Roots) -> Smbios {
    let tables = roots.sys.join("firmware/dmi/tables");
    let read = |name| {
        let path = tables.join(name);
        sysfs::bytes(&path, TABLE_LIMIT).map_err(|e| format!("{}: {e}", path.display()))
    };
    match (read("smbios_entry_point"), read("DMI")) {
        (Ok(entry), Ok(table)) => smbios::parse(&entry, &table),
        (Err(problem), _) | (_, Err(problem)) => {
            let mut smbios = from_kernel(&roots.sys.join("class/dmi/id"));
            smbios.problems.push(format!("SMBIOS tables could not be read: {problem}"));
            smbios
        }
    }
}

/// The kernel's own digest of the tables. Serial numbers and the UUID are readable by root only there too.
fn from_kernel(dir: &Path) -> Smbios {
    let text = |name: &str| sysfs::read(&dir.join(name)).map(|t| smbios::clean(t.as_bytes())).unwrap_or_default();
    let some = |name: &str| Some(text(name)).filter(|t| !t.is_empty());
    let uuid = text("product_uuid").to_ascii_lowercase();
    let board = Board {
        manufacturer: text("board_vendor"),
        product_name: text("board_name"),
        version: text("board_version"),
        serial_number: text("board_serial"),
        asset_tag: text("board_asset_tag"),
        ..Board::default()
    };
    let chassis = Chassis {
        manufacturer: text("chassis_vendor"),
        version: text("chassis_version"),
        serial_number: text("chassis_serial"),
        asset_tag: text("chassis_asset_tag"),
        ..Chassis::default()
    };
    Smbios {
        system: SystemVendor {
            manufacturer: text("sys_vendor"),
            product_name: text("product_name"),
            version: text("product_version"),
            serial_number: text("product_serial"),
            sku_number: text("product_sku"),
            family: text("product_family"),
            uuid: (!uuid.is_empty()).then_some(uuid),
            board_serial: board.serial_number.clone(),
            chassis_serial: chassis.serial_number.clone(),
            asset_tag: chassis.asset_tag.clone(),
            firmware: Firmware {
                vendor: text("bios_vendor"),
                version: text("bios_version"),
                build_date: text("bios_date"),
                release: some("bios_release"),
                controller_release: some("ec_firmware_release"),
                ..Firmware::default()
            },
        },
        boards: if board == Board::default() { Vec::new() } else { vec![board] },
        chassis: if chassis == Chassis::default() { Vec::new() } else { vec![chassis] },
        ..Smbios::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of one system, its serial number first among its strings.
    fn table(serial: &str) -> Vec<u8> {
        let mut table = vec![1, 0x1b, 0, 1];
        table.resize(0x1b, 0);
        table[7] = 1;
        table.extend(serial.as_bytes());
        table.extend([0, 0, 127, 4, 0, 2, 0, 0]);
        table
    }

    #[test]
    fn without_tables_the_kernels_fields_are_used_and_the_gap_is_told() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let id = dir.path().join("sys/class/dmi/id");
        std::fs::create_dir_all(&id).expect("made");
        std::fs::write(id.join("sys_vendor"), "Maker\n").expect("written");
        std::fs::write(id.join("bios_date"), "02/29/2024\n").expect("written");
        std::fs::write(id.join("board_name"), b"B\xff\x1bOARD\n").expect("written");
        let smbios = examine(&Roots::under(dir.path()));
        assert_eq!(smbios.system.manufacturer, "Maker");
        assert_eq!(smbios.system.firmware.build_date, "02/29/2024");
        assert_eq!(smbios.system.uuid, None);
        assert!(smbios.boards[0].product_name.starts_with('B'), "{:?}", smbios.boards);
        assert!(smbios.problems[0].contains("could not be read"), "{:?}", smbios.problems);
        // And through the files where they are.
        let tables = dir.path().join("sys/firmware/dmi/tables");
        std::fs::create_dir_all(&tables).expect("made");
        std::fs::write(tables.join("smbios_entry_point"), b"_SM3_\0\x18\x03\x02\0\x01\0\0\x10\0\0\0\0\0\0\0\0\0\0")
            .expect("written");
        std::fs::write(tables.join("DMI"), table("SN-1")).expect("written");
        assert_eq!(read(&Roots::under(dir.path())).0.serial_number, "SN-1");
    }
}
