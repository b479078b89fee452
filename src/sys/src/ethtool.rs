//! What a network card's driver tells beyond sysfs, by the ioctl of ethtool (`linux/ethtool.h`).

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use speediso_model::inventory::{Interface, canonical_mac};
use speediso_model::plan::hex;

mod raw {
    // linux/sockios.h
    nix::ioctl_readwrite_bad!(siocethtool, 0x8946, super::Ifreq);
}

/// linux/if.h: `struct ifreq`, with `ifr_data` of its union.
#[repr(C)]
pub(crate) struct Ifreq {
    name: [u8; 16],
    data: *mut libc::c_void,
    rest_of_union: [u8; 16],
}

const _: () = assert!(size_of::<Ifreq>() == 40, "struct ifreq on a machine of 64 bits");

/// `struct ethtool_drvinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    expansion_rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

const _: () = assert!(size_of::<DriverInfo>() == 196, "struct ethtool_drvinfo");

/// `struct ethtool_perm_addr` with room for the longest address.
#[repr(C)]
#[derive(Clone, Copy)]
struct PermanentAddress {
    command: u32,
    size: u32,
    data: [u8; 32],
}

/// `struct ethtool_wolinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct WakeOnLan {
    command: u32,
    supported: u32,
    options: u32,
    password: [u8; 6],
}

const _: () = assert!(size_of::<WakeOnLan>() == 20, "struct ethtool_wolinfo");

/// Of a mask, in words of 32 bits: the field that tells how many has 7 bits.
const MOST_WORDS: usize = 127;

/// `struct ethtool_link_settings` with room for its three masks.
#[repr(C)]
#[derive(Clone, Copy)]
struct LinkSettings {
    command: u32,
    speed: u32,
    duplex: u8,
    port: u8,
    phy: u8,
    autonegotiation: u8,
    mdio: u8,
    mdix: u8,
    mdix_control: u8,
    words: i8,
    transceiver_and_clock: [u8; 4],
    reserved: [u32; 7],
    masks: [u32; 3 * MOST_WORDS],
}

const _: () = assert!(size_of::<LinkSettings>() == 48 + 12 * MOST_WORDS, "struct ethtool_link_settings");

const GET_DRIVER_INFO: u32 = 0x03;
const GET_WAKE_ON_LAN: u32 = 0x05;
const GET_PERMANENT_ADDRESS: u32 = 0x20;
const GET_LINK_SETTINGS: u32 = 0x4c;

/// `enum ethtool_link_mode_bit_indices`; empty for bits that are no mode.
const MODES: [&str; 93] = [
    "10baseT/Half",
    "10baseT/Full",
    "100baseT/Half",
    "100baseT/Full",
    "1000baseT/Half",
    "1000baseT/Full",
    "",
    "",
    "",
    "",
    "",
    "",
    "10000baseT/Full",
    "",
    "",
    "2500baseX/Full",
    "",
    "1000baseKX/Full",
    "10000baseKX4/Full",
    "10000baseKR/Full",
    "10000baseR_FEC",
    "20000baseMLD2/Full",
    "20000baseKR2/Full",
    "40000baseKR4/Full",
    "40000baseCR4/Full",
    "40000baseSR4/Full",
    "40000baseLR4/Full",
    "56000baseKR4/Full",
    "56000baseCR4/Full",
    "56000baseSR4/Full",
    "56000baseLR4/Full",
    "25000baseCR/Full",
    "25000baseKR/Full",
    "25000baseSR/Full",
    "50000baseCR2/Full",
    "50000baseKR2/Full",
    "100000baseKR4/Full",
    "100000baseSR4/Full",
    "100000baseCR4/Full",
    "100000baseLR4_ER4/Full",
    "50000baseSR2/Full",
    "1000baseX/Full",
    "10000baseCR/Full",
    "10000baseSR/Full",
    "10000baseLR/Full",
    "10000baseLRM/Full",
    "10000baseER/Full",
    "2500baseT/Full",
    "5000baseT/Full",
    "",
    "",
    "",
    "50000baseKR/Full",
    "50000baseSR/Full",
    "50000baseCR/Full",
    "50000baseLR_ER_FR/Full",
    "50000baseDR/Full",
    "100000baseKR2/Full",
    "100000baseSR2/Full",
    "100000baseCR2/Full",
    "100000baseLR2_ER2_FR2/Full",
    "100000baseDR2/Full",
    "200000baseKR4/Full",
    "200000baseSR4/Full",
    "200000baseLR4_ER4_FR4/Full",
    "200000baseDR4/Full",
    "200000baseCR4/Full",
    "100baseT1/Full",
    "1000baseT1/Full",
    "400000baseKR8/Full",
    "400000baseSR8/Full",
    "400000baseLR8_ER8_FR8/Full",
    "400000baseDR8/Full",
    "400000baseCR8/Full",
    "",
    "100000baseKR/Full",
    "100000baseSR/Full",
    "100000baseLR_ER_FR/Full",
    "100000baseCR/Full",
    "100000baseDR/Full",
    "200000baseKR2/Full",
    "200000baseSR2/Full",
    "200000baseLR2_ER2_FR2/Full",
    "200000baseDR2/Full",
    "200000baseCR2/Full",
    "400000baseKR4/Full",
    "400000baseSR4/Full",
    "400000baseLR4_ER4_FR4/Full",
    "400000baseDR4/Full",
    "400000baseCR4/Full",
    "100baseFX/Half",
    "100baseFX/Full",
    "10baseT1L/Full",
];

/// Fills in what the drivers of the running kernel tell of these interfaces. What a driver does not know stays absent.
///
/// # Errors
/// When there is no socket to ask through.
pub fn add_details(interfaces: &mut [Interface]) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    for interface in interfaces {
        of_driver(&socket, interface);
        of_address(&socket, interface);
        of_link(&socket, interface);
        of_wake_on_lan(&socket, interface);
    }
    Ok(())
}

/// # Safety
/// `T` must be what the kernel reads and writes for the command in its first field.
unsafe fn ask<T>(socket: &OwnedFd, interface: &str, question: &mut T) -> Option<()> {
    let mut request = Ifreq { name: [0; 16], data: std::ptr::from_mut(question).cast(), rest_of_union: [0; 16] };
    // With its terminating NUL.
    let name = request.name.get_mut(..interface.len()).filter(|_| interface.len() < 16)?;
    name.copy_from_slice(interface.as_bytes());
    // SAFETY: SIOCETHTOOL reads one ifreq, which `request` is laid out as (its size is asserted), and reads and writes what
    // its `data` points to, which by this function's own demand is what the command there needs.
    unsafe { raw::siocethtool(socket.as_raw_fd(), &raw mut request) }.ok().map(drop)
}

fn of_driver(socket: &OwnedFd, interface: &mut Interface) {
    let mut info = DriverInfo {
        command: GET_DRIVER_INFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        expansion_rom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    // SAFETY: ETHTOOL_GDRVINFO fills one ethtool_drvinfo, which `info` is laid out as (its size is asserted).
    if unsafe { ask(socket, &interface.name, &mut info) }.is_none() {
        return;
    }
    if interface.driver.is_none() {
        interface.driver = text(&info.driver);
    }
    interface.driver_version = text(&info.version);
    interface.firmware_version = text(&info.firmware).filter(|v| v != "N/A");
}

fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text: String = String::from_utf8_lossy(&bytes[..end]).chars().filter(|c| !c.is_control()).collect();
    Some(text.trim().to_owned()).filter(|t| !t.is_empty())
}

fn of_address(socket: &OwnedFd, interface: &mut Interface) {
    let mut address = PermanentAddress { command: GET_PERMANENT_ADDRESS, size: 32, data: [0; 32] };
    // SAFETY: ETHTOOL_GPERMADDR fills one ethtool_perm_addr and at most `size` bytes behind it, for which `data` has room.
    if unsafe { ask(socket, &interface.name, &mut address) }.is_none() {
        return;
    }
    let bytes = usize::try_from(address.size).ok().and_then(|n| address.data.get(..n)).unwrap_or_default();
    // All zeroes from drivers that know none.
    if bytes.iter().any(|b| *b != 0) {
        interface.permanent_mac = canonical_mac(&hex(bytes));
    }
}

fn of_link(socket: &OwnedFd, interface: &mut Interface) {
    let mut settings = LinkSettings {
        command: GET_LINK_SETTINGS,
        speed: 0,
        duplex: 0,
        port: 0,
        phy: 0,
        autonegotiation: 0,
        mdio: 0,
        mdix: 0,
        mdix_control: 0,
        words: 0,
        transceiver_and_clock: [0; 4],
        reserved: [0; 7],
        masks: [0; 3 * MOST_WORDS],
    };
    // SAFETY: ETHTOOL_GLINKSETTINGS with a count of 0 fills only the header, and says in the count, negated, how many
    // words each mask has.
    if unsafe { ask(socket, &interface.name, &mut settings) }.is_none() || settings.words >= 0 {
        return;
    }
    (settings.command, settings.words) = (GET_LINK_SETTINGS, settings.words.saturating_neg());
    // SAFETY: with that count it also fills three masks of as many words, at most 127 each, for which `masks` has room.
    if unsafe { ask(socket, &interface.name, &mut settings) }.is_none() {
        return;
    }
    interface.duplex = match settings.duplex {
        0 => Some("half".to_owned()),
        1 => Some("full".to_owned()),
        _ => None,
    };
    interface.autonegotiation = match settings.autonegotiation {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    };
    if (1..u32::MAX).contains(&settings.speed) {
        interface.speed_mbps = Some(settings.speed);
    }
    let words = usize::try_from(settings.words).unwrap_or(0);
    let mask = |n: usize| settings.masks.get(n * words..(n + 1) * words).unwrap_or_default();
    interface.supported_modes = modes(mask(0));
    interface.partner_modes = modes(mask(2));
}

fn modes(mask: &[u32]) -> Vec<String> {
    let is_set = |bit: usize| mask.get(bit / 32).is_some_and(|word| word >> (bit % 32) & 1 != 0);
    let named = MODES.iter().enumerate().filter(|(bit, name)| !name.is_empty() && is_set(*bit));
    // Modes that are younger than this list.
    let unnamed = (MODES.len()..mask.len() * 32).filter(|bit| is_set(*bit)).map(|bit| format!("mode {bit}"));
    named.map(|(_, name)| (*name).to_owned()).chain(unnamed).collect()
}

/// Only for root.
fn of_wake_on_lan(socket: &OwnedFd, interface: &mut Interface) {
    let mut wake = WakeOnLan { command: GET_WAKE_ON_LAN, supported: 0, options: 0, password: [0; 6] };
    // SAFETY: ETHTOOL_GWOL fills one ethtool_wolinfo, which `wake` is laid out as (its size is asserted).
    if unsafe { ask(socket, &interface.name, &mut wake) }.is_some() {
        interface.wake_on_lan_supported = Some(letters(wake.supported));
        interface.wake_on_lan = Some(letters(wake.options));
    }
}

/// PHY activity, unicast, multicast, broadcast, ARP, magic packet, with a password, by a filter; d for none.
fn letters(bits: u32) -> String {
    let letters: String =
        "pumbagsf".chars().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0).map(|(_, c)| c).collect();
    if letters.is_empty() { "d".to_owned() } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_wake_up_are_spelt_as_ethtool_spells_them() {
        assert_eq!(modes(&[0b10_1000, 1 << 15]), ["100baseT/Full", "1000baseT/Full", "2500baseT/Full"]);
        // Autonegotiation, ports and error corrections are none.
        assert_eq!(modes(&[0x0001_efc0 & !(1 << 12) & !(1 << 15), 0]), Vec::<String>::new());
        assert_eq!(modes(&[0, 0, 0, 0, 0, 0, 1]), ["mode 192"]);
        assert_eq!((letters(0x2e).as_str(), letters(0).as_str(), letters(0xff).as_str()), ("umbg", "d", "pumbagsf"));
    }

    #[test]
    fn the_loopback_has_a_driver_of_no_card() {
        let mut all = [
            Interface { name: "lo".into(), ..Interface::default() },
            Interface { name: "no-such-interface-at-all".into(), ..Interface::default() },
        ];
        add_details(&mut all).expect("a socket");
        assert_eq!((all[0].permanent_mac.as_deref(), all[0].firmware_version.as_deref()), (None, None));
        assert_eq!(all[1], Interface { name: "no-such-interface-at-all".into(), ..Interface::default() });
    }
}
