//! Reads sensors while a machine works.
//!
//! Readings come from the kernel's hwmon drivers, and from the BMC over IPMI ([`BmcSensors`]).

use std::collections::BTreeMap;
use std::time::Duration;

use speediso_model::burn_in::{Measurement, SensorsStep, Series, matches, unit};
use speediso_model::fault::Fault;
use speediso_sys::hwmon::{self, Reading, SensorKind};

use super::bmc_sensors::BmcSensors;
use super::live::Live;
use super::work::{Findings, Planned, Work};
use crate::ctx::TaskCtx;

pub(super) struct Sensors(SensorsStep);

impl Sensors {
    const EVERY: Duration = Duration::from_secs(2);
    /// A sensor may be busy once or twice; then it has vanished.
    const SILENT: u32 = 3;

    pub(super) fn new(step: SensorsStep) -> Self {
        Self(step)
    }

    fn is_wanted(&self, sensor: &str) -> bool {
        self.0.sensors.is_empty() || self.0.sensors.iter().any(|pattern| matches(pattern, sensor))
    }
}

/// One sensor through the step.
struct Seen {
    kind: SensorKind,
    series: Series,
    silent: u32,
    /// Since when it says nothing, and why.
    vanished: Option<String>,
}

impl Work for Sensors {
    fn plan(&self, _: &TaskCtx) -> Result<Planned, Fault> {
        let which = if self.0.sensors.is_empty() { "all sensors".to_owned() } else { self.0.sensors.join(", ") };
        Ok(Planned::effect(format!("reads {which}")))
    }

    fn run(&self, live: &Live<'_>) -> Findings {
        let roots = &live.ctx.roots;
        let every = self.0.every.map_or(Self::EVERY, |every| every.duration());
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        // Not connected, or not heard yet.
        let mut mute: BTreeMap<String, String> = BTreeMap::new();
        let mut found = Findings::default();
        let bmc = BmcSensors::ask(roots, every).map_err(|why| found.unread.push(why)).ok();
        loop {
            let all = hwmon::read(roots).into_iter().chain(bmc.iter().flat_map(BmcSensors::read));
            let readings: Vec<Reading> = all.filter(|reading| self.is_wanted(&reading.sensor)).collect();
            for reading in &readings {
                match &reading.value {
                    Ok(value) => {
                        let sensor = seen.entry(reading.sensor.clone()).or_insert_with(|| Seen {
                            kind: reading.kind,
                            series: Series::default(),
                            silent: 0,
                            vanished: None,
                        });
                        mute.remove(&reading.sensor);
                        sensor.series.push(live.seconds(), *value);
                        sensor.silent = 0;
                        live.sample(&reading.sensor, *value, words(sensor.kind).1);
                    }
                    Err(why) if !seen.contains_key(&reading.sensor) => {
                        mute.entry(reading.sensor.clone()).or_insert_with(|| why.clone());
                    }
                    Err(_) => {}
                }
            }
            for (name, sensor) in &mut seen {
                let reading = readings.iter().find(|reading| reading.sensor == *name);
                let why = match reading.map(|reading| &reading.value) {
                    Some(Ok(_)) => continue,
                    Some(Err(why)) => why.clone(),
                    None => "it is gone".into(),
                };
                sensor.silent += 1;
                if sensor.silent == Self::SILENT && sensor.vanished.is_none() {
                    let why = format!("the sensor {name} vanished after {:.0} s: {why}", live.seconds());
                    live.ctx.reporter.notice(&format!("{}: {why}", live.step.title()));
                    sensor.vanished = Some(why);
                }
            }
            if !live.wait(every) {
                break;
            }
        }
        found.unread.extend(mute.into_iter().map(|(sensor, why)| format!("the sensor {sensor}: {why}")));
        if let Some(bmc) = bmc {
            found.unread.extend(bmc.unread());
            if let Some(critical) = bmc.critical() {
                found.measurements.push(Measurement::count("sensor.critical", critical.len() as u64));
                found.notices.extend(critical);
            }
        }
        if seen.is_empty() {
            found.inconclusive.push(if self.0.sensors.is_empty() {
                "no sensor can be read on this machine".into()
            } else {
                format!("no sensor is named {}", self.0.sensors.join(", "))
            });
        }
        for (name, sensor) in seen {
            // The last readings of a step may have been missed without its having vanished long enough to be told.
            found.inconclusive.extend(
                sensor.vanished.or_else(|| {
                    (sensor.silent > 0).then(|| format!("the sensor {name} was silent when the step ended"))
                }),
            );
            let (word, unit) = words(sensor.kind);
            if let (Some(low), Some(high)) = (sensor.series.lowest(), sensor.series.highest()) {
                found.measurements.push(Measurement::new(format!("sensor.{word}.min"), unit, low).at(&name));
                let highest = Measurement::new(format!("sensor.{word}.max"), unit, high).at(&name);
                found.measurements.push(highest.with_series(sensor.series));
            }
        }
        found
    }
}

fn words(kind: SensorKind) -> (&'static str, &'static str) {
    match kind {
        SensorKind::Temperature => ("temperature", unit::CELSIUS),
        SensorKind::Fan => ("fan", unit::RPM),
        SensorKind::Voltage => ("voltage", unit::VOLTS),
        SensorKind::Current => ("current", unit::AMPERES),
        SensorKind::Power => ("power", unit::WATTS),
    }
}
