//! Any bytes as SMBIOS tables; and the tables of numbers and names, which are read line by line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use speediso_model::pci_ids::Names;
use speediso_model::smbios::{self, LIMIT, TEXT_LIMIT};

fuzz_target!(|bytes: &[u8]| {
    let (entry, table) = bytes.split_at(bytes.len().min(31));
    let smbios = smbios::parse(entry, table);
    assert!(smbios.modules.len() <= LIMIT && smbios.sockets.len() <= LIMIT && smbios.slots.len() <= LIMIT);
    assert!(smbios.onboard_devices.len() <= LIMIT && smbios.problems.len() <= LIMIT + 4);
    let system = &smbios.system;
    for text in [&system.manufacturer, &system.serial_number, &system.family, &system.firmware.version] {
        assert!(text.len() <= TEXT_LIMIT && text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text:?}");
    }
    let mut names = Names::default();
    names.want("8086", "1572");
    names.find_in(bytes);
});
