//! What a machine has. Field names are those of ironic-python-agent's inventory wherever it has them, so that one
//! structure answers our controller and an Ironic; what it lacks is added beside.

pub mod bmc;
mod board;
mod boot;
pub mod compare;
pub mod health;
mod kernel;
pub mod link;
mod memory;
mod numa;
mod pci;
mod processor;
mod sensor;
mod tpm;
pub mod unlisted;
mod usb;
mod wwn;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::bmc::Bmc;
use self::health::{DiskHealth, NvmeNamespace};
use self::link::Link;
use crate::abilities::Abilities;
pub use board::{Board, Chassis, Firmware, OnboardDevice, PowerSupply, Slot, SystemVendor};
pub use boot::{Boot, FirmwareEntry};
pub use kernel::{Kernel, without_secrets};
pub use memory::{EmptySlot, Memory, MemoryArray, MemoryModule};
pub use numa::{NumaCore, NumaMemory, NumaNic, NumaNode, NumaTopology, cpu_list};
pub use pci::{Gpu, PciDevice, PcieLink, class_words};
pub use processor::{Cache, Cpu, Frequencies, Socket};
pub use sensor::{Sensor, SensorKind};
pub use tpm::Tpm;
pub use usb::UsbDevice;

use crate::build::BuildInfo;
use crate::lldp::Neighbour;
use crate::units::Bytes;

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Inventory {
    pub hostname: String,
    pub system_vendor: SystemVendor,
    pub cpu: Cpu,
    pub memory: Memory,
    pub disks: Vec<Disk>,
    pub interfaces: Vec<Interface>,
    pub boot: Boot,
    pub bmc_address: Option<String>,
    pub bmc_v6address: Option<String>,
    pub bmc_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bmc: Option<Bmc>,
    pub numa_topology: NumaTopology,
    pub pci_devices: Vec<PciDevice>,
    /// Of the PCI devices those that compute: graphics processors and accelerators.
    pub gpus: Vec<Gpu>,
    pub usb_devices: Vec<UsbDevice>,
    pub tpm: Option<Tpm>,
    /// What the kernel's monitoring drivers measured when the inventory was taken.
    pub sensors: Vec<Sensor>,
    pub boards: Vec<Board>,
    pub chassis: Vec<Chassis>,
    pub slots: Vec<Slot>,
    pub onboard_devices: Vec<OnboardDevice>,
    pub power_supplies: Vec<PowerSupply>,
    pub kernel: Kernel,
    /// The ramdisk this was seen from.
    pub build: BuildInfo,
    /// What could not be read, in words: a missing fact is said, not guessed.
    pub unread: Vec<String>,
}

/// How a disk is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Nvme,
    Sata,
    Sas,
    Scsi,
    Virtio,
    Usb,
    Mmc,
    Loop,
    Fc,
    Iscsi,
    /// An array of disks, made or assembled by a task of this boot.
    Md,
    #[default]
    #[serde(other)]
    Unknown,
}

/// A block device that could hold a system. Partitions, dm and the like are never listed here, and of arrays only those
/// that tasks of this boot made or assembled.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Disk {
    /// The kernel's name this time, `/dev/nvme0n1`: for reading along, never for choosing.
    pub name: String,
    pub model: String,
    pub vendor: String,
    pub serial: String,
    pub wwn: Option<String>,
    /// All digits of an NAA name as udev writes them, where `wwn` has 16 or 32.
    pub wwn_with_extension: Option<String>,
    /// The last 16 digits of 32.
    pub wwn_vendor_extension: Option<String>,
    pub firmware: String,
    pub size: Bytes,
    pub rotational: bool,
    pub removable: bool,
    pub read_only: bool,
    /// Logical sector size in bytes.
    pub logical_sectors: u32,
    pub physical_sectors: u32,
    pub tran: Transport,
    /// The name udev would make below `/dev/disk/by-path/`.
    pub by_path: Option<String>,
    pub hctl: Option<String>,
    /// Of what hardware RAID it is a volume, see [`crate::raid_volume`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raid_volume: Option<String>,
    /// Counts every disk the kernel has seen since boot: a disk swapped under the same name has another one.
    pub diskseq: Option<u64>,
    /// What holds the disk, its partitions included; empty when it is free.
    pub in_use: Vec<Use>,
    /// What libblkid finds on it.
    pub signatures: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// Absent for a disk that has nothing of the kind: a virtual one, a volume of a storage system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<DiskHealth>,
    /// What it can do to forget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abilities: Option<Abilities>,
    /// All of an NVMe controller.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<NvmeNamespace>,
    /// Of an array: its name. Its UUID is its serial number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// Why no task may touch it, though it is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excluded: Option<Exclusion>,
}

/// A reason for which a disk is nobody's, whoever asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// By the hints of a skip list.
    Skipped { by: String },
    /// This system was started from it, and may need it again.
    LiveSystem { how: String },
}

/// A reason for which a disk is not free.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    Mounted {
        device: String,
        at: String,
    },
    Swap {
        device: String,
    },
    /// An md, dm, bcache or other device stands on it.
    Holder {
        device: String,
        name: String,
    },
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Interface {
    pub name: String,
    pub mac_address: String,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    /// Of an interface that is down nobody knows: `up` tells.
    pub has_carrier: bool,
    /// Switched on, whether or not there is a cable.
    pub up: bool,
    pub speed_mbps: Option<u32>,
    pub mtu: Option<u32>,
    /// PCI vendor and device id, `0x8086`.
    pub vendor: Option<String>,
    pub product: Option<String>,
    pub pci_address: Option<String>,
    pub driver: Option<String>,
    /// Whether the boot loader named this one by BOOTIF.
    pub boot: bool,
    /// What the card was made with; `mac_address` may be another for now.
    pub permanent_mac: Option<String>,
    pub driver_version: Option<String>,
    pub firmware_version: Option<String>,
    /// `full` or `half`
    pub duplex: Option<String>,
    pub autonegotiation: Option<bool>,
    /// `25000baseCR/Full`, and what the other end offers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supported_modes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partner_modes: Vec<String>,
    /// What wakes the machine, in ethtool's letters: `pumbg`.
    pub wake_on_lan_supported: Option<String>,
    /// What of it is switched on; `d` is nothing.
    pub wake_on_lan: Option<String>,
    pub numa_node: Option<u32>,
    pub link: Option<Link>,
    pub sriov_total_vfs: Option<u32>,
    pub sriov_vfs: Option<u32>,
    /// The bond or bridge it belongs to.
    pub master: Option<String>,
    /// VLANs that stand on it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<u16>,
    /// InfiniBand's port GUID, where Ironic has it.
    pub client_id: Option<String>,
    /// What biosdevname would call it: `em1`, `p3p1`.
    pub biosdevname: Option<String>,
    /// What the firmware calls it: `Embedded NIC 1`.
    pub label: Option<String>,
    /// Who was heard at the other end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Neighbour>,
    /// The same of the switch as it came, TLV by TLV, type and value in hex: Ironic's form.
    pub lldp: Option<Vec<(u8, String)>>,
}

impl Interface {
    /// By which it is known for good.
    #[must_use]
    pub fn own_mac(&self) -> &str {
        self.permanent_mac.as_deref().unwrap_or(&self.mac_address)
    }
}

impl MemoryModule {
    /// At which it runs, as far as the firmware tells.
    #[must_use]
    pub fn speed(&self) -> Option<u32> {
        self.configured_speed_mts.or(self.speed_mts)
    }
}

impl Inventory {
    /// The MAC addresses that tell this machine from others, sorted, in the canonical lower-case form with colons: not
    /// zeros, and not those of the USB network by which a BMC speaks with its machine, which are the same on thousands of
    /// boards. Where all network is USB, that is what there is.
    #[must_use]
    pub fn macs(&self) -> Vec<String> {
        const OVER_USB: [&str; 4] = ["cdc_ether", "cdc_ncm", "cdc_eem", "rndis_host"];
        let is_usb = |i: &&Interface| i.driver.as_deref().is_some_and(|driver| OVER_USB.contains(&driver));
        let (usb, others): (Vec<&Interface>, Vec<&Interface>) = self.interfaces.iter().partition(is_usb);
        let real = |list: Vec<&Interface>| -> Vec<String> {
            let macs = list.into_iter().filter_map(|i| canonical_mac(&i.mac_address));
            macs.filter(|mac| is_real_identifier(mac)).collect()
        };
        let mut macs = real(others);
        if macs.is_empty() {
            macs = real(usb);
        }
        macs.sort();
        macs.dedup();
        macs
    }

    /// The JSON Schema that is published as `docs/inventory.schema.json`.
    #[must_use]
    pub fn json_schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}

/// `01-52-54-00-AB-CD-EF` (BOOTIF), `5254.00ab.cdef`, `52:54:00:ab:cd:ef`, ... -> `52:54:00:ab:cd:ef`.
#[must_use]
pub fn canonical_mac(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    let digits = match digits.len() {
        12 => digits,
        // BOOTIF carries the ARP hardware type in front: 01 is Ethernet.
        14 if digits.starts_with("01") => digits[2..].to_owned(),
        _ => return None,
    };
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let lower = digits.to_ascii_lowercase();
    Some((0..6).map(|i| &lower[2 * i..2 * i + 2]).collect::<Vec<_>>().join(":"))
}

/// Whether a text from SMBIOS identifies anything. Boards are shipped with placeholders in these fields, the same on
/// thousands of machines; an order that matched one would match the neighbour too.
#[must_use]
pub fn is_real_identifier(text: &str) -> bool {
    const PLACEHOLDERS: [&str; 28] = [
        "to be filled by o.e.m.",
        "to be filled by o.e.m",
        "to be filled by oem",
        "o.e.m.",
        "oem",
        "default",
        "default string",
        "empty",
        "undefined",
        "not available",
        "no asset tag",
        "no asset information",
        "system serial number",
        "serial number",
        "not specified",
        "none",
        "n/a",
        "unknown",
        "invalid",
        "not applicable",
        "chassis serial number",
        "base board serial number",
        "0123456789",
        "123456789",
        "1234567890",
        // A UUID that boards of one maker leave the factory with, in both orders of its bytes, and one of others.
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
    ];
    let text = text.trim().to_ascii_lowercase();
    let mut letters = text.chars().filter(char::is_ascii_alphanumeric);
    let Some(first) = letters.next() else { return false };
    // All one character (zeros, efs, Xs) is a placeholder too.
    letters.any(|c| c != first) && !PLACEHOLDERS.contains(&text.as_str())
}

/// Whether `name`, given by a person in an order or on the command line, is this machine: its SMBIOS UUID or serial
/// number, or one of its MAC addresses. Placeholders match nothing.
#[must_use]
pub fn names_machine(name: &str, system: &SystemVendor, macs: &[String]) -> bool {
    let name = name.trim();
    if let Some(mac) = canonical_mac(name)
        && macs.contains(&mac)
    {
        return true;
    }
    if !is_real_identifier(name) {
        return false;
    }
    let same = |value: &str| is_real_identifier(value) && value.trim().eq_ignore_ascii_case(name);
    same(&system.serial_number) || system.uuid.as_deref().is_some_and(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_have_one_form() {
        for text in ["01-52-54-00-AB-CD-EF", "52:54:00:ab:cd:ef", "5254.00AB.CDEF", "525400abcdef"] {
            assert_eq!(canonical_mac(text).as_deref(), Some("52:54:00:ab:cd:ef"), "{text}");
        }
        for text in ["", "52:54:00", "20-52-54-00-ab-cd-ef", "zz:54:00:ab:cd:ef"] {
            assert_eq!(canonical_mac(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_that_many_machines_have_identify_none() {
        let nic = |mac: &str, driver: &str| Interface {
            mac_address: mac.into(),
            driver: Some(driver.into()),
            ..Interface::default()
        };
        let bmc = nic("be:3a:f2:b6:05:9f", "cdc_ether");
        let mut machine = Inventory {
            interfaces: vec![bmc.clone(), nic("52:54:00:AB:CD:EF", "ice"), nic("00:00:00:00:00:00", "mlx5_core")],
            ..Inventory::default()
        };
        assert_eq!(machine.macs(), ["52:54:00:ab:cd:ef"]);
        // A machine whose only network is a USB adapter is known by it.
        machine.interfaces = vec![bmc];
        assert_eq!(machine.macs(), ["be:3a:f2:b6:05:9f"]);
    }

    #[test]
    fn placeholders_identify_nothing() {
        for text in [
            "",
            "  ",
            "0000000000",
            "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
            "To Be Filled By O.E.M.",
            "Default string",
            "03000200-0400-0500-0006-000700080009",
            "...",
        ] {
            assert!(!is_real_identifier(text), "{text}");
        }
        assert!(is_real_identifier("CZ3029XKLM"));
        let system = SystemVendor {
            serial_number: "Default string".into(),
            uuid: Some("4C4C4544-0042".into()),
            ..SystemVendor::default()
        };
        assert!(!names_machine("Default string", &system, &[]));
        assert!(names_machine("4c4c4544-0042", &system, &[]));
        assert!(names_machine("01-52-54-00-ab-cd-ef", &system, &["52:54:00:ab:cd:ef".into()]));
        assert!(!names_machine("52:54:00:ab:cd:ee", &system, &["52:54:00:ab:cd:ef".into()]));
    }
}
