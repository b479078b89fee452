//! Failure is never silent: what goes wrong between power on and enrolment is said on the screen and on the serial line,
//! with a shell beside it, is tried again, ends as `speediso.on_failure=` says, and stands in the BMC's event log.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use speediso_lab::{Dhcp, Lab, Machine, Site};
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, boot_words, code_on_console, programs, screen};

const MAC: &str = "52:54:00:12:07:01";
const UUID: &str = "77777777-7777-4777-8777-777777777777";
/// The agent waits up to a minute for a DHCP server, and pauses up to half a minute between tries.
const PATIENCE: Duration = Duration::from_secs(300);

fn link(machine: &Machine<'_>, up: bool) {
    machine.qmp("set_link", &json!({ "name": "nic0", "up": up })).unwrap();
}

fn wait(what: &str, machine: &Machine<'_>, holds: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < end, "{what}:\n{}", screen::serial(machine.serial()).join("\n"));
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The screen, as whoever is at the serial line reads it.
fn vga(machine: &mut Machine<'_>) -> String {
    let mark = machine.serial().mark();
    machine.type_line("tr -c ' -~' '#' </dev/vcs1 | fold -w 80; echo VCS-$((40 + 2))").unwrap();
    machine.wait_for_after(mark, "VCS-42", SOON).unwrap();
    machine.serial().text_after(mark)
}

/// One machine has all of it, one after the other: no cable, no DHCP server, a network in which nobody knows the
/// controller's host, a controller that is down, one with another CA. Each is said by its name on the screen and the serial line
/// while a shell is open, and as each is put right the machine comes on by itself, until it asks to be approved.
#[test]
#[ignore = "five failures in a row, each with the patience that a real network needs: minutes"]
fn from_no_cable_to_enrolment_every_step_is_said_and_tried_again() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let mut site = Site::start(&lab, &programs, 0).unwrap();
    let words = boot_words(&lab, MAC, UUID, "STEPS").unwrap().join(" ");
    site.kill_controller();
    let mut other = Site::prepare_elsewhere(&lab, &programs, "other").unwrap();
    lab.set_dhcp(&Dhcp::Silent).unwrap();
    let words = format!("console=tty0 {words}");
    let spec = Ramdisk::of(&programs).machine("steps", &words).memory_mib(384).mac(MAC).uuid(UUID).serial("STEPS");
    let mut machine = spec.vga().power_on(&lab).unwrap();
    link(&machine, false);

    machine.wait_for("no-link", BOOT).unwrap();
    wait("no-link on the serial line", &machine, || {
        screen::serial(machine.serial()).iter().any(|row| row.contains("no-link"))
    });
    // A shell, while it is being tried again; errors are said beside it.
    machine.type_keys(b"s").unwrap();
    machine.wait_for("leads back to the status screen", SOON).unwrap();
    let shown = vga(&mut machine);
    assert!(shown.contains("no-link") && shown.contains("To do"), "{shown}");

    let mark = machine.serial().mark();
    link(&machine, true);
    machine.wait_for_after(mark, "no-dhcp", PATIENCE).unwrap();
    assert!(vga(&mut machine).contains("no-dhcp"));

    // An address, and a network that leads nowhere: the controller is down.
    let mark = machine.serial().mark();
    lab.set_dhcp(&Dhcp::default()).unwrap();
    machine.wait_for_after(mark, "controller-unreachable", PATIENCE).unwrap();
    assert!(vga(&mut machine).contains("controller-unreachable"));

    let mark = machine.serial().mark();
    other.start_controller().unwrap();
    machine.wait_for_after(mark, "tls-pin-mismatch", PATIENCE).unwrap();
    assert!(vga(&mut machine).contains("tls-pin-mismatch"));
    assert!(other.machines().unwrap().is_empty(), "the other controller heard of the machine");
    other.kill_controller();

    machine.type_line("exit").unwrap();
    site.start_controller().unwrap();
    site.wait_machine("STEPS", "pending", PATIENCE, |node| node.code.is_some()).unwrap();
    code_on_console(machine.serial()).unwrap();
}

/// A line that is wrong gives no orders, is said, and ends as it says itself; where there is a BMC, the reason stands in its
/// event log, and whoever had no key got in by none.
#[test]
fn a_wrong_line_is_said_stands_in_the_bmcs_log_and_ends_as_it_says() {
    let lab = Lab::builder().build().unwrap();
    let disk = TestDisk::with_data(&lab, "WRONG", 64).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "wrong").unwrap();
    let words = format!("SPEEDISO=wipe speediso.wipe=clear speediso.sshkey=\"{}\"", ssh.public);
    let bmc = ["-device", "ipmi-bmc-sim,id=bmc", "-device", "isa-ipmi-kcs,bmc=bmc"];
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let spec = ramdisk.machine("wrong", &words).memory_mib(384).disk(disk.plugged()).with(&bmc);
    let mut machine = spec.power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    machine.wait_for("not-armed", BOOT).unwrap();
    machine.wait_for("the BMC's event log has not-armed now", SOON).unwrap();
    let inventory = ssh.run("speediso-agent inventory --json 2>/dev/null", SOON).unwrap();
    let inventory: Value = serde_json::from_str(&inventory).unwrap();
    let entries = inventory["bmc"]["event_log"]["newest"].as_array().unwrap_or_else(|| panic!("{}", inventory["bmc"]));
    let texts: Vec<&str> = entries.iter().filter_map(|e| e["text"].as_str()).collect();
    assert!(texts.iter().any(|t| t.contains("part 1 of 2: not-arme")), "{texts:?}");

    // The agent dies at once, again and again; its supervisor says so, and the machine goes where the line says. The line
    // is another one now, wrong in one word; what it says of failures counts all the same.
    let other = "console=ttyS0,115200 speediso.oops=1 speediso.ssh=off speediso.on_failure=poweroff:5";
    ssh.run(&format!("echo '{other}' >/tmp/line; mount --bind /tmp/line /proc/cmdline"), SOON).unwrap();
    let restart = "for p in $(pidof speediso-agent); do grep -q boot /proc/$p/cmdline && kill -9 $p; done; true";
    let _ = ssh.attempt(&[], "true");
    ssh.run(restart, SOON).unwrap();
    machine.wait_for("speediso.oops is unknown", SOON).unwrap();
    machine.wait_for("ssh: takes no new login now", SOON).unwrap();
    assert!(machine.wait_exit(SOON).unwrap().success());
    drop(machine);
    disk.assert_untouched().unwrap();
}

/// Nobody is there, and no server answers: the machine waits as long as it was told to, then goes.
#[test]
#[ignore = "waits for DHCP servers that are not there: two minutes for each of two machines"]
fn what_does_not_pass_ends_as_the_line_says() {
    let lab = Lab::builder().build().unwrap();
    lab.set_dhcp(&Dhcp::Silent).unwrap();
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let with = |name: &str, what: &str| {
        let words = format!(
            "speediso.on_failure={what} speediso.controller=https://192.0.2.1:8443 speediso.ca=sha256:{}",
            "5a".repeat(32)
        );
        ramdisk.machine(name, &words).memory_mib(384).cpus(1).no_reboot().power_on(&lab).unwrap()
    };
    let mut off = with("off", "poweroff:10");
    off.wait_for("no-dhcp", BOOT).unwrap();
    off.wait_for("powering off in 10 s unless this passes", SOON).unwrap();
    off.wait_exit(SOON).unwrap();
    let mut again = with("again", "reboot:10");
    again.wait_for("restarting in 10 s unless this passes", BOOT).unwrap();
    again.wait_exit(SOON).unwrap();
    // The machine of a site that lets nobody near: no shell at its console, and it tries on.
    let mut waits = with("waits", "wait");
    waits.wait_for("no-dhcp", BOOT).unwrap();
    let mark = waits.serial().mark();
    waits.type_keys(b"s").unwrap();
    waits.type_line("echo SHELL-$((40 + 2))").unwrap();
    waits.wait_for_after(mark, "no usable answer", PATIENCE).unwrap();
    assert!(!waits.serial().text().contains("SHELL-42"), "{}", waits.serial().tail());
}

/// The controller's name that nobody knows, and its address in a network to which no way leads: both are
/// `controller-unreachable`, and the network doctor, which comes by itself, says which it is.
#[test]
#[ignore = "two machines, one after the other, with the doctor's patience"]
fn names_and_routes_that_lead_nowhere_are_told_apart() {
    let lab = Lab::builder().build().unwrap();
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let with = |name: &str, controller: &str| {
        let words = format!("speediso.controller=https://{controller}:8443 speediso.ca=sha256:{}", "5a".repeat(32));
        ramdisk.machine(name, &words).memory_mib(384).cpus(1).power_on(&lab).unwrap()
    };
    // A name server that nobody is behind, and no router.
    let extra = vec!["dhcp-option=option:dns-server,192.0.2.77".into(), "dhcp-option=option:router".into()];
    lab.set_dhcp(&Dhcp::Answers { extra }).unwrap();
    let mut nameless = with("nameless", "controller.example");
    nameless.wait_for("controller-unreachable", BOOT).unwrap();
    nameless.wait_for("controller.example: the name controller.example has no address", PATIENCE).unwrap();
    drop(nameless);
    let mut astray = with("astray", "198.51.100.7");
    astray.wait_for("controller-unreachable", BOOT).unwrap();
    astray.wait_for("there is no route to it", PATIENCE).unwrap();
}

/// Too little memory for the ramdisk is the kernel's to say; in the live system what people started goes, and the agent stays.
#[test]
#[ignore = "two more boots"]
fn memory_that_runs_out_is_said_and_costs_the_agent_nothing() {
    let lab = Lab::builder().build().unwrap();
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let mut small = ramdisk.machine("small", "").memory_mib(96).cpus(1).no_reboot().power_on(&lab).unwrap();
    small.wait_for("Kernel panic", BOOT).unwrap();
    let said = small.serial().text();
    assert!(said.contains("Initramfs unpacking failed") || said.contains("Out of memory"), "{said}");
    drop(small);

    let mut ssh = LiveSsh::with_fresh_key(&lab, "eaten").unwrap();
    let words = format!("speediso.sshkey=\"{}\"", ssh.public);
    let mut eaten = ramdisk.machine("eaten", &words).memory_mib(384).cpus(1).power_on(&lab).unwrap();
    ssh.to(&lab, &eaten).unwrap();
    let agent =
        "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -q 'speediso-agent [b]oot' && echo $p; done; true";
    let before = ssh.run(agent, BOOT).unwrap();
    // What has no end of a line is kept whole.
    let status = ssh.run("tail -n 1 /dev/zero; echo ENDED-$?", BOOT).unwrap();
    assert!(status.contains("ENDED-137"), "{status}");
    eaten.wait_for("Out of memory: Killed process", SOON).unwrap();
    assert_eq!(ssh.run(agent, SOON).unwrap(), before);
}

/// A card that no driver here looks after, and no other: named by its numbers, since nobody can ask the machine.
#[test]
#[ignore = "one more boot; the words are a unit test's"]
fn a_network_card_without_a_driver_is_named() {
    let lab = Lab::builder().build().unwrap();
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let mut machine = ramdisk.machine("driverless", "").memory_mib(384).cpus(1).nic("i82559c").power_on(&lab).unwrap();
    machine.wait_for("no-link", BOOT).unwrap();
    machine.wait_for("has no driver here", SOON).unwrap();
}

/// Without work the machine restarts, with its watchdog fed all the while; not while somebody is there.
#[test]
#[ignore = "a minute of idleness, and then the wait for nothing to happen"]
fn an_idle_machine_leaves_and_one_with_a_visitor_stays() {
    let lab = Lab::builder().build().unwrap();
    let ramdisk = Ramdisk::of(&programs().unwrap());
    let mut ssh = LiveSsh::with_fresh_key(&lab, "idle").unwrap();
    let words = format!("speediso.idle_reboot=40s speediso.sshkey=\"{}\"", ssh.public);
    let spec = ramdisk.machine("idle", &words).memory_mib(384).cpus(1).no_reboot();
    let mut machine = spec.with(&["-device", "i6300esb", "-watchdog-action", "poweroff"]).power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    machine.wait_for("watchdog: i6300ESB timer, 60 s", BOOT).unwrap();
    // Longer than idleness and the watchdog's patience together.
    ssh.run("sleep 120", BOOT + Duration::from_secs(120)).unwrap();
    assert!(machine.is_on());
    machine.wait_for("idle: nothing was to do", SOON).unwrap();
    machine.wait_exit(SOON).unwrap();
}
