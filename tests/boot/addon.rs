//! A network card whose driver and firmware are in the add-on only, both ways: a boot loader appends the add-on, or the
//! agent fetches it over another card.
//!
//! QEMU's i82551 is a real case of it: Debian's e100 is not in the ramdisk, and starts this revision only with
//! `e100/d102e_ucode.bin`.

#![allow(clippy::unwrap_used)]

use speediso_lab::Lab;
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, programs};

const PORT: u16 = 8085;
const CARD: &str = "8086:1209";
/// What Debian's kernel says of a file that is there.
const FIRMWARE: &str = "direct-loading firmware e100/d102e_ucode.bin";

#[test]
fn a_card_without_a_driver_gets_it_from_the_addon() {
    let lab = Lab::builder().build().unwrap();
    let programs = programs().unwrap();
    let addon = programs.boot_files.join("addon.img");
    assert!(addon.is_file(), "{} is missing: `make ramdisk` makes it", addon.display());
    let _server = lab.serve_files(PORT, &programs.boot_files).unwrap();
    let ramdisk = Ramdisk::of(&programs);

    // The only card needs it: the loader has to bring it.
    let mut ssh = LiveSsh::with_fresh_key(&lab, "addon").unwrap();
    let words = format!("speediso.sshkey=\"{}\"", ssh.public);
    let loaded = ramdisk
        .and(&addon, lab.dir().join("both.img"))
        .unwrap()
        .machine("second", &words)
        .memory_mib(512)
        .nic("i82551,romfile=")
        .power_on(&lab)
        .unwrap();
    // A card that works leads to where the add-on is.
    let mut other = LiveSsh::with_fresh_key(&lab, "fetched").unwrap();
    let words = format!(
        "speediso.sshkey=\"{}\" speediso.console=plain speediso.tools=http://192.0.2.1:{PORT}/tools.tar.zst",
        other.public
    );
    let mut fetched = ramdisk
        .machine("fetched", &words)
        .memory_mib(512)
        .with(&["-netdev", "hubport,id=hub1,hubid=1"])
        .with(&["-device", "i82551,netdev=hub1,romfile=,mac=52:54:00:0a:0d:01"])
        .power_on(&lab)
        .unwrap();

    fetched
        .wait_for(&format!("(network card, {CARD}) has no driver: not in this ramdisk, but in its add-on (e100)"), BOOT)
        .unwrap();
    fetched.wait_for("drivers: e100 loaded from the add-on", BOOT).unwrap();
    other.to(&lab, &fetched).unwrap();
    other.run("true", BOOT).unwrap();
    let found = other.run("for n in /sys/class/net/*/device/driver; do readlink -f $n; done; dmesg", SOON).unwrap();
    assert!(found.contains("/drivers/e100\n"), "{found}");
    // The firmware is asked for when the interface is started.
    let started = other
        .run(
            "cd /sys/bus/pci/drivers/e100/*/net/* && ip link set ${PWD##*/} up && cat flags && dmesg | tail -n 20",
            SOON,
        )
        .unwrap();
    assert!(started.contains(FIRMWARE), "{started}");
    assert!(started.lines().next().is_some_and(|flags| flags.ends_with('3')), "it is not up: {started}");

    ssh.to(&lab, &loaded).unwrap();
    let alone = ssh.run("cat /sys/class/net/*/device/uevent; dmesg", BOOT).unwrap();
    assert!(alone.contains("DRIVER=e100") && !alone.contains("DRIVER=virtio"), "{alone}");
    assert!(alone.contains(FIRMWARE), "{alone}");
    let console = loaded.serial().text();
    assert!(!console.contains("has no driver"), "{console}");
    // One table of both: nothing of the ramdisk's own was lost.
    let tables = ssh
        .run("grep -c /nvme.ko: /lib/modules/*/modules.dep; grep -c /e100.ko: /lib/modules/*/modules.dep", SOON)
        .unwrap();
    assert_eq!(tables, "1\n1");
}

/// Without the add-on the console says which card has no driver and which add-on has one, before any network is there.
#[test]
fn a_card_that_only_the_addon_drives_is_said() {
    let lab = Lab::builder().build().unwrap();
    let mut machine = Ramdisk::of(&programs().unwrap())
        .machine("without", "")
        .memory_mib(256)
        .cpus(1)
        .nic("i82551,romfile=")
        .power_on(&lab)
        .unwrap();
    machine.wait_for(&format!("(network card, {CARD}) has no driver: not in this ramdisk"), BOOT).unwrap();
    machine.wait_for("no-link", SOON).unwrap();
}
