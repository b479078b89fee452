//! Burn-in of bad disks behind the kernel's own drivers: a hundred injected faults, and every one of them is found, named by
//! its kind on the disk that has it and on no other, and by its place as far as a report names places one by one.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use speediso_lab::nbd::{BadDisk, Errno, On, Rule, Then};
use speediso_lab::{Bus, Disk, Lab};
use speediso_model::burn_in::BurnInReport;
use speediso_model::outcome::{DeviceResult, Outcome, TaskResult};
use speediso_tests::{BOOT, LiveSsh, Orders, Ramdisk, TestDisk, WORK, programs};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;
const MACHINE: &str = "BURNDISKS";
/// On each of the bad disks.
const FAULTS: u64 = 20;
/// So many places are named in a report; the rest is counted.
const NAMED: usize = 100;

struct Case {
    serial: &'static str,
    bus: Bus,
    disk: BadDisk,
    /// How its faults must be called.
    kind: &'static str,
    /// Where they are.
    places: Vec<u64>,
    _file: PathBuf,
}

/// One fault in each of twenty requests that follow one another nowhere, each in another sector of its request.
fn places() -> Vec<u64> {
    (0..FAULTS).map(|n| (24 + n) * MIB + n * 512 * 7).collect()
}

fn case(lab: &Lab, serial: &'static str, bus: Bus, kind: &'static str, rule: impl Fn(u64) -> Option<Rule>) -> Case {
    let file = lab.dir().join(format!("{serial}.raw"));
    File::create(&file).unwrap().set_len(SIZE).unwrap();
    let rules: Vec<Rule> = places().into_iter().filter_map(rule).collect();
    let places = if rules.is_empty() { Vec::new() } else { places() };
    Case { serial, bus, disk: BadDisk::start(&file, rules).unwrap(), kind, places, _file: file }
}

fn cases(lab: &Lab) -> Vec<Case> {
    let at = |on, then, place: u64| Some(Rule::new(on, then).touching(place..place + 512));
    vec![
        case(lab, "FLIPS", Bus::Virtio, "stuck_bits", |p| at(On::Read, Then::FlipBit, p)),
        case(lab, "UNREADABLE", Bus::Scsi, "read_errors", |p| at(On::Read, Then::Fail(Errno::Io), p)),
        case(lab, "UNWRITABLE", Bus::Nvme, "write_errors", |p| at(On::Change, Then::Fail(Errno::Io), p)),
        case(lab, "LOSES", Bus::Virtio, "lost_writes", |p| at(On::Change, Then::Lie, p)),
        case(lab, "MISPLACES", Bus::Virtio, "lost_writes", |p| {
            at(On::Change, Then::Misdirect(p / MIB * MIB - 23 * MIB), p)
        }),
        case(lab, "GOOD", Bus::Ahci, "", |_| None),
    ]
}

fn names_place(device: &DeviceResult, kind: &str, place: u64) -> bool {
    let number = |value: &Value, field: &str| value[field].as_u64().unwrap_or(u64::MAX);
    device.facts["places"].as_array().is_some_and(|places| {
        places.iter().any(|p| {
            let offset = number(p, "offset");
            p["kind"] == kind && offset <= place && place - offset < number(p, "length")
        })
    })
}

fn burn_in(ssh: &LiveSsh, steps: &Value) -> (TaskResult, BurnInReport) {
    let orders = Orders { ssh, machine: MACHINE };
    let task = json!({"task": "burn_in", "scenario": {"version": 1, "name": "test", "steps": steps}});
    let result = orders.run(&[task], 4 * WORK).unwrap().remove(0);
    let report = serde_json::from_value(result.output.clone().unwrap_or_default());
    (result.clone(), report.unwrap_or_else(|e| panic!("{e}: {result:?}")))
}

#[test]
fn every_fault_of_a_disk_is_found_where_it_is() {
    let lab = Lab::builder().build().unwrap();
    let cases = cases(&lab);
    let slow_file = lab.dir().join("SLOW.raw");
    File::create(&slow_file).unwrap().set_len(SIZE).unwrap();
    let slow = Rule::new(On::Read, Then::Delay(Duration::from_millis(300))).touching(16 * MIB..20 * MIB);
    let slow = BadDisk::start(&slow_file, vec![slow]).unwrap();
    let neighbour = TestDisk::with_data(&lab, "NEIGHBOUR", 32).unwrap();

    let mut ssh = LiveSsh::with_fresh_key(&lab, "burn").unwrap();
    let mut spec = Ramdisk::of(&programs().unwrap())
        .machine("burn", &format!("speediso.sshkey=\"{}\"", ssh.public))
        .memory_mib(768)
        .serial(MACHINE);
    for case in &cases {
        spec = spec.disk(Disk::nbd(case.disk.socket(), case.serial).bus(case.bus));
    }
    spec = spec.disk(Disk::nbd(slow.socket(), "SLOW")).disk(neighbour.plugged());
    let machine = spec.power_on(&lab).unwrap();
    ssh.to(&lab, &machine).unwrap();
    ssh.run("true", BOOT).unwrap();

    // Processors, memory and the disks at the same time, as a scenario would have it; the sixth disk is good.
    let hints: Vec<Value> = cases.iter().map(|case| json!({"serial": case.serial})).collect();
    let steps = json!([{"parallel": [
        {"step": "cpu", "duration": "5s"},
        {"step": "memory", "duration": "5s", "size": 32 * MIB},
        {"step": "disk", "duration": "1s", "verify_writes": true, "devices": {"hints": hints}},
    ]}]);
    let (result, report) = burn_in(&ssh, &steps);
    assert_eq!(result.outcome, Outcome::FailedChanged, "{result:?}");
    let mut caught = 0;
    for case in &cases {
        let device = result.devices.iter().find(|d| d.identity.serial == case.serial).unwrap();
        let expected = if case.places.is_empty() { Outcome::Verified } else { Outcome::FailedChanged };
        assert_eq!(device.outcome, expected, "{}: {device:?}", case.serial);
        // A lost request is many lost sectors, which random writes between them part into more places than are named.
        let is_full = device.facts["places"].as_array().is_some_and(|places| places.len() == NAMED);
        for place in &case.places {
            let named = names_place(device, case.kind, *place);
            assert!(named || is_full, "{} at {place}: {}", case.serial, device.facts);
            caught += 1;
        }
        if is_full {
            let counted = device.facts["counts"][case.kind].as_u64();
            assert!(counted > Some(NAMED as u64), "{}: {}", case.serial, device.facts["counts"]);
        }
        println!("{:10} {}", case.serial, device.facts["counts"]);
    }
    assert_eq!(caught, 5 * FAULTS, "one hundred of one hundred");
    let misplaced = result.devices.iter().find(|d| d.identity.serial == "MISPLACES").unwrap();
    assert!(misplaced.facts["counts"]["misdirected_writes"].as_u64() > Some(0), "{}", misplaced.facts);
    let good = report.steps[2].measurements.iter().filter(|m| m.place.as_deref().is_some_and(|p| p.ends_with("GOOD")));
    assert!(good.clone().any(|m| m.map.is_some()) && good.clone().any(|m| m.name == "disk.random_write.iops"));

    // Only read: the slow stretch is named, AHCI's own test of itself is made, nothing is changed.
    let steps = json!([
        {"step": "disk", "duration": "1s", "devices": {"hints": [{"serial": "SLOW"}]},
            "limits": [{"measurement": "disk.slow_regions", "max": 0}]},
        {"step": "disk", "duration": "1s", "devices": {"hints": [{"serial": "NEIGHBOUR"}]}},
        {"step": "disk", "duration": "1s", "share": 20, "self_test": "short", "devices": {"hints": [{"serial": "GOOD"}]}},
    ]);
    let (result, report) = burn_in(&ssh, &steps);
    assert_eq!(result.outcome, Outcome::FailedUnchanged, "{result:?}");
    let slow = report.steps[0].verdict.reasons();
    assert!(slow.iter().any(|reason| reason.contains("disk.slow_regions")), "{slow:?}");
    assert!(report.steps[0].notices.iter().any(|n| n.contains("slow from byte")), "{:?}", report.steps[0].notices);
    assert!(report.steps[1].verdict.reasons().is_empty(), "{:?}", report.steps[1].verdict);
    let self_test = report.steps[2].measurements.iter().find(|m| m.name == "disk.self_test.failed");
    assert!(self_test.is_some_and(|m| m.value == 0.0), "{:?}", report.steps[2]);
    drop(machine);
    neighbour.assert_untouched().unwrap();
}
