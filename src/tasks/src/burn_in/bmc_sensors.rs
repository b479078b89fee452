//! Sensors of the BMC, asked over IPMI by a thread of its own: a question takes milliseconds, hundreds of them seconds, and
//! a BMC that hangs must not hold up whoever watches the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use speediso_model::inventory::bmc::{BmcSensor, SensorState};
use speediso_sys::hwmon::{Reading, SensorKind};
use speediso_sys::ipmi::{Ipmi, IpmiDevice, SensorRecords};
use speediso_sys::roots::Roots;

/// For the list of its sensors. Slow ones with a thousand records take half of that.
const LIST: Duration = Duration::from_secs(60);
/// What was heard so long ago is no reading any more.
const STALE: Duration = Duration::from_secs(90);
/// A BMC may be busy once or twice; until then what a sensor said last stands.
const SILENT: u32 = 3;

/// What was heard last.
#[derive(Debug, Default)]
struct Heard {
    readings: Vec<Reading>,
    at: Option<Instant>,
    /// Beyond a critical threshold of its own, once or more: its name, and the worst value.
    critical: BTreeMap<String, String>,
    /// Why there is nothing, or not everything.
    unread: Vec<String>,
}

#[derive(Debug)]
pub(super) struct BmcSensors {
    heard: Arc<Mutex<Heard>>,
    over: Arc<AtomicBool>,
}

impl BmcSensors {
    /// Begins to ask, if there is somebody to be asked.
    ///
    /// # Errors
    /// Why nobody is asked, in words.
    pub(super) fn ask(roots: &Roots, every: Duration) -> Result<Self, String> {
        match IpmiDevice::open(roots) {
            Ok(Some(device)) => Ok(Self::ask_of(device, every)),
            Ok(None) => Err("sensors of the BMC: the kernel shows none (/dev/ipmi0)".into()),
            Err(e) => Err(format!("sensors of the BMC: {e}: {}", source(&e))),
        }
    }

    fn ask_of(bmc: impl Ipmi + Send + 'static, every: Duration) -> Self {
        let sensors = Self { heard: Arc::default(), over: Arc::default() };
        let (heard, over) = (Arc::clone(&sensors.heard), Arc::clone(&sensors.over));
        // Not joined: it may hang in the kernel, where nobody can fetch it from.
        let spawned = thread::Builder::new().name("bmc-sensors".into()).spawn(move || poll(&bmc, every, &heard, &over));
        if let Err(error) = spawned {
            sensors.heard().unread.push(format!("sensors of the BMC: no thread could be made: {error}"));
        }
        sensors
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    /// As they were a moment ago. One that has fallen silent says so itself.
    pub(super) fn read(&self) -> Vec<Reading> {
        let heard = self.heard();
        let stale = heard.at.is_some_and(|at| at.elapsed() > STALE);
        let silent = |reading: &Reading| Reading { value: Err("the BMC does not answer".into()), ..reading.clone() };
        heard.readings.iter().map(|reading| if stale { silent(reading) } else { reading.clone() }).collect()
    }

    /// Those that were beyond a critical threshold; `None` if none was read at all.
    pub(super) fn critical(&self) -> Option<Vec<String>> {
        let heard = self.heard();
        heard.at?;
        Some(heard.critical.iter().map(|(name, what)| format!("{name}: {what}")).collect())
    }

    pub(super) fn unread(&self) -> Vec<String> {
        let heard = self.heard();
        let none = heard.at.is_none() && heard.unread.is_empty();
        let too_slow = none.then(|| "sensors of the BMC: it had not told them all when the step ended".to_owned());
        heard.unread.iter().cloned().chain(too_slow).collect()
    }
}

impl Drop for BmcSensors {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn source(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

fn poll(bmc: &dyn Ipmi, every: Duration, heard: &Mutex<Heard>, over: &AtomicBool) {
    let records = match SensorRecords::read(bmc, LIST) {
        Ok((records, cut)) => {
            lock(heard).unread.extend(cut.map(|cut| format!("sensors of the BMC: {cut}")));
            records
        }
        Err(error) => return lock(heard).unread.push(format!("sensors of the BMC: {error}: {}", source(&error))),
    };
    let mut silent: BTreeMap<String, u32> = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let sensors: Vec<BmcSensor> = records.sensors(bmc).take_while(|_| !over.load(Ordering::Relaxed)).collect();
        let mut readings = readings(&sensors);
        let mut told = lock(heard);
        for reading in &mut readings {
            let before = told.readings.iter().find(|old| old.sensor == reading.sensor);
            match (before.map(|old| &old.value), &reading.value) {
                (Some(Ok(before)), Err(_)) => {
                    let times = silent.entry(reading.sensor.clone()).or_default();
                    *times += 1;
                    if *times < SILENT {
                        reading.value = Ok(*before);
                    }
                }
                _ => drop(silent.remove(&reading.sensor)),
            }
        }
        for sensor in sensors.iter().filter(|s| is_critical(s.state)) {
            told.critical.entry(sensor.name.trim().to_owned()).or_insert_with(|| in_words(sensor));
        }
        (told.readings, told.at) = (readings, Some(Instant::now()));
        drop(told);
        while !over.load(Ordering::Relaxed) && begin.elapsed() < every {
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn is_critical(state: SensorState) -> bool {
    matches!(state, SensorState::Critical | SensorState::NonRecoverable)
}

fn in_words(sensor: &BmcSensor) -> String {
    let value = sensor.value.map(|value| format!("{value:.1} {}", sensor.unit)).unwrap_or_default();
    format!("{value} is beyond a critical threshold of the BMC")
}

/// Those of kinds that a step measures, as `bmc/NAME`; a second one of a name is `NAME#2`.
fn readings(sensors: &[BmcSensor]) -> Vec<Reading> {
    let mut same_name: BTreeMap<String, u32> = BTreeMap::new();
    let mut readings = Vec::new();
    for sensor in sensors {
        let Some((kind, factor)) = kind(&sensor.unit) else { continue };
        let name: String = sensor.name.trim().chars().filter(|c| !c.is_control()).take(64).collect();
        let nth = same_name.entry(name.clone()).or_default();
        *nth += 1;
        let name = if *nth == 1 { format!("bmc/{name}") } else { format!("bmc/{name}#{nth}") };
        let value = sensor.value.filter(|value| value.is_finite()).map(factor);
        let why = || sensor.unread.clone().unwrap_or_else(|| "it has no reading now".into());
        readings.push(Reading { sensor: name, kind, value: value.ok_or_else(why) });
    }
    readings
}

type Convert = fn(f64) -> f64;

/// Of the units that BMCs use for these (table 43-15).
fn kind(unit: &str) -> Option<(SensorKind, Convert)> {
    let same: Convert = |value| value;
    Some(match unit {
        "degrees C" => (SensorKind::Temperature, same),
        "degrees F" => (SensorKind::Temperature, |f| (f - 32.0) / 1.8),
        "degrees K" => (SensorKind::Temperature, |k| k - 273.15),
        "RPM" => (SensorKind::Fan, same),
        "Volts" => (SensorKind::Voltage, same),
        "Amps" => (SensorKind::Current, same),
        "Watts" => (SensorKind::Power, same),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use speediso_sys::ipmi::{IpmiError, Request};
    use std::sync::atomic::AtomicU8;

    /// A BMC with one temperature (a full record, one degree a step) that falls silent when told to.
    #[derive(Clone, Default)]
    struct OneSensor {
        raw: Arc<AtomicU8>,
        silent: Arc<AtomicBool>,
    }

    impl Ipmi for OneSensor {
        fn ask(&self, request: Request) -> Result<Vec<u8>, IpmiError> {
            let mut record = vec![0; 48];
            (record[2], record[3], record[7], record[12], record[13]) = (0x51, 0x01, 9, 0x01, 0x01);
            (record[20], record[21], record[24]) = (0x80, 1, 1);
            record[47] = 0xc0 | 5;
            record.extend(b"Inlet");
            record[4] = u8::try_from(record.len() - 5).expect("short");
            match request {
                Request::SdrReserve => Ok(vec![7, 0]),
                Request::SdrRead { offset, count, .. } => {
                    let from = usize::from(offset).min(record.len());
                    let to = (from + usize::from(count)).min(record.len());
                    Ok([&[0xff, 0xff][..], &record[from..to]].concat())
                }
                Request::SensorReading { .. } if self.silent.load(Ordering::Relaxed) => Err(IpmiError::Silent(request)),
                // Bit 4: at or above the upper critical threshold.
                Request::SensorReading { .. } => {
                    let raw = self.raw.load(Ordering::Relaxed);
                    Ok(vec![raw, 0xc0, if raw > 90 { 0b01_1000 } else { 0 }])
                }
                _ => Err(IpmiError::Declined { request, code: 0xc1 }),
            }
        }
    }

    fn until(what: impl Fn() -> bool) {
        let begin = Instant::now();
        while !what() {
            assert!(begin.elapsed() < Duration::from_secs(60), "it never came");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn what_the_bmc_says_is_read_again_and_again() {
        let bmc = OneSensor::default();
        bmc.raw.store(40, Ordering::Relaxed);
        let sensors = BmcSensors::ask_of(bmc.clone(), Duration::from_millis(10));
        let value = || sensors.read().first().map(|r| (r.sensor.clone(), r.kind, r.value.clone()));
        let inlet = |value: Result<f64, String>| Some(("bmc/Inlet".to_owned(), SensorKind::Temperature, value));
        until(|| value().is_some());
        assert_eq!(value(), inlet(Ok(40.0)));
        assert_eq!(sensors.critical(), Some(Vec::new()));
        bmc.raw.store(95, Ordering::Relaxed);
        until(|| value() == inlet(Ok(95.0)));
        bmc.raw.store(41, Ordering::Relaxed);
        until(|| value() == inlet(Ok(41.0)));
        let critical = sensors.critical().expect("it was read");
        assert!(critical[0].starts_with("Inlet: 95.0 degrees C is beyond"), "what has passed is told: {critical:?}");
        bmc.silent.store(true, Ordering::Relaxed);
        until(|| value().is_some_and(|(_, _, value)| value.is_err()));
        assert!(sensors.unread().is_empty());
    }

    #[test]
    fn a_machine_without_one_says_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let why = BmcSensors::ask(&Roots::under(dir.path()), Duration::from_secs(1)).expect_err("nobody is there");
        assert!(why.contains("/dev/ipmi0"), "{why}");
        assert!(kind("degrees F").is_some_and(|(_, convert)| (convert(212.0) - 100.0).abs() < 1e-9));
        assert!(kind("").is_none(), "what has only states is no measurement");
    }
}
