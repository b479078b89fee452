//! The one EFI program of a build: it boots from a stick, and with Secure Boot only as its owner signed it.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use speediso_lab::{Disk, Firmware, Lab, Machine, MachineSpec, Start, tool};
use speediso_tests::{BOOT, SOON, programs};

const CMDLINE: &str = "console=ttyS0,115200 SPEEDISO=shell";

/// The key that the firmware of these machines trusts; Debian ships it with a well-known passphrase.
struct Owner {
    key: PathBuf,
    certificate: PathBuf,
}

impl Owner {
    fn of_the_firmware(lab: &Lab) -> Self {
        let key = lab.dir().join("owner.key");
        let shipped = tool::file("/usr/share/ovmf/PkKek-1-snakeoil.key").unwrap();
        let mut openssl = Command::new(tool::find("openssl").unwrap());
        tool::run(openssl.args(["pkey", "-passin", "pass:snakeoil", "-in"]).arg(shipped).arg("-out").arg(&key))
            .unwrap();
        Self { key, certificate: tool::file("/usr/share/ovmf/PkKek-1-snakeoil.pem").unwrap().to_owned() }
    }
}

/// The latest build as an EFI program.
fn program(to: &Path, owner: Option<&Owner>) {
    let programs = programs().unwrap();
    let builder = programs.controller.with_file_name("speediso-initramfs");
    let mut command = Command::new(builder);
    command
        .arg("uki")
        .arg("--out")
        .arg(programs.boot_files.parent().unwrap())
        .args(["--cmdline", CMDLINE])
        .arg("--to")
        .arg(to);
    if let Some(owner) = owner {
        command.arg("--key").arg(&owner.key).arg("--cert").arg(&owner.certificate);
    }
    tool::run(&mut command).unwrap();
}

/// A stick with this program where firmware looks for one, in a machine with Secure Boot.
fn machine<'lab>(lab: &'lab Lab, name: &str, program: &Path) -> Machine<'lab> {
    let stick = lab.dir().join(format!("{name}.stick"));
    File::create(&stick).unwrap().set_len(96 << 20).unwrap();
    let mtool = |name: &str, args: &[&str]| {
        let mut command = Command::new(tool::find("mformat").unwrap().with_file_name(name));
        tool::run(command.arg("-i").arg(&stick).args(args)).unwrap();
    };
    mtool("mformat", &["-F", "::"]);
    mtool("mmd", &["::/EFI", "::/EFI/BOOT"]);
    mtool("mcopy", &[program.to_str().unwrap(), "::/EFI/BOOT/BOOTX64.EFI"]);
    let disk = Disk::new(&stick, &name.to_uppercase());
    let spec = MachineSpec::new(name).firmware(Firmware::SecureBoot).memory_mib(768).cpus(1).disk(disk);
    spec.start_with(Start::Disk).power_on(lab).unwrap()
}

/// Signed, it boots into the live system, which knows that Secure Boot is on and can load its modules; without a
/// signature, with one byte of the ramdisk changed, or signed by somebody else, the firmware does not start it.
#[test]
fn only_what_the_owner_signed_is_started() {
    let lab = Lab::builder().build().unwrap();
    let owner = Owner::of_the_firmware(&lab);
    let signed = lab.dir().join("signed.efi");
    program(&signed, Some(&owner));

    let mut good = machine(&lab, "signed", &signed);
    good.wait_for("this is the live system", BOOT).unwrap();
    let mark = good.serial().mark();
    good.type_line("").unwrap();
    good.type_line("speediso-agent inventory --json | grep -e secure_boot -e 'mac_address'; cat /proc/cmdline")
        .unwrap();
    good.wait_for_after(mark, "\"secure_boot\": true", SOON).unwrap();
    // A module was taken, though the kernel is locked down: the network card is there.
    good.wait_for_after(mark, "\"mac_address\": \"52:54:", SOON).unwrap();
    good.wait_for_after(mark, CMDLINE, SOON).unwrap();
    drop(good);

    let unsigned = lab.dir().join("unsigned.efi");
    program(&unsigned, None);
    let tampered = lab.dir().join("tampered.efi");
    let mut bytes = std::fs::read(&signed).unwrap();
    let inside = bytes.len() - (2 << 20);
    bytes[inside] ^= 1;
    std::fs::write(&tampered, bytes).unwrap();
    let stranger = Owner { key: lab.dir().join("stranger.key"), certificate: lab.dir().join("stranger.pem") };
    let mut openssl = Command::new(tool::find("openssl").unwrap());
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stranger", "-keyout"]);
    tool::run(openssl.arg(&stranger.key).arg("-out").arg(&stranger.certificate)).unwrap();
    let foreign = lab.dir().join("foreign.efi");
    program(&foreign, Some(&stranger));

    for (name, program) in [("unsigned", &unsigned), ("tampered", &tampered), ("foreign", &foreign)] {
        let mut bad = machine(&lab, name, program);
        bad.wait_for("Access Denied", BOOT).unwrap();
        let console = bad.serial().text();
        assert!(!console.contains("Linux version") && !console.contains("Speediso"), "{name}:\n{console}");
    }
}
