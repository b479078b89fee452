//! No controller and no task file: everything on the command line, armed for this very machine.

#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use speediso_lab::{Lab, Start};
use speediso_tests::{BOOT, Ramdisk, TestDisk, TinyImage, WORK, programs, sha256};

const PORT: u16 = 8081;

fn words(image: &str, digest: &str, disk: &str) -> String {
    format!(
        "SPEEDISO=lininstall speediso.arm=ARMED speediso.image=http://{}:{PORT}/{image} \
         speediso.digest=sha256:{digest} speediso.root_device=serial={disk} speediso.wipe=none",
        Ipv4Addr::new(192, 0, 2, 1)
    )
}

/// A machine armed by its serial number is installed, leaves the other disk alone, and powers off instead of rebooting,
/// so that the boot entry cannot loop. Its disk boots afterwards.
#[test]
fn an_armed_machine_is_installed_and_powers_off() {
    let image = TinyImage::get().unwrap();
    let lab = Lab::builder().build().unwrap();
    let _files = lab.serve_files(PORT, image.raw.parent().unwrap()).unwrap();
    let target = TestDisk::blank(&lab, "TARGET", 128).unwrap();
    let other = TestDisk::with_data(&lab, "OTHER", 64).unwrap();
    let spec = Ramdisk::of(&programs().unwrap())
        .machine("armed", &words("tiny.raw.zst", &sha256(&image.zst).unwrap(), "TARGET"))
        .memory_mib(384)
        .serial("ARMED")
        .disk(target.plugged())
        .disk(other.plugged());
    let mut machine = spec.power_on(&lab).unwrap();
    let status = machine.wait_exit(BOOT + WORK).unwrap();
    assert!(status.success(), "{status}");
    let console = machine.serial().text();
    assert!(console.contains("reboot: Power down"), "it did not power off:\n{}", machine.serial().tail());
    assert!(target.holds(&image.raw).unwrap(), "the disk does not hold the image");
    other.assert_untouched().unwrap();

    let mark = machine.serial().mark();
    let mut machine = machine.power_on_again(&spec.start_with(Start::Disk)).unwrap();
    machine.wait_for_after(mark, "TINY-OS UP", BOOT).unwrap();
}

/// Three images that must not end up bootable, in three machines: cut short by the server, with another digest, and
/// larger than the disk. Each is said by its code; the first two leave a disk without any partition table, the third
/// leaves the disk as it was.
#[test]
fn bad_images_leave_nothing_bootable() {
    let image = TinyImage::get().unwrap();
    let digest = sha256(&image.raw).unwrap();
    let lab = Lab::builder().build().unwrap();
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::copy(&image.raw, files.join("tiny.raw")).unwrap();
    // A real cut: the bytes end although nothing says that more were to come.
    let short = std::fs::File::create(files.join("short.raw")).unwrap();
    std::io::copy(
        &mut std::io::Read::take(std::fs::File::open(&image.raw).unwrap(), image.size().unwrap() / 2),
        &mut &short,
    )
    .unwrap();
    let _server = lab.serve_files(PORT, &files).unwrap();
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let wrong = digest.chars().rev().collect::<String>();

    let cases = [
        ("short", words("short.raw", &digest, "SHORT"), 128, "image-digest-mismatch", true),
        ("wrong", words("tiny.raw", &wrong, "WRONG"), 128, "image-digest-mismatch", true),
        ("small", words("tiny.raw", &digest, "SMALL"), 16, "image-too-large", false),
    ];
    for (name, words, mib, code, written) in cases {
        // The disk has a table beforehand, so that its absence afterwards says something.
        let disk = TestDisk::blank(&lab, &name.to_uppercase(), mib).unwrap();
        disk.write(510, &[0x55, 0xaa]).unwrap();
        let disk = TestDisk::of(&disk).unwrap();
        let mut machine =
            ramdisk.machine(name, &words).memory_mib(384).serial("ARMED").disk(disk.plugged()).power_on(&lab).unwrap();
        machine.wait_for(code, BOOT + WORK).unwrap();
        // What it does afterwards (a shell, or off) must not bring the table back.
        let _ = machine.wait_exit(Duration::from_secs(5));
        drop(machine);
        assert_eq!(disk.has_table().unwrap(), !written, "{name}");
        if !written {
            disk.assert_untouched().unwrap();
        }
    }
}
