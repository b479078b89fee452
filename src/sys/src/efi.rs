//! UEFI variables through efivarfs, and the boot entries among them.
//!
//! Each variable is a file `Name-GUID`: four bytes of attributes, then the value. Linux marks most of them immutable,
//! since deleting some bricks certain boards; the mark is taken off for the one write and put back.

mod load_option;
mod vars;

pub use load_option::{DecodeError, DeviceNode, LoadOption, PartitionSignature};
pub use vars::{EfiError, Guid, Variable, delete, is_uefi, list, read, write};

use crate::roots::Roots;

/// Namespace of the variables that UEFI itself defines.
pub const GLOBAL: Guid = Guid("8be4df61-93ca-11d2-aa0d-00e098032b8c");

/// Non-volatile, with boot-time and run-time access: what boot variables must be.
pub const DURABLE: u32 = 0x1 | 0x2 | 0x4;

/// A boot entry as the firmware holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootEntry {
    pub number: u16,
    /// `None` when the value cannot be decoded; such an entry is somebody's, and left alone.
    pub option: Option<LoadOption>,
}

/// Name of the variable that holds entry `number`.
#[must_use]
pub fn boot_name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// All entries, by number.
///
/// # Errors
/// When the variables cannot be listed or read.
pub fn boot_entries(roots: &Roots) -> Result<Vec<BootEntry>, EfiError> {
    let mut entries = Vec::new();
    for name in list(roots, GLOBAL)? {
        let Some(number) =
            name.strip_prefix("Boot").filter(|n| n.len() == 4 && !n.contains(|c: char| c.is_ascii_lowercase()))
        else {
            continue;
        };
        let Ok(number) = u16::from_str_radix(number, 16) else { continue };
        // It may be gone between listing and reading.
        if let Some(variable) = read(roots, &name, GLOBAL)? {
            entries.push(BootEntry { number, option: LoadOption::decode(&variable.data).ok() });
        }
    }
    entries.sort_by_key(|e| e.number);
    Ok(entries)
}

/// The order in which the firmware tries the entries; empty if it has none yet.
///
/// # Errors
/// When the variable cannot be read.
pub fn boot_order(roots: &Roots) -> Result<Vec<u16>, EfiError> {
    let data = read(roots, "BootOrder", GLOBAL)?.map(|v| v.data).unwrap_or_default();
    Ok(data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// # Errors
/// When the firmware does not take it.
pub fn set_boot_order(roots: &Roots, order: &[u16]) -> Result<(), EfiError> {
    let data: Vec<u8> = order.iter().flat_map(|n| n.to_le_bytes()).collect();
    write(roots, "BootOrder", GLOBAL, DURABLE, &data)
}

/// The entry this boot came from.
///
/// # Errors
/// When the variable cannot be read.
pub fn boot_current(roots: &Roots) -> Result<Option<u16>, EfiError> {
    let data = read(roots, "BootCurrent", GLOBAL)?.map(|v| v.data);
    Ok(data.and_then(|d| Some(u16::from_le_bytes(d.get(..2)?.try_into().ok()?))))
}

/// # Errors
/// When the firmware does not take it.
pub fn set_boot_entry(roots: &Roots, number: u16, option: &LoadOption) -> Result<(), EfiError> {
    write(roots, &boot_name(number), GLOBAL, DURABLE, &option.encode())
}

/// # Errors
/// When the firmware does not let it go. An entry that is not there is no error.
pub fn delete_boot_entry(roots: &Roots, number: u16) -> Result<(), EfiError> {
    delete(roots, &boot_name(number), GLOBAL)
}

/// Whether the firmware checks signatures of what it boots; `None` where it does not say.
///
/// # Errors
/// When the variable cannot be read.
pub fn secure_boot(roots: &Roots) -> Result<Option<bool>, EfiError> {
    Ok(read(roots, "SecureBoot", GLOBAL)?.and_then(|v| v.data.first().map(|b| *b == 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let roots = Roots::under(dir.path());
        std::fs::create_dir_all(&roots.efivars).expect("made");
        (dir, roots)
    }

    #[test]
    fn entries_order_and_current_are_read_back() {
        let (_dir, roots) = machine();
        assert!(boot_order(&roots).expect("none yet").is_empty());
        assert_eq!(boot_current(&roots).expect("none"), None);
        let option = LoadOption::for_file("Debian", 1, 2048, 1_048_576, [7; 16], "\\EFI\\debian\\shimx64.efi");
        set_boot_entry(&roots, 0x2a, &option).expect("written");
        set_boot_order(&roots, &[0x2a, 3]).expect("written");
        write(&roots, "BootCurrent", GLOBAL, 6, &[3, 0]).expect("written");
        assert_eq!(boot_entries(&roots).expect("read"), [BootEntry { number: 0x2a, option: Some(option) }]);
        assert_eq!(boot_order(&roots).expect("read"), [0x2a, 3]);
        assert_eq!(boot_current(&roots).expect("read"), Some(3));
        delete_boot_entry(&roots, 0x2a).expect("deleted");
        delete_boot_entry(&roots, 0x2a).expect("gone already");
        assert!(boot_entries(&roots).expect("read").is_empty());
    }

    #[test]
    fn garbage_in_an_entry_is_somebodys_entry() {
        let (_dir, roots) = machine();
        write(&roots, "Boot0001", GLOBAL, DURABLE, &[1, 2, 3]).expect("written");
        // Neither of these is an entry.
        write(&roots, "BootNext", GLOBAL, DURABLE, &[1, 0]).expect("written");
        write(&roots, "Boot00zz", GLOBAL, DURABLE, &[1, 0]).expect("written");
        assert_eq!(boot_entries(&roots).expect("read"), [BootEntry { number: 1, option: None }]);
    }

    #[test]
    fn secure_boot_is_yes_no_or_unsaid() {
        let (_dir, roots) = machine();
        assert_eq!(secure_boot(&roots).expect("read"), None);
        write(&roots, "SecureBoot", GLOBAL, 6, &[1]).expect("written");
        assert_eq!(secure_boot(&roots).expect("read"), Some(true));
    }
}
