//! Where the way in takes an operator's word and the consoles give no shell, an agent that dies for good changes neither:
//! nobody is left who hears that word.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::Value;
use speediso_lab::{Lab, Site};
use speediso_model::node::NodeState;
use speediso_tests::{
    BOOT, LiveFlavour, LiveSsh, Ramdisk, SOON, as_operator, boot_words, end_access, is_open, programs,
};

const MAC: &str = "52:54:00:12:11:01";
const UUID: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
const PORT: u16 = 8091;
/// Ends the agent for good, long enough from now that the operator has left. The supervisor has the same name and lives on.
const KILLS: &str = "sleep 30; for i in $(seq 20); do \
    for p in $(pidof speediso-agent); do grep -q boot /proc/$p/cmdline && kill -9 $p; done; sleep 1; done";
/// What a shell on a console begins with.
const INVITATIONS: [&str; 2] = ["press Enter", "Enter gives a shell"];

/// `detached` is a command that leaves `KILLS` behind.
fn nobody_comes_in_after_the_agent(live: Option<&LiveFlavour>, up: &str, detached: &str) {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let _server = live.map(|live| lab.serve_files(PORT, &live.directory).unwrap());
    let live = live.map_or_else(String::new, |live| {
        format!("speediso.live=http://192.0.2.1:{PORT}/manifest.json speediso.live_key={}", live.key)
    });
    let mut site = Site::prepare(&lab, &programs, 0).unwrap();
    site.let_in("asked");
    site.start_controller().unwrap();
    let _: Value = site.json(&["create", "asked", "--mac", MAC, "--serial-number", "ASKED"]).unwrap();
    let _: Value = site.json(&["arm", "asked"]).unwrap();
    let key = LiveSsh::with_fresh_key(&lab, "asked").unwrap();
    let words = format!(
        "{} speediso.on_failure=wait speediso.sshkey=\"{}\" {live}",
        boot_words(&lab, MAC, UUID, "ASKED").unwrap().join(" "),
        key.public
    );
    let spec = Ramdisk::of(&programs).machine("asked", &words).memory_mib(1024);
    let mut machine = spec.mac(MAC).uuid(UUID).serial("ASKED").power_on(&lab).unwrap();
    machine.wait_for(up, BOOT).unwrap();
    site.wait_machine("ASKED", "manageable", BOOT, |node| node.state == NodeState::Manageable && node.online).unwrap();
    assert!(!is_open(&lab, &machine).unwrap(), "nobody asked");

    as_operator(&lab, &site, "asked", detached).unwrap();
    end_access(&lab, &site).unwrap();
    let end = Instant::now() + SOON;
    while is_open(&lab, &machine).unwrap() {
        assert!(Instant::now() < end, "what an operator asked for has ended, and the port is open");
        std::thread::sleep(Duration::from_millis(500));
    }

    let died = machine.wait_for("nothing is restarted any more", SOON).unwrap().end;
    machine.type_line("").unwrap();
    machine.type_line("echo SHELL-$((40 + 2))").unwrap();
    // Longer than a shell or a server takes to start.
    std::thread::sleep(Duration::from_secs(10));
    let said = machine.serial().text_after(died);
    assert!(!said.contains("SHELL-42") && !INVITATIONS.iter().any(|words| said.contains(words)), "{said}");
    assert!(!is_open(&lab, &machine).unwrap(), "the agent died, and the port is open:\n{said}");
    assert!(machine.is_on());
}

#[test]
fn in_the_ramdisk() {
    let left_behind = format!("setsid sh -c '{KILLS}' >/dev/null 2>&1 </dev/null &");
    nobody_comes_in_after_the_agent(None, "enrolled as asked", &left_behind);
}

#[test]
fn in_the_live_system() {
    let live = LiveFlavour::get(&programs().unwrap(), "squashfs").unwrap();
    // systemd would take the dollars for variables of its own.
    let left_behind = format!("systemd-run --quiet sh -c '{}'", KILLS.replace('$', "$$"));
    nobody_comes_in_after_the_agent(Some(&live), "going on as asked", &left_behind);
}
