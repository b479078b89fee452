//! Sensors: what records tell of them (section 43), and what they read now.

use std::time::{Duration, Instant};

use speediso_model::inventory::bmc::{BmcSensor, SensorState, Thresholds};

use super::convert::{Conversion, text};
use super::{Ipmi, IpmiError, Request, ask, le16, words};

const FULL: u8 = 0x01;
const COMPACT: u8 = 0x02;
/// Larger pieces than this some BMCs cannot give.
const PIECE: u8 = 16;
/// Of one repository; a list that runs in a circle ends here.
const MOST_RECORDS: usize = 4096;
const LAST: u16 = 0xffff;

/// Those of full and compact records, and in words what was cut off when the time ran out.
pub(super) fn sensors(bmc: &dyn Ipmi, end: Instant) -> Result<(Vec<BmcSensor>, Option<String>), IpmiError> {
    let mut sensors = Vec::new();
    let is_whole = walk(bmc, end, |record| sensors.extend(sensor(bmc, record, true)))?;
    let cut = (!is_whole).then(|| cut_off(sensors.len()));
    Ok((sensors, cut))
}

fn cut_off(n: usize) -> String {
    format!("{n} were read, the others would have taken too long")
}

/// The records of a BMC's sensors: with them sensors can be asked again and again, without reading the repository anew.
#[derive(Clone, Debug)]
pub struct SensorRecords(Vec<Vec<u8>>);

impl SensorRecords {
    /// And in words what was cut off when the time ran out.
    ///
    /// # Errors
    /// When the BMC does not let its records be read.
    pub fn read(bmc: &dyn Ipmi, patience: Duration) -> Result<(Self, Option<String>), IpmiError> {
        let mut records = Vec::new();
        let is_whole = walk(bmc, Instant::now() + patience, |record| {
            if matches!(record.get(3), Some(&FULL | &COMPACT)) {
                records.push(record.to_vec());
            }
        })?;
        let cut = (!is_whole).then(|| cut_off(records.len()));
        Ok((Self(records), cut))
    }

    /// What they read now, each asked when it is its turn; without their thresholds.
    pub fn sensors<'a>(&'a self, bmc: &'a dyn Ipmi) -> impl Iterator<Item = BmcSensor> + 'a {
        self.0.iter().filter_map(move |record| sensor(bmc, record, false))
    }
}

/// All records in turn. `false` when the time ran out before their end.
fn walk(bmc: &dyn Ipmi, end: Instant, mut visit: impl FnMut(&[u8])) -> Result<bool, IpmiError> {
    let mut reservation = reserve(bmc)?;
    let mut record = 0;
    for _ in 0..MOST_RECORDS {
        if Instant::now() >= end {
            return Ok(false);
        }
        let (next, bytes) = match read(bmc, reservation, record) {
            // C5h: somebody else has changed or reserved the repository meanwhile.
            Err(IpmiError::Declined { code: 0xc5, .. }) => {
                reservation = reserve(bmc)?;
                read(bmc, reservation, record)?
            }
            read => read?,
        };
        visit(&bytes);
        if next == LAST || next == record {
            return Ok(true);
        }
        record = next;
    }
    Err(IpmiError::Nonsense { what: "sensor repository", why: format!("more than {MOST_RECORDS} records") })
}

fn reserve(bmc: &dyn Ipmi) -> Result<u16, IpmiError> {
    match ask(bmc, Request::SdrReserve, 2) {
        Ok(answer) => Ok(le16(&answer, 0)),
        // Who knows no reservations, needs none.
        Err(IpmiError::Declined { code: 0xc1, .. }) => Ok(0),
        Err(e) => Err(e),
    }
}

/// A record with its header, and the number of the next.
fn read(bmc: &dyn Ipmi, reservation: u16, record: u16) -> Result<(u16, Vec<u8>), IpmiError> {
    let piece = |offset, count| Request::SdrRead { reservation, record, offset, count };
    let header = ask(bmc, piece(0, 5), 7)?;
    let next = le16(&header, 0);
    let mut bytes = header[2..7].to_vec();
    let length = 5 + usize::from(bytes[4]);
    while bytes.len() < length {
        let left = u8::try_from(length - bytes.len()).unwrap_or(PIECE).min(PIECE);
        // A record whose end lies beyond 255 cannot be addressed.
        let Ok(offset) = u8::try_from(bytes.len()) else { break };
        let answer = ask(bmc, piece(offset, left), 3)?;
        bytes.extend(&answer[2..]);
    }
    bytes.truncate(length);
    Ok((next, bytes))
}

/// What the record describes, if that is a sensor, with its reading.
fn sensor(bmc: &dyn Ipmi, record: &[u8], with_thresholds: bool) -> Option<BmcSensor> {
    let at = |i: usize| record.get(i).copied().unwrap_or(0);
    let kind = at(3);
    let name_at = match kind {
        FULL => 47,
        COMPACT => 31,
        _ => return None,
    };
    let (lun, number) = (at(6) & 3, at(7));
    let mut sensor = BmcSensor {
        number,
        name: record.get(name_at..).and_then(text).map(|(name, _)| name).unwrap_or_default(),
        kind: words::sensor_kind(at(12)),
        ..BmcSensor::default()
    };
    // Reading type 1 compares with thresholds; everything else has states.
    let threshold = at(13) == 1 && kind == FULL;
    let conversion = if threshold { Some(Conversion::of_record(record)) } else { None };
    if threshold {
        sensor.unit = words::unit(at(20), at(21), at(22));
    }
    let reading = match ask(bmc, Request::SensorReading { number, lun }, 2) {
        Ok(reading) => reading,
        Err(IpmiError::Declined { code, .. }) => {
            sensor.unread = Some(format!("it is not present or declines ({code:#04x})"));
            return Some(sensor);
        }
        Err(e) => {
            sensor.unread = Some(e.to_string());
            return Some(sensor);
        }
    };
    let states = reading.get(2).copied().unwrap_or(0);
    // Scanning switched off, or no reading yet.
    if reading[1] & (1 << 6) == 0 || reading[1] & (1 << 5) != 0 {
        sensor.unread = Some("it has no reading now".to_owned());
        return Some(sensor);
    }
    match conversion {
        None => sensor.states = Some(u16::from(states) | u16::from(reading.get(3).copied().unwrap_or(0) & 0x7f) << 8),
        Some(Err(why)) => sensor.unread = Some(why),
        Some(Ok(conversion)) => {
            sensor.value = Some(conversion.value(reading[0]));
            sensor.state = state(states);
            if with_thresholds && let Ok(answer) = ask(bmc, Request::SensorThresholds { number, lun }, 7) {
                sensor.thresholds = thresholds(&answer, conversion);
            }
        }
    }
    Some(sensor)
}

/// Bits 0 to 2 below the lower thresholds, 3 to 5 above the upper ones, the graver the higher.
fn state(bits: u8) -> SensorState {
    match bits {
        b if b & 0b10_0100 != 0 => SensorState::NonRecoverable,
        b if b & 0b01_0010 != 0 => SensorState::Critical,
        b if b & 0b00_1001 != 0 => SensorState::NonCritical,
        _ => SensorState::Ok,
    }
}

/// The first byte says which can be read.
fn thresholds(answer: &[u8], conversion: Conversion) -> Thresholds {
    let one = |bit: usize| (answer[0] >> bit & 1 != 0).then(|| conversion.value(answer[1 + bit]));
    Thresholds {
        lower_non_critical: one(0),
        lower_critical: one(1),
        lower_non_recoverable: one(2),
        upper_non_critical: one(3),
        upper_critical: one(4),
        upper_non_recoverable: one(5),
    }
}
