//! The specification's numbers in words, as `dmidecode` prints them. 0 and what is not listed have none.

/// Word number `code` of a list that begins with 1.
pub(super) fn word(list: &[&str], code: u8) -> Option<String> {
    let index = usize::from(code).checked_sub(1)?;
    list.get(index).map(|word| (*word).to_owned())
}

/// The words whose bits are set, the first being bit 0; empty words stand for reserved bits.
pub(super) fn bits(list: &[&str], set: u16) -> Vec<String> {
    let is_set = |(bit, word): (usize, &&str)| (set >> bit & 1 == 1 && !word.is_empty()).then(|| (*word).to_owned());
    list.iter().enumerate().take(16).filter_map(is_set).collect()
}

pub(super) const BOARD: [&str; 13] = [
    "Unknown",
    "Other",
    "Server Blade",
    "Connectivity Switch",
    "System Management Module",
    "Processor Module",
    "I/O Module",
    "Memory Module",
    "Daughter Board",
    "Motherboard",
    "Processor+Memory Module",
    "Processor+I/O Module",
    "Interconnect Board",
];

pub(super) const CHASSIS: [&str; 36] = [
    "Other",
    "Unknown",
    "Desktop",
    "Low Profile Desktop",
    "Pizza Box",
    "Mini Tower",
    "Tower",
    "Portable",
    "Laptop",
    "Notebook",
    "Hand Held",
    "Docking Station",
    "All In One",
    "Sub Notebook",
    "Space-saving",
    "Lunch Box",
    "Main Server Chassis",
    "Expansion Chassis",
    "Sub Chassis",
    "Bus Expansion Chassis",
    "Peripheral Chassis",
    "RAID Chassis",
    "Rack Mount Chassis",
    "Sealed-case PC",
    "Multi-system",
    "CompactPCI",
    "AdvancedTCA",
    "Blade",
    "Blade Enclosing",
    "Tablet",
    "Convertible",
    "Detachable",
    "IoT Gateway",
    "Embedded PC",
    "Mini PC",
    "Stick PC",
];

pub(super) const STATE: [&str; 6] = ["Other", "Unknown", "Safe", "Warning", "Critical", "Non-recoverable"];

pub(super) const POWER_SUPPLY: [&str; 5] = ["Other", "Unknown", "OK", "Non-critical", "Critical"];

pub(super) const ONBOARD: [&str; 10] = [
    "Other",
    "Unknown",
    "Video",
    "SCSI Controller",
    "Ethernet",
    "Token Ring",
    "Sound",
    "PATA Controller",
    "SATA Controller",
    "SAS Controller",
];

pub(super) const PROCESSOR_STATUS: [&str; 4] = ["Enabled", "Disabled By User", "Disabled By BIOS", "Idle"];

pub(super) const FORM_FACTOR: [&str; 16] = [
    "Other",
    "Unknown",
    "SIMM",
    "SIP",
    "Chip",
    "DIP",
    "ZIP",
    "Proprietary Card",
    "DIMM",
    "TSOP",
    "Row Of Chips",
    "RIMM",
    "SODIMM",
    "SRIMM",
    "FB-DIMM",
    "Die",
];

pub(super) const MEMORY: [&str; 36] = [
    "Other",
    "Unknown",
    "DRAM",
    "EDRAM",
    "VRAM",
    "SRAM",
    "RAM",
    "ROM",
    "Flash",
    "EEPROM",
    "FEPROM",
    "EPROM",
    "CDRAM",
    "3DRAM",
    "SDRAM",
    "SGRAM",
    "RDRAM",
    "DDR",
    "DDR2",
    "DDR2 FB-DIMM",
    "Reserved",
    "Reserved",
    "Reserved",
    "DDR3",
    "FBD2",
    "DDR4",
    "LPDDR",
    "LPDDR2",
    "LPDDR3",
    "LPDDR4",
    "Logical non-volatile device",
    "HBM",
    "HBM2",
    "DDR5",
    "LPDDR5",
    "HBM3",
];

/// Bit 0 is reserved.
pub(super) const MEMORY_DETAIL: [&str; 16] = [
    "",
    "Other",
    "Unknown",
    "Fast-paged",
    "Static Column",
    "Pseudo-static",
    "RAMBus",
    "Synchronous",
    "CMOS",
    "EDO",
    "Window DRAM",
    "Cache DRAM",
    "Non-Volatile",
    "Registered (Buffered)",
    "Unbuffered (Unregistered)",
    "LRDIMM",
];

pub(super) const MEMORY_TECHNOLOGY: [&str; 7] =
    ["Other", "Unknown", "DRAM", "NVDIMM-N", "NVDIMM-F", "NVDIMM-P", "Intel Optane DC persistent memory"];

pub(super) const ARRAY_PURPOSE: [&str; 7] =
    ["Other", "Unknown", "System Memory", "Video Memory", "Flash Memory", "Non-volatile RAM", "Cache Memory"];

pub(super) const ERROR_CORRECTION: [&str; 7] =
    ["Other", "Unknown", "None", "Parity", "Single-bit ECC", "Multi-bit ECC", "CRC"];

/// Where an array is; most say 3.
pub(super) const ARRAY_LOCATION: [&str; 10] = [
    "Other",
    "Unknown",
    "System Board Or Motherboard",
    "ISA Add-on Card",
    "EISA Add-on Card",
    "PCI Add-on Card",
    "MCA Add-on Card",
    "PCMCIA Add-on Card",
    "Proprietary Add-on Card",
    "NuBus",
];
