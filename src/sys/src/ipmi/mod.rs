//! The management processor, asked from inside the machine (IPMI 2.0, revision 1.1).
//!
//! There is a closed set of commands, and no way to send another: a BMC can power the machine off and forget its own
//! configuration. Everything here reads but those that add to the system event log.

mod convert;
mod device;
mod fru;
mod lan;
mod sdr;
mod sel;
mod words;

use std::io;
use std::time::{Duration, Instant};

use speediso_model::inventory::bmc::{Bmc, BmcSensor};
use speediso_model::plan::hex;

pub use self::device::IpmiDevice;
pub use self::sdr::SensorRecords;
pub use self::sel::{Installation, add_event, add_note};

/// What can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    DeviceId,
    SystemGuid,
    ChannelInfo {
        channel: u8,
    },
    LanParameter {
        channel: u8,
        parameter: u8,
        set: u8,
    },
    FruInfo {
        id: u8,
    },
    FruRead {
        id: u8,
        offset: u16,
        count: u8,
    },
    SdrReserve,
    SdrRead {
        reservation: u16,
        record: u16,
        offset: u8,
        count: u8,
    },
    SensorReading {
        number: u8,
        lun: u8,
    },
    SensorThresholds {
        number: u8,
        lun: u8,
    },
    SelInfo,
    SelEntry {
        record: u16,
    },
    SelAdd(Installation),
    /// Text in a record of a kind that is everybody's own.
    SelNote {
        text: [u8; 13],
    },
}

const APPLICATION: u8 = 0x06;
const SENSOR: u8 = 0x04;
const STORAGE: u8 = 0x0a;
const TRANSPORT: u8 = 0x0c;

impl Request {
    /// Network function and command (appendix G), and the logical unit.
    fn command(self) -> (u8, u8, u8) {
        match self {
            Self::DeviceId => (APPLICATION, 0x01, 0),
            Self::SystemGuid => (APPLICATION, 0x37, 0),
            Self::ChannelInfo { .. } => (APPLICATION, 0x42, 0),
            Self::LanParameter { .. } => (TRANSPORT, 0x02, 0),
            Self::FruInfo { .. } => (STORAGE, 0x10, 0),
            Self::FruRead { .. } => (STORAGE, 0x11, 0),
            Self::SdrReserve => (STORAGE, 0x22, 0),
            Self::SdrRead { .. } => (STORAGE, 0x23, 0),
            Self::SensorReading { lun, .. } => (SENSOR, 0x2d, lun),
            Self::SensorThresholds { lun, .. } => (SENSOR, 0x27, lun),
            Self::SelInfo => (STORAGE, 0x40, 0),
            Self::SelEntry { .. } => (STORAGE, 0x43, 0),
            Self::SelAdd(_) | Self::SelNote { .. } => (STORAGE, 0x44, 0),
        }
    }

    fn data(self) -> Vec<u8> {
        let two = u16::to_le_bytes;
        match self {
            Self::DeviceId | Self::SystemGuid | Self::SdrReserve | Self::SelInfo => Vec::new(),
            Self::ChannelInfo { channel } => vec![channel],
            Self::LanParameter { channel, parameter, set } => vec![channel, parameter, set, 0],
            Self::FruInfo { id } => vec![id],
            Self::FruRead { id, offset, count } => [&[id][..], &two(offset), &[count]].concat(),
            Self::SdrRead { reservation, record, offset, count } => {
                [&two(reservation)[..], &two(record), &[offset, count]].concat()
            }
            Self::SensorReading { number, .. } | Self::SensorThresholds { number, .. } => vec![number],
            // Without a reservation, from its start, all of it.
            Self::SelEntry { record } => [&two(0)[..], &two(record), &[0, 0xff]].concat(),
            Self::SelAdd(event) => event.record().to_vec(),
            // The BMC fills in the number.
            Self::SelNote { text } => [&[0, 0, sel::NOTE][..], &text].concat(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IpmiError {
    #[error("opening {0}")]
    Open(String, #[source] io::Error),
    #[error("asking the BMC for {0:?}")]
    Ask(Request, #[source] io::Error),
    #[error("the BMC did not answer {0:?} in time")]
    Silent(Request),
    #[error("the BMC declines {request:?} ({code:#04x})")]
    Declined { request: Request, code: u8 },
    #[error("the BMC's answer to {0:?} is too short")]
    Short(Request),
    #[error("the BMC's {what} makes no sense: {why}")]
    Nonsense { what: &'static str, why: String },
}

/// Carries a request to a BMC and brings the answer, without its completion code.
pub trait Ipmi {
    /// # Errors
    /// When no answer came, or one with a completion code other than 0.
    fn ask(&self, request: Request) -> Result<Vec<u8>, IpmiError>;
}

/// At least `least` bytes.
fn ask(bmc: &dyn Ipmi, request: Request, least: usize) -> Result<Vec<u8>, IpmiError> {
    let answer = bmc.ask(request)?;
    if answer.len() < least { Err(IpmiError::Short(request)) } else { Ok(answer) }
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes.get(at).copied().unwrap_or(0), bytes.get(at + 1).copied().unwrap_or(0)])
}

/// Everything a BMC tells that the inventory has a place for. A part that cannot be read becomes a line of `unread`, and
/// what takes longer than `patience` together is cut off and said: a slow BMC must not hold up its machine.
///
/// # Errors
/// When it does not even say what it is.
pub fn examine(bmc: &dyn Ipmi, patience: Duration, unread: &mut Vec<String>) -> Result<Bmc, IpmiError> {
    let end = Instant::now() + patience;
    let mut found = identify(bmc)?;
    // A wish of the specification, not a demand.
    found.guid = ask(bmc, Request::SystemGuid, 16).ok().map(|bytes| guid(&bytes));
    let gap = |what: &str, error: &IpmiError| format!("{what} of the BMC could not be read: {error}");
    match lan::read(bmc, end) {
        Ok(lan) => found.lan = lan,
        Err(e) => unread.push(gap("network settings", &e)),
    }
    match fru::read(bmc, end) {
        Ok(fru) => found.fru = fru,
        Err(e) => unread.push(gap("inventory record", &e)),
    }
    match sel::read(bmc, end) {
        Ok(log) => found.event_log = Some(log),
        Err(e) => unread.push(gap("event log", &e)),
    }
    match sdr::sensors(bmc, end) {
        Ok((sensors, cut)) => {
            found.sensors = sensors;
            unread.extend(cut.map(|cut| format!("sensors of the BMC: {cut}")));
        }
        Err(e) => unread.push(gap("sensors", &e)),
    }
    Ok(found)
}

/// The sensors alone, with what they read now; and in words what was cut off when the time ran out.
///
/// # Errors
/// When the BMC does not let its records be read.
pub fn sensors(bmc: &dyn Ipmi, patience: Duration) -> Result<(Vec<BmcSensor>, Option<String>), IpmiError> {
    sdr::sensors(bmc, Instant::now() + patience)
}

/// Section 20.1.
fn identify(bmc: &dyn Ipmi) -> Result<Bmc, IpmiError> {
    let answer = ask(bmc, Request::DeviceId, 11)?;
    let version = answer[4];
    Ok(Bmc {
        device_id: answer[0],
        device_revision: answer[1] & 0x0f,
        // The minor one is BCD.
        firmware: format!("{}.{:02x}", answer[2] & 0x7f, answer[3]),
        // Its digits stand in the other order.
        ipmi_version: format!("{}.{}", version & 0x0f, version >> 4),
        manufacturer_id: u32::from(le16(&answer, 6)) | u32::from(answer[8] & 0x0f) << 16,
        product_id: le16(&answer, 9),
        firmware_auxiliary: answer.get(11..15).filter(|aux| aux.iter().any(|b| *b != 0)).map(hex),
        ..Bmc::default()
    })
}

/// As SMBIOS writes a UUID: the first three fields little-endian, which is what BMCs send today.
fn guid(bytes: &[u8]) -> String {
    let order = [3usize, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let text: String = order.iter().map(|at| format!("{:02x}", bytes[*at])).collect();
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests;
