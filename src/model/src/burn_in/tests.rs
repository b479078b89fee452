use super::*;

fn with(step: &str) -> String {
    format!(r#"{{"version":1,"name":"x","steps":[{step}]}}"#)
}

#[test]
fn what_is_shipped_is_valid_and_destroys_nothing() {
    for (name, text) in SHIPPED {
        let scenario = Scenario::parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(&scenario.name, name);
        assert!(!BurnInTask::named(name).is_destructive(), "{name}");
        let again: Scenario = serde_json::from_value(serde_json::to_value(&scenario).expect("written")).expect(name);
        assert_eq!((again.digest(), &again), (scenario.digest(), &scenario));
    }
    assert_eq!(shipped("quick").expect("shipped").seconds(), 120);
    assert!(shipped("Quick").is_none());
    assert!(BurnInTask::named("Quick").check().expect_err("unknown").contains("quick, standard, soak"));
}

#[test]
fn what_programs_do_nobody_knows() {
    let of = |step: &str| {
        let task = BurnInTask { scenario: serde_json::from_str(&with(step)).expect(step) };
        let kind = (task.writes_disks(), task.runs_programs());
        let task = crate::task::Task::BurnIn(task);
        (kind, task.is_destructive(), task.on_interrupt())
    };
    use crate::task::OnInterrupt::{Never, Safe};
    let stress = |name: &str| format!(r#"{{"step":"stress_ng","duration":"1m","stressors":[{{"name":"{name}"}}]}}"#);
    let harmless = ((false, false), false, Safe);
    let program = ((false, true), true, Never);
    assert_eq!(of(r#"{"step":"disk","duration":"1m"}"#), harmless);
    assert_eq!(of(r#"{"step":"disk","duration":"1m","verify_writes":true}"#), ((true, false), true, Safe));
    assert_eq!(of(r#"{"step":"fio","duration":"1m","devices":"all_disks"}"#), harmless);
    assert_eq!(of(r#"{"step":"command","duration":"1m","argv":["iw"]}"#), program);
    assert_eq!(of(r#"{"step":"command","duration":"1m","argv":["iw"],"required":false}"#), program);
    assert_eq!(of(&stress("vm")), harmless);
    // It tries every device it finds; others load modules or set the clock.
    assert_eq!(of(&stress("bad-ioctl")), program);
    assert_eq!(of(r#"{"step":"gpu","duration":"1m"}"#), harmless);
    assert_eq!(of(r#"{"step":"gpu","duration":"1m","directory":"/tmp/gpu"}"#), program);
    let unknown = BurnInTask::named("gentle");
    assert!(unknown.is_destructive() && unknown.writes_disks() && unknown.runs_programs(), "nothing is known of it");
}

#[test]
fn standard_and_soak_try_disks_and_the_link_and_need_only_the_disks() {
    for name in ["standard", "soak"] {
        let scenario = shipped(name).expect("shipped");
        let reads = |s: &&Step| matches!(&s.kind, StepKind::Disk(disk) if !disk.verify_writes && s.required);
        assert_eq!(scenario.steps().filter(reads).count(), 1, "{name}");
        let links: Vec<&Step> = scenario.steps().filter(|s| matches!(s.kind, StepKind::Network(_))).collect();
        assert!(links.len() == 1 && !links[0].required, "{name}: where nobody may be its partner, it is skipped");
        assert!(matches!(&links[0].kind, StepKind::Network(n) if n.with == LinkWith::Controller), "{name}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    let cases = [
        (r#"{"step":"cpu"}"#, "duration is missing"),
        (r#"{"step":"cpu","duration":0}"#, "steps[0] (cpu): duration"),
        (r#"{"step":"cpu","duration":"40d"}"#, "longer than"),
        (r#"{"step":"cpu","duration":"1m","fast":true}"#, "fast"),
        (r#"{"step":"cpu","duration":"1m","cores":[1,2,1]}"#, "twice"),
        (r#"{"step":"explode","duration":"1m"}"#, "explode"),
        (r#"{"duration":"1m"}"#, "step"),
        (r#"{"parallel":[]}"#, "no step"),
        (r#"{"parallel":[{"step":"cpu","duration":"1m"}],"also":1}"#, "also"),
        (r#"{"parallel":[{"step":"memory","duration":9},{"step":"memory","duration":9}]}"#, "a size each"),
        (r#"{"step":"memory","duration":"1m","patterns":["plaid"]}"#, "plaid"),
        (r#"{"step":"memory","duration":"1m","passes":0}"#, "passes"),
        (r#"{"step":"memory","duration":"1m","size":10}"#, "size"),
        (r#"{"step":"sensors","duration":"1m","every":0}"#, "every"),
        (r#"{"step":"command","duration":"1m","argv":[]}"#, "program"),
        (r#"{"step":"command","duration":"1m","argv":["./x"]}"#, "path"),
        (r#"{"step":"command","duration":"1m","argv":["/opt/x"]}"#, "digest"),
        (r#"{"step":"command","duration":"1m","argv":["x"],"environment":{"A=B":"c"}}"#, "A=B"),
        (r#"{"step":"command","duration":"1m","argv":["x"],"metrics":[{"name":"a","unit":"b"}]}"#, "exactly one"),
        (
            r#"{"step":"command","duration":"1m","argv":["x"],"metrics":[{"line":"a","name":"a","unit":"b"}]}"#,
            "{value}",
        ),
        (r#"{"step":"stress_ng","duration":"1m","stressors":[{"name":"hdd"}]}"#, "hdd"),
        (
            r#"{"step":"stress_ng","duration":"1m","stressors":[{"name":"cpu","options":{"log-file":"/x"}}]}"#,
            "log-file",
        ),
        (r#"{"step":"fio","duration":"1m","devices":{"hints":[]}}"#, "no disk"),
        (r#"{"step":"fio","duration":"1m","devices":"all_disks","block":100}"#, "512"),
        (r#"{"step":"gpu","duration":"1m","memory":0}"#, "percent"),
        (r#"{"step":"gpu","duration":"1m","directory":"../x"}"#, "absolute"),
        (r#"{"step":"network","duration":"1m","partner":"192.0.2.1"}"#, "role"),
        (
            r#"{"step":"network","duration":"1m","partner":"somebody","role":"listen","secret":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
            "somebody",
        ),
        (
            r#"{"step":"network","duration":"1m","partner":"192.0.2.1","role":"listen","secret":"hunter2"}"#,
            "64 hexadecimal",
        ),
        (r#"{"step":"network","duration":"1m","port":80}"#, "port"),
        (r#"{"step":"network","duration":"1m","with":"everybody"}"#, "everybody"),
        (
            r#"{"step":"network","duration":"1m","with":"controller","partner":"192.0.2.1","role":"listen","secret":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
            "found by itself",
        ),
        (r#"{"step":"network","duration":"1m","streams":0}"#, "streams"),
        (r#"{"step":"disk","duration":"1m","devices":{"hints":[{}]}}"#, "hints"),
        (r#"{"step":"disk","duration":"1m","share":0}"#, "share"),
        (r#"{"step":"disk","duration":"1m","share":50,"verify_writes":true}"#, "whole disk"),
        (r#"{"step":"disk","duration":"1m","queue_depth":100}"#, "queue_depth"),
        (r#"{"step":"disk","duration":"1m","self_test_within":"1h"}"#, "no self_test"),
        (r#"{"step":"disk","duration":"1m","limits":[{"measurement":"disk.speed","min":1}]}"#, "yields no"),
    ];
    for (step, word) in cases {
        let error = Scenario::parse(&with(step)).expect_err(step);
        assert!(error.contains(word), "{step}: {error}");
    }
    for (text, word) in [
        (r#"{"version":2,"name":"x","steps":[{"step":"pause","duration":1}]}"#, "version"),
        (r#"{"version":1,"name":"","steps":[{"step":"pause","duration":1}]}"#, "name"),
        (r#"{"version":1,"name":"x","steps":[]}"#, "0 steps"),
        (r#"{"version":1,"name":"x","steps":[{"step":"pause","duration":1}],"then":"reboot"}"#, "then"),
    ] {
        assert!(Scenario::parse(text).expect_err(text).contains(word), "{text}");
    }
}

#[test]
fn impossible_limits_are_refused() {
    let cases = [
        (r#"{"measurement":"cpu.errors"}"#, "neither min nor max"),
        (r#"{"measurement":"cpu.errors","min":5,"max":1}"#, "nothing can keep"),
        (r#"{"measurement":"cpu.errors","max":-1}"#, "nothing can keep"),
        (r#"{"measurement":"cpu.temprature.max","max":90}"#, "yields no"),
        (r#"{"measurement":"memory.errors","max":0}"#, "yields no"),
        (r#"{"measurement":"","max":0}"#, "empty"),
        (r#"{"measurement":"cpu.errors","max":"many"}"#, "limits"),
        (r#"{"measurement":"cpu.errors","most":1}"#, "most"),
    ];
    for (limit, word) in cases {
        let text = with(&format!(r#"{{"step":"cpu","duration":"1m","limits":[{limit}]}}"#));
        let error = Scenario::parse(&text).expect_err(limit);
        assert!(error.contains(word), "{limit}: {error}");
    }
    for good in [
        r#"{"measurement":"cpu.temperature.max","where":"coretemp/*","max":90}"#,
        r#"{"measurement":"edac.*","max":0}"#,
        r#"{"measurement":"cpu.rate","min":100}"#,
    ] {
        let text = with(&format!(r#"{{"step":"cpu","duration":"1m","limits":[{good}]}}"#));
        Scenario::parse(&text).expect(good);
    }
}

#[test]
fn a_report_from_a_newer_writer_is_read() {
    let text = r#"{"version":1,"scenario":"x","scenario_digest":"d","began":"2026-01-01T00:00:00Z",
        "ended":"2026-01-01T00:01:00Z","verdict":"dubious","colour":"red","steps":[{"number":0,"name":"n","step":"laser",
        "began":"2026-01-01T00:00:00Z","ended":"2026-01-01T00:01:00Z","seconds":60.0,
        "verdict":{"is":"enchanted","by":["magic"]},"measurements":[]}]}"#;
    let report: BurnInReport = serde_json::from_str(text).expect("lenient");
    assert_eq!(report.verdict, Worst::Inconclusive);
    assert_eq!(report.steps[0].verdict.worst(), Worst::Inconclusive);
    assert!(!report.steps[0].verdict.reasons().is_empty());
}

#[test]
fn the_worst_step_counts_and_a_fault_is_never_excused() {
    let step = |name: &str, required: bool, verdict: Verdict| {
        let mut step: StepReport = serde_json::from_value(serde_json::json!({
            "number": 0, "name": name, "step": "cpu", "began": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:00Z",
            "seconds": 0.0, "verdict": {"is": "passed"}, "measurements": [],
        }))
        .expect("a report");
        (step.required, step.verdict) = (required, verdict);
        step
    };
    let absent = || Verdict::Inconclusive { because: vec!["fio is not here".into()] };
    let broken = || Verdict::Failed {
        by: vec![Breach::of(&Limit::default_max("cpu.errors", 0.0), &Measurement::count("cpu.errors", 1))],
    };
    let (worst, reasons) = BurnInReport::conclude(&[step("a", true, Verdict::Passed), step("b", false, absent())]);
    assert_eq!((worst, reasons.len()), (Worst::Passed, 0));
    let (worst, reasons) = BurnInReport::conclude(&[step("a", true, Verdict::Passed), step("b", true, absent())]);
    assert_eq!((worst, reasons.as_slice()), (Worst::Inconclusive, ["b: fio is not here".to_owned()].as_slice()));
    let (worst, reasons) = BurnInReport::conclude(&[step("a", false, broken()), step("b", true, absent())]);
    assert_eq!(worst, Worst::Failed);
    assert!(reasons[0].starts_with("a: cpu.errors is 1 count"), "{reasons:?}");
    assert_eq!(BurnInReport::conclude(&[]).0, Worst::Inconclusive);

    // What was skipped is excused like what could not be judged, and is no pass where it is needed.
    let skipped = || Verdict::Skipped { because: vec!["no controller".into()] };
    assert_eq!(skipped().name(), "skipped");
    let (worst, _) = BurnInReport::conclude(&[step("a", true, Verdict::Passed), step("b", false, skipped())]);
    assert_eq!(worst, Worst::Passed);
    let (worst, reasons) = BurnInReport::conclude(&[step("a", true, Verdict::Passed), step("b", true, skipped())]);
    assert_eq!((worst, reasons.as_slice()), (Worst::Inconclusive, ["b: no controller".to_owned()].as_slice()));
    assert_eq!(BurnInReport::conclude(&[step("b", false, skipped())]).0, Worst::Inconclusive, "nothing was done");
}

#[test]
fn what_is_told_to_others_has_no_secrets() {
    let text = with(r#"{"step":"command","duration":"1m","argv":["x"],"environment":{"KEY":"s3cret"}}"#);
    let mut task = BurnInTask { scenario: serde_json::from_str(&text).expect("good") };
    task.redact();
    let shown = serde_json::to_string(&task).expect("written");
    assert!(!shown.contains("s3cret") && shown.contains("KEY"), "{shown}");
}
