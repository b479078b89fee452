//! SCSI commands (SPC-5, SBC-4).

use std::time::Duration;

use speediso_model::abilities::ScsiAbilities;

use super::{CommandError, Data, Declining, Passthrough, SOON, ScsiAnswer, Sense, opal, text};

pub(super) const REQUEST_SENSE: u8 = 0x03;
pub(super) const INQUIRY: u8 = 0x12;
pub(super) const READ_DEFECT_DATA: u8 = 0x37;
pub(super) const SANITIZE: u8 = 0x48;
pub(super) const LOG_SENSE: u8 = 0x4d;
pub(super) const ATA_PASS_THROUGH_16: u8 = 0x85;
pub(super) const SERVICE_ACTION_IN_16: u8 = 0x9e;
pub(super) const READ_CAPACITY_16: u8 = 0x10;
pub(super) const MAINTENANCE_IN: u8 = 0xa3;
pub(super) const REPORT_SUPPORTED_OPCODES: u8 = 0x0c;
pub(super) const SECURITY_PROTOCOL_IN: u8 = 0xa2;
pub(super) const SECURITY_PROTOCOL_OUT: u8 = 0xb5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SanitizeAction {
    Overwrite,
    Block,
    Crypto,
}

impl SanitizeAction {
    fn code(self) -> u8 {
        match self {
            Self::Overwrite => 1,
            Self::Block => 2,
            Self::Crypto => 3,
        }
    }
}

/// How a sanitize stands, by the device's sense data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SanitizeStatus {
    /// None goes on and none has failed.
    Idle,
    /// With its progress, of 65536.
    InProgress(Option<u16>),
    Failed(Sense),
}

/// GOOD, or what the device complains of.
pub(super) fn good(name: &'static str, answer: ScsiAnswer) -> Result<(), CommandError> {
    match answer {
        ScsiAnswer { status: 0, .. } => Ok(()),
        ScsiAnswer { sense: Some(sense), .. } if sense.key <= 1 => Ok(()),
        ScsiAnswer { sense: Some(sense), .. } => {
            let kind = if sense.is_unsupported() {
                Declining::Unsupported
            } else if sense.is_sanitizing() {
                Declining::Busy
            } else if sense.has_failed_sanitizing() {
                Declining::SanitizeFailed
            } else {
                Declining::Other
            };
            let raw = speediso_model::plan::hex(&sense.raw);
            Err(CommandError::Declined { command: name, raw, meaning: sense.to_string(), kind })
        }
        ScsiAnswer { status, sense: None } => Err(CommandError::Declined {
            command: name,
            raw: format!("status {status:#04x}"),
            meaning: "no reason".into(),
            kind: Declining::Other,
        }),
    }
}

/// Standard INQUIRY data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inquiry {
    pub vendor: String,
    pub product: String,
    pub revision: String,
}

impl Inquiry {
    /// SAT has every translator say so.
    #[must_use]
    pub fn is_ata(&self) -> bool {
        self.vendor == "ATA"
    }
}

/// # Errors
/// When no answer can be had.
pub fn inquiry(device: &dyn Passthrough) -> Result<Inquiry, CommandError> {
    const NAME: &str = "SCSI INQUIRY";
    let mut page = [0; 36];
    good(NAME, device.scsi(NAME, &[INQUIRY, 0, 0, 0, 36, 0], Data::In(&mut page), SOON)?)?;
    Ok(Inquiry { vendor: text(&page[8..16]), product: text(&page[16..32]), revision: text(&page[32..36]) })
}

/// Whether the device says that it takes this service action of SANITIZE.
fn takes_sanitize(device: &dyn Passthrough, action: SanitizeAction) -> Result<bool, CommandError> {
    const NAME: &str = "SCSI REPORT SUPPORTED OPERATION CODES";
    let mut page = [0; 4 + 16];
    let mut cdb = [0; 12];
    // Reporting options 010b: one operation code with one service action.
    (cdb[0], cdb[1], cdb[2], cdb[3], cdb[5], cdb[9]) =
        (MAINTENANCE_IN, REPORT_SUPPORTED_OPCODES, 0b010, SANITIZE, action.code(), 20);
    match good(NAME, device.scsi(NAME, &cdb, Data::In(&mut page), SOON)?) {
        // SUPPORT: 011b as the standard has it, 101b in the maker's own way.
        Ok(()) => Ok(page[1] & 0x7 == 0b011),
        Err(e) if e.declining() == Some(Declining::Unsupported) => Ok(false),
        Err(e) => Err(e),
    }
}

/// # Errors
/// When the device cannot be asked. One that does not know the question offers nothing.
pub fn abilities(device: &dyn Passthrough) -> Result<ScsiAbilities, CommandError> {
    Ok(ScsiAbilities {
        sanitize_crypto: takes_sanitize(device, SanitizeAction::Crypto)?,
        sanitize_block: takes_sanitize(device, SanitizeAction::Block)?,
        sanitize_overwrite: takes_sanitize(device, SanitizeAction::Overwrite)?,
        opal: opal::discover(device, opal::Way::Scsi),
    })
}

/// SPC-5, 6.40 and 6.41, with the length in bytes.
fn security(opcode: u8, protocol: u8, specific: u16, length: usize) -> [u8; 12] {
    let mut cdb = [0; 12];
    (cdb[0], cdb[1]) = (opcode, protocol);
    cdb[2..4].copy_from_slice(&specific.to_be_bytes());
    cdb[6..10].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_be_bytes());
    cdb
}

pub(super) fn security_in(
    device: &dyn Passthrough,
    protocol: u8,
    specific: u16,
    data: &mut [u8],
) -> Result<(), CommandError> {
    const NAME: &str = "SCSI SECURITY PROTOCOL IN";
    let cdb = security(SECURITY_PROTOCOL_IN, protocol, specific, data.len());
    good(NAME, device.scsi(NAME, &cdb, Data::In(data), opal::ASKING)?)
}

pub(super) fn security_out(
    device: &dyn Passthrough,
    protocol: u8,
    specific: u16,
    data: &[u8],
) -> Result<(), CommandError> {
    const NAME: &str = "SCSI SECURITY PROTOCOL OUT";
    let cdb = security(SECURITY_PROTOCOL_OUT, protocol, specific, data.len());
    good(NAME, device.scsi(NAME, &cdb, Data::Out(data), opal::SENDING)?)
}

/// Begins; [`sanitize_status`] tells when it is over. AUSE is not set: a failed one keeps the device closed.
///
/// # Errors
/// When the device declines.
pub fn sanitize(device: &dyn Passthrough, action: SanitizeAction) -> Result<(), CommandError> {
    const NAME: &str = "SCSI SANITIZE";
    const IMMEDIATE: u8 = 0x80;
    // One pass of a pattern of four bytes.
    let parameters = [1, 0, 0, 4, 0x5a, 0xa5, 0xc3, 0x3c];
    let mut cdb = [SANITIZE, IMMEDIATE | action.code(), 0, 0, 0, 0, 0, 0, 0, 0];
    let data = if action == SanitizeAction::Overwrite {
        cdb[8] = 8;
        Data::Out(&parameters)
    } else {
        Data::None
    };
    good(NAME, device.scsi(NAME, &cdb, data, Duration::from_mins(2))?)
}

/// # Errors
/// When no answer can be had.
pub fn sanitize_status(device: &dyn Passthrough) -> Result<SanitizeStatus, CommandError> {
    const NAME: &str = "SCSI REQUEST SENSE";
    let mut page = [0; 252];
    let answer = device.scsi(NAME, &[REQUEST_SENSE, 0, 0, 0, 252, 0], Data::In(&mut page), SOON)?;
    // The sense data are the answer; those about the command itself count only if it failed.
    let sense = match answer.status {
        0 => Sense::parse(&page),
        _ => answer.sense,
    };
    Ok(match sense {
        Some(sense) if sense.is_sanitizing() => SanitizeStatus::InProgress(sense.progress),
        Some(sense) if sense.has_failed_sanitizing() => SanitizeStatus::Failed(sense),
        _ => SanitizeStatus::Idle,
    })
}
