//! SMBIOS tables (DSP0134), read as the untrusted input they are: boards ship tables that are cut short, that claim
//! more structures than there are, and whose strings are not there.
//!
//! Pure: bytes in, facts out. The walk moves forward by at least the four bytes of a structure's header plus its two
//! terminators, so no table can make it loop; everything read is checked against the structure's own length, and of
//! every kind of thing a bounded number is kept.

mod board;
mod memory;
mod processor;
#[cfg(test)]
mod tests;
mod walk;
mod words;

use crate::inventory::{
    Board, Chassis, EmptySlot, MemoryArray, MemoryModule, OnboardDevice, PowerSupply, Slot, Socket, SystemVendor,
};

use self::walk::{Structure, Walk};

/// Texts are cut there: they end on consoles and in orders.
pub const TEXT_LIMIT: usize = 128;
/// More of a kind than any board has; a table that lists more is not believed further.
pub const LIMIT: usize = 1024;

/// Structure types of DSP0134 section 7.
mod kind {
    pub(super) const BIOS: u8 = 0;
    pub(super) const SYSTEM: u8 = 1;
    pub(super) const BASEBOARD: u8 = 2;
    pub(super) const CHASSIS: u8 = 3;
    pub(super) const PROCESSOR: u8 = 4;
    pub(super) const SLOT: u8 = 9;
    pub(super) const ONBOARD: u8 = 10;
    pub(super) const MEMORY_ARRAY: u8 = 16;
    pub(super) const MEMORY_DEVICE: u8 = 17;
    pub(super) const POWER_SUPPLY: u8 = 39;
    pub(super) const ONBOARD_EXTENDED: u8 = 41;
    pub(super) const END: u8 = 127;
}

/// What the tables say, and what they did not.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Smbios {
    pub system: SystemVendor,
    pub boards: Vec<Board>,
    pub chassis: Vec<Chassis>,
    pub sockets: Vec<Socket>,
    pub modules: Vec<MemoryModule>,
    pub empty_slots: Vec<EmptySlot>,
    pub arrays: Vec<MemoryArray>,
    pub slots: Vec<Slot>,
    pub onboard_devices: Vec<OnboardDevice>,
    pub power_supplies: Vec<PowerSupply>,
    /// Why something is missing, in words.
    pub problems: Vec<String>,
}

/// Parses an entry point and a table, whatever they hold.
#[must_use]
pub fn parse(entry: &[u8], table: &[u8]) -> Smbios {
    let mut smbios = Smbios::default();
    let version = version(entry).unwrap_or_else(|| {
        smbios.problems.push("SMBIOS entry point is of no known kind; read as version 2.8".into());
        (2, 8)
    });
    let mut walk = Walk::over(table);
    // The first structure of a kind is the machine's own; multi-node chassis list their siblings after it.
    let mut seen = [false; 4];
    let mut described_twice = Vec::new();
    for structure in &mut walk {
        let first = seen.get_mut(usize::from(structure.kind)).is_some_and(|s| !std::mem::replace(s, true));
        match structure.kind {
            kind::BIOS if first => smbios.system.firmware = board::firmware(&structure),
            kind::SYSTEM if first => board::system(&structure, version, &mut smbios.system),
            kind::BASEBOARD => {
                let board = board::board(&structure);
                if first {
                    smbios.system.board_serial.clone_from(&board.serial_number);
                }
                keep(&mut smbios.boards, board);
            }
            kind::CHASSIS => {
                let chassis = board::chassis(&structure);
                if first {
                    smbios.system.chassis_serial.clone_from(&chassis.serial_number);
                    smbios.system.asset_tag.clone_from(&chassis.asset_tag);
                }
                keep(&mut smbios.chassis, chassis);
            }
            kind::PROCESSOR => keep(&mut smbios.sockets, processor::socket(&structure)),
            kind::SLOT => keep(&mut smbios.slots, board::slot(&structure)),
            kind::ONBOARD => described_twice.extend(board::onboard(&structure).into_iter().take(LIMIT)),
            kind::ONBOARD_EXTENDED => keep(&mut smbios.onboard_devices, board::onboard_extended(&structure)),
            kind::MEMORY_ARRAY => keep(&mut smbios.arrays, memory::array(&structure)),
            kind::MEMORY_DEVICE => match memory::device(&structure) {
                memory::Device::Module(module) => keep(&mut smbios.modules, *module),
                memory::Device::Empty(slot) => keep(&mut smbios.empty_slots, slot),
                memory::Device::Unknown(slot) => {
                    if smbios.problems.len() < LIMIT {
                        smbios.problems.push(format!("the firmware does not know how large the memory in {slot} is"));
                    }
                }
            },
            kind::POWER_SUPPLY => keep(&mut smbios.power_supplies, board::power_supply(&structure)),
            _ => {}
        }
    }
    if smbios.onboard_devices.is_empty() {
        smbios.onboard_devices = described_twice;
        smbios.onboard_devices.truncate(LIMIT);
    }
    smbios.problems.extend(walk.damage().map(|damage| format!("SMBIOS table is damaged: {damage}; read up to there")));
    if !seen[usize::from(kind::SYSTEM)] {
        smbios.problems.push("SMBIOS table does not describe the system".into());
    }
    smbios
}

fn keep<T>(all: &mut Vec<T>, one: T) {
    if all.len() < LIMIT {
        all.push(one);
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

/// Printable ASCII, trimmed, of bounded length.
#[must_use]
pub fn clean(raw: &[u8]) -> String {
    let printable = |b: &u8| if (b' '..=b'~').contains(b) { char::from(*b) } else { '.' };
    raw.iter().take(TEXT_LIMIT).map(printable).collect::<String>().trim().to_owned()
}
