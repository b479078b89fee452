//! The ramdisk with another kernel by one option, and in little memory.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use speediso_lab::{Firmware, Lab, MachineSpec, Start, tool};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, programs};

#[test]
#[ignore = "fetches another kernel and compresses its modules: a minute and a half"]
fn debians_cloud_kernel_boots() {
    let lab = Lab::builder().build().unwrap();
    let programs = programs().unwrap();
    let beside = programs.controller.parent().unwrap();
    let builds = lab.dir().join("builds");
    tool::run(
        Command::new(beside.join("speediso-initramfs"))
            .args(["build", "--kernel", "linux-image-cloud-amd64", "--agent"])
            .arg(beside.join("speediso-agent"))
            .arg("--out")
            .arg(&builds),
    )
    .unwrap();
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(builds.join("latest/build.json")).unwrap()).unwrap();
    let absent = record["absent_modules"].as_array().unwrap();
    assert!(absent.iter().any(|module| module == "megaraid_sas"), "what the kernel lacks is recorded: {absent:?}");
    let mut ssh = LiveSsh::with_fresh_key(&lab, "cloud").unwrap();
    let machine = MachineSpec::new("cloud")
        .firmware(Firmware::Bios)
        .memory_mib(384)
        .start_with(Start::Kernel {
            kernel: builds.join("latest/vmlinuz"),
            initrd: builds.join("latest/initramfs.img"),
            append: format!("console=ttyS0,115200 speediso.sshkey=\"{}\"", ssh.public),
        })
        .power_on(&lab)
        .unwrap();
    ssh.to(&lab, &machine).unwrap();
    let release = ssh.run("uname -r; speediso-agent --version", BOOT).unwrap();
    assert!(release.lines().next().unwrap().ends_with("-cloud-amd64"), "{release}");
    assert!(release.contains("-cloud-amd64)"), "the build says so too: {release}");
}

#[test]
#[ignore = "of the limits only: armed.rs installs in 384 MiB in every run"]
fn the_live_system_comes_up_in_256_mib() {
    let lab = Lab::builder().build().unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "small").unwrap();
    let machine = Ramdisk::of(&programs().unwrap())
        .machine("small", &format!("speediso.sshkey=\"{}\"", ssh.public))
        .memory_mib(256)
        .cpus(1)
        .power_on(&lab)
        .unwrap();
    ssh.to(&lab, &machine).unwrap();
    let said =
        ssh.run("speediso-agent inventory >/dev/null && grep MemAvailable /proc/meminfo && dmesg", BOOT).unwrap();
    println!("{}", said.lines().next().unwrap());
    assert!(!said.contains("Out of memory"), "{said}");
    assert!(ssh.run("cat /proc/meminfo", SOON).unwrap().contains("MemTotal"));
}
