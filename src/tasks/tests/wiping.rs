//! Wipes of real loop devices: levels that they do not reach, reports, resuming, and disks that are not there.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Outcome, TaskResult};
use speediso_model::task::{RecordedDisk, Task, WipeLevel, WipeMethod, WipePass, WipeTargets, WipeTask, WipeVerify};
use speediso_model::units::Bytes;
use speediso_model::wipe::{AreaKind, VerificationKind, WipeReport};
use speediso_tasks::ctx::{Cancel, ProgressUpdate, Reporter};
use support::{Bench, LoopDisk, MIB, failed};

fn wipe(disks: &[&LoopDisk], level: WipeLevel) -> WipeTask {
    WipeTask::new(WipeTargets::Hints(disks.iter().map(|d| d.hints()).collect()), level)
}

#[track_caller]
fn report(result: &TaskResult, n: usize) -> WipeReport {
    assert_eq!(result.devices[n].outcome, Outcome::Verified, "{:?}", result.fault);
    serde_json::from_value(result.devices[n].facts.clone()).unwrap()
}

#[test]
fn a_weaker_level_is_used_only_if_the_task_names_it() {
    let bench = Bench::new();
    let disk = LoopDisk::new(8 * MIB, 512);
    let before = disk.fill(2);
    let purge = wipe(&[&disk], WipeLevel::Purge);
    let result = bench.run(&Task::Wipe(purge.clone()));
    failed(&result, Outcome::FailedUnchanged, FaultCode::Unsupported);
    assert!(result.fault.unwrap().to_string().contains("loop device is a file"));
    assert_eq!(disk.digest(), before);

    let named = WipeTask { methods: vec![WipeMethod::NvmeFormatUserData], ..wipe(&[&disk], WipeLevel::Clear) };
    failed(&bench.run(&Task::Wipe(named)), Outcome::FailedUnchanged, FaultCode::Unsupported);
    assert_eq!(disk.digest(), before);

    let allowed = WipeTask { allow: vec![WipeLevel::Clear], ..purge };
    let result = bench.run(&Task::Wipe(allowed));
    let report = report(&result, 0);
    assert_eq!((report.asked, report.reached), (WipeLevel::Purge, Some(WipeLevel::Clear)));
    assert!(result.asked.contains("purge") && result.used.contains("clear by overwrite"), "{result:?}");
}

#[test]
fn a_report_says_what_a_certificate_needs() {
    let bench = Bench::new();
    let disk = LoopDisk::new(24 * MIB + 4096, 4096);
    disk.fill(7);
    let task = WipeTask {
        passes_before: vec![WipePass::Random],
        verify: WipeVerify::SamplePercent(20),
        ..wipe(&[&disk], WipeLevel::Clear)
    };
    let report = report(&bench.run(&Task::Wipe(task)), 0);
    assert_eq!((report.method, report.verification.kind), (WipeMethod::Overwrite, VerificationKind::Sample));
    let sample = report.verification.sample.unwrap();
    assert!(sample.units >= 77 && sample.percent == 20, "{sample:?}");
    // The last unit of the disk is always among them, and of this one it is one sector.
    assert_eq!(report.verification.bytes.0, (sample.units - 1) * sample.unit.0 + 4096);
    let seed = u64::from_str_radix(&report.verification.pattern_seed.unwrap(), 16).unwrap();
    assert_eq!(disk.bytes(8, 8), seed.to_le_bytes(), "anybody can check the disk by the seed");
    assert!(report.begun <= report.ended && report.seconds >= 0.0 && !report.speed_profile.is_empty());
    let begins = |n: usize, with: &str| report.steps.get(n).is_some_and(|step| step.starts_with(with));
    assert!(begins(0, "overwritten with random") && begins(1, "overwritten with a pattern"), "{:?}", report.steps);
    assert!(begins(2, "20 % at random"), "{:?}", report.steps);
    let user = report.areas.iter().find(|a| a.kind == AreaKind::User).unwrap();
    assert!(user.covered && user.size == Bytes(24 * MIB + 4096));
    assert!(report.not_covered.iter().any(|t| t.contains("remapped")), "{:?}", report.not_covered);
}

#[test]
fn a_recorded_disk_that_is_gone_makes_it_unknown_and_the_others_finish() {
    let bench = Bench::new();
    let disk = LoopDisk::new(8 * MIB, 512);
    disk.fill(3);
    let recorded =
        |serial: &str| RecordedDisk { serial: serial.into(), wwn: None, model: String::new(), size: Bytes(MIB) };
    let here = recorded(disk.file.to_str().unwrap());
    let task = WipeTask { expect: vec![here.clone(), recorded("ZX-81")], ..wipe(&[&disk], WipeLevel::Clear) };
    let plan = speediso_tasks::plan(&Task::Wipe(task.clone()), &bench.ctx).unwrap();
    assert!(plan.effects[0].contains("ZX-81"), "{plan}");
    let result = bench.run(&Task::Wipe(task));
    assert_eq!((result.outcome, result.devices.len()), (Outcome::Unknown, 2));
    report(&result, 0);
    assert_eq!(result.devices[1].identity.serial, "ZX-81");
    let all_here = WipeTask { expect: vec![here], ..wipe(&[&disk], WipeLevel::Clear) };
    assert_eq!(bench.run(&Task::Wipe(all_here)).outcome, Outcome::Verified);
}

/// Cancels once so many bytes were written.
struct StopAt {
    bytes: u64,
    cancel: Cancel,
    most: AtomicU64,
}

impl Reporter for StopAt {
    fn step_began(&self, _: &str) {}
    fn step_ended(&self, _: &str, _: &str) {}
    fn notice(&self, _: &str) {}
    fn progress(&self, update: ProgressUpdate) {
        self.most.fetch_max(update.current, Ordering::Relaxed);
        if update.stage == "overwriting" && update.current >= self.bytes {
            self.cancel.cancel();
        }
    }
}

#[test]
fn an_interrupted_overwrite_goes_on_in_the_same_boot_and_nothing_else_passes_for_it() {
    const SIZE: u64 = 320 * MIB;
    let mut bench = Bench::new();
    let disk = LoopDisk::new(SIZE, 512);
    let task = Task::Wipe(wipe(&[&disk], WipeLevel::Clear));
    // As a run that died at 200 MiB has left it: its pattern up to there, zeroes behind.
    let whole = report(&bench.run(&task), 0);
    let seed = whole.verification.pattern_seed.unwrap();
    let file = std::fs::File::options().write(true).open(&disk.file).unwrap();
    file.write_all_at(&vec![0; 120 << 20], 200 * MIB).unwrap();
    file.sync_all().unwrap();
    support::tool("blockdev", &["--flushbufs", &disk.device]);

    bench.ctx.resuming = true;
    let resumed = report(&bench.run(&task), 0);
    assert!(resumed.steps[0].contains("goes on there"), "{:?}", resumed.steps);
    assert_eq!(resumed.verification.pattern_seed.as_ref(), Some(&seed));
    assert_eq!((resumed.verification.kind, resumed.verification.bytes), (VerificationKind::Full, Bytes(SIZE)));

    // A pattern of another boot: half of its seed is not ours.
    let forged = !u64::from_str_radix(&seed, 16).unwrap();
    let mut sector = disk.bytes(0, 512);
    sector[8..16].copy_from_slice(&forged.to_le_bytes());
    disk.write(0, &sector);
    let again = report(&bench.run(&task), 0);
    assert!(again.steps[0].contains("begins again"), "{:?}", again.steps);
    assert_ne!(again.verification.pattern_seed, Some(seed));
}

#[test]
fn a_cancelled_overwrite_says_how_far_it_came() {
    // A thin file, and more than any machine writes before progress is told for the first time, which cancels it.
    const SIZE: u64 = 16 << 30;
    let mut bench = Bench::new();
    let disk = LoopDisk::new(SIZE, 512);
    let cancel = bench.ctx.cancel.clone();
    let reporter = Arc::new(StopAt { bytes: 1, cancel, most: AtomicU64::new(0) });
    bench.ctx.reporter = Arc::clone(&reporter) as Arc<dyn Reporter>;
    let result = bench.run(&Task::Wipe(wipe(&[&disk], WipeLevel::Clear)));
    failed(&result, Outcome::FailedChanged, FaultCode::Cancelled);
    let fault = result.fault.unwrap();
    assert!(fault.causes[0].contains("pass 1 of 1"), "{fault}");
    let told = reporter.most.load(Ordering::Relaxed);
    assert!(told > 0 && told < SIZE / 2, "{told}");
    assert!(disk.bytes(told - 512, 512).iter().any(|byte| *byte != 0));
    assert!(disk.bytes(told + 64 * MIB, 512).iter().all(|byte| *byte == 0));
}
