//! A machine that runs one system leaves it for ours, without its firmware: `speediso boot-into`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

use speediso_lab::{Lab, Site, tool};
use speediso_tests::builder::{initramfs, path};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, programs};

const NUMBER: &str = "4242";

/// The running system, a mini ramdisk with a static address, is left for another build: not without its digests, not with
/// wrong ones, not by a dry run; then at once. Address and interface stay, and the controller sees the machine.
#[test]
fn a_running_system_is_left_for_another_build() {
    let mut programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let builds = lab.dir().join("builds");
    let agent = programs.controller.with_file_name("speediso-agent");
    initramfs(
        &programs,
        &["build", "--agent", path(&agent).unwrap(), "--out", path(&builds).unwrap(), "--number", NUMBER],
    )
    .unwrap();
    let ramdisk = Ramdisk::of(&programs);
    programs.boot_files = builds.join("latest");
    let site = Site::start(&lab, &programs, 0).unwrap();

    let files = lab.dir().join("files");
    fs::create_dir(&files).unwrap();
    tool::run(Command::new("strip").arg("-o").arg(files.join("speediso")).arg(&programs.cli)).unwrap();
    let sums = fs::read_to_string(programs.boot_files.join("SHA256SUMS")).unwrap();
    fs::write(files.join("SHA256SUMS"), &sums).unwrap();
    fs::write(files.join("WRONG"), sums.replace(|c: char| c.is_ascii_digit(), "0")).unwrap();
    let _server = lab.serve_files(8081, &files).unwrap();

    let mut ssh = LiveSsh::with_fresh_key(&lab, "old").unwrap();
    let words = format!("speediso.sshkey=\"{}\" ip=192.0.2.10::192.0.2.1:24:old::none", ssh.public);
    let mut machine = ramdisk.machine("old", &words).memory_mib(1024).cpus(1).serial("KEXEC-1").power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let get = "cd /tmp; for f in speediso SHA256SUMS WRONG; do wget -q http://192.0.2.1:8081/$f || exit 1; done; chmod +x speediso";
    ssh.run(get, BOOT).unwrap();
    // What it says of itself, with its exit status.
    let boot_into = |words: &str| {
        let command = format!("/tmp/speediso boot-into {words} 2>&1; echo EXIT-$?");
        ssh.run(&command, SOON).unwrap()
    };
    let url = "--boot-url http://192.0.2.1:8080";
    let unseen = boot_into(url);
    assert!(unseen.contains("--sums") && unseen.contains("EXIT-1"), "{unseen}");
    let wrong = boot_into(&format!("{url} --sums /tmp/WRONG"));
    assert!(wrong.contains("nothing was loaded") && wrong.contains("EXIT-1"), "{wrong}");
    let dry = boot_into(&format!("{url} --sums /tmp/SHA256SUMS --dry-run"));
    let mac = machine.mac().replace(':', "-");
    assert!(dry.contains(&format!("BOOTIF=01-{mac} ip=192.0.2.10::192.0.2.1:24:")), "{dry}");
    assert!(dry.contains("nothing was loaded") && dry.contains("EXIT-0"), "{dry}");
    assert_eq!(ssh.run("cat /sys/kernel/kexec_loaded", SOON).unwrap(), "0");

    let loaded = boot_into(&format!("{url} --sums /tmp/SHA256SUMS"));
    assert!(loaded.contains("EXIT-0"), "{loaded}");
    assert_eq!(ssh.run("cat /sys/kernel/kexec_loaded", SOON).unwrap(), "1");
    let mark = machine.serial().mark();
    // It does not come back.
    machine.type_line("").unwrap();
    machine.type_line(&format!("/tmp/speediso boot-into {url} --sums /tmp/SHA256SUMS --now")).unwrap();
    machine.wait_for_after(mark, &format!("build {NUMBER}"), BOOT).unwrap();
    let node = site.wait_machine("KEXEC-1", "pending", BOOT, |node| node.code.is_some()).unwrap();
    machine.wait_for_after(mark, "192.0.2.10/24 on", SOON).unwrap();
    assert!(!machine.serial().text_after(mark).contains("SeaBIOS"), "it went through its firmware");
    assert_eq!(node.system.serial_number, "KEXEC-1");
}
