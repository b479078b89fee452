//! The whole way over PXE, once with each firmware: a blank machine boots, waits to be approved, is inventoried,
//! refuses what it should, is installed, and boots its own disk from then on.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use serde_json::{Value, json};
use speediso_lab::{Bus, Firmware, Lab, MachineSpec, Site, tool};
use speediso_model::api::OrderView;
use speediso_model::inventory::Inventory;
use speediso_model::node::NodeState;
use speediso_model::order::{OrderState, TaskState};
use speediso_model::outcome::Outcome;
use speediso_tests::{BOOT, SOON, TestDisk, TinyImage, WORK, code_on_console, programs};

#[test]
fn a_bios_machine_is_installed_from_a_raw_image() {
    whole_way(Firmware::Bios, Bus::Ahci, |image| &image.raw, "no");
}

#[test]
fn a_uefi_machine_is_installed_from_a_compressed_image() {
    whole_way(Firmware::Uefi, Bus::Nvme, |image| &image.zst, "file_system");
}

/// Proves, in this order: a machine without an order and without approval is touched nowhere; a wrong code approves
/// nobody; the inventory names both disks; a dry run writes nothing; an order whose hint matches no disk or two fails
/// unchanged with a code; `lininstall` writes the disk it names and no other, and grows what is ordered to be grown; the
/// machine then boots that disk through
/// the network, knows its host name from the config drive, and no second order comes to be; and a protected machine
/// takes no destructive order.
fn whole_way(firmware: Firmware, bus: Bus, choose: impl Fn(&TinyImage) -> &std::path::PathBuf, grow: &str) {
    let programs = programs().unwrap();
    let image = TinyImage::get().unwrap();
    let lab = Lab::builder().build().unwrap();
    let site = Site::start(&lab, &programs, 0).unwrap();
    let stored = site.add_image(choose(&image)).unwrap();
    let target = TestDisk::blank(&lab, "TARGET", 256).unwrap();
    let other = TestDisk::with_data(&lab, "OTHER", 64).unwrap();

    let mut machine = MachineSpec::new("m1")
        .firmware(firmware)
        .memory_mib(512)
        .serial("PXE-1")
        .disk(target.plugged().bus(bus))
        .disk(other.plugged())
        .power_on(&lab)
        .unwrap();

    let node = site.wait_machine("PXE-1", "pending", BOOT, |node| node.code.is_some()).unwrap();
    assert_eq!(node.state, NodeState::Pending);
    let id = node.id.to_string();
    // A pending machine takes no order at all.
    let early = site.ask(["apply", "inventory", &id]).unwrap();
    assert!(!early.status.success(), "{}", early.stdout);
    let wrong = site.ask(["approve", &id, "--code", "0000-0000"]).unwrap();
    assert!(!wrong.status.success(), "a wrong code was taken: {}", wrong.stdout);
    let code = code_on_console(machine.serial()).unwrap();
    let _: Value = site.json(&["approve", &id, "--code", &code, "--name", "m1"]).unwrap();
    site.wait_machine("PXE-1", "manageable", SOON, |node| node.state == NodeState::Manageable).unwrap();

    let seen: Value = site.json(&["machine", "m1"]).unwrap();
    let inventory: Inventory = serde_json::from_value(seen["inventory"].clone()).unwrap();
    let serials: Vec<&str> = inventory.disks.iter().map(|disk| disk.serial.as_str()).collect();
    assert!(serials.contains(&"TARGET") && serials.contains(&"OTHER"), "{serials:?}");
    assert_eq!(inventory.system_vendor.serial_number, "PXE-1");
    assert_eq!(inventory.boot.current_boot_mode, if firmware == Firmware::Uefi { "uefi" } else { "bios" });

    let install = |hints: Value| {
        json!({
            "device": hints,
            "image": stored,
            "grow": grow,
            "config_drive": { "instance_id": "i-1", "hostname": "tiny-one" },
        })
    };
    let file = site.params(&install(json!({ "serial": "TARGET" }))).unwrap();
    let dry = site.ask(["apply", "lininstall", "m1", "--dry-run", "--params", &file.to_string_lossy()]).unwrap();
    assert!(dry.status.success() && dry.stdout.contains("TARGET"), "{}{}", dry.stdout, dry.stderr);

    for (hints, code) in
        [(json!({ "serial": "NOBODY" }), "no-matching-disk"), (json!({ "min_size": 1 }), "ambiguous-disk")]
    {
        let order = site.apply("lininstall", "m1", &install(hints)).unwrap();
        let id = order.order.id.to_string();
        let ended = site.wait_order(&id, "failed", SOON, |view| !view.order.state.is_open()).unwrap();
        assert_eq!(ended.order.state, OrderState::Failed);
        assert_eq!(first_fault(&ended), (Outcome::FailedUnchanged, code.to_owned()));
        let _: Value = site.json(&["release", "m1"]).unwrap();
    }
    target.assert_untouched().unwrap();
    other.assert_untouched().unwrap();

    let before_install = machine.serial().mark();
    let order = site.apply("lininstall", "m1", &install(json!({ "serial": "TARGET" }))).unwrap();
    let order = order.order.id.to_string();
    machine.wait_for_after(before_install, "TINY-OS UP", WORK + BOOT).unwrap();
    machine.wait_for_after(before_install, "TINY-OS HOSTNAME tiny-one", SOON).unwrap();
    let done = site.wait_order(&order, "done", SOON, |view| view.order.state == OrderState::Done).unwrap();
    for task in &done.order.tasks {
        assert!(
            matches!(&task.state, TaskState::Ended { result, .. } if result.outcome == Outcome::Verified),
            "{task:?}"
        );
    }
    if grow == "file_system" {
        has_grown(&done, &target);
    }
    site.wait_machine("PXE-1", "active", SOON, |node| node.state == NodeState::Active).unwrap();
    other.assert_untouched().unwrap();

    // Network first again, and again its own disk, with as many orders as before.
    let orders = site.orders().unwrap().len();
    let before_reset = machine.serial().mark();
    machine.reset().unwrap();
    let up = machine.wait_for_after(before_reset, "TINY-OS UP", BOOT).unwrap();
    assert!(machine.serial().text_after(before_reset).contains("iPXE"), "it did not come by the network");
    machine.wait_for_after(up.end, "TINY-OS HOSTNAME tiny-one", SOON).unwrap();
    assert_eq!(site.orders().unwrap().len(), orders);

    let _: Value = site.json(&["protect", "m1"]).unwrap();
    let file = site.params(&json!({ "devices": { "hints": [{ "serial": "TARGET" }] } })).unwrap();
    let refused = site.ask(["apply", "wipe", "m1", "--params", &file.to_string_lossy()]).unwrap();
    assert_eq!(refused.status.code(), Some(77), "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("machine-protected"), "{}", refused.stderr);
    assert_eq!(site.orders().unwrap().len(), orders);
    drop(machine);
    other.assert_untouched().unwrap();
}

/// The image's ext4 takes the disk but for the room of a config drive; it was made with 24 MiB.
fn has_grown(order: &OrderView, disk: &TestDisk) {
    let grown = order.order.tasks.iter().find_map(|task| match &task.state {
        TaskState::Ended { result, .. } => result.devices.first()?.facts.get("grown").cloned(),
        _ => None,
    });
    let grown = grown.expect("a task that has grown something");
    assert_eq!((&grown["file_system"], &grown["bytes_before"]), (&json!("ext4"), &json!(24 << 20)), "{grown}");
    let bytes = grown["bytes"].as_u64().unwrap();
    assert!(bytes > 150 << 20 && bytes < (256 - 66) << 20, "{grown}");
    // And so say those who know GPT and ext4 best.
    let table = tool::run(Command::new("sgdisk").arg("-p").arg(&disk.path)).unwrap();
    let start: u64 = table
        .lines()
        .rev()
        .find(|l| l.ends_with(" root"))
        .and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
        .unwrap();
    let place = format!("{}?offset={}", disk.path.display(), start * 512);
    let ext4 = tool::run(Command::new("dumpe2fs").arg("-h").arg(&place)).unwrap();
    let value = |name: &str| -> u64 {
        ext4.lines().find_map(|l| l.strip_prefix(name)).and_then(|v| v.trim().parse().ok()).unwrap()
    };
    assert_eq!(value("Block count:") * value("Block size:"), bytes, "{ext4}");
}

/// Outcome and fault of the task that ended the order.
fn first_fault(view: &OrderView) -> (Outcome, String) {
    let failed = view.order.tasks.iter().find_map(|task| match &task.state {
        TaskState::Ended { result, .. } if !result.outcome.is_success() => Some(result),
        _ => None,
    });
    let result = failed.expect("a failed order has a failed task");
    let fault = result.fault.as_ref().expect("a failed task has a fault");
    (result.outcome, fault.code.name().to_owned())
}
