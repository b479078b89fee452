//! Burn-in through the door that front doors use: what is broken is found, what cannot be known is said.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use speediso_model::burn_in::{BurnInReport, BurnInTask, Measurement, Scenario, ScenarioChoice, StepReport, Worst};
use speediso_model::fault::FaultCode;
use speediso_model::outcome::{Changed, Outcome, TaskResult};
use speediso_model::plan::hex;
use speediso_model::task::Task;
use speediso_sys::roots::Roots;
use speediso_tasks::burn_in::execute_meddled;
use speediso_tasks::burn_in::meddle::{Honest, Meddler};
use speediso_tasks::tools::Tools;
use support::Bench;

/// A bench with a run directory of its own.
struct Burn {
    bench: Bench,
    dir: tempfile::TempDir,
}

impl Burn {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut bench = Bench::new();
        bench.ctx.roots.run = dir.path().join("run");
        Self { bench, dir }
    }

    fn run(&self, scenario: &Value) -> (TaskResult, BurnInReport) {
        self.meddled(scenario, Arc::new(Honest))
    }

    #[track_caller]
    fn meddled<M: Meddler + 'static>(&self, scenario: &Value, meddler: Arc<M>) -> (TaskResult, BurnInReport) {
        let meddler: Arc<dyn Meddler> = meddler;
        let task = task(scenario);
        let plan = speediso_tasks::plan(&Task::BurnIn(task.clone()), &self.bench.ctx).expect("a plan");
        let result = execute_meddled(&task, &plan.digest(), &self.bench.ctx, &meddler);
        let report = result.output.clone().unwrap_or_else(|| panic!("no report: {result:?}"));
        (result, serde_json::from_value(report).expect("a report"))
    }
}

#[track_caller]
fn task(scenario: &Value) -> BurnInTask {
    let scenario = Scenario::parse(&scenario.to_string()).unwrap_or_else(|e| panic!("{e}"));
    BurnInTask { scenario: ScenarioChoice::Inline(Box::new(scenario)) }
}

fn steps(steps: &Value) -> Value {
    json!({"version": 1, "name": "test", "steps": steps})
}

#[track_caller]
fn value(step: &StepReport, name: &str) -> f64 {
    let found: Vec<&Measurement> = step.measurements.iter().filter(|m| m.name == name).collect();
    assert!(!found.is_empty(), "{name} is not in {step:?}");
    found.iter().map(|m| m.value).sum()
}

/// Spoils a bit of one word, once.
struct FlipsOneBit {
    bit: u64,
    is_stuck: bool,
    done: AtomicU64,
    place: AtomicU64,
}

impl FlipsOneBit {
    fn new(bit: u64, is_stuck: bool) -> Self {
        Self { bit, is_stuck, done: AtomicU64::new(0), place: AtomicU64::new(0) }
    }
}

impl Meddler for FlipsOneBit {
    fn memory(&self, words: &mut [u64], first: u64) {
        if self.done.fetch_add(1, Ordering::Relaxed) == 0 {
            let at = self.bit.wrapping_mul(0x9e37_79b9_7f4a_7c15) % words.len() as u64;
            words[usize::try_from(at).expect("small")] ^= 1 << (self.bit % 64);
            self.place.store(first + at, Ordering::Relaxed);
        }
    }

    fn again(&self, word: &mut u64, place: u64) {
        if self.is_stuck && place == self.place.load(Ordering::Relaxed) {
            *word ^= 1 << (self.bit % 64);
        }
    }
}

#[test]
fn every_flipped_bit_is_found_in_a_thousand_runs() {
    let burn = Burn::new();
    let patterns = ["own_address", "random", "moving_inversions", "walking_ones", "rows"];
    for run in 0..1000_u64 {
        let pattern = patterns[usize::try_from(run).expect("small") % patterns.len()];
        let step = json!({"step": "memory", "duration": "1m", "size": 1 << 20, "passes": 1, "patterns": [pattern]});
        let (result, report) = burn.meddled(&steps(&json!([step])), Arc::new(FlipsOneBit::new(run, run % 2 == 0)));
        let fault = result.fault.unwrap_or_else(|| panic!("run {run}, {pattern}: the bit was not found"));
        assert_eq!((result.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::HardwareFault), "run {run}");
        assert_eq!(value(&report.steps[0], "memory.errors"), 1.0, "run {run}, {pattern}");
        let notices = report.steps[0].notices.join("\n");
        let bits = format!("bits {:016x}", 1_u64 << (run % 64));
        let kind = if run % 2 == 0 { "stuck" } else { "right when written again" };
        assert!(notices.contains(&bits) && notices.contains(kind) && notices.contains(pattern), "run {run}: {notices}");
    }
}

#[test]
fn whole_memory_that_is_good_passes_with_its_figures() {
    let burn = Burn::new();
    let step = json!({"step": "memory", "duration": "1m", "size": 40 << 20, "passes": 1});
    let (result, report) = burn.run(&steps(&json!([step])));
    assert_eq!((result.outcome, result.changed), (Outcome::Verified, Some(Changed::AlreadySo)), "{:?}", result.fault);
    assert!(result.used.starts_with("memory for "), "{}", result.used);
    let step = &report.steps[0];
    assert_eq!(report.verdict, Worst::Passed);
    assert_eq!(value(step, "memory.tested"), f64::from(40 << 20));
    assert_eq!((value(step, "memory.passes"), value(step, "memory.errors")), (1.0, 0.0));
    assert!(value(step, "memory.sweeps") >= 12.0 && value(step, "memory.bandwidth.read") > 0.0);
    assert!(value(step, "memory.bandwidth.write") > 0.0);
}

#[test]
fn more_memory_than_there_is_is_no_pass() {
    let burn = Burn::new();
    let step = json!({"step": "memory", "duration": "1m", "size": 1_u64 << 50, "reserve": 1_u64 << 49, "passes": 1});
    let (result, report) = burn.run(&steps(&json!([step])));
    assert_eq!(result.fault.expect("a fault").code, FaultCode::BurnInInconclusive);
    assert!(report.reasons[0].contains("nothing is left to test"), "{:?}", report.reasons);
}

/// Spoils so many results.
struct Miscounts {
    spoilt: AtomicU64,
    most: u64,
}

impl Meddler for Miscounts {
    fn result(&self, core: u32, _: &str, digest: u64) -> u64 {
        let before =
            self.spoilt.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.most).then_some(n + 1));
        match before {
            Ok(n) if core == 0 => digest ^ (1 << (n % 64)),
            Ok(_) => {
                // Only core 0 is broken.
                self.spoilt.fetch_sub(1, Ordering::Relaxed);
                digest
            }
            Err(_) => digest,
        }
    }
}

#[test]
fn every_wrong_result_is_counted_at_its_core() {
    let burn = Burn::new();
    let meddler = Arc::new(Miscounts { spoilt: AtomicU64::new(0), most: 1000 });
    let scenario = steps(&json!([{"step": "cpu", "duration": "30s"}]));
    // The time is not what is tested: it ends when all are spoilt.
    let cancel = burn.bench.ctx.cancel.clone();
    let watched = meddler.clone();
    let watching = std::thread::spawn(move || {
        while watched.spoilt.load(Ordering::Relaxed) < 1000 && !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(20));
        }
        cancel.cancel();
    });
    let (result, report) = burn.meddled(&scenario, meddler.clone());
    burn.bench.ctx.cancel.cancel();
    watching.join().expect("it watched");
    let errors = |core: &str| {
        let of_core = |m: &&Measurement| m.name == "cpu.errors" && m.place.as_deref() == Some(core);
        report.steps[0].measurements.iter().find(of_core).map(|m| m.value)
    };
    #[allow(clippy::cast_precision_loss, reason = "at most 1000")]
    let spoilt = meddler.spoilt.load(Ordering::Relaxed) as f64;
    assert!(spoilt > 100.0, "{spoilt}");
    assert_eq!(errors("core 0"), Some(spoilt));
    assert!(errors("core 1").is_none_or(|n| n == 0.0));
    assert_eq!(report.verdict, Worst::Failed);
    assert!(report.reasons[0].contains("cpu.errors of core 0"), "{:?}", report.reasons);
    // That it was cancelled is what its end says; the report has what was found until then.
    assert_eq!((result.outcome, result.fault.map(|f| f.code)), (Outcome::FailedUnchanged, Some(FaultCode::Cancelled)));
}

/// Spoils one result, whichever it is told.
struct SpoilsOne {
    nth: u64,
    seen: AtomicU64,
}

impl Meddler for SpoilsOne {
    fn result(&self, _: u32, _: &str, digest: u64) -> u64 {
        let is_it = self.seen.fetch_add(1, Ordering::Relaxed) == self.nth;
        if is_it { digest ^ (1 << (self.nth * 11 % 64)) } else { digest }
    }
}

#[test]
#[ignore = "a thousand turns through every kernel, minutes on a busy machine: make test-all"]
fn every_wrong_result_is_found_in_a_thousand_runs() {
    let burn = Burn::new();
    let mut scenario = steps(&json!([{"step": "cpu", "duration": "10m", "cores": [0]}]));
    scenario["stop_on_first_fault"] = json!(true);
    for run in 0..1000_u64 {
        // Plain code and SSE2 are seven kernels everywhere: one of the first turn through them.
        let meddler = Arc::new(SpoilsOne { nth: run % 7, seen: AtomicU64::new(0) });
        let (result, report) = burn.meddled(&scenario, meddler);
        let fault = result.fault.unwrap_or_else(|| panic!("run {run}: the wrong result was not found"));
        assert_eq!((result.outcome, fault.code), (Outcome::FailedUnchanged, FaultCode::HardwareFault), "run {run}");
        assert_eq!(value(&report.steps[0], "cpu.errors"), 1.0, "run {run}");
        assert!(report.reasons[0].contains("cpu.errors of core 0"), "run {run}: {:?}", report.reasons);
    }
}

#[test]
fn every_core_of_this_machine_computes_rightly() {
    let burn = Burn::new();
    let (result, report) = burn.run(&steps(&json!([{"step": "cpu", "duration": 2}])));
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    let cores = speediso_sys::cores::online(&Roots::live()).len();
    let rates = report.steps[0].measurements.iter().filter(|m| m.name == "cpu.rate" && m.value > 0.0).count();
    assert_eq!(rates, cores);
    assert!(report.steps[0].notices[0].contains("sha256"), "{:?}", report.steps[0].notices);
}

#[test]
fn the_first_fault_ends_all_if_asked() {
    let burn = Burn::new();
    let memory = json!({"step": "memory", "duration": "10m", "size": 1 << 20, "patterns": ["random"]});
    let pause = json!({"step": "pause", "duration": "10m"});
    let mut scenario = steps(&json!([{"parallel": [memory, pause.clone()]}, pause]));
    scenario["stop_on_first_fault"] = json!(true);
    let (result, report) = burn.meddled(&scenario, Arc::new(FlipsOneBit::new(3, false)));
    assert_eq!(result.fault.expect("a fault").code, FaultCode::HardwareFault);
    let worst: Vec<Worst> = report.steps.iter().map(|s| s.verdict.worst()).collect();
    assert_eq!(worst, [Worst::Failed, Worst::Inconclusive, Worst::Inconclusive]);
    assert!(report.steps[1].verdict.reasons()[0].contains("a fault was found in memory"), "{:?}", report.steps[1]);
    assert!(report.steps[2].verdict.reasons()[0].contains("not begun"), "{:?}", report.steps[2]);
    assert_eq!(report.steps.iter().map(|s| s.number).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_command_is_measured_by_its_words() {
    let burn = Burn::new();
    let argv = ["sh", "-c", "echo wlan0: signal -61 dBm; echo $KEY; exit $STATUS"];
    let rule = json!({"line": "{where}: signal {value} dBm", "name": "wifi.signal", "unit": "dBm"});
    let limit = json!({"measurement": "wifi.signal", "min": -70});
    let with = |status: &str, extra: Value| {
        let mut step = json!({"step": "command", "duration": "20s", "argv": argv, "metrics": [rule], "limits": [limit],
            "environment": {"KEY": "given", "STATUS": status}});
        extra.as_object().expect("an object").iter().for_each(|(k, v)| step[k] = v.clone());
        steps(&json!([step]))
    };
    let (result, report) = burn.run(&with("0", json!({})));
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    let signal = report.steps[0].measurements.iter().find(|m| m.name == "wifi.signal").expect("measured");
    assert_eq!((signal.value, signal.place.as_deref()), (-61.0, Some("wlan0")));
    assert!(report.steps[0].output.as_ref().is_some_and(|o| o.contains("given")));

    assert_eq!(result.changed, Some(Changed::Changed), "of what a program did nobody says that it changed nothing");

    let (result, report) = burn.run(&with("3", json!({})));
    assert_eq!(
        (result.outcome, result.fault.expect("a fault").code),
        (Outcome::FailedChanged, FaultCode::HardwareFault)
    );
    assert_eq!(report.reasons, ["command: program.status is 3 count (at most 0 allowed, by default)"]);

    let weak = json!({"limits": [{"measurement": "wifi.signal", "min": -50}]});
    let (_, report) = burn.run(&with("0", weak));
    assert_eq!(report.reasons, ["command: wifi.signal of wlan0 is -61 dBm (at least -50 allowed)"]);

    // What should have been measured and was not has not passed.
    let (_, report) = burn.run(&with("0", json!({"argv": ["true"]})));
    assert_eq!(report.verdict, Worst::Inconclusive, "{:?}", report.reasons);
    let (result, report) = burn.run(&with("0", json!({"argv": ["no-such-program"]})));
    assert_eq!(result.outcome, Outcome::FailedUnchanged, "it was never run");
    assert!(report.reasons[0].contains("no-such-program is not in this live system"), "{:?}", report.reasons);
    let mut optional = with("0", json!({"argv": ["no-such-program"], "required": false}));
    let (_, report) = burn.run(&optional);
    assert_eq!(report.verdict, Worst::Inconclusive, "nothing at all was found out");
    optional["steps"].as_array_mut().expect("steps").push(json!({"step": "pause", "duration": 1}));
    let (result, _) = burn.run(&optional);
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    let (_, report) =
        burn.run(&with("0", json!({"argv": ["sleep", "60"], "duration": 1, "metrics": [], "limits": []})));
    assert!(report.reasons[0].contains("sleep did not end within 1 s"), "{:?}", report.reasons);
}

#[test]
fn a_program_that_is_another_is_not_run() {
    let burn = Burn::new();
    let program = burn.dir.path().join("probe");
    fs::write(&program, "#!/bin/sh\necho button.power 1 count\n").expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).expect("set");
    let digest = hex(&Sha256::digest(fs::read(&program).expect("read")));
    let with = |digest: &str| {
        steps(&json!([{"step": "command", "duration": "20s", "argv": [program], "digest": format!("sha256:{digest}"),
            "metrics": [{"lines": true}], "limits": [{"measurement": "button.*", "min": 1}]}]))
    };
    let (result, report) = burn.run(&with(&digest));
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    assert_eq!(value(&report.steps[0], "button.power"), 1.0);
    let (result, report) = burn.run(&with(&digest.replace(|c: char| c.is_ascii_digit(), "a")));
    assert_eq!(result.fault.expect("a fault").code, FaultCode::BurnInInconclusive);
    assert!(report.reasons[0].contains("was not run"), "{:?}", report.reasons);
    let left = fs::read_dir(burn.bench.ctx.roots.run.clone()).expect("there").count();
    assert_eq!(left, 0, "copies are removed, and so is the record");
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    fs::write(path, text).expect("written");
}

#[test]
fn a_sensor_that_vanishes_is_no_pass_and_one_that_is_hot_a_fault() {
    let mut burn = Burn::new();
    let root = burn.dir.path().join("machine");
    let run = burn.bench.ctx.roots.run.clone();
    burn.bench.ctx.roots = Roots { run, ..Roots::under(&root) };
    let chip = root.join("sys/class/hwmon/hwmon0");
    put(&chip.join("name"), "board");
    put(&chip.join("temp1_input"), "91000");
    put(&chip.join("temp1_label"), "Inlet");
    put(&chip.join("fan1_input"), "1200");
    let scenario = |max: u32| {
        steps(&json!([{"step": "sensors", "duration": 6, "every": 1,
            "limits": [{"measurement": "sensor.temperature.max", "where": "board/*", "max": max}]}]))
    };
    let (result, report) = burn.run(&scenario(95));
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    assert!(report.steps[0].unread.iter().any(|u| u.contains("EDAC")), "{:?}", report.steps[0].unread);
    let (_, report) = burn.run(&scenario(90));
    assert_eq!(report.reasons, ["sensors: sensor.temperature.max of board/Inlet is 91 °C (at most 90 allowed)"]);
    let gone = chip.join("fan1_input");
    let vanishing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        fs::remove_file(gone).expect("removed");
    });
    let (result, report) = burn.run(&scenario(95));
    vanishing.join().expect("it vanished");
    assert_eq!(result.fault.expect("a fault").code, FaultCode::BurnInInconclusive);
    assert!(report.reasons[0].contains("board/fan1 vanished"), "{:?}", report.reasons);
}

#[test]
fn what_the_kernel_counts_meanwhile_counts() {
    let mut burn = Burn::new();
    let root = burn.dir.path().join("machine");
    let run = burn.bench.ctx.roots.run.clone();
    burn.bench.ctx.roots = Roots { run, ..Roots::under(&root) };
    let counter = root.join("sys/devices/system/edac/mc/mc0/ce_count");
    put(&counter, "7");
    put(&counter.with_file_name("ue_count"), "0");
    put(&root.join("proc/interrupts"), "MCE: 1 1 Machine check exceptions\n");
    put(&root.join("dev/kmsg"), "");
    let log = root.join("dev/kmsg");
    let happening = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        fs::write(counter, "9").expect("written");
        fs::write(log, "4,1,2,-;EDAC MC0: 2 CE memory read error on DIMM_A1\n").expect("written");
    });
    let (_, report) = burn.run(&steps(&json!([{"step": "pause", "duration": 2}])));
    happening.join().expect("it happened");
    assert_eq!(report.reasons.len(), 2, "{:?}", report.reasons);
    assert!(report.reasons.iter().any(|r| r.contains("edac.corrected of mc0 is 2")), "{:?}", report.reasons);
    assert!(report.steps[0].notices.iter().any(|n| n.contains("DIMM_A1")), "{:?}", report.steps[0].notices);
}

#[test]
fn a_restarted_agent_goes_on_where_it_was() {
    let mut burn = Burn::new();
    let marks = burn.dir.path().join("marks");
    let mark = |name: &str| json!({"step": "command", "name": name, "duration": "20s", "argv": ["sh", "-c", format!("echo {name} >> {}", marks.display())]});
    let scenario = steps(&json!([mark("first"), {"step": "pause", "duration": 2}, mark("last")]));
    // The agent dies in the pause: its thread is never heard of again.
    let ctx = burn.bench.ctx.clone();
    let lost = scenario.clone();
    let dying = std::thread::spawn(move || {
        let task = task(&lost);
        let plan = speediso_tasks::plan(&Task::BurnIn(task.clone()), &ctx).expect("a plan");
        execute_meddled(&task, &plan.digest(), &ctx, &(Arc::new(Honest) as Arc<dyn Meddler>))
    });
    let record = burn.bench.ctx.roots.run.join("burn-in.json");
    let read = || fs::read_to_string(&record).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let kept = loop {
        if let Some(kept) = read().filter(|kept| kept["begun"][0] == 1) {
            break kept;
        }
        assert!(!dying.is_finished(), "it ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(5));
    };
    dying.join().expect("the first agent");
    assert!(read().is_none(), "what came to its end is forgotten");
    fs::write(&record, kept.to_string()).expect("as the first left it");
    fs::write(&marks, "first\n").expect("as the first left it");

    burn.bench.ctx.resuming = true;
    let (result, report) = burn.run(&scenario);
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    assert_eq!(fs::read_to_string(&marks).expect("marks"), "first\nlast\n", "the first is not repeated");
    assert_eq!((report.restarts, report.steps.len()), (1, 3));
    assert!(report.steps[1].notices[0].contains("begun again"), "{:?}", report.steps[1].notices);
    assert!(report.steps[0].notices.is_empty() || !report.steps[0].notices[0].contains("begun again"));

    // Another order of the same work begins anew.
    fs::write(&record, kept.to_string()).expect("left over");
    burn.bench.ctx.resuming = false;
    let (_, report) = burn.run(&scenario);
    assert_eq!((report.restarts, fs::read_to_string(&marks).expect("marks").lines().count()), (0, 4));

    // A step in which the agent dies again and again is not tried for ever.
    let mut hopeless = kept;
    hopeless["begun"] = json!([1, 3]);
    fs::write(&record, hopeless.to_string()).expect("as three agents left it");
    burn.bench.ctx.resuming = true;
    let (result, report) = burn.run(&scenario);
    assert_eq!(result.fault.expect("a fault").code, FaultCode::BurnInInconclusive);
    assert!(report.reasons[0].contains("3 times"), "{:?}", report.reasons);
    assert_eq!(report.steps[2].verdict.worst(), Worst::Passed, "the others are done all the same");
}

#[test]
fn a_plan_says_what_would_be_done_and_another_is_refused() {
    let burn = Burn::new();
    let quick = Task::BurnIn(BurnInTask::named("quick"));
    let plan = speediso_tasks::plan(&quick, &burn.bench.ctx).expect("a plan");
    assert!(!plan.destructive && plan.devices.is_empty());
    assert!(plan.effects[0].starts_with("step 0, cpu, for 45 s: verified arithmetic"), "{:?}", plan.effects);
    let standard = Task::BurnIn(BurnInTask::named("standard"));
    let result = speediso_tasks::execute(&standard, &plan.digest(), &burn.bench.ctx);
    assert_eq!(result.fault.expect("refused").code, FaultCode::PlanMismatch);
}

/// Programs that print what the real ones print.
#[test]
fn engines_are_used_where_they_are() {
    let mut burn = Burn::new();
    let bin = burn.dir.path().join("bin");
    put(
        &bin.join("stress-ng"),
        "#!/bin/sh\necho \"$@\" >&2\necho 'stress-ng: metrc: [1] cpu  4166  2.00  3.98  0.00  2082.62  1046.73'\n",
    );
    fs::set_permissions(bin.join("stress-ng"), fs::Permissions::from_mode(0o755)).expect("set");
    let step = json!({"step": "stress_ng", "duration": "20s", "stressors": [{"name": "cpu", "workers": 1}],
        "limits": [{"measurement": "stress_ng.cpu.bogo_ops", "min": 1000}]});
    let (_, report) = burn.run(&steps(&json!([{"step": "gpu", "duration": "20s", "directory": "/nowhere"}])));
    assert!(report.reasons[0].contains("/nowhere/gpu_burn is not in this live system"), "{:?}", report.reasons);
    burn.bench.ctx.tools = Tools::new(vec![bin], None, None, burn.dir.path().join("tools"));
    let (result, report) = burn.run(&steps(&json!([step])));
    assert_eq!(result.outcome, Outcome::Verified, "{:?}", result.fault);
    assert_eq!(value(&report.steps[0], "stress_ng.cpu.bogo_ops"), 2082.62);
    assert!(report.steps[0].output.as_ref().is_some_and(|o| o.contains("--cpu 1 --verify")), "{report:?}");
}
