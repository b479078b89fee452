//! The image for sticks, CDs and virtual media: it boots in both kinds of firmware, and reads its parameters from itself and
//! from nothing else.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use speediso_lab::{Bus, Dhcp, Disk, Firmware, Lab, Machine, MachineSpec, Start};
use speediso_tests::builder::{initramfs, iso, path};
use speediso_tests::{BOOT, SOON, programs};

/// Where the parameters say that the machine is. Nobody answers DHCP here.
const OWN: &str = "192.0.2.77";

fn parameters(address: &str) -> String {
    format!(
        "# As people write it, on any computer\r\nip={address}::192.0.2.1:255.255.255.0:stick::none\r\n\
         speediso.skip=serial=KEEP-ME\r\n"
    )
}

fn lab() -> Lab {
    Lab::builder().dhcp(Dhcp::Silent).build().unwrap()
}

fn image(lab: &Lab, name: &str, address: &str) -> PathBuf {
    let file = lab.dir().join(name);
    iso(&programs().unwrap(), &parameters(address), &file).unwrap();
    file
}

fn machine(name: &str, firmware: Firmware, medium: &Path, bus: Bus) -> MachineSpec {
    MachineSpec::new(name)
        .firmware(firmware)
        .memory_mib(768)
        .cpus(1)
        .start_with(Start::Disk)
        .disk(Disk::new(medium, "MEDIUM").bus(bus))
}

/// Types a command on the console and waits for what it answers.
fn ask(machine: &mut Machine<'_>, command: &str, answer: &str) {
    let mark = machine.serial().mark();
    machine.type_line("").unwrap();
    machine.type_line(command).unwrap();
    machine.wait_for_after(mark, answer, SOON).unwrap();
}

fn has_its_parameters(machine: &mut Machine<'_>) {
    machine.wait_for("parameters: from speediso.conf on", 2 * BOOT).unwrap();
    machine.wait_for(&format!("{OWN}/24 on"), SOON).unwrap();
    machine.wait_for("this is the live system", SOON).unwrap();
}

/// A stick in a BIOS machine and a BMC's virtual CD in a UEFI one, each with an address on it. The BIOS machine has a copy of
/// the whole image, with another address, on a disk of its own: it is not looked at. The stick is nobody's disk, and
/// what its parameters say to leave alone is left alone.
#[test]
fn a_stick_and_a_virtual_cd_boot_with_their_own_parameters() {
    let lab = lab();
    let medium = image(&lab, "speediso.iso", OWN);
    let copy = lab.dir().join("copy.iso");
    fs::copy(&medium, &copy).unwrap();
    let text = lab.dir().join("copy.conf");
    fs::write(&text, parameters("192.0.2.66")).unwrap();
    let programs = programs().unwrap();
    initramfs(&programs, &["iso-parameters", path(&copy).unwrap(), path(&text).unwrap()]).unwrap();
    let shown = initramfs(&programs, &["iso-parameters", path(&copy).unwrap()]).unwrap();
    assert_eq!(shown, parameters("192.0.2.66"));

    let cd = lab.dir().join("cd.iso");
    fs::copy(&medium, &cd).unwrap();
    let mut bios = machine("bios", Firmware::Bios, &medium, Bus::UsbRemovable)
        .disk(Disk::new(&copy, "KEEP-ME"))
        .power_on(&lab)
        .unwrap();
    let mut uefi = machine("uefi", Firmware::Uefi, &cd, Bus::UsbCd).power_on(&lab).unwrap();
    has_its_parameters(&mut bios);
    has_its_parameters(&mut uefi);
    ask(&mut bios, "speediso-agent disks --json | grep -e medium -e KEEP", "the medium with its parameters");
    ask(&mut bios, "speediso-agent disks --hints serial=KEEP-ME; echo EXIT-$?", "skip");
    ask(&mut uefi, "cat /sys/class/net/*/address; grep -c sr0 /proc/mounts; echo MOUNTED-$?", "MOUNTED-1");
}

/// The same image the other way round, and what is believed when the medium is not there or is there twice.
#[test]
#[ignore = "four machines one after the other, three minutes; `make test-all` runs it"]
fn a_medium_that_is_missing_or_there_twice_gives_no_parameters() {
    let lab = lab();
    let medium = image(&lab, "speediso.iso", OWN);
    let copy = lab.dir().join("copy.iso");
    fs::copy(&medium, &copy).unwrap();
    {
        let mut bios = machine("bios-cd", Firmware::Bios, &medium, Bus::Cd).power_on(&lab).unwrap();
        let mut uefi = machine("uefi-stick", Firmware::Uefi, &copy, Bus::UsbRemovable).power_on(&lab).unwrap();
        has_its_parameters(&mut bios);
        has_its_parameters(&mut uefi);
    }
    let mut twice = machine("twice", Firmware::Bios, &medium, Bus::UsbRemovable)
        .disk(Disk::new(&copy, "COPY").bus(Bus::UsbRemovable))
        .power_on(&lab)
        .unwrap();
    twice.wait_for("2 media carry the parameter partition", BOOT).unwrap();
    twice.wait_for("no task was run, no disk was touched", BOOT).unwrap();
    assert!(!twice.serial().text().contains(OWN), "one of them was believed");
    drop(twice);
    // Only where the firmware boots from; a disk inside of the machine is none of the media.
    let mut inside = machine("inside", Firmware::Bios, &medium, Bus::Virtio).power_on(&lab).unwrap();
    inside.wait_for("no stick and no CD carries the parameter partition", 2 * BOOT).unwrap();
    inside.wait_for("no task was run, no disk was touched", BOOT).unwrap();
    assert!(!inside.serial().text().contains(OWN), "a disk of the machine was read");
}
