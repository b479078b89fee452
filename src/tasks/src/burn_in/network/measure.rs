//! From what both ends said to measurements.

use std::time::Duration;

use speediso_linktest::{Datagrams, LinkReport, Streams, Way};
use speediso_model::burn_in::{Measurement, unit};
use speediso_sys::link::LinkCounts;

use super::super::live::Live;
use super::super::work::Findings;

pub(super) fn counts(interface: &str, counts: &LinkCounts, live: &Live<'_>, found: &mut Findings) {
    let sum = |counts: &[(&'static str, u64)]| counts.iter().map(|(_, n)| n).sum();
    // `rx_errors` sums up the others where a driver counts them at all.
    let errors = counts.errors.iter().map(|(_, n)| *n).max().unwrap_or(0);
    if counts.errors.is_empty() {
        found.unread.push(format!("{interface}: its driver counts no errors"));
    } else {
        found.measurements.push(Measurement::count("network.new.errors", errors).at(interface));
    }
    found.measurements.push(Measurement::count("network.new.dropped", sum(&counts.drops)).at(interface));
    match counts.carrier_changes {
        Some(n) => found.measurements.push(Measurement::count("network.new.carrier_changes", n).at(interface)),
        None => found.unread.push(format!("{interface}: changes of its carrier")),
    }
    let carrier = counts.carrier_changes.filter(|n| *n > 0).map(|n| format!("the link went down or up {n} times"));
    for words in grown(&counts.errors).into_iter().chain(carrier) {
        live.fault(&format!("{interface}: {words}"));
        found.notices.push(format!("{interface}: {words}"));
    }
    // Frames for nobody here are dropped on every network.
    found.notices.extend(grown(&counts.drops).map(|words| format!("{interface}: {words}")));
}

/// The most frequent first.
fn grown(counts: &[(&'static str, u64)]) -> Option<String> {
    let mut grown: Vec<_> = counts.iter().filter(|(_, n)| *n > 0).collect();
    grown.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let words: Vec<String> = grown.iter().map(|(name, n)| format!("{name} {n}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

pub(super) fn speed(interface: &str, mbps: u32, found: &mut Findings) {
    let bits = f64::from(mbps) * 1e6;
    found.measurements.push(Measurement::new("network.link.speed", unit::BITS_PER_SECOND, bits).at(interface));
}

pub(super) fn link(interface: &str, partner: &str, report: &LinkReport, live: &Live<'_>, found: &mut Findings) {
    let mut push = |measurement: Measurement| found.measurements.push(measurement.at(interface));
    for streams in &report.streams {
        let name = format!("network.{}{}.bandwidth", if streams.both_at_once { "both." } else { "" }, way(streams.way));
        push(
            Measurement::new(name, unit::BITS_PER_SECOND, streams.bits_per_second())
                .with_series(streams.over_time.clone()),
        );
    }
    let corrupt: u64 = report.streams.iter().map(|s| s.corrupt_blocks).sum();
    let missing: u64 = report.streams.iter().map(|s| s.bytes_sent.abs_diff(s.bytes_received)).sum();
    push(Measurement::count("network.corrupt_blocks", corrupt));
    push(Measurement::new("network.missing_bytes", unit::COUNT, Measurement::count("", missing).value));
    for datagrams in &report.datagrams {
        let way = way(datagrams.way);
        push(Measurement::new(format!("network.{way}.loss"), unit::PERCENT, rounded(datagrams.loss_percent(), 1e4)));
        push(Measurement::new(format!("network.{way}.jitter"), unit::MICROSECONDS, rounded(datagrams.jitter_us, 10.0)));
        round_trip(datagrams, &mut push);
    }
    let sum = |of: fn(&Datagrams) -> u64| report.datagrams.iter().map(of).sum();
    if !report.datagrams.is_empty() {
        push(Measurement::count("network.datagrams.corrupt", sum(|d| d.corrupt)));
        push(Measurement::count("network.datagrams.duplicated", sum(|d| d.duplicated)));
        push(Measurement::count("network.datagrams.reordered", sum(|d| d.reordered)));
    }
    let damaged = corrupt + sum(|d| d.corrupt);
    if damaged > 0 {
        live.fault(&format!("{interface}: {damaged} blocks or datagrams were damaged between here and {partner}"));
    }
    found.notices.push(format!("{interface}: with {partner}; {}", in_words(&report.streams)));
    if report.turned_away > 0 {
        found.notices.push(format!(
            "{interface}: {} connections to the open port were turned away; none of them knew the secret",
            report.turned_away
        ));
    }
}

fn way(way: Way) -> &'static str {
    match way {
        Way::Sent => "sent",
        Way::Received => "received",
    }
}

fn in_words(streams: &[Streams]) -> String {
    let one = |s: &Streams| {
        let both = if s.both_at_once { " while both sent" } else { "" };
        format!("{} {:.2} Gbit/s{both}", way(s.way), s.bits_per_second() / 1e9)
    };
    streams.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn round_trip(datagrams: &Datagrams, push: &mut impl FnMut(Measurement)) {
    let Some(histogram) = &datagrams.round_trip else { return };
    let us = |took: Duration| rounded(took.as_secs_f64() * 1e6, 10.0);
    let mut distribution = histogram.distribution();
    for (name, took) in
        [("p50", histogram.percentile(50.0)), ("p99", histogram.percentile(99.0)), ("max", histogram.max())]
    {
        if let Some(took) = took {
            let name = format!("network.latency.{name}");
            let mut one = Measurement::new(name, unit::MICROSECONDS, us(took));
            one.distribution = distribution.take();
            push(one);
        }
    }
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
