//! The status screen on a machine's screen and its serial line at once, and what keys do.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use speediso_lab::{Firmware, Lab, Machine};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, programs, screen};

const WORDS: &str = "console=tty0 SPEEDISO=wipe speediso.docs=https://docs.example/errors.html";

struct Sat<'lab> {
    machine: Machine<'lab>,
    ssh: LiveSsh,
    disk: TestDisk,
}

/// A machine with screen and keyboard that was told to wipe by nobody who may: it has something to say.
fn sat<'lab>(lab: &'lab Lab, name: &str, firmware: Firmware) -> Sat<'lab> {
    let disk = TestDisk::with_data(lab, &name.to_uppercase(), 64).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(lab, name).unwrap();
    let words = format!("{WORDS} speediso.sshkey=\"{}\"", ssh.public);
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let spec = ramdisk.machine(name, &words).firmware(firmware).vga().memory_mib(512).cpus(1).disk(disk.plugged());
    let machine = spec.power_on(lab).unwrap();
    ssh.to(lab, &machine).unwrap();
    Sat { machine, ssh, disk }
}

impl Sat<'_> {
    /// The text of the first virtual terminal, as the kernel has it.
    fn vga(&self) -> String {
        let text = self.ssh.run("cat /dev/vcs1 | tr -c ' -~' '#' | fold -w 80", SOON).unwrap();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + SOON;
        while !holds() {
            let serial = screen::serial(self.machine.serial()).join("\n");
            assert!(Instant::now() < end, "{what}\nvga:\n{}\nserial:\n{serial}", self.vga());
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn serial_shows(&self, what: &str) -> bool {
        screen::serial(self.machine.serial()).iter().any(|row| row.contains(what))
    }
}

/// One boot in BIOS mode: head and failure on both consoles, the log below; QR code read from a picture of the screen; the
/// inventory; a shell and back; a kernel message does no harm; and when the agent dies for good, plain shells.
#[test]
fn people_see_what_is_wrong_and_get_a_shell() {
    let lab = Lab::builder().build().unwrap();
    let mut sat = sat(&lab, "console", Firmware::Bios);
    sat.machine.wait_for("not-armed", BOOT).unwrap();
    sat.ssh.run("true", BOOT).unwrap();
    for part in ["serial CONSOLE", "Address", "192.0.2.", "not-armed", "To do", "s: shell"] {
        sat.wait(&format!("{part} on both consoles"), || sat.vga().contains(part) && sat.serial_shows(part));
    }
    let vga = sat.vga();
    let log = vga.lines().skip(11).collect::<Vec<_>>().join("\n");
    assert!(log.contains("the live system stays up"), "the log is not below the head:\n{vga}");
    let head = screen::serial(sat.machine.serial())[..11].to_vec();

    // The kernel writes to both by itself; the head is mended, and the line stands in the log.
    sat.ssh.run("echo '<2>speediso-test: hardware trouble' >/dev/kmsg", SOON).unwrap();
    sat.wait("the kernel's line below the head", || {
        let rows = screen::serial(sat.machine.serial());
        rows[..11] == head && rows[11..].iter().any(|row| row.contains("hardware trouble"))
    });

    // The picture, from the screen.
    sat.machine.press_keys(&["q"]).unwrap();
    let picture = lab.dir().join("qr.ppm");
    sat.wait("a QR code on the screen", || {
        let read = screen::scan(&sat.machine, &picture).unwrap();
        read.iter().any(|text| text.starts_with("https://docs.example/errors.html") && text.ends_with("#not-armed"))
    });
    sat.machine.press_keys(&["spc"]).unwrap();
    sat.wait("the status again", || sat.vga().contains("s: shell"));

    // The other console was not disturbed by that, and has keys of its own.
    sat.machine.type_keys(b"d").unwrap();
    sat.wait("the inventory on the serial line", || sat.serial_shows("SYSTEM") && sat.serial_shows("q: back"));
    assert!(sat.vga().contains("s: shell"));
    sat.machine.type_keys(b"q").unwrap();
    sat.wait("the status on the serial line", || sat.serial_shows("s: shell"));

    // A shell with job control on its terminal, and back by its end.
    sat.machine.type_keys(b"s").unwrap();
    sat.machine.wait_for("leads back to the status screen", SOON).unwrap();
    let mark = sat.machine.serial().mark();
    sat.machine.type_line("tty; echo SHELL-$((40 + 2)) $(ps -o stat,args | grep -c speediso-agent)").unwrap();
    sat.machine.wait_for_after(mark, "SHELL-42", SOON).unwrap();
    sat.machine.wait_for_after(mark, "/dev/ttyS0", SOON).unwrap();
    sat.machine.type_line("exit").unwrap();
    sat.wait("the status after the shell", || sat.serial_shows("s: shell") && sat.serial_shows("serial CONSOLE"));
    assert_eq!(sat.ssh.run("cat /run/speediso/agent.log | tr -d '\\n' | tr -d ' -~' | wc -c", SOON).unwrap(), "0");

    // No agent any more: plain consoles, and a shell.
    // And ssh, which the agent had closed: whoever has a key may look.
    let kill = "agent() { for p in $(pidof speediso-agent); do grep -q boot /proc/$p/cmdline && echo $p; done; }; \
                for i in 1 2 3 4 5; do until p=$(agent); [ -n \"$p\" ]; do sleep 0.2; done; \
                kill $(cat /run/dropbear.pid); kill -9 $p; sleep 1; done; true";
    sat.ssh.run(kill, SOON).unwrap();
    sat.machine.wait_for("nothing is restarted any more", SOON).unwrap();
    sat.machine.wait_for("ssh is open for the keys", SOON).unwrap();
    let mark = sat.machine.serial().mark();
    sat.machine.wait_for("press Enter", SOON).unwrap();
    sat.machine.type_line("").unwrap();
    sat.machine.type_line("echo CONSOLE-$((40 + 2))").unwrap();
    sat.machine.wait_for_after(mark, "CONSOLE-42", SOON).unwrap();
    assert!(sat.vga().contains("nothing is restarted any more"), "{}", sat.vga());
    drop(sat.machine);
    sat.disk.assert_untouched().unwrap();
}

/// The same on the frame buffer that UEFI leaves, which has another driver and another size.
#[test]
fn a_uefi_frame_buffer_shows_the_same() {
    let lab = Lab::builder().build().unwrap();
    let sat = sat(&lab, "framebuffer", Firmware::Uefi);
    sat.ssh.run("true", BOOT).unwrap();
    for part in ["serial FRAMEBUFFER", "Address", "192.0.2.", "not-armed", "To do", "s: shell"] {
        sat.wait(&format!("{part} on both consoles"), || sat.vga().contains(part) && sat.serial_shows(part));
    }
    // All of it is used: the log goes down to the last rows, and the head stays above it.
    let size = sat.ssh.run("stty -F /dev/tty1 size", SOON).unwrap();
    let (rows, columns) = size.split_once(' ').unwrap();
    let (rows, columns): (usize, usize) = (rows.trim().parse().unwrap(), columns.trim().parse().unwrap());
    assert!(rows > 25 && columns > 80, "{size}");
    let lines = format!("for n in $(seq 1 {rows}); do echo \"<2>speediso-test: line $n\" >/dev/kmsg; done");
    sat.ssh.run(&lines, SOON).unwrap();
    let last_rows = format!("cat /dev/vcs1 | tr -c ' -~' '#' | tail -c {}", 2 * columns);
    sat.wait("the log in the last rows", || {
        sat.ssh.run(&last_rows, SOON).unwrap().contains(&format!("speediso-test: line {rows}"))
    });
    assert!(sat.vga().contains("s: shell"), "{}", sat.vga());
    sat.machine.press_keys(&["q"]).unwrap();
    let picture = lab.dir().join("qr.ppm");
    sat.wait("a QR code on the screen", || {
        let read = screen::scan(&sat.machine, &picture).unwrap();
        let page = "https://docs.example/errors.html?machine=FRAMEBUFFER";
        read.iter().any(|text| text.starts_with(page) && text.ends_with("#not-armed"))
    });
    sat.machine.press_keys(&["spc"]).unwrap();
    sat.wait("the status again", || sat.vga().contains("s: shell"));
    // The network doctor has the screen for itself until somebody has read it.
    sat.machine.press_keys(&["n"]).unwrap();
    sat.wait("the network doctor", || sat.vga().contains("network doctor on") && sat.vga().contains("Enter: back"));
    sat.machine.press_keys(&["ret"]).unwrap();
    sat.wait("the status after it", || sat.vga().contains("s: shell"));
    sat.machine.press_keys(&["l"]).unwrap();
    sat.wait("the log", || sat.vga().contains("q: back"));
    drop(sat.machine);
    sat.disk.assert_untouched().unwrap();
}

/// Where the pictures of docs/console.md go.
fn pictures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/console")
}

/// The same on a UEFI machine's frame buffer; and the pictures in docs/console.md.
#[test]
#[ignore = "makes the pictures in docs; the code is the same as in BIOS mode"]
fn pictures_for_the_docs() {
    std::fs::create_dir_all(pictures()).unwrap();
    for (firmware, name) in [(Firmware::Bios, "bios"), (Firmware::Uefi, "uefi")] {
        let lab = Lab::builder().build().unwrap();
        let mut sat = sat(&lab, name, firmware);
        sat.machine.wait_for("not-armed", BOOT).unwrap();
        sat.wait("the status", || sat.vga().contains("not-armed"));
        sat.machine.screenshot(&pictures().join(format!("status-{name}.png"))).unwrap();
        sat.machine.press_keys(&["q"]).unwrap();
        let picture = lab.dir().join("qr.ppm");
        sat.wait("a QR code", || !screen::scan(&sat.machine, &picture).unwrap().is_empty());
        sat.machine.screenshot(&pictures().join(format!("qr-{name}.png"))).unwrap();
        sat.machine.type_keys(b"\x0c").unwrap();
    }
}
