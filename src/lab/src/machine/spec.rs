//! What a machine is made of.

use std::path::PathBuf;

use super::accel::Accel;
use super::running::Machine;
use crate::error::Result;
use crate::lab::Lab;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Firmware {
    Bios,
    Uefi,
    /// UEFI that starts only what is signed with the example key of Debian's `ovmf` (`PkKek-1-snakeoil`).
    SecureBoot,
}

/// What its programs are for. Of x86 unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Processor {
    #[default]
    X86_64,
    /// `virt`, QEMU's own board with SMBIOS and PCI Express, always under UEFI and emulated.
    Aarch64,
}

impl Processor {
    pub(super) fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }
}

/// How a disk is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bus {
    Virtio,
    Nvme,
    Ahci,
    Scsi,
    /// A USB stick that says of itself that it is removable.
    UsbRemovable,
    /// A CD in a SATA drive.
    Cd,
    /// A CD in a USB drive: what the virtual media of BMCs are.
    UsbCd,
}

impl Bus {
    pub(super) fn is_cd(self) -> bool {
        matches!(self, Self::Cd | Self::UsbCd)
    }

    pub(super) fn is_usb(self) -> bool {
        matches!(self, Self::UsbRemovable | Self::UsbCd)
    }
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub(super) medium: Medium,
    pub(super) bus: Bus,
    pub(super) serial: String,
    pub(super) wwn: Option<u64>,
    pub(super) sector_size: u32,
    pub(super) hot_plug: bool,
    pub(super) read_only: bool,
    /// Medium of a second namespace of the same NVMe controller, which no host is given.
    pub(super) detached_namespace: Option<PathBuf>,
}

/// Where a disk's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Medium {
    File(PathBuf),
    /// An NBD server's socket, whose errors are the disk's.
    Nbd(PathBuf),
}

impl Disk {
    /// A raw image file as a virtio disk with 512-byte sectors.
    pub fn new(path: impl Into<PathBuf>, serial: &str) -> Self {
        Self::of(Medium::File(path.into()), serial)
    }

    /// The same of an NBD server that listens at a socket. The machine sees its errors and the disk's write cache.
    pub fn nbd(socket: impl Into<PathBuf>, serial: &str) -> Self {
        Self::of(Medium::Nbd(socket.into()), serial)
    }

    fn of(medium: Medium, serial: &str) -> Self {
        Self {
            medium,
            bus: Bus::Virtio,
            serial: serial.to_owned(),
            wwn: None,
            sector_size: 512,
            hot_plug: false,
            read_only: false,
            detached_namespace: None,
        }
    }

    /// Its medium cannot be written, and it says so.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// An NVMe controller with this raw image as namespace 2, not attached.
    #[must_use]
    pub fn detached_namespace(mut self, path: impl Into<PathBuf>) -> Self {
        self.detached_namespace = Some(path.into());
        self
    }

    /// In a slot of its own, out of which it can be pulled.
    #[must_use]
    pub fn hot_plug(mut self) -> Self {
        self.hot_plug = true;
        self
    }

    #[must_use]
    pub fn bus(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    #[must_use]
    pub fn wwn(mut self, wwn: u64) -> Self {
        self.wwn = Some(wwn);
        self
    }

    #[must_use]
    pub fn sector_size(mut self, bytes: u32) -> Self {
        self.sector_size = bytes;
        self
    }
}

/// What the machine says of itself in SMBIOS table 1. An arming or an enrolment names it by these.
#[derive(Clone, Debug)]
pub struct Smbios {
    pub manufacturer: String,
    pub product: String,
    pub serial: String,
    pub uuid: String,
}

/// What the machine does first after power on.
#[derive(Clone, Debug)]
pub enum Start {
    /// Firmware, network first and then the disks in their order.
    Network,
    /// Firmware, disks only: the network is there but nothing boots from it.
    Disk,
    /// Firmware, in whatever order its own variables say (an order that an operating system wrote, say).
    Firmware,
    /// No firmware menu, no PXE: this kernel at once. For tests whose subject is not booting.
    Kernel { kernel: PathBuf, initrd: PathBuf, append: String },
}

#[derive(Clone, Debug)]
pub struct MachineSpec {
    pub(super) name: String,
    pub(super) processor: Processor,
    pub(super) firmware: Firmware,
    pub(super) memory_mib: u32,
    pub(super) cpus: u32,
    pub(super) disks: Vec<Disk>,
    pub(super) nic: String,
    pub(super) mac: Option<String>,
    pub(super) second_mac: Option<String>,
    pub(super) smbios: Smbios,
    pub(super) rtc: Option<String>,
    pub(super) start: Start,
    pub(super) no_reboot: bool,
    pub(super) accel: Accel,
    pub(super) more: Vec<String>,
    pub(super) vga: bool,
}

impl MachineSpec {
    /// A UEFI machine with 1 GiB of memory, two processors, a virtio NIC and no disk, which boots from the network.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            processor: Processor::default(),
            firmware: Firmware::Uefi,
            memory_mib: 1024,
            cpus: 2,
            disks: Vec::new(),
            nic: "virtio-net-pci".to_owned(),
            mac: None,
            second_mac: None,
            smbios: Smbios {
                manufacturer: "Speediso".to_owned(),
                product: "Laboratory machine".to_owned(),
                serial: name.to_uppercase(),
                uuid: uuid::Uuid::new_v4().to_string(),
            },
            rtc: None,
            start: Start::Network,
            no_reboot: false,
            accel: Accel::default(),
            more: Vec::new(),
            vga: false,
        }
    }

    /// Further words of QEMU's command line, after all others: parts that few machines here have.
    #[must_use]
    pub fn with(mut self, words: &[&str]) -> Self {
        self.more.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    #[must_use]
    pub fn processor(mut self, processor: Processor) -> Self {
        self.processor = processor;
        self
    }

    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disks.push(disk);
        self
    }

    /// QEMU's name of the NIC model, `e1000e` for instance.
    #[must_use]
    pub fn nic(mut self, model: &str) -> Self {
        self.nic = model.to_owned();
        self
    }

    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.to_owned());
        self
    }

    /// A second NIC of the same model, at the same switch.
    #[must_use]
    pub fn second_nic(mut self, mac: &str) -> Self {
        self.second_mac = Some(mac.to_owned());
        self
    }

    #[must_use]
    pub fn smbios(mut self, smbios: Smbios) -> Self {
        self.smbios = smbios;
        self
    }

    #[must_use]
    pub fn serial(mut self, serial: &str) -> Self {
        serial.clone_into(&mut self.smbios.serial);
        self
    }

    #[must_use]
    pub fn uuid(mut self, uuid: &str) -> Self {
        uuid.clone_into(&mut self.smbios.uuid);
        self
    }

    /// What the battery clock says at power on, `2006-01-01T00:00:00`.
    #[must_use]
    pub fn rtc(mut self, base: &str) -> Self {
        self.rtc = Some(base.to_owned());
        self
    }

    #[must_use]
    pub fn start_with(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// A reboot ends the machine instead.
    #[must_use]
    pub fn no_reboot(mut self) -> Self {
        self.no_reboot = true;
        self
    }

    #[must_use]
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = accel;
        self
    }

    /// With a screen and a keyboard.
    #[must_use]
    pub fn vga(mut self) -> Self {
        self.vga = true;
        self
    }

    pub fn serial_number(&self) -> &str {
        &self.smbios.serial
    }

    pub fn power_on<'lab>(&self, lab: &'lab Lab) -> Result<Machine<'lab>> {
        Machine::power_on(lab, self)
    }
}
