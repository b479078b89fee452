//! How fast and how hot the processors are while they work, once a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use speediso_model::burn_in::{Measurement, Series, unit};
use speediso_sys::cores;
use speediso_sys::hwmon::{self, SensorKind};
use speediso_sys::roots::Roots;

use super::live::Live;
use super::work::Findings;

/// hwmon drivers of processors.
const OF_PROCESSORS: [&str; 5] = ["coretemp", "k10temp", "zenpower", "k8temp", "cpu_thermal"];

pub(super) struct Thermal {
    throttled_before: Option<u64>,
    lowest: Series,
    highest: Series,
    temperatures: BTreeMap<String, Series>,
    seen: BTreeSet<String>,
    vanished: BTreeSet<String>,
}

impl Thermal {
    const EVERY: Duration = Duration::from_secs(1);

    pub(super) fn begin(roots: &Roots) -> Self {
        Self {
            throttled_before: cores::throttled(roots),
            lowest: Series::default(),
            highest: Series::default(),
            temperatures: BTreeMap::new(),
            seen: BTreeSet::new(),
            vanished: BTreeSet::new(),
        }
    }

    /// Looks until `live` is over.
    pub(super) fn watch(mut self, live: &Live<'_>) -> Findings {
        loop {
            self.look(live);
            if !live.wait(Self::EVERY) {
                return self.sum_up(&live.ctx.roots);
            }
        }
    }

    fn look(&mut self, live: &Live<'_>) {
        let at = live.seconds();
        let frequencies = cores::frequencies(&live.ctx.roots);
        if let Some(low) = frequencies.iter().copied().min_by(f64::total_cmp) {
            self.lowest.push(at, low);
        }
        if let Some(high) = frequencies.iter().copied().max_by(f64::total_cmp) {
            self.highest.push(at, high);
            live.sample("frequency", high, unit::MEGAHERTZ);
        }
        let mut now = BTreeSet::new();
        let mut hottest: Option<f64> = None;
        for reading in hwmon::read(&live.ctx.roots) {
            let chip = reading.sensor.split(['/', '#']).next().unwrap_or_default();
            if reading.kind != SensorKind::Temperature || !OF_PROCESSORS.contains(&chip) {
                continue;
            }
            if let Ok(value) = reading.value {
                self.temperatures.entry(reading.sensor.clone()).or_default().push(at, value);
                hottest = Some(hottest.map_or(value, |h| h.max(value)));
                now.insert(reading.sensor);
            }
        }
        if let Some(hottest) = hottest {
            live.sample("temperature", hottest, unit::CELSIUS);
        }
        self.vanished.extend(self.seen.difference(&now).cloned());
        self.seen.extend(now);
    }

    fn sum_up(self, roots: &Roots) -> Findings {
        let mut found = Findings::default();
        match (self.lowest.lowest(), self.highest.highest()) {
            (Some(low), Some(high)) => {
                let measured = |name, value, series| Measurement::new(name, unit::MEGAHERTZ, value).with_series(series);
                found.measurements.push(measured("cpu.frequency.min", low, self.lowest));
                found.measurements.push(measured("cpu.frequency.max", high, self.highest));
            }
            _ => found.unread.push("the processors' frequency: the kernel does not say".into()),
        }
        if self.temperatures.is_empty() {
            found.unread.push("the processors' temperature: no sensor of theirs is here".into());
        }
        for (sensor, series) in self.temperatures {
            if let Some(max) = series.highest() {
                let measured = Measurement::new("cpu.temperature.max", unit::CELSIUS, max).at(sensor);
                found.measurements.push(measured.with_series(series));
            }
        }
        // One that fell silent may have been about to say too much.
        found.inconclusive.extend(self.vanished.iter().map(|sensor| format!("the sensor {sensor} fell silent")));
        match (self.throttled_before, cores::throttled(roots)) {
            (Some(before), Some(after)) => {
                found.measurements.push(Measurement::count("cpu.throttled", after.saturating_sub(before)));
            }
            _ => found.unread.push("throttling: the kernel does not count it here".into()),
        }
        found
    }
}
