//! Two that claim to be one machine, and a token that is shown twice.

#![allow(clippy::unwrap_used)]

use serde_json::Value;
use speediso_lab::{Lab, Machine, Programs, Site};
use speediso_model::node::NodeState;
use speediso_tests::{BOOT, Ramdisk, SOON, boot_words, code_on_console, programs};

const UUID: &str = "44444444-4444-4444-8444-444444444444";

fn power_on<'lab>(lab: &'lab Lab, programs: &Programs, name: &str, mac: &str, words: &str) -> Machine<'lab> {
    Ramdisk::of(programs)
        .machine(name, words)
        .memory_mib(384)
        .cpus(1)
        .mac(mac)
        .uuid(UUID)
        .serial("TWIN")
        .power_on(lab)
        .unwrap()
}

fn approve(site: &Site<'_>, machine: &Machine<'_>) {
    let node = site.wait_machine("TWIN", "pending", BOOT, |node| node.code.is_some()).unwrap();
    let code = code_on_console(machine.serial()).unwrap();
    site.json::<Value>(&["approve", &node.id.to_string(), "--code", &code, "--name", "twin"]).unwrap();
    site.wait_machine("TWIN", "online", SOON, |node| node.online && node.state == NodeState::Manageable).unwrap();
}

fn expect_quarantine(site: &Site<'_>) {
    site.wait_machine("TWIN", "quarantined", BOOT, |node| node.state == NodeState::Quarantined).unwrap();
    let alerts = site.ask(["alerts"]).unwrap().stdout;
    assert!(alerts.contains("identity-clash") || alerts.contains("token-refused"), "{alerts}");
    // Nothing is handed out until a person has looked.
    let refused = site.ask(["apply", "inventory", "twin"]).unwrap();
    assert!(!refused.status.success(), "{}", refused.stdout);
}

/// A second machine with the identity of one that is alive puts the node into quarantine, with an alert.
#[test]
fn a_clone_of_a_living_machine_is_quarantined() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let mac = "52:54:00:12:03:01";
    let words = boot_words(&lab, mac, UUID, "TWIN").unwrap().join(" ");
    let first = power_on(&lab, &programs, "first", mac, &words);
    approve(&site, &first);
    let second = power_on(&lab, &programs, "second", "52:54:00:12:03:02", &words);
    expect_quarantine(&site);
    let _: Value = site.json(&["release", "twin"]).unwrap();
    drop((first, second));
}

/// A token admits once. The same boot script started a second time, with the token already used, quarantines the node.
#[test]
fn a_used_token_is_an_alarm() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let mac = "52:54:00:12:03:03";
    let created = ["--mac", mac, "--uuid", UUID, "--serial-number", "TWIN"];
    let args: Vec<&str> = ["create", "twin"].into_iter().chain(created).collect();
    let _: Value = site.json(&args).unwrap();
    let _: Value = site.json(&["arm", "twin"]).unwrap();
    let words = boot_words(&lab, mac, UUID, "TWIN").unwrap();
    assert!(words.iter().any(|word| word.starts_with("speediso.token=")), "{words:?}");
    let words = words.join(" ");

    // With a token nobody needs to approve.
    let first = power_on(&lab, &programs, "first", mac, &words);
    site.wait_machine("TWIN", "online", BOOT, |node| node.online && node.state == NodeState::Manageable).unwrap();
    // Nor does any log hold it.
    let token = words.split_once("speediso.token=").map(|(_, rest)| rest.split(' ').next().unwrap()).unwrap();
    let console = first.serial().text();
    // The kernel itself prints its command line; that cannot be helped and is why the token works only once.
    let said = console.lines().filter(|line| !line.contains("ommand line: "));
    assert!(!said.into_iter().any(|line| line.contains(token)), "the agent wrote the token to the console");

    let second = power_on(&lab, &programs, "second", "52:54:00:12:03:04", &words);
    expect_quarantine(&site);
    drop((first, second));
}
