//! QEMU's command line from a machine's specification. Pure, so that it can be read and tested without a machine.

use std::path::Path;

use super::accel::Accel;
use super::spec::{Bus, Disk, Firmware, MachineSpec, Medium, Processor, Start};
use crate::error::{LabError, Result};
use crate::lab::Plug;

/// Files of one machine, in its own directory.
pub(super) struct Places<'a> {
    pub(super) serial_log: &'a Path,
    pub(super) serial_socket: &'a Path,
    pub(super) qmp_socket: &'a Path,
    pub(super) firmware_code: Option<&'a Path>,
    pub(super) firmware_vars: Option<&'a Path>,
}

struct Args(Vec<String>);

impl Args {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }
}

pub(super) fn build(spec: &MachineSpec, plug: &Plug, places: &Places<'_>) -> Result<Vec<String>> {
    check(spec)?;
    let mut args = Args(vec!["-nodefaults".to_owned(), "-no-user-config".to_owned()]);
    args.add("-name", &spec.name);
    // Without graphics SeaBIOS, and with it iPXE, speaks on the serial port; OVMF does so anyway.
    let mut machine = match spec.processor {
        Processor::X86_64 => "q35".to_owned(),
        Processor::Aarch64 => "virt".to_owned(),
    };
    if spec.vga {
        args.add("-device", "VGA");
    } else {
        machine.push_str(",graphics=off");
    }
    if spec.firmware == Firmware::SecureBoot {
        // The firmware's variables may be written by the firmware only, which sits in system management mode.
        machine.push_str(",smm=on");
        args.add("-global", "driver=cfi.pflash01,property=secure,value=on");
    }
    args.add("-machine", machine);
    args.add("-display", "none");
    match spec.accel {
        // `max` has pointer authentication, which costs an emulator more than all the rest.
        _ if spec.processor == Processor::Aarch64 => {
            args.add("-accel", "tcg,thread=multi");
            args.add("-cpu", "cortex-a72");
        }
        Accel::Tcg => {
            args.add("-accel", "tcg,thread=multi");
            args.add("-cpu", "max");
        }
        Accel::Kvm => {
            args.add("-accel", "kvm");
            args.add("-cpu", "host");
        }
    }
    args.add("-m", format!("{}M", spec.memory_mib));
    args.add("-smp", spec.cpus.to_string());
    if let (Some(code), Some(vars)) = (places.firmware_code, places.firmware_vars) {
        args.add("-drive", format!("if=pflash,format=raw,readonly=on,file={}", quoted(code)));
        args.add("-drive", format!("if=pflash,format=raw,file={}", quoted(vars)));
        // Network boot over IPv6 would wait for half a minute between the network's and the disk's boot entries.
        for knob in ["IPv6Support", "IPv6PXESupport"] {
            args.add("-fw_cfg", format!("name=opt/org.tianocore/{knob},string=no"));
        }
    }
    let smbios = &spec.smbios;
    args.add(
        "-smbios",
        format!(
            "type=1,manufacturer={},product={},serial={},uuid={}",
            comma_doubled(&smbios.manufacturer),
            comma_doubled(&smbios.product),
            comma_doubled(&smbios.serial),
            smbios.uuid
        ),
    );
    if let Some(base) = &spec.rtc {
        args.add("-rtc", format!("base={base}"));
    }
    // The log gets everything from the first byte on; the socket is for typing and may come and go.
    args.add(
        "-chardev",
        format!(
            "socket,id=console,path={},server=on,wait=off,logfile={},logappend=on",
            quoted(places.serial_socket),
            quoted(places.serial_log)
        ),
    );
    args.add("-serial", "chardev:console");
    args.add("-qmp", format!("unix:{},server=on,wait=off", quoted(places.qmp_socket)));
    // Early in boot nothing else makes entropy, and keys are made early.
    args.add("-device", "virtio-rng-pci");
    if spec.no_reboot {
        args.0.push("-no-reboot".to_owned());
    }
    add_nic(&mut args, spec, plug);
    add_disks(&mut args, spec);
    if let Start::Kernel { kernel, initrd, append } = &spec.start {
        args.add("-kernel", kernel.display().to_string());
        args.add("-initrd", initrd.display().to_string());
        args.add("-append", with_timer(spec, append));
    }
    args.0.extend(spec.more.iter().cloned());
    Ok(args.0)
}

/// As it starts, Linux counts the ticks of some milliseconds. Where those pass while a busy host runs something else than the
/// emulator, it takes the timer for broken, and panics.
fn with_timer(spec: &MachineSpec, append: &str) -> String {
    let is_emulated_pc = spec.processor == Processor::X86_64 && spec.accel == Accel::Tcg;
    if is_emulated_pc { format!("{append} no_timer_check") } else { append.to_owned() }
}

fn add_nic(args: &mut Args, spec: &MachineSpec, plug: &Plug) {
    args.add("-netdev", format!("tap,id=net0,ifname={},script=no,downscript=no", plug.tap));
    let mut port = "net0";
    if let Some(mac) = &spec.second_mac {
        // Both and the tap device at a hub inside of QEMU.
        args.add("-netdev", "hubport,id=uplink,hubid=0,netdev=net0");
        args.add("-netdev", "hubport,id=port0,hubid=0");
        args.add("-netdev", "hubport,id=port1,hubid=0");
        args.add("-device", format!("{},id=nic1,netdev=port1,mac={mac}", spec.nic));
        port = "port0";
    }
    let mut nic = format!("{},id=nic0,netdev={port},mac={}", spec.nic, plug.mac);
    if matches!(spec.start, Start::Network) {
        nic.push_str(",bootindex=1");
    }
    // OVMF has a driver and a PXE client of its own for virtio: without QEMU's option ROM, which is iPXE already, the
    // whole chain of a real machine is walked. SeaBIOS has no network driver and needs the ROM.
    if spec.firmware != Firmware::Bios && spec.nic == "virtio-net-pci" {
        nic.push_str(",romfile=");
    }
    args.add("-device", nic);
}

fn add_disks(args: &mut Args, spec: &MachineSpec) {
    if spec.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
        args.add("-device", "virtio-scsi-pci,id=scsi");
    }
    if spec.disks.iter().any(|disk| disk.bus.is_usb()) {
        args.add("-device", "qemu-xhci,id=xhci");
    }
    for (n, disk) in spec.disks.iter().enumerate() {
        let medium = match &disk.medium {
            // `unsafe` leaves flushing to the host's page cache: a guest's data outlives the guest, which is all that is
            // asked here, and a flush costs nothing. What is at stake when the power fails is tested with NBD.
            Medium::File(path) => format!("cache=unsafe,file={}", quoted(path)),
            Medium::Nbd(socket) => {
                format!("cache=none,file.driver=nbd,file.server.type=unix,file.server.path={}", quoted(socket))
            }
        };
        let read_only = if disk.read_only || disk.bus.is_cd() { ",readonly=on" } else { "" };
        let media = if disk.bus.is_cd() { ",media=cdrom" } else { "" };
        args.add("-drive", format!("if=none,id=drive{n},format=raw,discard=unmap,{medium}{read_only}{media}"));
        if disk.hot_plug && disk.bus != Bus::Scsi {
            args.add("-device", format!("pcie-root-port,id=slot{n},chassis={0},slot={0}", n + 1));
        }
        if disk.detached_namespace.is_some() {
            // Only in a subsystem a namespace may be detached.
            args.add("-device", format!("nvme-subsys,id=subsystem{n},nqn=subsystem{n}"));
        }
        args.add("-device", device(spec, disk, n));
        if let Some(path) = &disk.detached_namespace {
            add_namespaces(args, disk, n, path);
        }
    }
}

/// The namespaces of a controller that has more than the one which QEMU makes of a drive by itself.
fn add_namespaces(args: &mut Args, disk: &Disk, n: usize, detached: &Path) {
    let sectors = format!("logical_block_size={0},physical_block_size={0}", disk.sector_size.max(512));
    args.add("-device", format!("nvme-ns,bus=disk{n},drive=drive{n},nsid=1,{sectors}"));
    args.add(
        "-drive",
        format!("if=none,id=detached{n},format=raw,discard=unmap,cache=unsafe,file={}", quoted(detached)),
    );
    args.add("-device", format!("nvme-ns,bus=disk{n},drive=detached{n},nsid=2,detached=on,{sectors}"));
}

fn device(spec: &MachineSpec, disk: &Disk, n: usize) -> String {
    let sectors = format!("logical_block_size={0},physical_block_size={0}", disk.sector_size.max(512));
    let wwn = disk.wwn.map(|wwn| format!(",wwn=0x{wwn:016x}")).unwrap_or_default();
    let serial = comma_doubled(&disk.serial);
    let mut device = match disk.bus {
        Bus::Virtio => format!("virtio-blk-pci,drive=drive{n},serial={serial},{sectors}"),
        Bus::Nvme if disk.detached_namespace.is_some() => format!("nvme,subsys=subsystem{n},serial={serial}"),
        Bus::Nvme => format!("nvme,drive=drive{n},serial={serial},{sectors}"),
        Bus::Ahci => format!("ide-hd,bus=ide.{n},drive=drive{n},serial={serial}{wwn}"),
        Bus::Scsi => format!("scsi-hd,bus=scsi.0,scsi-id={n},drive=drive{n},serial={serial},{sectors}{wwn}"),
        Bus::UsbRemovable => format!("usb-storage,bus=xhci.0,drive=drive{n},serial={serial},removable=on"),
        Bus::Cd => format!("ide-cd,bus=ide.{n},drive=drive{n},serial={serial}"),
        // Of a drive that is a CD's, QEMU makes a USB CD drive.
        Bus::UsbCd => format!("usb-storage,bus=xhci.0,drive=drive{n},serial={serial}"),
    };
    device.push_str(&format!(",id=disk{n}"));
    if disk.hot_plug && disk.bus != Bus::Scsi {
        device.push_str(&format!(",bus=slot{n}"));
    }
    // By itself QEMU stops a machine whose disk is full. Its NVMe disks always report, and do not know the words.
    if matches!(disk.medium, Medium::Nbd(_)) && disk.bus != Bus::Nvme {
        device.push_str(",werror=report,rerror=report");
    }
    // OVMF drops every boot entry of a disk from its order as soon as there is any boot index but none for that disk,
    // an operating system's own entry too. With one, entries of the same disk stay in the order that the variables say.
    if matches!(spec.start, Start::Network | Start::Disk) && disk.detached_namespace.is_none() {
        device.push_str(&format!(",bootindex={}", n + 2));
    }
    device
}

fn check(spec: &MachineSpec) -> Result<()> {
    let wrong = |wrong: &str| Err(LabError::Spec { machine: spec.name.clone(), wrong: wrong.to_owned() });
    if spec.processor == Processor::Aarch64 && spec.firmware != Firmware::Uefi {
        return wrong("a machine of aarch64 has UEFI firmware here, without Secure Boot");
    }
    for (n, disk) in spec.disks.iter().enumerate() {
        if spec.processor == Processor::Aarch64 && matches!(disk.bus, Bus::Ahci | Bus::Cd) {
            return wrong("QEMU's board of aarch64 has no AHCI controller");
        }
        if matches!(disk.bus, Bus::Ahci | Bus::Cd) && n > 5 {
            return wrong("AHCI has six ports");
        }
        if disk.hot_plug && !matches!(disk.bus, Bus::Virtio | Bus::Nvme | Bus::Scsi) {
            return wrong("only virtio, NVMe and SCSI disks can be pulled out here");
        }
        if disk.sector_size != 512 && (disk.bus == Bus::Ahci || disk.bus.is_usb() || disk.bus.is_cd()) {
            return wrong("QEMU's AHCI and USB disks have 512-byte sectors only");
        }
        if disk.detached_namespace.is_some() && disk.bus != Bus::Nvme {
            return wrong("only an NVMe disk has namespaces");
        }
        if disk.wwn.is_some() && !matches!(disk.bus, Bus::Ahci | Bus::Scsi) {
            return wrong("only AHCI and SCSI disks carry a WWN here");
        }
        if disk.bus == Bus::Virtio && disk.serial.len() > 20 {
            return wrong("a virtio disk's serial has at most 20 characters");
        }
    }
    Ok(())
}

/// QEMU splits options at commas; a doubled one stands for itself.
fn comma_doubled(text: &str) -> String {
    text.replace(',', ",,")
}

fn quoted(path: &Path) -> String {
    comma_doubled(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::Ipv4Addr;

    fn built(spec: &MachineSpec) -> Result<String> {
        let plug = Plug { tap: "tap1".into(), mac: "52:54:00:12:00:01".into(), address: Ipv4Addr::LOCALHOST };
        let path = Path::new("/x/a,b");
        let places = Places {
            serial_log: path,
            serial_socket: path,
            qmp_socket: path,
            firmware_code: None,
            firmware_vars: None,
        };
        build(spec, &plug, &places).map(|args| args.join(" "))
    }

    #[test]
    fn the_network_comes_first_and_every_disk_has_its_place() {
        let spec = MachineSpec::new("m").disk(Disk::new("/d0", "S0")).disk(Disk::new("/d1", "S1").bus(Bus::Nvme));
        let line = built(&spec).unwrap();
        for part in [
            "mac=52:54:00:12:00:01,bootindex=1,romfile=",
            "virtio-blk-pci,drive=drive0,serial=S0,logical_block_size=512,physical_block_size=512,id=disk0,bootindex=2",
            "nvme,drive=drive1,serial=S1,logical_block_size=512,physical_block_size=512,id=disk1,bootindex=3",
            "path=/x/a,,b,",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!built(&spec.clone().start_with(Start::Firmware)).unwrap().contains("bootindex"));
        assert!(!built(&spec.start_with(Start::Disk)).unwrap().contains("bootindex=1"));
    }

    #[test]
    fn a_bad_disk_reports_and_can_be_pulled() {
        let spec = MachineSpec::new("m")
            .disk(Disk::nbd("/s0", "S0").hot_plug())
            .disk(Disk::nbd("/s1", "S1").bus(Bus::Nvme))
            .disk(Disk::nbd("/s2", "S2").bus(Bus::Scsi).hot_plug());
        let line = built(&spec).unwrap();
        for part in [
            "id=drive0,format=raw,discard=unmap,cache=none,file.driver=nbd,file.server.type=unix,file.server.path=/s0",
            "pcie-root-port,id=slot0,chassis=1,slot=1",
            "id=disk0,bus=slot0,werror=report,rerror=report",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("id=disk1,werror") && !line.contains("slot2"), "{line}");
    }

    #[test]
    fn what_qemu_would_quietly_ignore_is_refused() {
        let wrong = [
            Disk::new("/d", "S").bus(Bus::Ahci).sector_size(4096),
            Disk::new("/d", "S").wwn(1),
            Disk::new("/d", "123456789012345678901"),
            Disk::new("/d", "S").bus(Bus::Ahci).hot_plug(),
        ];
        for disk in wrong {
            assert!(built(&MachineSpec::new("m").disk(disk.clone())).is_err(), "{disk:?}");
        }
    }
}
