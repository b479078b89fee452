//! The live system looked after by the agent: who gets in and when, what a machine without work does, an agent that dies
//! there once, and one that dies for good.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use speediso_lab::{Bus, Lab, Machine, Site};
use speediso_model::node::NodeState;
use speediso_model::order::TaskState;
use speediso_tests::{
    BOOT, LiveFlavour, LiveSsh, Ramdisk, SOON, TestDisk, as_operator, boot_words, end_access, is_open, programs,
};

const MAC: &str = "52:54:00:12:10:01";
const UUID: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
const PORT: u16 = 8090;
/// As a fault in the agent would end it, and nothing else.
const KILL: &str = "systemctl kill --kill-whom=main --signal=KILL speediso-agent.service || true";

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// While a task of the image runs, nobody comes in whom no operator asked for, the machine is not restarted for idleness,
/// and whoever sits at the second screen has a shell. The agent, killed then, goes on as the same machine: the task goes on
/// as well, is not begun again, and what it said is not said again. Once a task has failed the way in is open, and idleness
/// restarts nothing, so that somebody can look. A task of the agent closes it as well; an agent that dies for good leaves it
/// open.
#[test]
fn while_a_task_of_the_image_runs_nobody_comes_in_and_nothing_restarts() {
    let programs = programs().unwrap();
    let live = LiveFlavour::get(&programs, "squashfs").unwrap();
    let lab = Lab::builder().build().unwrap();
    let _server = lab.serve_files(PORT, &live.directory).unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let _: Value = site.json(&["create", "care", "--mac", MAC, "--serial-number", "CARE"]).unwrap();
    let _: Value = site.json(&["arm", "care"]).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "care").unwrap();
    let words = format!(
        "{} {} SPEEDISO=lasting,stuck speediso.idle_reboot=10s speediso.sshkey=\"{}\"",
        boot_words(&lab, MAC, UUID, "CARE").unwrap().join(" "),
        image(&live),
        ssh.public
    );
    let spec = Ramdisk::of(&programs).machine("care", &words).memory_mib(1024).mac(MAC).uuid(UUID).serial("CARE");
    let disk = TestDisk::with_data(&lab, "CAREDISK", 2048).unwrap();
    let mut machine = spec.no_reboot().disk(disk.plugged()).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let before = machine.wait_for("going on in the live system", BOOT).unwrap();
    let begun = machine.wait_for_after(before.end, "lasting: begins", BOOT).unwrap();
    let still = machine.wait_for_after(begun.end, "lasting: still here", BOOT).unwrap();
    let said = machine.serial().text_after(before.end);
    for sshd in ["lasting: begins, sshd is inactive", "lasting: still here, sshd is inactive"] {
        assert!(said.contains(sshd), "{said}");
    }
    assert!(!is_open(&lab, &machine).unwrap(), "a task runs, and the port is open");

    // An operator asks, and is in while the task runs; then so is who has a key of the boot entry.
    assert_eq!(as_operator(&lab, &site, "care", "systemctl is-active speediso@lasting || true").unwrap(), "activating");
    let inside = |command: &str| ssh.run(command, BOOT).unwrap();
    assert_eq!(inside("systemctl is-active speediso-shell@tty2 || true"), "active");
    assert_eq!(inside("journalctl -b -o cat -u ssh.service | grep -c 'Server listening on 0.0.0.0'"), "1");

    // The agent dies, once.
    let node = site.machines().unwrap().remove(0);
    inside(KILL);
    let same = site
        .wait_machine("CARE", "heard again", SOON, |later| later.last_seen > node.last_seen && later.online)
        .unwrap();
    assert_eq!((same.id, same.epoch, same.state), (node.id, node.epoch, NodeState::Manageable));
    until("the agent says that it goes on", || {
        inside("grep -c 'going on as care' /run/speediso/agent.log || true").parse() == Ok(2)
    });
    assert_eq!(inside("systemctl show --property=NRestarts --value speediso-agent"), "1");
    let events = site.ask(["events", "--node", "care"]).unwrap().stdout;
    assert!(events.contains("was restarted (1 times in this boot)"), "{events}");
    assert_eq!(inside("cat /run/lasting-begun; systemctl is-active speediso@lasting || true"), "begun\nactivating");

    // Nobody asks any more; that lets the task end, and the next one fail.
    inside("touch /run/lasting-go");
    end_access(&lab, &site).unwrap();
    let mark = machine.wait_for_after(still.end, "lasting: ends, begun 1 time(s)", SOON).unwrap().end;
    machine.wait_for_after(mark, "timeout", BOOT).unwrap();
    until("a task failed, and the port is closed", || is_open(&lab, &machine).unwrap());
    assert_eq!(inside("cat /proc/1/comm; systemctl is-failed speediso@stuck"), "systemd\nfailed");
    let said = machine.serial().text_after(begun.end);
    assert!(!said.contains("lasting: begins"), "what a task said is said again by the next agent:\n{said}");

    // Longer than the machine may be idle, without anybody there.
    inside("systemd-run --on-active=30 sh -c 'echo \"<3>nothing restarted\" >/dev/kmsg'");
    ssh.hang_up();
    machine.wait_for_after(mark, "nothing restarted", SOON).unwrap();
    assert!(machine.is_on());

    // A task of the agent's own closes it too, until it is over.
    let parameters = json!({ "devices": { "hints": [{ "serial": "CAREDISK" }] }, "level": "clear" });
    let order = site.apply("wipe", "care", &parameters).unwrap().order.id.to_string();
    site.wait_order(&order, "running", SOON, |view| {
        view.order.tasks.iter().any(|task| matches!(task.state, TaskState::Running { .. }))
    })
    .unwrap();
    until("a task of the agent runs, and the port is open", || !is_open(&lab, &machine).unwrap());
    let _: Value = site.json(&["cancel", &order]).unwrap();
    until("the task is cancelled, and the port is closed", || is_open(&lab, &machine).unwrap());

    // An agent that dies for good just when there may be work again has the port closed; that is not the end of it.
    let mark = machine.serial().mark();
    die_for_good(&mut machine, &ssh, mark);
    ssh.hang_up();
    until("the agent died for good, and the port is closed", || is_open(&lab, &machine).unwrap());
    assert_eq!(inside("systemctl is-failed speediso-agent"), "failed");
}

/// What must be there for people, and how it says that it runs.
const TOOLS: &[&str] = &[
    "smartctl --version",
    "nvme version",
    "sg_inq --version",
    "hdparm -V",
    "ipmitool -V",
    "efibootmgr --version",
    "mdadm --version",
    "lvm version",
    "cryptsetup --version",
    "gdisk -l /dev/nvme0n1",
    "sgdisk --version",
    "parted --version",
    "mkfs.xfs -V",
    "mkfs.btrfs --version",
    "ntfsfix --version",
    "mkntfs --version",
    "fio --version",
    "stress-ng --version",
    "iperf3 --version",
    "tcpdump --version",
    "ethtool --version",
    "lldpd -v",
    "lshw -short -class system",
    "lspci --version",
    "lsusb --version",
    "dmidecode --version",
    "tmux -V",
    "vi --version",
    "rsync --version",
    "curl --version",
];

/// The list of packages that ships: everything that people look for runs and sees the machine, nothing but ssh listens, and
/// no unit failed.
#[test]
#[ignore = "the image of all packages takes five minutes to make and two to boot; make test-all runs it"]
fn the_live_system_that_ships_has_every_tool() {
    let programs = programs().unwrap();
    let live = LiveFlavour::that_ships(&programs).unwrap();
    let lab = Lab::builder().build().unwrap();
    let _server = lab.serve_files(PORT, &live.directory).unwrap();
    let disk = TestDisk::with_data(&lab, "TOOLDISK", 64).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "tools").unwrap();
    let words = format!("{} speediso.sshkey=\"{}\"", image(&live), ssh.public);
    let spec = Ramdisk::of(&programs).machine("tools", &words).memory_mib(1536).serial("TOOLS");
    let mut machine = spec.disk(disk.plugged().bus(Bus::Nvme)).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let begun = Instant::now();
    machine.wait_for("going on in the live system", BOOT * 2).unwrap();
    println!("seen: going on in the live system after {} s", begun.elapsed().as_secs());
    let inside = |command: &str| ssh.run(command, BOOT * 2).unwrap();
    println!("seen: {}", inside("systemctl is-system-running --wait || true; cut -d' ' -f1 /proc/uptime; free -m"));
    assert_eq!(inside("systemctl list-units --failed --plain --no-legend"), "");

    let asked: Vec<String> = TOOLS
        .iter()
        .map(|tool| format!("said=$({tool} 2>&1 </dev/null); echo \"{tool} | $? | $(echo \"$said\" | grep -m1 .)\""))
        .collect();
    let answers = inside(&asked.join("; "));
    println!("seen:\n{answers}");
    let silent: Vec<&str> = TOOLS
        .iter()
        .copied()
        .filter(|tool| {
            !answers
                .lines()
                .any(|line| line.strip_prefix(tool).is_some_and(|l| l.starts_with(" | 0 | ") && l.len() > 7))
        })
        .collect();
    assert!(silent.is_empty(), "{silent:?}:\n{answers}");
    // lvm says so of what whoever started it left open.
    assert!(!answers.contains("leaked"), "{answers}");
    assert_eq!(inside("dmidecode -s system-serial-number"), "TOOLS");
    assert!(inside("nvme list").contains("TOOLDISK"));
    assert_eq!(inside("ss -Hltn | awk '{ print $4 }' | grep -v ':22$' || true"), "", "ports that nobody opened");
    drop(machine);
    disk.assert_untouched().unwrap();
}

fn image(live: &LiveFlavour) -> String {
    format!("speediso.live=http://192.0.2.1:{PORT}/manifest.json speediso.live_key={}", live.key)
}

/// One machine, which nobody gives work: it restarts for idleness after its task, not while somebody is in; its agent, killed
/// until systemd gives up, leaves a plain statement and a shell on the console, and the machine then restarts as the line says
/// of failures.
#[test]
#[ignore = "three boots into the live system, idleness, and a long visit: seven minutes"]
fn an_idle_machine_restarts_and_one_whose_agent_dies_does_as_the_line_says() {
    let programs = programs().unwrap();
    let live = LiveFlavour::get(&programs, "squashfs").unwrap();
    let lab = Lab::builder().build().unwrap();
    let _server = lab.serve_files(PORT, &live.directory).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "restarts").unwrap();
    let words = format!(
        "{} SPEEDISO=first speediso.idle_reboot=60s speediso.on_failure=reboot:20 speediso.sshkey=\"{}\"",
        image(&live),
        ssh.public
    );
    let spec = Ramdisk::of(&programs).machine("restarts", &words).memory_mib(1024);
    // Not fed any more, it would power the machine off.
    let spec = spec.with(&["-device", "i6300esb", "-watchdog-action", "poweroff"]);
    let mut machine = spec.power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();

    // Nobody comes in before the task has ended, also where nobody but the boot entry gives work.
    let mut mark = machine.wait_for("going on in the live system", BOOT).unwrap().end;
    for said in ["first: sshd is inactive", "first: ended"] {
        mark = machine.wait_for_after(mark, said, BOOT).unwrap().end;
    }
    until("nothing runs, and the port is closed", || is_open(&lab, &machine).unwrap());
    mark = machine.wait_for_after(mark, "idle: nothing was to do", BOOT).unwrap().end;
    println!("seen: idleness restarts it");

    // It comes back as before. Whoever is in keeps it there for longer than idleness and the watchdog's patience together.
    mark = machine.wait_for_after(mark, "going on in the live system", BOOT).unwrap().end;
    mark = machine.wait_for_after(mark, "first: ended", BOOT).unwrap().end;
    let boot = ssh.run("sleep 150; cat /proc/sys/kernel/random/boot_id", BOOT + Duration::from_secs(150)).unwrap();
    assert!(!machine.serial().text_after(mark).contains("idle: nothing"));
    println!("seen: a visitor keeps it");

    mark = die_for_good(&mut machine, &ssh, mark);
    mark = machine.wait_for_after(mark, "reboot in 20 s", SOON).unwrap().end;
    mark = machine.wait_for_after(mark, "going on in the live system", BOOT).unwrap().end;
    ssh.hang_up();
    machine.wait_for_after(mark, "first: ended", BOOT).unwrap();
    assert_ne!(ssh.run("cat /proc/sys/kernel/random/boot_id", BOOT).unwrap(), boot);
    println!("seen: it restarts after the agent died");
}

/// A task that systemd runs is no work of the agent's: when the agent dies for good, it is named, goes on, and is not cut off
/// by what the line says of failures.
#[test]
#[ignore = "one more boot into the live system: a minute and a half"]
fn a_task_of_the_image_is_not_cut_off_when_the_agent_dies_for_good() {
    let programs = programs().unwrap();
    let live = LiveFlavour::get(&programs, "squashfs").unwrap();
    let lab = Lab::builder().build().unwrap();
    let _server = lab.serve_files(PORT, &live.directory).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "cut").unwrap();
    let words = format!("{} speediso.on_failure=poweroff:5 speediso.sshkey=\"{}\"", image(&live), ssh.public);
    let mut machine = Ramdisk::of(&programs).machine("cut", &words).memory_mib(1024).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    let before = machine.wait_for("going on in the live system", BOOT).unwrap();
    machine.wait_for_after(before.end, "the live system stays up", BOOT).unwrap();
    let inside = |command: &str| ssh.run(command, BOOT).unwrap();
    let task = "/usr/lib/speediso/tasks/byhand";
    inside(&format!(
        "printf '#!/bin/sh\\nuntil [ -e /run/byhand-go ]; do sleep 1; done; echo byhand ends >/dev/kmsg\\n' >{task}; \
         chmod +x {task}; systemctl start --no-block speediso@byhand"
    ));
    let mark = machine.serial().mark();
    let died = die_for_good(&mut machine, &ssh, mark);
    assert!(machine.serial().text_after(mark).contains("still at work, by systemd: speediso@byhand.service"));
    inside("touch /run/byhand-go");
    let ended = machine.wait_for_after(died, "byhand ends", SOON).unwrap().end;
    machine.wait_for_after(ended, "poweroff in 5 s", SOON).unwrap();
    assert!(machine.wait_exit(SOON).unwrap().success());
}

/// Kills the agent as often as it comes back, sees what the console says of it, and uses the shell there.
#[track_caller]
fn die_for_good(machine: &mut Machine<'_>, ssh: &LiveSsh, mark: usize) -> usize {
    for _ in 0..20 {
        if machine.serial().text_after(mark).contains("nothing is restarted any more") {
            break;
        }
        ssh.run(KILL, SOON).unwrap();
        std::thread::sleep(Duration::from_millis(700));
    }
    let said = machine.wait_for_after(mark, "nothing is restarted any more", SOON).unwrap().end;
    machine.wait_for_after(said, "Enter gives a shell", SOON).unwrap();
    let typed = machine.serial().mark();
    machine.type_line("").unwrap();
    machine.type_line("echo SHELL-$((40 + 2))").unwrap();
    machine.wait_for_after(typed, "SHELL-42", SOON).unwrap();
    println!("seen: {}", machine.serial().text_after(mark));
    assert!(machine.serial().text_after(typed).contains("speediso:~#"), "the prompt says where one is");
    said
}
