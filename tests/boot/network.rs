//! What is wrong around a machine, and how it gets over it: clock, pins, DHCP, a controller that is not there yet.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::Value;
use speediso_lab::{Chain, Dhcp, Lab, Site, tool};
use speediso_model::network::{CheckKind, NetworkReport, Verdict};
use speediso_model::node::NodeState;
use speediso_tests::{BOOT, LiveSsh, Ramdisk, SOON, TestDisk, boot_words, code_on_console, programs};

const MAC: &str = "52:54:00:12:01:01";
const UUID: &str = "22222222-2222-4222-8222-222222222222";

/// One machine has all of it: its clock says 2006, the DHCP server is silent when it boots, and the controller is down.
/// The console says which, one after the other, and as each is put right the machine comes on by itself, is approved
/// and inventoried. Its clock is right then; put wrong again, the network doctor says so, and what DHCP gave is kept.
#[test]
fn a_machine_with_a_wrong_clock_waits_for_dhcp_and_for_the_controller() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let mut site = Site::start(&lab, &programs, 0).unwrap();
    let mut ssh = LiveSsh::with_fresh_key(&lab, "waits").unwrap();
    let words = boot_words(&lab, MAC, UUID, "WAITS").unwrap().join(" ");
    let words = format!("{words} speediso.sshkey=\"{}\"", ssh.public);
    site.kill_controller();
    lab.set_dhcp(&Dhcp::Silent).unwrap();

    let disk = TestDisk::with_data(&lab, "DATA", 64).unwrap();
    let mut machine = Ramdisk::of(&programs)
        .machine("waits", &words)
        .memory_mib(384)
        .mac(MAC)
        .uuid(UUID)
        .serial("WAITS")
        .rtc("2006-01-01T00:00:00")
        .disk(disk.plugged())
        .power_on(&lab)
        .unwrap();
    machine.wait_for("no-dhcp", BOOT).unwrap();
    // Looked at by itself: what failed, and what to do.
    machine.wait_for("FAIL dhcp", SOON).unwrap();
    machine.wait_for("Begin with: dhcp eth0", SOON).unwrap();
    lab.set_dhcp(&Dhcp::default()).unwrap();
    machine.wait_for("controller-unreachable", SOON).unwrap();
    machine.wait_for("FAIL tcp", SOON).unwrap();
    site.start_controller().unwrap();
    let node = site.wait_machine("WAITS", "pending", SOON, |node| node.code.is_some()).unwrap();
    let code = code_on_console(machine.serial()).unwrap();
    site.json::<Value>(&["approve", &node.id.to_string(), "--code", &code]).unwrap();
    let node = site.wait_machine("WAITS", "manageable", SOON, |node| node.state == NodeState::Manageable).unwrap();
    assert!(node.online);
    // What was found out before there was a controller is told afterwards.
    let begun = Instant::now();
    loop {
        let events = tool::run(&mut site.cli(["events", "--node", &node.id.to_string()])).unwrap();
        if events.contains("network looked at") && events.contains("no server answers") {
            break;
        }
        assert!(begun.elapsed() < SOON, "{events}");
        std::thread::sleep(Duration::from_millis(500));
    }
    ssh.to(&lab, &machine).unwrap();
    let kept: Value = serde_json::from_str(&ssh.run("cat /run/speediso/dhcp.json", SOON).unwrap()).unwrap();
    assert_eq!((kept["server"].as_str(), kept["options"]["1"]["hex"].as_str()), (Some("192.0.2.1"), Some("ffffff00")));
    wrong_clocks(&ssh);
    drop(machine);
    disk.assert_untouched().unwrap();
}

/// The agent would put the clock right as soon as it notices, so it is stopped meanwhile.
fn wrong_clocks(ssh: &LiveSsh) {
    let looked = |shift: i64| -> NetworkReport {
        let script = format!(
            "agents=$(pidof speediso-agent); kill -STOP $agents; date -s @$(($(date +%s) + {shift})) >/dev/null; \
             https_proxy=http://192.0.2.66:3128 speediso-agent network-doctor --json; \
             date -s @$(($(date +%s) - {shift})) >/dev/null; kill -CONT $agents"
        );
        let said = ssh.run(&script, SOON).unwrap();
        serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"))
    };
    let expect = |report: &NetworkReport, check: CheckKind, verdict: Verdict, text: &str| {
        let found = report.checks.iter().find(|c| c.check == check).expect("looked at");
        assert!(found.verdict == verdict && found.text.contains(text), "{text:?} is not in {found:#?}");
    };
    let hour = looked(3600);
    expect(&hour, CheckKind::Tls, Verdict::Ok, "pinned");
    expect(&hour, CheckKind::Clock, Verdict::Warning, "ahead of the controller's signed time");
    expect(&hour, CheckKind::Proxy, Verdict::Warning, "https_proxy");
    // No certificate is valid yet; whose it is can be seen all the same, and then its time counts.
    let years = looked(-10 * 365 * 86_400);
    expect(&years, CheckKind::Tls, Verdict::Failed, "this machine's clock says");
    expect(&years, CheckKind::Http, Verdict::Ok, "its time is signed");
    expect(&years, CheckKind::Clock, Verdict::Failed, "behind the controller's signed time");
}

/// A machine whose pin is that of another CA tells nobody anything: the console names the mismatch, the controller never
/// hears of the machine.
#[test]
fn a_wrong_pin_ends_the_conversation() {
    let programs = programs().unwrap();
    // A DHCP server that also hands out what a rogue one would: another proxy, time server and boot file.
    let rogue =
        ["dhcp-option=42,192.0.2.66", "dhcp-option=252,http://192.0.2.66/wpad.dat", "dhcp-option=66,192.0.2.66"];
    let dhcp = Dhcp::Answers { extra: rogue.map(str::to_owned).to_vec() };
    let lab = Lab::builder().chain(Chain::default()).dhcp(dhcp).build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let words = boot_words(&lab, MAC, UUID, "PINNED").unwrap();
    let words: Vec<String> =
        words
            .into_iter()
            .map(|word| {
                if word.starts_with("speediso.ca=") { format!("speediso.ca=sha256:{}", "5a".repeat(32)) } else { word }
            })
            .collect();
    let mut machine = Ramdisk::of(&programs)
        .machine("pinned", &words.join(" "))
        .memory_mib(384)
        .mac(MAC)
        .uuid(UUID)
        .serial("PINNED")
        .power_on(&lab)
        .unwrap();
    machine.wait_for("tls-pin-mismatch", BOOT).unwrap();
    // It tries on, quietly; half a minute of trying must not get it further either.
    std::thread::sleep(Duration::from_secs(30));
    assert!(!machine.serial().text().contains("CODE"), "it enrolled all the same:\n{}", machine.serial().tail());
    let known = site.machines().unwrap();
    assert!(known.is_empty(), "the controller heard of it: {known:?}");
}
