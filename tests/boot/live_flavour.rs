//! The ramdisk goes on in a larger live system, or says why not and stays usable.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use speediso_lab::{Lab, Machine, Programs, Site};
use speediso_model::api::NodeView;
use speediso_model::node::NodeState;
use speediso_tests::{BOOT, LiveFlavour, LiveSsh, Ramdisk, SOON, TestDisk, as_operator, boot_words, programs};

const MAC: &str = "52:54:00:12:09:01";
const UUID: &str = "99999999-9999-4999-8999-999999999999";
const PORT: u16 = 8089;

/// Over HTTPS from the controller's store, as the same agent of the same boot: systemd is up, sshd shows the host key that
/// was reported at the enrolment, the names in `systemd.setenv=SPEEDISO=` are run in their order after sshd, on the console
/// and in the journal, the one that hangs is ended by its limit, the watchdog is fed, and no disk is touched.
#[test]
fn the_ramdisk_goes_on_in_the_live_system_as_the_same_agent() {
    let programs = programs().unwrap();
    let live = LiveFlavour::get(&programs, "squashfs").unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let _: Value = site.json(&["create", "live", "--mac", MAC, "--serial-number", "LIVE"]).unwrap();
    let _: Value = site.json(&["arm", "live"]).unwrap();
    let stored: Value = site.json(&["image", "add", &live.directory.to_string_lossy(), "--name", "live.json"]).unwrap();
    let url = stored["url"].as_str().unwrap();
    assert!(url.starts_with("https://"), "{url}");

    let disk = TestDisk::with_data(&lab, "LIVEDISK", 64).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "live").unwrap();
    let words = boot_words(&lab, MAC, UUID, "LIVE").unwrap().join(" ");
    let words = format!(
        "{words} speediso.live={url} speediso.live_key={} systemd.setenv=SPEEDISO=first,second,stuck speediso.ssh=on \
         speediso.sshkey=\"{}\"",
        live.key, ssh.public
    );
    let spec = Ramdisk::of(&programs).machine("live", &words).memory_mib(1024).mac(MAC).uuid(UUID).serial("LIVE");
    // Not fed any more, it would power the machine off a minute after the ramdisk was left.
    let spec = spec.with(&["-device", "i6300esb", "-watchdog-action", "poweroff"]);
    let begun = Instant::now();
    let mut machine = spec.disk(disk.plugged()).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let before = machine.wait_for("going on in the live system", BOOT).unwrap();
    println!("seen: going on in the live system after {} s", begun.elapsed().as_secs());
    let enrolled = site.wait_machine("LIVE", "enrolled", SOON, |_| true).unwrap();

    // The tasks, on the console.
    let mut mark = before.end;
    for said in ["first: sshd is active, SPEEDISO=first", "second: after the first", "stuck: begins", "timeout"] {
        mark = machine.wait_for_after(mark, said, BOOT).unwrap().end;
        println!("seen: {said}, after {} s", begun.elapsed().as_secs());
    }
    let inside = |command: &str| ssh.run(command, BOOT).unwrap();
    assert_eq!(inside("cat /proc/1/comm"), "systemd");
    assert!(inside("findmnt -no FSTYPE /").contains("overlay"));
    println!("seen: {}", inside("free -m | sed -n 2p"));
    let failed = inside("systemctl list-units --failed --plain --no-legend | cut -d' ' -f1");
    assert_eq!(failed, "speediso@stuck.service", "no other unit may fail");
    let journal = inside("journalctl -b -o cat -u speediso@first -u speediso@second -u speediso@stuck");
    for said in ["first: ended", "second: after the first", "start operation timed out"] {
        assert!(journal.contains(said), "{said}:\n{journal}");
    }
    assert_eq!(
        inside("ps -eo tty= | grep -v -e '?' -e pts || true"),
        "",
        "nobody is at a console, and it must not look so"
    );
    assert_eq!(inside("systemctl show --property=RuntimeWatchdogUSec --value"), "1min");
    assert_eq!(inside("cat /sys/class/watchdog/watchdog0/state"), "active");

    // The same agent: it goes on, under the same epoch, and gives signs of life.
    let log = inside("cat /run/speediso/agent.log");
    assert!(log.contains("going on as ") && !log.contains("died"), "{log}");
    let node: NodeView = site
        .wait_machine("LIVE", "idle in the live system", SOON, |node| {
            node.online && node.state == NodeState::Manageable && node.epoch == enrolled.epoch
        })
        .unwrap();
    assert_eq!(node.id, enrolled.id);
    site.wait_machine("LIVE", "another sign of life", SOON, |later| later.last_seen > node.last_seen).unwrap();

    // Whoever operates it gets in by the key of the enrolment, and leaves a recording.
    let shown = inside("ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | ssh-keygen -lf -");
    let shown = shown.split(' ').nth(1).unwrap();
    let told = site.ask(["machine", "live"]).unwrap().stdout;
    assert!(told.contains(&format!("ssh key   {shown}")), "{shown}: {told}");
    assert_eq!(as_operator(&lab, &site, "live", "echo in; cat /proc/1/comm").unwrap(), "in\nsystemd");
    let end = Instant::now() + SOON;
    while !site.ask(["ssh-sessions", "live"]).unwrap().stdout.contains("echo in") {
        assert!(Instant::now() < end, "the session is not listed");
        std::thread::sleep(Duration::from_millis(500));
    }

    // Nobody gets in without a key, and nothing touched the disk.
    let no_password = ssh.attempt(&["-o", "PubkeyAuthentication=no", "-o", "BatchMode=yes"], "true").unwrap();
    let offered = String::from_utf8_lossy(&no_password.stderr).into_owned();
    assert!(!no_password.status.success() && offered.contains("(publickey)"), "{offered}");
    let mounts = inside("cat /proc/mounts /proc/swaps");
    assert!(!mounts.contains("/dev/vd"), "{mounts}");
    let open = inside("ss -Hltn | awk '{ print $4 }' | grep -v ':22$' || true");
    assert_eq!(open, "", "ports that nobody opened");
    println!("seen: all of it, after {} s", begun.elapsed().as_secs());
    drop(machine);
    disk.assert_untouched().unwrap();
}

/// A name of the list that nobody knows: none is run, and that is said. In the other form, an archive unpacked into memory.
#[test]
#[ignore = "a second boot into a live system takes a minute; make test-all runs it"]
fn of_a_list_with_an_unknown_name_nothing_is_run() {
    let programs = programs().unwrap();
    let live = LiveFlavour::get(&programs, "tar").unwrap();
    let lab = Lab::builder().build().unwrap();
    let _server = lab.serve_files(PORT, &live.directory).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "unknown").unwrap();
    let words =
        format!("{} SPEEDISO=first,frobnicate speediso.ssh=on speediso.sshkey=\"{}\"", words(&live.key), ssh.public);
    let mut machine = Ramdisk::of(&programs).machine("unknown", &words).memory_mib(1536).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let before = machine.wait_for("going on in the live system", BOOT).unwrap();
    machine.wait_for_after(before.end, "frobnicate", BOOT).unwrap();
    assert_eq!(ssh.run("findmnt -no FSTYPE /", BOOT).unwrap(), "tmpfs");
    let units = ssh.run("systemctl list-units --all --plain --no-legend 'speediso@*'", SOON).unwrap();
    assert_eq!(units, "");
    let log = ssh.run("cat /run/speediso/agent.log", SOON).unwrap();
    assert!(log.contains("task-unknown") && !log.contains("first: sshd"), "{log}");
}

/// What is spoilt, and what the console must say of it.
struct Spoilt {
    name: &'static str,
    spoil: fn(&Path),
    memory_mib: u32,
    says: &'static [&'static str],
}

const FLIPPED: Spoilt = Spoilt {
    name: "flipped",
    spoil: |directory| {
        let path = file(directory, "bin");
        let mut data = std::fs::read(&path).unwrap();
        let middle = data.len() / 2;
        data[middle] ^= 1;
        std::fs::write(path, data).unwrap();
    },
    memory_mib: 768,
    says: &["image-digest-mismatch", "is not what its manifest names"],
};

const UNSIGNED: Spoilt = Spoilt {
    name: "unsigned",
    spoil: |directory| {
        let path = directory.join("manifest.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text + "\n").unwrap();
    },
    memory_mib: 384,
    says: &["signature-invalid"],
};

const ABSENT: Spoilt = Spoilt {
    name: "absent",
    spoil: |directory| std::fs::remove_file(file(directory, "idx")).unwrap(),
    memory_mib: 384,
    says: &["image-refused", "404"],
};

const CROWDED: Spoilt =
    Spoilt { name: "crowded", spoil: |_| {}, memory_mib: 320, says: &["live-unusable", "of memory"] };

fn file(directory: &Path, ending: &str) -> std::path::PathBuf {
    let found = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    found.into_iter().find(|path| path.extension().is_some_and(|e| e == ending)).unwrap()
}

fn words(key: &str) -> String {
    format!("speediso.live=http://192.0.2.1:{PORT}/manifest.json speediso.live_key={key}")
}

fn stays_mini(machine: &mut Machine<'_>, ssh: &LiveSsh, says: &[&str]) {
    for said in says {
        machine.wait_for(said, BOOT).unwrap();
    }
    let state = ssh.run("cat /proc/1/comm /proc/mounts; ps", BOOT).unwrap();
    assert!(state.contains("speediso-agent") && state.starts_with("init"), "{state}");
    assert!(!state.contains("speediso-live"), "memory is not given back:\n{state}");
}

fn see_it_stay(lab: &Lab, programs: &Programs, live: &LiveFlavour, spoilt: &Spoilt) {
    let directory = lab.dir().join(spoilt.name);
    live.copy(&directory).unwrap();
    (spoilt.spoil)(&directory);
    let _server = lab.serve_files(PORT, &directory).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(lab, spoilt.name).unwrap();
    let words = format!("{} speediso.ssh=on speediso.sshkey=\"{}\"", words(&live.key), ssh.public);
    let spec = Ramdisk::of(programs).machine(spoilt.name, &words).memory_mib(spoilt.memory_mib).cpus(1);
    let mut machine = spec.power_on(lab).unwrap();
    ssh.to(lab, &machine).unwrap();
    stays_mini(&mut machine, &ssh, spoilt.says);
    std::fs::remove_dir_all(directory).unwrap();
}

/// One boot, of an image that nobody could go on in anyway.
#[test]
fn a_corrupt_image_leaves_the_mini_system_with_the_reason() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let live = LiveFlavour::stand_in(&programs, &lab.dir().join("stand-in")).unwrap();
    see_it_stay(&lab, &programs, &live, &FLIPPED);
}

/// Bytes, a signature, a file or memory that is not as it must be: the mini system stays, usable, and says why.
#[test]
#[ignore = "four boots of the ramdisk and a root of packages take minutes; make test-all runs it"]
fn whatever_is_wrong_leaves_the_mini_system_with_the_reason() {
    let programs = programs().unwrap();
    let live = LiveFlavour::get(&programs, "squashfs").unwrap();
    let lab = Lab::builder().build().unwrap();
    for spoilt in [FLIPPED, UNSIGNED, ABSENT, CROWDED] {
        see_it_stay(&lab, &programs, &live, &spoilt);
    }
}
