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
    // Record numbers go up by one, but for those that were deleted.
    for record in (number.saturating_sub(NEWEST - 1).max(1)..number).take_while(|_| Instant::now() < end) {
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
fn entry(record: &[u8]) -> LogEntry {
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

/// Puts a line into the log, and gives its number.
///
/// # Errors
/// When the BMC declines, because the log is full for instance.
pub fn add_event(bmc: &dyn Ipmi, event: Installation) -> Result<u16, IpmiError> {
    Ok(le16(&ask(bmc, Request::SelAdd(event), 2)?, 0))
}
