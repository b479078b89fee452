//! The disk step on real loop devices, and the network step between two of us.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::os::unix::fs::OpenOptionsExt as _;

use serde_json::{Value, json};
use speediso_model::burn_in::{BurnInReport, BurnInTask, Measurement, Worst};
use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::task::Task;
use support::{Bench, LoopDisk, MIB, failed};

fn task(steps: &Value) -> Task {
    let scenario = json!({"version": 1, "name": "test", "steps": steps});
    Task::BurnIn(BurnInTask { scenario: serde_json::from_value(scenario).unwrap() })
}

fn disk_step(disks: &[&LoopDisk], more: &Value) -> Value {
    let hints: Vec<Value> = disks.iter().map(|d| serde_json::to_value(d.hints()).unwrap()).collect();
    let mut step = json!({"step": "disk", "duration": "1s", "devices": {"hints": hints}});
    step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    step
}

#[track_caller]
fn report(result: &TaskResult) -> BurnInReport {
    serde_json::from_value(result.output.clone().unwrap_or_else(|| panic!("{result:?}"))).unwrap()
}

fn all(report: &BurnInReport) -> Vec<&Measurement> {
    report.steps.iter().flat_map(|s| &s.measurements).collect()
}

#[track_caller]
fn value(report: &BurnInReport, name: &str) -> f64 {
    all(report).iter().find(|m| m.name == name).unwrap_or_else(|| panic!("no {name}: {report:?}")).value
}

#[test]
fn reading_changes_nothing_and_maps_the_disk() {
    let bench = Bench::new();
    let disks = [LoopDisk::new(24 * MIB, 512), LoopDisk::new(16 * MIB, 4096)];
    let before: Vec<_> = disks.iter().map(|d| d.fill(5)).collect();
    let result = bench.run(&task(&json!([disk_step(&[&disks[0], &disks[1]], &json!({}))])));
    let report = report(&result);
    assert_eq!((result.outcome, report.verdict), (Outcome::Verified, Worst::Passed), "{result:?}");
    assert!(disks.iter().zip(&before).all(|(disk, before)| disk.digest() == *before));
    assert_eq!(result.devices.len(), 2);
    assert!(result.devices.iter().all(|d| d.changed == Some(Changed::AlreadySo)));
    let maps: Vec<_> = all(&report).into_iter().filter_map(|m| m.map.as_ref()).collect();
    assert_eq!(maps.len(), 2);
    assert!(maps.iter().all(|map| map.regions.len() > 3 && map.regions.len() <= 256), "{maps:?}");
    let places: std::collections::BTreeSet<_> = all(&report).iter().filter_map(|m| m.place.clone()).collect();
    assert!(places.iter().any(|p| p.contains("loop")), "{places:?}");
    assert!(value(&report, "disk.random_read.iops") > 0.0);
    assert_eq!(value(&report, "disk.errors"), 0.0);
    assert!(value(&report, "disk.read_twice") > 0.0, "what was read along the disk is read again anywhere");
    assert_eq!(value(&report, "disk.inconsistent_reads"), 0.0);
    assert!(report.steps[0].unread.iter().any(|u| u.contains("loop device")), "what is not read is said");
}

#[test]
fn verified_writes_change_the_disk_and_say_so() {
    let bench = Bench::new();
    let (disk, neighbour) = (LoopDisk::new(16 * MIB, 512), LoopDisk::new(8 * MIB, 512));
    let before = neighbour.fill(9);
    disk.fill(1);
    let task = task(&json!([disk_step(&[&disk], &json!({"verify_writes": true}))]));
    let plan = speediso_tasks::plan(&task, &bench.ctx).unwrap();
    assert!(plan.destructive && plan.devices.len() == 1 && plan.to_string().contains("DESTROYS"), "{plan}");
    let result = bench.run(&task);
    let report = report(&result);
    assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(Changed::Changed)), "{result:?}");
    assert_eq!(neighbour.digest(), before);
    assert_eq!(&disk.bytes(4096, 8), b"SPDBURN1");
    for name in ["disk.write.bandwidth", "disk.read.bandwidth", "disk.random_write.iops", "disk.random_read.iops"] {
        assert!(value(&report, name) > 0.0, "{name}");
    }
    assert_eq!(value(&report, "disk.mismatches"), 0.0);

    // Another plan than the one that was permitted: nothing is begun.
    disk.fill(2);
    let other = LoopDisk::new(16 * MIB, 512);
    let changed =
        speediso_tasks::plan(&self::task(&json!([disk_step(&[&other], &json!({"verify_writes": true}))])), &bench.ctx);
    let result = speediso_tasks::execute(&task, &changed.unwrap().digest(), &bench.ctx);
    failed(&result, Outcome::FailedUnchanged, FaultCode::PlanMismatch);
    assert_ne!(&disk.bytes(4096, 8), b"SPDBURN1");
}

#[test]
fn a_limit_that_nothing_keeps_fails_the_disk_that_broke_it() {
    let bench = Bench::new();
    let disk = LoopDisk::new(8 * MIB, 512);
    let limits = json!({"limits": [{"measurement": "disk.read.bandwidth", "min": 1e15}], "verify_writes": true});
    let result = bench.run(&task(&json!([disk_step(&[&disk], &limits)])));
    failed(&result, Outcome::FailedChanged, FaultCode::HardwareFault);
    assert_eq!(result.devices[0].outcome, Outcome::FailedChanged);
    let said = result.fault.unwrap().to_string();
    assert!(said.contains("disk.read.bandwidth") && said.contains("at least"), "{said}");
}

#[test]
fn a_disk_in_use_is_read_but_never_written() {
    let bench = Bench::new();
    let disk = LoopDisk::new(8 * MIB, 512);
    let before = disk.fill(3);
    // O_EXCL: as a mount or an array would hold it.
    let held = std::fs::OpenOptions::new().read(true).custom_flags(0o200).open(&disk.device).unwrap();
    let result = bench.run(&task(&json!([disk_step(&[&disk], &json!({"verify_writes": true}))])));
    assert_eq!(result.outcome, Outcome::FailedUnchanged, "{result:?}");
    assert_eq!(disk.digest(), before);
    let result = bench.run(&task(&json!([disk_step(&[&disk], &json!({}))])));
    assert_eq!(result.outcome, Outcome::Verified, "{result:?}");
    drop(held);
}

#[test]
fn two_machines_try_their_link() {
    let secret = "5e".repeat(32);
    let step = |role: &str| {
        task(&json!([{"step": "network", "duration": "6s", "partner": "127.0.0.1", "role": role, "secret": secret,
            "port": 7497, "wait": "60s", "streams": 2, "datagrams_per_second": 200}]))
    };
    let (listens, connects) = (step("listen"), step("connect"));
    let there = std::thread::spawn(move || Bench::new().run(&listens));
    let here = Bench::new().run(&connects);
    let there = there.join().unwrap();
    for result in [&here, &there] {
        let report = report(result);
        assert_eq!(result.outcome, Outcome::Verified, "{result:?}");
        for name in ["sent", "received", "both.sent", "both.received"] {
            assert!(value(&report, &format!("network.{name}.bandwidth")) > 0.0);
        }
        assert_eq!((value(&report, "network.corrupt_blocks"), value(&report, "network.missing_bytes")), (0.0, 0.0));
        assert!(value(&report, "network.latency.p99") > 0.0);
        assert!(!serde_json::to_string(result).unwrap().contains(&secret), "the secret is in no report");
    }

    let alone = task(&json!([{"step": "network", "duration": "5s", "partner": "127.0.0.1", "role": "listen",
        "secret": secret, "port": 7498, "wait": "1s"}]));
    let result = Bench::new().run(&alone);
    failed(&result, Outcome::FailedUnchanged, FaultCode::BurnInInconclusive);
    let none = speediso_tasks::plan(&task(&json!([{"step": "network", "duration": "5s"}])), &Bench::new().ctx);
    assert!(none.unwrap_err().to_string().contains("controller that pairs"));
}

/// Whoever has no controller has no partner in it: that is no fault, no pass, and nothing that ends the others.
#[test]
fn without_a_controller_its_link_is_skipped() {
    let link = json!({"step": "network", "duration": "1m", "with": "controller", "required": false});
    let pause = json!({"step": "pause", "duration": "1s"});
    let both = task(&json!([link.clone(), pause]));
    let plan = speediso_tasks::plan(&both, &Bench::new().ctx).unwrap();
    assert!(plan.effects[0].contains("there is none, so the step is skipped"), "{plan}");
    let result = Bench::new().run(&both);
    let report = report(&result);
    assert_eq!((result.outcome, report.steps[0].verdict.name()), (Outcome::Verified, "skipped"), "{result:?}");
    assert!(report.steps[0].verdict.reasons()[0].contains("no controller"), "{report:?}");
    let mut needed = link;
    needed["required"] = json!(true);
    let result = Bench::new().run(&task(&json!([needed])));
    failed(&result, Outcome::FailedUnchanged, FaultCode::BurnInInconclusive);
}
