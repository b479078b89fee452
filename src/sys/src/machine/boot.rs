//! How the machine was started: the firmware's variables, and what the kernel noted of the firmware.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use speediso_model::inventory::{Boot, FirmwareEntry};

use crate::efi::{self, DeviceNode, EfiError, GLOBAL};
use crate::live::{MESSAGING, booted_by};
use crate::machine::kernel;
use crate::roots::Roots;
use crate::sysfs;

/// More than any kernel's ring has; what is looked for stands among the first.
const RECORDS: usize = 20_000;
/// `LOAD_OPTION_ACTIVE`
const ACTIVE: u32 = 1;

/// UEFI 2.10, 10.3.4.11: the address in 32 bytes, then what kind of network it is (RFC 1700).
const MAC: u8 = 11;
const ETHERNET: [u8; 2] = [0, 1];

/// The interface that this machine was started over: the boot loader's word (BOOTIF), or else the firmware's, if its entry
/// for this boot is one of a network card. A BIOS leaves no word.
#[must_use]
pub fn interface(roots: &Roots) -> Option<String> {
    kernel::boot_mac(roots).or_else(|| from_firmware(roots))
}

/// The firmware's word alone.
#[must_use]
pub fn from_firmware(roots: &Roots) -> Option<String> {
    booted_by(roots)?.path.iter().find_map(|node| match node {
        DeviceNode::Other { kind: MESSAGING, subtype: MAC, data } => {
            let is_ethernet = data.get(32).is_some_and(|kind| ETHERNET.contains(kind));
            let mac = data.first_chunk::<6>().filter(|mac| is_ethernet && **mac != [0; 6])?;
            Some(mac.map(|byte| format!("{byte:02x}")).join(":"))
        }
        _ => None,
    })
}

/// All but the interface that was booted from.
#[must_use]
pub fn read(roots: &Roots, unread: &mut Vec<String>) -> Boot {
    if !efi::is_uefi(roots) {
        return Boot { current_boot_mode: "bios".into(), ..Boot::default() };
    }
    let (uefi_version, uefi_vendor) = match specification(&roots.dev.join("kmsg")) {
        Ok(Some((version, vendor))) => (Some(version), Some(vendor)),
        Ok(None) => (None, None),
        Err(error) => {
            sysfs::gap(unread, "the UEFI version (in the kernel's log)", &error);
            (None, None)
        }
    };
    let mut boot = Boot {
        current_boot_mode: "uefi".into(),
        uefi_version,
        uefi_vendor,
        uefi_bits: sysfs::number(&roots.sys.join("firmware/efi/fw_platform_size")),
        ..Boot::default()
    };
    boot.secure_boot = told(unread, "Secure Boot state", efi::secure_boot(roots)).flatten();
    boot.setup_mode = told(unread, "the firmware's setup mode", flag(roots, "SetupMode")).flatten();
    boot.current = told(unread, "the current boot entry", number(roots, "BootCurrent")).flatten();
    boot.next = told(unread, "the next boot entry", number(roots, "BootNext")).flatten();
    let order = told(unread, "the boot order", efi::boot_order(roots)).unwrap_or_default();
    boot.order = order.into_iter().map(|number| format!("{number:04X}")).collect();
    let entries = told(unread, "the boot entries", efi::boot_entries(roots)).unwrap_or_default();
    boot.entries = entries.into_iter().map(entry).collect();
    boot
}

fn told<T>(unread: &mut Vec<String>, what: &str, read: Result<T, EfiError>) -> Option<T> {
    read.map_err(|error| {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        unread.push(format!("{what} could not be read: {error}{cause}"));
    })
    .ok()
}

fn flag(roots: &Roots, name: &str) -> Result<Option<bool>, EfiError> {
    Ok(efi::read(roots, name, GLOBAL)?.and_then(|v| v.data.first().map(|b| *b == 1)))
}

fn number(roots: &Roots, name: &str) -> Result<Option<String>, EfiError> {
    let data = efi::read(roots, name, GLOBAL)?.map(|v| v.data).unwrap_or_default();
    Ok(data.first_chunk().map(|raw| format!("{:04X}", u16::from_le_bytes(*raw))))
}

fn entry(entry: efi::BootEntry) -> FirmwareEntry {
    let number = format!("{:04X}", entry.number);
    let Some(option) = entry.option else {
        return FirmwareEntry { number, description: "(not understood)".into(), ..FirmwareEntry::default() };
    };
    let target = option.target();
    FirmwareEntry {
        number,
        active: option.attributes & ACTIVE != 0,
        file: target.map(|(_, file)| plain(file)),
        partition: target.map(|(guid, _)| guid_text(guid)),
        description: plain(&option.description),
    }
}

/// Firmware text goes to consoles.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The form that `blkid` and `efibootmgr` print: the first three fields are little-endian.
fn guid_text(mut raw: [u8; 16]) -> String {
    raw[0..4].reverse();
    raw[4..6].reverse();
    raw[6..8].reverse();
    let mut text = speediso_model::plan::hex(&raw);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

/// What the kernel noted when it found the firmware: `efi: EFI v2.70 by EDK II`.
fn specification(kmsg: &Path) -> io::Result<Option<(String, String)>> {
    let mut log = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(kmsg) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // Each read gives one record.
    let mut record = [0; 8192];
    for _ in 0..RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                if let Some(found) = String::from_utf8_lossy(&record[..length]).lines().find_map(efi_line) {
                    return Ok(Some(found));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // A record was overwritten meanwhile; the next read gives the oldest that is left.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn efi_line(line: &str) -> Option<(String, String)> {
    let (version, vendor) = line.split_once("efi: EFI v")?.1.split_once(" by ")?;
    let is_version = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    is_version.then(|| (version.to_owned(), plain(vendor.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efi::{DURABLE, LoadOption};

    #[test]
    fn the_card_it_was_started_over_is_the_boot_loaders_or_the_firmwares() {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots::under(dir.path());
        std::fs::create_dir_all(&roots.efivars).expect("made");
        // As OVMF writes it for a card behind a bridge: PCI root, function, card, IPv4.
        let mut card = vec![0x52, 0x54, 0x00, 0xa1, 0x00, 0x01];
        card.resize(32, 0);
        let entry = |kind: u8| {
            let node = |kind, subtype, data| DeviceNode::Other { kind, subtype, data };
            let card = node(MESSAGING, MAC, [&card[..], &[kind]].concat());
            let path = vec![node(2, 1, vec![0; 8]), node(1, 1, vec![0, 3]), card, node(MESSAGING, 12, vec![0; 23])];
            LoadOption { attributes: 1, description: "UEFI PXEv4".into(), path, optional_data: Vec::new() }
        };
        efi::write(&roots, "BootCurrent", GLOBAL, 6, &[3, 0]).expect("written");
        assert_eq!(interface(&roots), None, "the entry is not there");
        efi::set_boot_entry(&roots, 3, &entry(1)).expect("written");
        assert_eq!(interface(&roots).as_deref(), Some("52:54:00:a1:00:01"));
        // Of InfiniBand there are more bytes than a MAC address has.
        efi::set_boot_entry(&roots, 3, &entry(32)).expect("written");
        assert_eq!(interface(&roots), None);
        efi::set_boot_entry(&roots, 3, &entry(1)).expect("written");
        std::fs::create_dir_all(&roots.proc).expect("made");
        std::fs::write(roots.proc.join("cmdline"), "quiet BOOTIF=01-52-54-00-a1-00-02\n").expect("written");
        assert_eq!(interface(&roots).as_deref(), Some("52:54:00:a1:00:02"));
    }

    #[test]
    fn a_uefi_machine_tells_its_entries() {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots::under(dir.path());
        assert_eq!(read(&roots, &mut Vec::new()).current_boot_mode, "bios");
        std::fs::create_dir_all(&roots.efivars).expect("made");
        std::fs::create_dir_all(&roots.dev).expect("made");
        let log = "6,1,0,-;Linux version 6.1\n6,2,0,-;efi: EFI v2.70 by EDK II\n6,3,0,-;efi: SMBIOS=0x1\n";
        std::fs::write(roots.dev.join("kmsg"), log).expect("written");
        std::fs::write(roots.sys.join("firmware/efi/fw_platform_size"), "64\n").expect("written");
        let guid = [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        let option = LoadOption::for_file("Debian\u{7}", 1, 2048, 4096, guid, "\\EFI\\debian\\shimx64.efi");
        efi::set_boot_entry(&roots, 0x1a, &option).expect("written");
        efi::set_boot_order(&roots, &[0x1a, 0]).expect("written");
        efi::write(&roots, "BootNext", GLOBAL, DURABLE, &[0x1a, 0]).expect("written");
        efi::write(&roots, "SetupMode", GLOBAL, 6, &[1]).expect("written");
        efi::write(&roots, "Boot0007", GLOBAL, DURABLE, &[1]).expect("written");
        // There, and no variable: told, and nothing else suffers.
        std::fs::write(roots.efivars.join(format!("BootCurrent-{GLOBAL}")), [1]).expect("written");
        let mut unread = Vec::new();
        let boot = read(&roots, &mut unread);
        assert_eq!((boot.uefi_version.as_deref(), boot.uefi_vendor.as_deref()), (Some("2.70"), Some("EDK II")));
        assert_eq!((boot.setup_mode, boot.secure_boot, boot.uefi_bits), (Some(true), None, Some(64)));
        assert_eq!((boot.next.as_deref(), boot.order), (Some("001A"), vec!["001A".to_owned(), "0000".to_owned()]));
        assert_eq!(boot.entries[0].description, "(not understood)");
        let debian = &boot.entries[1];
        assert_eq!((debian.description.as_str(), debian.active), ("Debian", true));
        assert_eq!(debian.partition.as_deref(), Some("00112233-4455-6677-8899-aabbccddeeff"));
        assert_eq!(debian.file.as_deref(), Some("\\EFI\\debian\\shimx64.efi"));
        assert!(unread.len() == 1 && unread[0].starts_with("the current boot entry"), "{unread:?}");
    }
}
