//! What is wrong around a machine, and how it gets over it: clock, pins, DHCP, a controller that is not there yet.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use speediso_lab::{Chain, Dhcp, Lab, Site, tool};
use speediso_model::node::NodeState;
use speediso_tests::{BOOT, Ramdisk, SOON, TestDisk, boot_words, code_on_console, programs};

const MAC: &str = "52:54:00:12:01:01";
const UUID: &str = "22222222-2222-4222-8222-222222222222";

/// One machine has all of it: its clock says 2006, the DHCP server is silent when it boots, and the controller is down.
/// The console says which, one after the other, and as each is put right the machine comes on by itself, is approved
/// and inventoried. Its clock is right then.
#[test]
fn a_machine_with_a_wrong_clock_waits_for_dhcp_and_for_the_controller() {
    let programs = programs().unwrap();
    let lab = Lab::builder().build().unwrap();
    let mut site = Site::start(&lab, &programs, 0).unwrap();
    let words = boot_words(&lab, MAC, UUID, "WAITS").unwrap().join(" ");
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
    site.json::<serde_json::Value>(&["approve", &node.id.to_string(), "--code", &code]).unwrap();
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
    drop(machine);
    disk.assert_untouched().unwrap();
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
