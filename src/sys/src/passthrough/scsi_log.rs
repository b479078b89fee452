//! What SCSI disks record of themselves: log pages (SPC-5, 7.3; SBC-4, 6.4) and the list of grown defects.

use speediso_model::inventory::health::{DiskHealth, SelfTest, TestOutcome};

use super::health::big_endian;
use super::scsi::{LOG_SENSE, READ_DEFECT_DATA, good};
use super::{CommandError, Data, Declining, Passthrough, SOON};

const SUPPORTED: u8 = 0x00;
const WRITE_ERRORS: u8 = 0x02;
const READ_ERRORS: u8 = 0x03;
const TEMPERATURE: u8 = 0x0d;
const START_STOP: u8 = 0x0e;
const SELF_TESTS: u8 = 0x10;
const SOLID_STATE: u8 = 0x11;
const BACKGROUND_SCAN: u8 = 0x15;
const EXCEPTIONS: u8 = 0x2f;

/// Of cumulative values, which is what all of these pages have.
const CUMULATIVE: u8 = 1 << 6;
const LONGEST: u16 = 4096;

/// The body of a page, without its header.
fn page(device: &dyn Passthrough, number: u8) -> Result<Vec<u8>, CommandError> {
    const NAME: &str = "SCSI LOG SENSE";
    let mut bytes = vec![0; usize::from(LONGEST)];
    let [high, low] = LONGEST.to_be_bytes();
    let cdb = [LOG_SENSE, 0, CUMULATIVE | number, 0, 0, 0, 0, high, low, 0];
    good(NAME, device.scsi(NAME, &cdb, Data::In(&mut bytes), SOON)?)?;
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    if bytes[0] & 0x3f != number {
        let what = format!("page {:#x} came for {number:#x}", bytes[0] & 0x3f);
        return Err(CommandError::Nonsense { command: NAME, what });
    }
    bytes.truncate((4 + length).min(usize::from(LONGEST)));
    Ok(bytes.split_off(4))
}

/// The values of a page's parameters by their codes; what reaches past the end is left out.
fn parameters(body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let [high, low, _control, length, after @ ..] = rest else { return None };
        let (value, next) = after.split_at_checked(usize::from(*length))?;
        rest = next;
        Some((u16::from_be_bytes([*high, *low]), value))
    })
}

fn parameter(body: &[u8], code: u16) -> Option<&[u8]> {
    parameters(body).find(|(found, _)| *found == code).map(|(_, value)| value)
}

/// `None` for a disk that keeps no log pages: a virtual one, a volume of a controller.
pub(super) fn health(device: &dyn Passthrough) -> Result<Option<DiskHealth>, CommandError> {
    let supported = match page(device, SUPPORTED) {
        Ok(list) => list,
        Err(e) if e.declining() == Some(Declining::Unsupported) => return Ok(None),
        Err(e) => return Err(e),
    };
    let read = |number: u8| supported.contains(&number).then(|| page(device, number).ok()).flatten();
    let mut health = DiskHealth::default();
    if let Some(body) = read(EXCEPTIONS)
        && let Some([asc, ascq, rest @ ..]) = parameter(&body, 0)
    {
        // 5d/xx: a failure is to be expected. 0b/01: it is too warm, which is no failure.
        health.passed = Some(*asc != 0x5d);
        match (asc, ascq) {
            (0x5d, _) => health.warnings.push(format!("it expects to fail ({asc:02x}/{ascq:02x})")),
            (0x0b, 0x01) => health.warnings.push("the temperature is outside of its limits".to_owned()),
            (0x0b, _) => health.warnings.push(format!("it warns ({asc:02x}/{ascq:02x})")),
            _ => {}
        }
        health.temperature_c = rest.first().and_then(|t| degrees(*t));
    }
    if let Some(body) = read(TEMPERATURE) {
        let of = |code| parameter(&body, code).and_then(|v| degrees(*v.get(1)?));
        health.temperature_c = of(0).or(health.temperature_c);
        health.temperature_limit_c = of(1);
    }
    // Parameter 6 of either: errors that could not be corrected. Parameter 5: bytes.
    let (reads, writes) = (read(READ_ERRORS), read(WRITE_ERRORS));
    let number = |body: &Option<Vec<u8>>, code| body.as_ref().and_then(|b| parameter(b, code).map(big_endian));
    health.media_errors = match (number(&reads, 6), number(&writes, 6)) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    };
    (health.bytes_read, health.bytes_written) = (number(&reads, 5), number(&writes, 5));
    health.power_cycles = read(START_STOP).and_then(|b| parameter(&b, 4).map(big_endian));
    // Minutes.
    health.power_on_hours = read(BACKGROUND_SCAN)
        .and_then(|b| parameter(&b, 0).and_then(|v| v.get(..4)).map(big_endian))
        .map(|minutes| minutes / 60);
    health.percentage_used = read(SOLID_STATE).and_then(|b| parameter(&b, 1).and_then(|v| v.get(3).copied()));
    health.self_test = read(SELF_TESTS).and_then(|b| parameter(&b, 1).and_then(self_test));
    health.reallocated_sectors = grown_defects(device);
    Ok(Some(health.judged()))
}

/// 255 is "not known".
fn degrees(byte: u8) -> Option<i32> {
    (1..255).contains(&byte).then(|| byte.into())
}

/// The newest result (SPC-5, 7.3.18): 16 bytes.
fn self_test(value: &[u8]) -> Option<SelfTest> {
    let [status, _number, hours_high, hours_low, place @ ..] = value else { return None };
    // An entry that was never written.
    if value.iter().all(|b| *b == 0) {
        return None;
    }
    let kind = match status >> 5 {
        1 => "short (background)".to_owned(),
        2 => "extended (background)".to_owned(),
        5 => "short".to_owned(),
        6 => "extended".to_owned(),
        other => format!("{other:#x}"),
    };
    let outcome = match status & 0xf {
        0 => TestOutcome::Passed,
        1 | 2 => TestOutcome::Aborted,
        3..=7 => TestOutcome::Failed,
        0xf => TestOutcome::InProgress,
        _ => TestOutcome::Unknown,
    };
    let lba = place.get(..8).map(big_endian).filter(|lba| *lba != u64::MAX);
    Some(SelfTest {
        kind,
        outcome,
        at_hours: Some(u16::from_be_bytes([*hours_high, *hours_low]).into()),
        first_bad_lba: lba.filter(|_| outcome == TestOutcome::Failed),
    })
}

/// Those that came since the disk was made; by the length of the list, which is not read.
fn grown_defects(device: &dyn Passthrough) -> Option<u64> {
    const NAME: &str = "SCSI READ DEFECT DATA (10)";
    const GROWN: u8 = 1 << 3;
    const BY_SECTOR: u8 = 0b101;
    let mut header = [0; 4];
    let cdb = [READ_DEFECT_DATA, 0, GROWN | BY_SECTOR, 0, 0, 0, 0, 0, 4, 0];
    good(NAME, device.scsi(NAME, &cdb, Data::In(&mut header), SOON).ok()?).ok()?;
    // Eight bytes each, if it is the form that was asked for.
    (header[1] & 0x1f == GROWN | BY_SECTOR).then(|| u64::from(u16::from_be_bytes([header[2], header[3]])) / 8)
}
