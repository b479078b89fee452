//! From what one disk did to measurements.

use std::time::Duration;

use speediso_model::burn_in::{DeviceMap, Measurement, Series, unit};
use speediso_model::units::Bytes;

use super::findings::Found;
use super::map::{self, Region, rate};
use super::twice;
use super::work::Phase;

const KINDS: [&str; 5] = ["stuck_bits", "transient_bits", "lost_writes", "misdirected_writes", "foreign_content"];

/// All of one disk: every one bears its place.
#[derive(Debug)]
pub(super) struct Measured {
    place: String,
    size: u64,
    pub(super) measurements: Vec<Measurement>,
    pub(super) notices: Vec<String>,
}

fn microseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e7).round() / 10.0
}

impl Measured {
    pub(super) fn new(place: String, size: u64) -> Self {
        Self { place, size, measurements: Vec::new(), notices: Vec::new() }
    }

    pub(super) fn push(&mut self, measurement: Measurement) {
        self.measurements.push(measurement.at(&self.place));
    }

    /// `what` is `read` or `write`.
    pub(super) fn along(&mut self, what: &str, phase: &Phase) {
        if phase.bytes == 0 {
            return;
        }
        let name = |end: &str| format!("disk.{what}.{end}");
        let bandwidth = rate(phase.bytes, phase.elapsed);
        let mut all =
            Measurement::new(name("bandwidth"), unit::BYTES_PER_SECOND, bandwidth).with_series(phase.over_time.clone());
        all.map = Some(DeviceMap {
            length: Bytes(self.size),
            regions: phase.regions.iter().map(|r| (Bytes(r.offset), r.slowest, r.median)).collect(),
        });
        self.push(all);
        if let Some(slowest) = phase.regions.iter().map(|r| r.median).min_by(f64::total_cmp) {
            self.push(Measurement::new(name("slowest_region"), unit::BYTES_PER_SECOND, slowest));
        }
        self.latencies(&format!("disk.{what}"), phase, &[("p99", 99.0)]);
    }

    /// `what` is `random_read` or `random_write`.
    pub(super) fn anywhere(&mut self, what: &str, phase: &Phase) {
        if phase.latency.count() == 0 {
            return;
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let iops = phase.latency.count() as f64 / phase.elapsed.as_secs_f64().max(1e-6);
        let rounded = (iops * 10.0).round() / 10.0;
        self.push(Measurement::new(format!("disk.{what}.iops"), unit::PER_SECOND, rounded));
        let percentiles = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];
        self.latencies(&format!("disk.{what}"), phase, &percentiles);
    }

    /// The distribution goes along with the first.
    fn latencies(&mut self, what: &str, phase: &Phase, percentiles: &[(&str, f64)]) {
        let mut distribution = phase.latency.distribution();
        for (name, percent) in percentiles {
            if let Some(took) = phase.latency.percentile(*percent) {
                let name = format!("{what}.latency.{name}");
                let mut one = Measurement::new(name, unit::MICROSECONDS, microseconds(took));
                one.distribution = distribution.take();
                self.push(one);
            }
        }
        if let Some(longest) = phase.latency.max() {
            self.push(Measurement::new(format!("{what}.latency.max"), unit::MICROSECONDS, microseconds(longest)));
        }
    }

    /// Parts that are slow, of all phases that went along the disk.
    pub(super) fn slow_regions(&mut self, phases: &[(&str, &Phase)]) {
        const NAMED: usize = 8;
        let slow: Vec<(&str, Region)> =
            phases.iter().flat_map(|(what, phase)| map::slow(&phase.regions).into_iter().map(|r| (*what, r))).collect();
        for (what, region) in slow.iter().take(NAMED) {
            self.notices.push(format!(
                "{} is slow from byte {} to {}: {what} at {:.1} MB/s",
                self.place,
                region.offset,
                region.offset + region.length,
                region.median / 1e6
            ));
        }
        self.push(Measurement::count("disk.slow_regions", slow.len() as u64));
    }

    pub(super) fn found(&mut self, found: &Found, wrote: bool) {
        const NAMED: usize = 16;
        self.push(Measurement::count("disk.errors", found.errors()));
        if wrote {
            self.push(Measurement::count("disk.mismatches", found.mismatches()));
            for kind in KINDS {
                self.push(Measurement::count(format!("disk.mismatches.{kind}"), found.count(kind)));
            }
        }
        for finding in found.places.iter().take(NAMED) {
            let end = finding.offset + finding.length;
            self.notices.push(format!("{}: bytes {} to {end}: {}", self.place, finding.offset, finding.what));
        }
        if found.places.len() > NAMED {
            let all: Vec<String> = found.counts.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
            self.notices.push(format!("{}: and in more places; in all {}", self.place, all.join(", ")));
        }
    }

    /// Of a disk that was only read.
    pub(super) fn read_twice(&mut self, compared: u64, found: &Found) {
        self.push(Measurement::count("disk.read_twice", compared));
        self.push(Measurement::count("disk.inconsistent_reads", found.count(twice::KIND)));
    }

    pub(super) fn temperature(&mut self, series: Series) {
        if let Some(highest) = series.highest() {
            self.push(Measurement::new("disk.temperature.max", unit::CELSIUS, highest).with_series(series));
        }
    }
}
