//! The right disk or none: hints, claims and plans against real devices.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::File;

use speediso_model::fault::FaultCode;
use speediso_model::hints::RootDeviceHints;
use speediso_model::outcome::Outcome;
use speediso_model::task::{Task, WipeLevel, WipeTargets, WipeTask};
use speediso_model::units::Bytes;
use support::{Bench, LoopDisk, MIB, tool};

fn wipe(hints: Vec<RootDeviceHints>) -> Task {
    Task::Wipe(WipeTask::new(WipeTargets::Hints(hints), WipeLevel::Clear))
}

#[test]
fn no_match_and_two_matches_touch_nothing() {
    let bench = Bench::new();
    // A size that no other test and no real disk has.
    let odd = 7 * MIB + 3 * 4096;
    let (a, b) = (LoopDisk::new(odd, 512), LoopDisk::new(odd, 512));
    let before = (a.fill(1), b.fill(2));
    let by_size = RootDeviceHints { size: Some(Bytes(odd).into()), ..RootDeviceHints::default() };
    let none = RootDeviceHints { serial: Some("nobody".into()), ..RootDeviceHints::default() };
    for (hints, code) in [
        (by_size, FaultCode::AmbiguousDisk),
        (none, FaultCode::NoMatchingDisk),
        (RootDeviceHints { allow_removable: true, ..RootDeviceHints::default() }, FaultCode::TaskInvalid),
    ] {
        let result = bench.run(&wipe(vec![hints]));
        assert_eq!((result.outcome, result.fault.unwrap().code), (Outcome::FailedUnchanged, code));
    }
    assert_eq!((a.digest(), b.digest()), before);
}

#[test]
fn a_mounted_disk_is_refused_whoever_asks() {
    let bench = Bench::new();
    let disk = LoopDisk::new(16 * MIB, 512);
    tool("mke2fs", &["-q", &disk.device]);
    let plan = speediso_tasks::plan(&wipe(vec![disk.hints()]), &bench.ctx).unwrap();
    let dir = tempfile::tempdir().unwrap();
    tool("mount", &[&disk.device, dir.path().to_str().unwrap()]);
    let planned = speediso_tasks::plan(&wipe(vec![disk.hints()]), &bench.ctx);
    // The plan of before does not help.
    let executed = speediso_tasks::execute(&wipe(vec![disk.hints()]), &plan.digest(), &bench.ctx);
    tool("umount", &[dir.path().to_str().unwrap()]);
    assert_eq!(planned.unwrap_err().code, FaultCode::DiskInUse);
    assert_eq!((executed.outcome, executed.fault.unwrap().code), (Outcome::FailedUnchanged, FaultCode::DiskInUse));
    tool("fsck.ext2", &["-fn", &disk.device]);
}

#[test]
fn a_disk_that_somebody_else_holds_is_refused() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let bench = Bench::new();
    let disk = LoopDisk::new(8 * MIB, 512);
    let before = disk.fill(4);
    // O_EXCL of open(2) on a block device: what md, swap and mkfs do.
    let held = File::options().read(true).custom_flags(0o200).open(&disk.device).unwrap();
    let result = bench.run(&wipe(vec![disk.hints()]));
    assert_eq!((result.outcome, result.fault.unwrap().code), (Outcome::FailedUnchanged, FaultCode::DiskInUse));
    drop(held);
    assert_eq!(disk.digest(), before);
}

/// Another disk under the same name, of the same size and with the same name of its file: only the kernel's count of
/// disks tells them apart.
#[test]
fn a_disk_swapped_after_the_plan_is_not_written() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    File::create(&file).unwrap().set_len(8 * MIB).unwrap();
    let first = LoopDisk::attach(&file, 512);
    let (device, task) = (first.device.clone(), wipe(vec![first.hints()]));
    let plan = speediso_tasks::plan(&task, &bench.ctx).unwrap();
    drop(first);
    std::fs::remove_file(&file).unwrap();
    File::create(&file).unwrap().set_len(8 * MIB).unwrap();
    tool("losetup", &["-b", "512", &device, file.to_str().unwrap()]);
    let second = LoopDisk::named(device, &file);
    let before = second.fill(6);
    let result = speediso_tasks::execute(&task, &plan.digest(), &bench.ctx);
    let fault = result.fault.unwrap();
    assert_eq!((result.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::PlanMismatch), "{fault}");
    assert_eq!(second.digest(), before, "the second disk was written to");
}
