//! Restarts without a controller: a signed task file, counted boot after boot in a variable of the firmware.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use serde_json::json;
use speediso_lab::{Firmware, Lab, tool};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, TestDisk, WORK, programs};

const PORT: u16 = 8082;
const ORDER: &str = "5b1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d77";

/// Signs a task file as an operator would, with openssl. Gives the public key in hex.
fn signed(dir: &Path, file: &serde_json::Value) -> String {
    let (key, tasks, signature) = (dir.join("key.pem"), dir.join("tasks.json"), dir.join("signature"));
    std::fs::write(&tasks, file.to_string()).unwrap();
    let openssl = |args: &[&std::ffi::OsStr]| tool::run(Command::new("openssl").args(args)).unwrap();
    let (o, public) = (std::ffi::OsStr::new, dir.join("public.der"));
    openssl(&[o("genpkey"), o("-algorithm"), o("ed25519"), o("-out"), key.as_ref()]);
    openssl(&[o("pkey"), o("-in"), key.as_ref(), o("-pubout"), o("-outform"), o("DER"), o("-out"), public.as_ref()]);
    let sign = [o("pkeyutl"), o("-sign"), o("-rawin"), o("-inkey"), key.as_ref(), o("-in"), tasks.as_ref(), o("-out")];
    openssl(&[&sign[..], &[signature.as_ref()]].concat());
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    std::fs::write(dir.join("tasks.json.sig"), hex(&std::fs::read(signature).unwrap())).unwrap();
    std::fs::remove_file(key).unwrap();
    // RFC 8410: the key is the end of it.
    let public = std::fs::read(public).unwrap();
    hex(&public[public.len() - 32..])
}

/// Two restarts under UEFI: the tasks are done once, each boot finds the same hardware, the third boot ends it, and the
/// file is refused from then on. Under BIOS the same file does nothing at all.
#[test]
#[ignore = "four boots under UEFI, two minutes or more: make test-all"]
fn a_signed_file_restarts_a_machine_as_often_as_it_says() {
    let lab = Lab::builder().build().unwrap();
    let files = lab.dir().join("files");
    std::fs::create_dir(&files).unwrap();
    let scenario = json!({"version": 1, "name": "once", "steps": [{"step": "cpu", "duration": "1s"}]});
    let key = signed(
        &files,
        &json!({"version": 1, "machine": "LOOPS", "expires": "2100-01-01T00:00:00Z", "order": ORDER, "reboots": 2,
            "tasks": [{"task": "burn_in", "scenario": scenario}]}),
    );
    let _server = lab.serve_files(PORT, &files).unwrap();
    let disk = TestDisk::with_data(&lab, "LOOPDISK", 64).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "loops").unwrap();
    let words = format!(
        "speediso.tasks=http://192.0.2.1:{PORT}/tasks.json speediso.tasks_key={key} speediso.sshkey=\"{}\"",
        ssh.public
    );
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let machine = |name: &str, firmware| {
        ramdisk.machine(name, &words).firmware(firmware).serial("LOOPS").memory_mib(512).disk(disk.plugged())
    };

    let mut bios = machine("bios", Firmware::Bios).power_on(&lab).unwrap();
    bios.wait_for("asks for 2 restarts, and this machine boots by BIOS: nothing was done", BOOT).unwrap();
    assert!(!bios.serial().text().contains("task burn_in"), "{}", bios.serial().tail());
    drop(bios);

    let mut uefi = machine("uefi", Firmware::Uefi).power_on(&lab).unwrap();
    for words in [
        "verified: cpu for",
        "restart 1 of 2 begins",
        "restart 1 of 2: back after",
        "restart 2 of 2 begins",
        "restart 2 of 2: back after",
        "each with the same hardware",
    ] {
        uefi.wait_for(words, BOOT + WORK).unwrap();
    }
    let console = uefi.serial().text();
    assert_eq!(console.matches("verified: cpu for").count(), 1, "the tasks are done once");
    assert_eq!(console.matches(" of 2 begins").count(), 2, "two restarts are two");
    ssh.to(&lab, &uefi).unwrap();
    let left = ssh.run("ls /sys/firmware/efi/efivars | grep Speediso; true", BOOT).unwrap();
    assert!(left.contains("SpeedisoBegun") && !left.contains("SpeedisoReboots"), "{left}");

    // Somebody starts it once more: what came to its end is not begun again.
    let mark = uefi.serial().mark();
    let _ = ssh.run("reboot", BOOT);
    uefi.wait_for_after(mark, &format!("order {ORDER} was begun on this machine before"), BOOT + WORK).unwrap();
    assert!(!uefi.serial().text().contains("restart 3"));
    drop(uefi);
    disk.assert_untouched().unwrap();
}
