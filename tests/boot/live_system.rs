//! A boot entry alone destroys nothing: what the live system does when it is not told, or told wrongly, what to do.

#![allow(clippy::unwrap_used)]

use speediso_lab::{Lab, Machine};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, programs};

struct Alone<'lab> {
    machine: Machine<'lab>,
    ssh: LiveSsh,
    disk: TestDisk,
}

/// A machine with a disk that holds data, started with these words and a key for ssh.
fn alone<'lab>(lab: &'lab Lab, name: &str, words: &str) -> Alone<'lab> {
    let disk = TestDisk::with_data(lab, &name.to_uppercase(), 64).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(lab, name).unwrap();
    let words = format!("{words} speediso.sshkey=\"{}\"", ssh.public);
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let machine = ramdisk.machine(name, &words).memory_mib(384).cpus(1).disk(disk.plugged()).power_on(lab).unwrap();
    ssh.to(lab, &machine).unwrap();
    Alone { machine, ssh, disk }
}

/// Without SPEEDISO, and with a list of which one name is unknown: no task is run, ssh takes the key and no password,
/// the console has a shell, the motd the build's number, the unknown name is said, and the disk is byte for byte what it
/// was.
#[test]
fn without_a_task_or_with_an_unknown_one_there_is_only_the_live_system() {
    let lab = Lab::builder().build().unwrap();
    let mut plain = alone(&lab, "plain", "");
    let mut unknown = alone(&lab, "unknown", "SPEEDISO=wipe,frobnicate");

    unknown.machine.wait_for("frobnicate", BOOT).unwrap();
    unknown.machine.wait_for("task-unknown", SOON).unwrap();
    for one in [&mut plain, &mut unknown] {
        let motd = one.ssh.run("cat /etc/motd; cat /etc/speediso-build", BOOT).unwrap();
        let build: serde_json::Value = motd.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap();
        let number = build["number"].as_u64().expect("the build has a number");
        assert!(motd.contains(&number.to_string()) && motd.lines().count() > 1, "{motd}");
        let no_password = one.ssh.attempt(&["-o", "PubkeyAuthentication=no", "-o", "BatchMode=yes"], "true").unwrap();
        assert!(!no_password.status.success());
        let offered = String::from_utf8_lossy(&no_password.stderr).into_owned();
        assert!(offered.contains("(publickey)"), "more than keys is offered: {offered}");
        let mark = one.machine.serial().mark();
        one.machine.type_line("").unwrap();
        one.machine.type_line("echo CONSOLE-$((40 + 2))").unwrap();
        one.machine.wait_for_after(mark, "CONSOLE-42", SOON).unwrap();
        // The agent lives and has nothing mounted.
        let state = one.ssh.run("cat /proc/mounts; ps", SOON).unwrap();
        assert!(state.contains("speediso-agent"), "{state}");
        assert!(!state.contains("/dev/vd"), "{state}");
    }
    for one in [plain, unknown] {
        drop(one.machine);
        one.disk.assert_untouched().unwrap();
    }
}

/// `SPEEDISO=wipe` without any permission prints the plan and stops in the live system; armed for another machine it is
/// refused by name. Either way the disk is byte for byte what it was.
#[test]
fn a_wipe_without_permission_shows_its_plan_and_stops() {
    let lab = Lab::builder().build().unwrap();
    let mut bare = alone(&lab, "bare", "SPEEDISO=wipe");
    let mut foreign = alone(&lab, "foreign", "SPEEDISO=wipe speediso.wipe=clear speediso.arm=SOMEBODY-ELSE");

    bare.machine.wait_for("not-armed", BOOT).unwrap();
    let console = bare.machine.serial().text();
    assert!(console.contains("BARE"), "the plan does not name the disk:\n{console}");
    foreign.machine.wait_for("machine-mismatch", BOOT).unwrap();
    for one in [&bare, &foreign] {
        one.ssh.run("true", BOOT).unwrap();
    }
    for one in [bare, foreign] {
        drop(one.machine);
        one.disk.assert_untouched().unwrap();
    }
}
