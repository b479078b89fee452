//! Ordering burn-ins, and reading what came of them.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use speediso_model::api::{List, OrderRequest, path};
use speediso_model::burn_in::site::{BurnInView, BurnInsQuery, Compared};
use speediso_model::burn_in::words::shown;
use speediso_model::burn_in::{BurnInTask, SHIPPED, Scenario, ScenarioChoice, StepReport};

use crate::args::BurnInCommand;
use crate::client::Client;
use crate::commands::{at, order, read_json};
use crate::{output, resolve};

pub(crate) async fn run(client: &Client, command: BurnInCommand, json: bool) -> Result<u8> {
    match command {
        BurnInCommand::Start { node, scenario, reboots, dry_run, follow, yes_destroy } => {
            let choice = choice(&scenario)?;
            let node = resolve::node(client, &node).await?;
            let what = dangers(&BurnInTask { scenario: choice.clone() }).filter(|_| !dry_run);
            if let Some(what) = what.filter(|_| yes_destroy.as_deref() != Some(node.name.as_str())) {
                bail!("this scenario {what} on {0}; to go on, repeat the command with --yes-destroy {0}", node.name);
            }
            let parameters = json!({"scenario": choice, "reboots": reboots});
            let body = OrderRequest { profile: Some("burnin".into()), parameters, dry_run, ..OrderRequest::default() };
            order(client, &node, &body, follow, json).await
        }
        BurnInCommand::Report { node } => {
            let node = resolve::node(client, &node).await?;
            let query = BurnInsQuery { limit: Some(1) };
            let found: List<BurnInView> = client.get_query(&at(path::NODE_BURN_INS, node.id), &query).await?;
            let Some(view) = found.items.into_iter().next() else {
                bail!("{0} has not been burnt in; order it with: speediso burn-in start {0}", node.name);
            };
            output::print(json, &view, text)?;
            Ok(u8::from(!view.has_passed()))
        }
    }
}

/// What a scenario does that may lose somebody's data.
fn dangers(task: &BurnInTask) -> Option<&'static str> {
    match (task.writes_disks(), task.runs_programs()) {
        (true, true) => Some("writes over disks and runs programs with root's rights"),
        (true, false) => Some("writes over disks"),
        (false, true) => Some("runs programs with root's rights, which may do anything to its disks,"),
        (false, false) => None,
    }
}

/// The name of a shipped scenario, or a file.
fn choice(text: &str) -> Result<ScenarioChoice> {
    if SHIPPED.iter().any(|(name, _)| *name == text) {
        return Ok(ScenarioChoice::Named(text.to_owned()));
    }
    let value: Value = read_json(Path::new(text)).with_context(|| {
        let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        format!("{text:?} is neither a shipped scenario ({}) nor a file with one", names.join(", "))
    })?;
    let scenario = Scenario::parse(&value.to_string()).map_err(anyhow::Error::msg);
    Ok(ScenarioChoice::Inline(Box::new(scenario.with_context(|| format!("{text} is not a scenario"))?)))
}

/// A report for people: the verdict, then each step with its numbers.
fn text(view: &BurnInView) -> String {
    let report = &view.report;
    let mut lines = vec![
        format!("{} ({} {}, serial number {})", view.name, view.maker, view.product, view.serial_number),
        format!("scenario {}, {} to {}", report.scenario, report.began, report.ended),
        report.verdict.name().to_uppercase(),
    ];
    lines.extend(report.reasons.iter().map(|reason| format!("  {reason}")));
    if !view.reboots.is_empty() {
        let good = view.reboots.iter().filter(|round| round.is_good()).count();
        let longest = view.reboots.iter().filter_map(|r| r.seconds).max_by(f64::total_cmp);
        let longest = longest.map(|s| format!(", the longest took {s:.0} s")).unwrap_or_default();
        lines.push(format!("{good} of {} restarts found the same hardware{longest}", view.reboots.len()));
        for round in view.reboots.iter().filter(|round| round.is_bad()) {
            let changes: Vec<&str> =
                std::iter::once(round.outcome.as_str()).chain(round.changes.iter().map(String::as_str)).collect();
            lines.push(format!("  restart {}: {}", round.number, changes.join("; ")));
        }
    }
    for step in &report.steps {
        lines.push(String::new());
        lines.push(format!("{} {}: {} after {:.0} s", step.number, step.name, step.verdict.name(), step.seconds));
        lines.extend(step.verdict.reasons().iter().map(|reason| format!("  {reason}")));
        lines.push(measurements(step, &view.compared));
        lines.extend(step.notices.iter().map(|notice| format!("  {notice}")));
        lines.extend(step.unread.iter().map(|unread| format!("  not read: {unread}")));
    }
    output::printable(&lines.join("\n"))
}

fn measurements(step: &StepReport, compared: &[Compared]) -> String {
    let mut table = output::table(&["  MEASURED", "WHERE", "VALUE", "LIMIT", "AMONG ITS KIND"]);
    for measurement in &step.measurements {
        let limits = step.limits.iter().filter(|limit| limit.covers(measurement)).map(ToString::to_string);
        let among = compared
            .iter()
            .find(|c| c.step == step.number && c.measurement == measurement.name && c.place == measurement.place)
            .map(|c| format!("{:.0} % of {} are below", c.standing.percentile, c.standing.others));
        table.add_row([
            format!("  {}", measurement.name),
            measurement.place.clone().unwrap_or_default(),
            shown(measurement.value, &measurement.unit),
            limits.collect::<Vec<_>>().join("; "),
            among.unwrap_or_default(),
        ]);
    }
    output::finish(&table, "  nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_is_named_or_read() {
        assert_eq!(choice("quick").expect("shipped"), ScenarioChoice::Named("quick".into()));
        let error = format!("{:#}", choice("gentle").expect_err("neither"));
        assert!(error.contains("quick, standard, soak"), "{error}");
    }

    #[test]
    fn what_may_lose_data_is_named() {
        let of = |steps: &str| {
            let scenario = Scenario::parse(&format!(r#"{{"version":1,"name":"x","steps":[{steps}]}}"#)).expect(steps);
            dangers(&BurnInTask { scenario: ScenarioChoice::Inline(Box::new(scenario)) })
        };
        let (writes, runs) = (
            r#"{"step":"disk","duration":"1m","verify_writes":true}"#,
            r#"{"step":"command","duration":"1m","argv":["iw"]}"#,
        );
        assert_eq!(dangers(&BurnInTask::named("standard")), None);
        assert!(of(writes).is_some_and(|what| what.starts_with("writes") && !what.contains("root")));
        assert!(of(runs).is_some_and(|what| what.starts_with("runs programs")));
        assert!(of(&format!("{writes},{runs}")).is_some_and(|what| what.contains("writes") && what.contains("root")));
    }

    #[test]
    fn a_report_says_what_decided() {
        let at = "2026-11-21T12:00:00Z";
        let view: BurnInView = serde_json::from_value(json!({
            "run": "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11", "node": "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d12",
            "name": "rack3-17", "serial_number": "SN\u{1b}[2J", "maker": "QEMU", "product": "PC", "stored": at,
            "reboots": [{"number": 1, "seconds": 71.0, "outcome": "verified"},
                {"number": 2, "seconds": 75.0, "outcome": "verified", "changes": ["the disk S2 is gone"]}],
            "report": {"version": 1, "scenario": "quick", "scenario_digest": "d", "began": at, "ended": at,
                "verdict": "failed", "reasons": ["cpu: cpu.errors of core 3 is 1 count (at most 0 allowed, by default)"],
                "steps": [{"number": 0, "name": "cpu", "step": "cpu", "began": at, "ended": at, "seconds": 45.0,
                    "verdict": {"is": "passed"}, "limits": [{"measurement": "cpu.errors", "max": 0.0}],
                    "measurements": [{"name": "cpu.errors", "unit": "count", "value": 1.0, "where": "core 3"}]}]},
        }))
        .expect("a view");
        let text = text(&view);
        assert!(!text.contains('\u{1b}'), "{text}");
        let mut passed = view.clone();
        passed.report.verdict = speediso_model::burn_in::Worst::Passed;
        assert!(!passed.has_passed(), "a machine that lost a disk between two restarts has not");
        passed.reboots.pop();
        assert!(passed.has_passed());
        let restarts =
            "1 of 2 restarts found the same hardware, the longest took 75 s\n  restart 2: verified; the disk S2";
        for words in ["rack3-17", "FAILED", "core 3 is 1 count", "cpu.errors", "at most 0", restarts] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }
}
