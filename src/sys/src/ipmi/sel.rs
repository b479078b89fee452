//! The system event log (sections 31 and 32).

use std::time::Instant;

use speediso_model::inventory::bmc::{EventLog, LogEntry};
use speediso_model::plan::hex;

use super::{Ipmi, IpmiError, Request, ask, le16, words};

/// Entries that the inventory takes along.
const NEWEST: u16 = 32;
const LAST: u16 = 0xffff;

pub(super) fn read(bmc: &dyn Ipmi, end: Instant) -> Result<EventLog, IpmiError> {
    let info = ask(bmc, Request::SelInfo, 14)?;
    let mut log = EventLog {
        entries: le16(&info, 1).into(),
        free_bytes: le16(&info, 3).into(),
        overflow: info[13] & 0x80 != 0,
        newest: Vec::new(),
    };
    if log.entries == 0 {
        return Ok(log);
    }
    let last = ask(bmc, Request::SelEntry { record: LAST }, 18)?;
    let number = le16(&last, 2);
    // Record numbers go up by one, but for those that were deleted. To be asked for 0 is to be asked for the first, which is
    // another one's number where they begin with 1, and its own where they begin with 0.
    for record in (number.saturating_sub(NEWEST - 1)..number).take_while(|_| Instant::now() < end) {
        match ask(bmc, Request::SelEntry { record }, 18) {
            // Some give the next one instead.
            Ok(answer) if le16(&answer, 2) == record => log.newest.push(entry(&answer[2..18])),
            Ok(_) | Err(IpmiError::Declined { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    log.newest.push(entry(&last[2..18]));
    Ok(log)
}

/// Sixteen bytes (table 32-1, and 32-2 and 32-3 for those of makers).
pub(super) fn entry(record: &[u8]) -> LogEntry {
    let kind = record[2];
    let stamp = u32::from(le16(record, 3)) | u32::from(le16(record, 5)) << 16;
    let mut entry = LogEntry { record: le16(record, 0), raw: hex(record), ..LogEntry::default() };
    // From E0h on there is no time.
    entry.time = (kind < 0xe0 && stamp != u32::MAX).then_some(stamp);
    if kind == 0x02 {
        entry.kind = words::sensor_kind(record[10]);
        entry.sensor = record[11];
        let gone = record[12] & 0x80 != 0;
        let offset = record[13] & 0x0f;
        entry.text = format!(
            "{} sensor {:#04x}: {}{}",
            entry.kind,
            record[11],
            event(record[10], record[12] & 0x7f, offset),
            if gone { ", is over" } else { "" }
        );
    } else if let Some(text) = note(record) {
        entry.kind = "Speediso".to_owned();
        entry.text = text;
    } else {
        entry.kind = "maker's own".to_owned();
        entry.text = format!("a record of type {kind:#04x}, which only the maker can read");
    }
    entry
}

/// What happened: for thresholds by table 42-2, for sensors of their own kind by table 42-3, as far as operators act on it.
fn event(sensor: u8, reading: u8, offset: u8) -> String {
    const THRESHOLDS: [&str; 12] = [
        "below the lower non-critical threshold, falling",
        "below the lower non-critical threshold, rising",
        "below the lower critical threshold, falling",
        "below the lower critical threshold, rising",
        "below the lower non-recoverable threshold, falling",
        "below the lower non-recoverable threshold, rising",
        "above the upper non-critical threshold, falling",
        "above the upper non-critical threshold, rising",
        "above the upper critical threshold, falling",
        "above the upper critical threshold, rising",
        "above the upper non-recoverable threshold, falling",
        "above the upper non-recoverable threshold, rising",
    ];
    let known = match (reading, sensor, offset) {
        (0x01, _, n) => THRESHOLDS.get(usize::from(n)).copied(),
        (0x6f, 0x07, 0x00) => Some("internal error (IERR)"),
        (0x6f, 0x07, 0x01) => Some("too hot (thermal trip)"),
        (0x6f, 0x07, 0x07) => Some("present"),
        (0x6f, 0x07, 0x0b) => Some("uncorrectable machine check"),
        (0x6f, 0x08, 0x00) => Some("present"),
        (0x6f, 0x08, 0x01) => Some("failed"),
        (0x6f, 0x08, 0x02) => Some("expects to fail"),
        (0x6f, 0x08, 0x03) => Some("lost its input"),
        (0x6f, 0x0c, 0x00) => Some("correctable error"),
        (0x6f, 0x0c, 0x01) => Some("uncorrectable error"),
        (0x6f, 0x0c, 0x05) => Some("limit of correctable errors reached"),
        (0x6f, 0x0d, 0x00) => Some("drive present"),
        (0x6f, 0x0d, 0x01) => Some("drive failed"),
        (0x6f, 0x0d, 0x02) => Some("drive expects to fail"),
        (0x6f, 0x10, 0x02) => Some("the log was cleared"),
        (0x6f, 0x10, 0x04) => Some("the log is full"),
        (0x6f, 0x13, 0x04) => Some("PCI parity error"),
        (0x6f, 0x13, 0x05) => Some("PCI system error"),
        (0x6f, 0x13, 0x07) => Some("correctable bus error"),
        (0x6f, 0x13, 0x08) => Some("uncorrectable bus error"),
        (0x6f, 0x1f, 0x07) => Some("installation began"),
        (0x6f, 0x1f, 0x08) => Some("installation completed"),
        (0x6f, 0x1f, 0x09) => Some("installation aborted"),
        (0x6f, 0x1f, 0x0a) => Some("installation failed"),
        (0x6f, 0x23, 0x01) => Some("hard reset"),
        (0x6f, 0x23, 0x02) => Some("power down"),
        (0x6f, 0x23, 0x03) => Some("power cycle"),
        _ => None,
    };
    known.map_or_else(|| format!("event {offset:#x} of type {reading:#04x}"), str::to_owned)
}

/// What may be put into the log: how far an installation is (table 42-3, sensor type 1Fh).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Installation {
    Began,
    Completed,
    Aborted,
    Failed,
}

impl Installation {
    pub(super) fn record(self) -> [u8; 16] {
        let offset = match self {
            Self::Began => 0x07,
            Self::Completed => 0x08,
            Self::Aborted => 0x09,
            Self::Failed => 0x0a,
        };
        let mut record = [0; 16];
        // The BMC fills in number and time. A system event, by system management software (41h and its mark), in the
        // format of IPMI 2.0, sensor-specific, asserted.
        record[2] = 0x02;
        (record[7], record[8], record[9]) = (0x41 << 1 | 1, 0, 0x04);
        (record[10], record[11], record[12], record[13]) = (0x1f, 0, 0x6f, offset);
        (record[14], record[15]) = (0xff, 0xff);
        record
    }
}

/// The first of the kinds of record that carry thirteen bytes of anything and no time (table 32-3).
pub(super) const NOTE: u8 = 0xe0;
/// Ours begin so, then come the number of the part and of parts, and eight characters.
const MARK: &[u8; 3] = b"SPD";
const PART: usize = 8;
const MOST_PARTS: usize = 4;

/// One of ours, as text.
fn note(record: &[u8]) -> Option<String> {
    let data = record.get(3..16).filter(|_| record[2] == NOTE)?;
    let [part, parts, text @ ..] = data.strip_prefix(MARK)? else { return None };
    let is_ours = part.is_ascii_digit() && parts.is_ascii_digit();
    let text: String = text.iter().take_while(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
    is_ours.then(|| format!("part {} of {}: {text}", char::from(*part), char::from(*parts)))
}

/// The records of a text of printable ASCII: anything else becomes `?`, and what is too long is cut.
pub(super) fn notes(text: &str) -> Vec<[u8; 13]> {
    let bytes: Vec<u8> = text.bytes().map(|b| if b.is_ascii_graphic() { b } else { b'?' }).collect();
    let parts: Vec<&[u8]> = bytes.chunks(PART).take(MOST_PARTS).collect();
    let digit = |n: usize| b'0' + u8::try_from(n).unwrap_or(9);
    let record = |(n, part): (usize, &&[u8])| {
        let mut record = [0; 13];
        record[..3].copy_from_slice(MARK);
        (record[3], record[4]) = (digit(n + 1), digit(parts.len()));
        record[5..5 + part.len()].copy_from_slice(part);
        record
    };
    parts.iter().enumerate().map(record).collect()
}

/// Puts a short text into the log. A log that is nearly full is left to what the BMC itself has to say.
///
/// # Errors
/// When the BMC declines, or the log is nearly full.
pub fn add_note(bmc: &dyn Ipmi, text: &str) -> Result<(), IpmiError> {
    const SPARE: u16 = 256;
    let info = ask(bmc, Request::SelInfo, 14)?;
    let notes = notes(text);
    let needed = u16::try_from(notes.len() * 16).unwrap_or(u16::MAX);
    // FFFFh: that much or more.
    if le16(&info, 3) < needed.saturating_add(SPARE) {
        return Err(IpmiError::Nonsense { what: "event log", why: "it is nearly full; clear it".into() });
    }
    for text in notes {
        ask(bmc, Request::SelNote { text }, 2)?;
    }
    Ok(())
}

/// Puts a line into the log, and gives its number.
///
/// # Errors
/// When the BMC declines, because the log is full for instance.
pub fn add_event(bmc: &dyn Ipmi, event: Installation) -> Result<u16, IpmiError> {
    Ok(le16(&ask(bmc, Request::SelAdd(event), 2)?, 0))
}
