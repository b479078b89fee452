//! A burn-in report as a page: verdicts first, then every step with its limits, numbers and plots. It needs nothing from
//! elsewhere, runs no script, and prints on a few sheets.

use axum::response::Response;
use maud::{Markup, html};
use speediso_model::burn_in::site::{BurnInView, Compared, RebootRound};
use speediso_model::burn_in::words::shown;
use speediso_model::burn_in::{Limit, Measurement, Series, StepReport, Verdict, Worst};

use super::plot;
use super::sheet::{self, time};

const STYLE: &str = include_str!("burn_in.css");

/// Histograms against other machines in one step: those at which this machine stands out most come first.
const AMONG: usize = 6;
/// Measurements of one name in a table, with their places; a machine with 500 cores has more to say than fits.
const ROWS: usize = 400;

pub(super) fn report_page(views: &[BurnInView], chosen: usize) -> Response {
    sheet::response(page(views, chosen), STYLE)
}

fn page(views: &[BurnInView], chosen: usize) -> Markup {
    let Some(view) = views.get(chosen) else {
        return sheet::page("Burn-in", STYLE, &html! { p { "This machine has not been burnt in." } });
    };
    let report = &view.report;
    let body = html! {
        nav { a href={ "/machines/" (view.node) } { (view.name) } (others(views, chosen)) }
        header {
            h1 { "Burn-in of " (view.name) }
            div { "scenario " strong { (report.scenario) } br; (time(report.began)) }
        }
        div class={ "verdict " (report.verdict.name()) } {
            strong { (headline(report.verdict)) }
            @if !report.reasons.is_empty() { ul { @for reason in &report.reasons { li { (reason) } } } }
        }
        dl {
            dt { "Machine" } dd { (view.maker) " " (view.product) }
            dt { "Serial number" } dd { (view.serial_number) }
            dt { "Began" } dd { (time(report.began)) }
            dt { "Ended" } dd { (time(report.ended)) }
            dt { "Run" } dd { (view.run) }
            dt { "Work" } dd { code { (report.scenario_digest.get(..16).unwrap_or(&report.scenario_digest)) } }
            @if report.restarts > 0 { dt { "Restarts" } dd { "the agent was restarted " (report.restarts) " times in it" } }
        }
        (steps_table(&report.steps))
        (reboots(&view.reboots))
        @for step in &report.steps { (step_section(step, view)) }
    };
    sheet::page(&format!("Burn-in of {}", view.name), STYLE, &body)
}

fn others(views: &[BurnInView], chosen: usize) -> Markup {
    html! {
        @for (n, view) in views.iter().enumerate() {
            " · "
            @if n == chosen { (time(view.report.began)) } @else {
                a href={ "/machines/" (view.node) "/burn-in?run=" (view.run) } { (time(view.report.began)) }
            }
        }
    }
}

fn headline(verdict: Worst) -> &'static str {
    match verdict {
        Worst::Passed => "Passed: every limit was kept",
        Worst::Failed => "Failed: a limit was not kept",
        Worst::Inconclusive => "Inconclusive: not everything could be judged, which is no pass",
    }
}

fn steps_table(steps: &[StepReport]) -> Markup {
    html! {
        table {
            thead { tr { th { "No." } th { "Step" } th { "Verdict" } th { "What decided" } th.number { "Took" } } }
            tbody {
                @for step in steps {
                    tr {
                        td { (step.number) }
                        td { (step.name) @if step.name != step.step { " " small { (step.step) } } }
                        td class=(step.verdict.name()) { (step.verdict.name()) @if !step.required { br; small { "not required" } } }
                        td { @for reason in step.verdict.reasons().iter().take(5) { div { (reason) } } }
                        td.number { (format!("{:.0} s", step.seconds)) }
                    }
                }
            }
        }
    }
}

fn reboots(rounds: &[RebootRound]) -> Markup {
    let mut series = Series::default();
    for round in rounds {
        #[allow(clippy::cast_precision_loss, reason = "hundreds at most")]
        if let Some(seconds) = round.seconds {
            series.push(round.number as f64, seconds);
        }
    }
    let good = rounds.iter().filter(|round| round.is_good()).count();
    html! {
        @if !rounds.is_empty() {
            h2 { "Restarts" }
            p { (good) " of " (rounds.len()) " were made and found the same hardware." }
            @for round in rounds.iter().filter(|round| round.is_bad()) {
                p.failed { "restart " (round.number) ": " (round.outcome) @for change in &round.changes { "; " (change) } }
            }
            div.plots { (plot::rounds("seconds from leaving to having looked again, by restart", &series)) }
        }
    }
}

fn step_section(step: &StepReport, view: &BurnInView) -> Markup {
    let compared: Vec<&Compared> = view.compared.iter().filter(|c| c.step == step.number).collect();
    html! {
        section {
            h2 { (step.number) " · " (step.name) " " span class=(step.verdict.name()) { (step.verdict.name()) } }
            @if !step.measurements.is_empty() { (measurements(step, &compared)) }
            (plots(step))
            (fleet(&compared))
            @if !step.notices.is_empty() { ul.notes { @for notice in &step.notices { li { (notice) } } } }
            @if !step.unread.is_empty() {
                p { small { "Not read:" } }
                ul.notes { @for unread in &step.unread { li { (unread) } } }
            }
            @if let Some(output) = &step.output { pre { (output) } }
        }
    }
}

fn measurements(step: &StepReport, compared: &[&Compared]) -> Markup {
    let among = |m: &Measurement| compared.iter().find(|c| c.measurement == m.name && c.place == m.place);
    html! {
        table {
            thead { tr { th { "Measured" } th { "Where" } th.number { "Value" } th { "Limit" } th.number { "Among its kind" } } }
            tbody {
                @for measurement in step.measurements.iter().take(ROWS) {
                    tr {
                        td { (measurement.name) }
                        td { (measurement.place.as_deref().unwrap_or_default()) }
                        td class={ "number " (if broken(step, measurement) { "failed" } else { "" }) } { (shown(measurement.value, &measurement.unit)) }
                        td { (limits(&step.limits, measurement)) }
                        td.number { @if let Some(c) = among(measurement) { (standing(c)) } }
                    }
                }
            }
        }
        @if step.measurements.len() > ROWS { p { small { (step.measurements.len() - ROWS) " more are in the JSON of this report" } } }
    }
}

/// Where all are alike nobody stands anywhere.
fn standing(compared: &Compared) -> String {
    let others = compared.standing.others;
    if is_like_all(compared) {
        return format!("like all {others}");
    }
    format!("{:.0} % of {others} are below", compared.standing.percentile)
}

fn is_like_all(compared: &Compared) -> bool {
    compared.values.iter().all(|other| other.total_cmp(&compared.value).is_eq())
}

fn broken(step: &StepReport, measurement: &Measurement) -> bool {
    let Verdict::Failed { by } = &step.verdict else { return false };
    by.iter().any(|b| b.measurement == measurement.name && b.place == measurement.place)
}

fn limits(limits: &[Limit], measurement: &Measurement) -> String {
    let own: Vec<String> = limits.iter().filter(|limit| limit.covers(measurement)).map(ToString::to_string).collect();
    own.join("; ")
}

fn plots(step: &StepReport) -> Markup {
    let title = |m: &Measurement, what: &str| format!("{}{what}", m.described());
    let drawn = |m: &&Measurement| m.series.is_some() || m.map.is_some() || m.distribution.is_some();
    html! {
        div.plots {
            @for measurement in step.measurements.iter().filter(drawn) {
                @if let Some(map) = &measurement.map { (plot::device_map(&title(measurement, ", along the device"), map, &measurement.unit)) }
                @if let Some(series) = &measurement.series { (plot::series(&title(measurement, ", over time"), series, &measurement.unit)) }
                @if let Some(spread) = &measurement.distribution { (plot::distribution(&title(measurement, ": how it is spread"), spread, &measurement.unit)) }
            }
        }
    }
}

fn fleet(compared: &[&Compared]) -> Markup {
    let mut compared: Vec<&Compared> = compared.iter().copied().filter(|c| !is_like_all(c)).collect();
    let stands_out = |c: &Compared| (c.standing.percentile - 50.0).abs();
    compared.sort_by(|a, b| stands_out(b).total_cmp(&stands_out(a)));
    html! {
        @if !compared.is_empty() {
            p { small { "Among other machines of this model; the line is this machine." } }
            div.plots {
                @for c in compared.iter().take(AMONG) {
                    @let place = c.place.as_ref().map(|p| format!(" of {p}")).unwrap_or_default();
                    (plot::among(&format!("{}{place}", c.measurement), c.value, &c.values, &c.unit))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::tests::{needs_nothing, shown_as_text};
    use super::*;
    use serde_json::{Value, json};

    fn text(kind: &str) -> Value {
        json!({"name": format!("{kind}.name"), "unit": "bytes/s", "value": 1.5e8, "where": "sda S1",
            "series": {"points": [[0.0, 1e8, 1e8], [1.0, 1.2e8, 1.6e8], [2.0, 1.1e8, 1.5e8]]},
            "map": {"length": 1 << 30, "regions": [[0, 9e7, 1e8], [1 << 29, 4e7, 5e7]]},
            "distribution": {"count": 3, "min": 10.0, "mean": 20.0, "max": 30.0, "percentiles": [[99.0, 30.0]],
                "buckets": [[10.0, 1], [20.0, 1], [30.0, 1]]}})
    }

    pub(super) fn sample() -> Value {
        let at = "2026-11-21T12:00:00Z";
        json!({
            "run": "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11", "node": "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d12",
            "name": "rack3-17", "serial_number": "SN-17", "maker": "QEMU", "product": "Standard PC", "stored": at,
            "reboots": [{"number": 1, "seconds": 92.5, "outcome": "verified"}, {"number": 2, "seconds": 95.0, "outcome": "verified", "changes": ["the disk S2 is gone"]},
                {"number": 3, "seconds": null, "outcome": "queued"}],
            "compared": [{"step": 0, "measurement": "disk.name", "where": "sda S1", "value": 1.5e8, "unit": "bytes/s",
                "percentile": 0.0, "others": 6, "median": 2e8, "spread": 1e6,
                "values": [1.8e8, 1.9e8, 2e8, 2e8, 2.1e8, 2.2e8]}],
            "report": {"version": 1, "scenario": "standard", "scenario_digest": "ab".repeat(32), "began": at, "ended": at,
                "verdict": "failed", "reasons": ["disk: disk.errors of sda S1 is 2 count (at most 0 allowed, by default)"],
                "restarts": 1,
                "steps": [{"number": 0, "name": "the disks", "step": "disk", "began": at, "ended": at, "seconds": 61.2,
                    "verdict": {"is": "failed", "by": [{"limit": {"measurement": "disk.errors", "max": 0.0, "from": "default"},
                        "measurement": "disk.errors", "where": "sda S1", "value": 2.0, "unit": "count"}]},
                    "limits": [{"measurement": "disk.errors", "max": 0.0, "from": "default"}],
                    "measurements": [text("disk"), {"name": "disk.errors", "unit": "count", "value": 2.0, "where": "sda S1"}],
                    "unread": ["sda S1: what the drive counts"], "notices": ["sda S1: bytes 0 to 4096: cannot be read"],
                    "output": "printed"}]},
        })
    }

    fn view(value: Value) -> Option<BurnInView> {
        serde_json::from_value(value).ok()
    }

    #[test]
    fn no_text_of_a_report_becomes_markup() {
        let shown = shown_as_text(&sample(), |bad| Some(page(&[view(bad)?], 0).into_string()));
        assert!(shown > 12, "only {shown} texts of a report are on its page");
    }

    #[test]
    fn a_report_page() {
        let view = view(sample()).expect("a view");
        let page = page(&[view], 0).into_string();
        needs_nothing(&page);
        assert_eq!(page.matches("<svg").count(), 5, "restarts, map, time, spread, and among its kind");
        for words in [
            "Failed: a limit was not kept",
            "disk.errors of sda S1 is 2 count",
            "150 MB/s",
            "0 % of 6 are below",
            "1 of 3 were made",
            "restart 2: verified; the disk S2 is gone",
            "what the drive counts",
            "cannot be read",
        ] {
            assert!(page.contains(words), "{words} is not in\n{page}");
        }
    }
}
