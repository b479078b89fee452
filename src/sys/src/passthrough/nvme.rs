//! NVMe admin commands (NVMe base specification 2.0 and command set specifications).

mod boot;
mod namespaces;

use std::time::Duration;

use speediso_model::abilities::{NvmeAbilities, Opal, OtherNamespace};
use speediso_model::units::Bytes;

pub use self::boot::{read as read_boot_partition, write as write_boot_partition};
pub use self::namespaces::{
    attach, attached_to, common_formats, create_namespace, delete_namespace, granularity, namespaces,
};
use super::{CommandError, Data, Declining, NvmeCommand, Passthrough, SOON, le16, le32, le64, opal};

pub(super) const GET_LOG_PAGE: u8 = 0x02;
pub(super) const IDENTIFY: u8 = 0x06;
pub(super) const NAMESPACE_MANAGEMENT: u8 = 0x0d;
pub(super) const DEVICE_SELF_TEST: u8 = 0x14;
pub(super) const NAMESPACE_ATTACHMENT: u8 = 0x15;
pub(super) const FORMAT_NVM: u8 = 0x80;
pub(super) const SECURITY_SEND: u8 = 0x81;
pub(super) const SECURITY_RECEIVE: u8 = 0x82;
pub(super) const SANITIZE: u8 = 0x84;

const ALL_NAMESPACES: u32 = 0xffff_ffff;
/// Of every data structure of Identify.
const PAGE: usize = 4096;
/// Format's time grows with the size on drives that do it by writing.
const FORMAT_LIMIT: Duration = Duration::from_hours(12);

/// Identify Controller, what of it counts here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Controller {
    pub id: u16,
    pub serial: String,
    pub firmware: String,
    /// Of the subsystem there may be others, with hosts of their own.
    pub may_have_siblings: bool,
    pub optional_commands: u16,
    pub format_attributes: u8,
    pub sanitize: u32,
    pub namespaces: u32,
    /// Bytes of all that there is for namespaces, and of what none has; 0 where the controller does not tell.
    pub capacity: u64,
    pub unallocated: u64,
    /// Above which it warns of heat, in kelvin; 0 if it does not say.
    pub warning_temperature: u16,
    /// Of a piece of firmware, in bytes.
    pub download_granularity: usize,
}

impl Controller {
    #[must_use]
    pub fn takes_security_commands(&self) -> bool {
        self.optional_commands & 1 != 0
    }

    #[must_use]
    pub fn can_format(&self) -> bool {
        self.optional_commands & (1 << 1) != 0
    }

    #[must_use]
    pub fn tests_itself(&self) -> bool {
        self.optional_commands & (1 << 4) != 0
    }

    #[must_use]
    pub fn manages_namespaces(&self) -> bool {
        self.optional_commands & (1 << 3) != 0
    }
}

/// A format that a namespace can be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LbaFormat {
    pub index: u8,
    pub bytes: u32,
    pub metadata: u16,
    /// 0 is the best.
    pub performance: u8,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Namespace {
    pub blocks: u64,
    pub formats: Vec<LbaFormat>,
    pub in_use: u8,
    pub protection: u8,
}

impl Namespace {
    #[must_use]
    pub fn format(&self) -> Option<LbaFormat> {
        self.formats.iter().find(|f| f.index == self.in_use).copied()
    }

    /// The best that has sectors of so many bytes and no metadata.
    #[must_use]
    pub fn best_format(&self, bytes: u32) -> Option<LbaFormat> {
        best_of(&self.formats, bytes)
    }

    #[must_use]
    pub fn size(&self) -> Bytes {
        Bytes(self.format().map_or(0, |f| self.blocks.saturating_mul(u64::from(f.bytes))))
    }
}

/// The best format that has sectors of so many bytes and no metadata.
#[must_use]
pub fn best_of(formats: &[LbaFormat], bytes: u32) -> Option<LbaFormat> {
    formats.iter().filter(|f| f.bytes == bytes && f.metadata == 0).min_by_key(|f| f.performance).copied()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SanitizeAction {
    Block,
    Overwrite,
    Crypto,
}

impl SanitizeAction {
    fn code(self) -> u32 {
        match self {
            Self::Block => 2,
            Self::Overwrite => 3,
            Self::Crypto => 4,
        }
    }
}

/// How the last sanitize went, from log page 81h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SanitizeState {
    Never,
    Done,
    InProgress,
    Failed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SanitizeLog {
    pub state: SanitizeState,
    /// Of 65536.
    pub progress: u16,
    /// Dword 10 of the command that began it.
    pub action: u32,
    pub raw: [u8; 8],
}

impl SanitizeLog {
    #[must_use]
    pub fn is(&self, action: SanitizeAction) -> bool {
        self.action & 0x7 == action.code()
    }
}

/// Secure erase settings of Format NVM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecureErase {
    None,
    UserData,
    Crypto,
}

/// A status other than success, as the kernel gives it: the status code, and its type above.
#[must_use]
pub fn declined(command: &'static str, status: i32) -> CommandError {
    let (kind, code) = (status >> 8 & 0x7, status & 0xff);
    let (meaning, kind) = match (kind, code) {
        (0, 0x01) => ("invalid command opcode", Declining::Unsupported),
        (0, 0x02) => ("invalid field in the command", Declining::Unsupported),
        (0, 0x0b) => ("invalid namespace or format", Declining::Unsupported),
        (0, 0x0c) => ("command sequence error", Declining::Other),
        (0, 0x1c) => ("the last sanitize failed", Declining::SanitizeFailed),
        (0, 0x1d) => ("a sanitize is in progress", Declining::Busy),
        (0, 0x15) => ("operation denied", Declining::Other),
        (0, 0x20) => ("the namespace is write protected", Declining::Other),
        (0, 0x84) => ("a format is in progress", Declining::Busy),
        (1, 0x09) => ("invalid log page", Declining::Unsupported),
        (1, 0x0a) => ("invalid format", Declining::Other),
        (1, 0x10) => ("a firmware activation needs a reset first", Declining::Other),
        (1, 0x15) => ("there is not so much capacity", Declining::Other),
        (1, 0x16) => ("no number for a namespace is free", Declining::Other),
        (1, 0x18) => ("the namespace is attached already", Declining::Other),
        (1, 0x1a) => ("the namespace is not attached", Declining::Other),
        (1, 0x1e) => ("the boot partition is write protected", Declining::Other),
        (1, 0x1b) => ("thin provisioning is not supported", Declining::Other),
        _ => ("an error", Declining::Other),
    };
    CommandError::Declined { command, raw: format!("{status:#06x}"), meaning: meaning.into(), kind }
}

fn identify(device: &dyn Passthrough, name: &'static str, cns: u32, namespace: u32) -> Result<Vec<u8>, CommandError> {
    let mut page = vec![0; PAGE];
    let command = NvmeCommand { opcode: IDENTIFY, namespace, cdw10: cns, ..NvmeCommand::default() };
    device.nvme(name, &command, Data::In(&mut page), SOON)?;
    Ok(page)
}

/// # Errors
/// When no answer can be had.
pub fn controller(device: &dyn Passthrough) -> Result<Controller, CommandError> {
    let page = identify(device, "NVMe Identify Controller", 1, 0)?;
    Ok(Controller {
        id: le16(&page, 78),
        serial: super::text(&page[4..24]),
        firmware: super::text(&page[64..72]),
        // CMIC, bit 1.
        may_have_siblings: page[76] & 2 != 0,
        // FWUG, in units of 4 KiB; 0 says nothing, and the highest that any will do.
        download_granularity: usize::from(page[319] % 0xff) * 4096,
        optional_commands: le16(&page, 256),
        // Both are of 16 bytes; 16 EiB are enough for one controller.
        capacity: le64(&page, 280),
        unallocated: le64(&page, 296),
        warning_temperature: le16(&page, 266),
        sanitize: le32(&page, 328),
        namespaces: le32(&page, 516),
        format_attributes: page[524],
    })
}

/// A namespace that is there, attached or not.
///
/// # Errors
/// When no answer can be had.
pub fn namespace(device: &dyn Passthrough, id: u32) -> Result<Namespace, CommandError> {
    const NAME: &str = "NVMe Identify Namespace";
    let mut page = identify(device, NAME, 0, id)?;
    if le64(&page, 0) == 0 {
        // All zeroes for one that is not attached; then by its allocation.
        page = identify(device, "NVMe Identify allocated Namespace", 0x11, id)?;
    }
    Ok(parse_namespace(&page))
}

fn parse_namespace(page: &[u8]) -> Namespace {
    // Bits 3:0 of FLBAS and, for more than 16 formats, 6:5 above them.
    let in_use = (page[26] & 0x0f) | (page[26] >> 1 & 0x30);
    let formats = (0..=page[25]).filter(|index| *index < 64);
    Namespace {
        blocks: le64(page, 0),
        formats: formats
            .filter_map(|index| {
                let word = le32(page, 128 + 4 * usize::from(index));
                let shift = word >> 16 & 0xff;
                let bytes = 1u32.checked_shl(shift).filter(|_| (9..=16).contains(&shift))?;
                let performance = u8::try_from(word >> 24 & 3).ok()?;
                Some(LbaFormat { index, bytes, metadata: u16::try_from(word & 0xffff).ok()?, performance })
            })
            .collect(),
        in_use,
        protection: page[29] & 0x7,
    }
}

pub(super) fn log(
    device: &dyn Passthrough,
    name: &'static str,
    page: u8,
    bytes: &mut [u8],
) -> Result<(), CommandError> {
    let dwords = u32::try_from(bytes.len() / 4).unwrap_or(1) - 1;
    let cdw10 = u32::from(page) | (dwords & 0xffff) << 16;
    let command = NvmeCommand {
        opcode: GET_LOG_PAGE,
        namespace: ALL_NAMESPACES,
        cdw10,
        cdw11: dwords >> 16,
        ..NvmeCommand::default()
    };
    device.nvme(name, &command, Data::In(bytes), SOON).map(drop)
}

/// # Errors
/// When no answer can be had, from a controller that has no such log for instance.
pub fn sanitize_log(device: &dyn Passthrough) -> Result<SanitizeLog, CommandError> {
    const NAME: &str = "NVMe sanitize status log";
    let mut page = [0; 512];
    log(device, NAME, 0x81, &mut page)?;
    let state = match le16(&page, 2) & 0x7 {
        0 => SanitizeState::Never,
        1 | 4 => SanitizeState::Done,
        2 => SanitizeState::InProgress,
        3 => SanitizeState::Failed,
        other => {
            return Err(CommandError::Nonsense { command: NAME, what: format!("status {other}") });
        }
    };
    let mut raw = [0; 8];
    raw.copy_from_slice(&page[..8]);
    Ok(SanitizeLog { state, progress: le16(&page, 0), action: le32(&page, 4), raw })
}

/// Begins; [`sanitize_log`] tells when it is over. Failure cannot be waved away (AUSE is not set): a device whose
/// sanitize fails stays closed until one succeeds. Blocks stay allocated where the device lets us choose, so that what
/// was erased can be read.
///
/// # Errors
/// When the device declines.
pub fn sanitize(device: &dyn Passthrough, action: SanitizeAction, keep_allocated: bool) -> Result<(), CommandError> {
    const ONE_PASS: u32 = 1 << 4;
    const NO_DEALLOCATE: u32 = 1 << 9;
    let passes = if action == SanitizeAction::Overwrite { ONE_PASS } else { 0 };
    let keep = if keep_allocated { NO_DEALLOCATE } else { 0 };
    // Only read by the overwriting one; anything but zeroes, which prove nothing.
    let pattern = if action == SanitizeAction::Overwrite { 0x5aa5_c33c } else { 0 };
    let command = NvmeCommand {
        opcode: SANITIZE,
        cdw10: action.code() | passes | keep,
        cdw11: pattern,
        ..NvmeCommand::default()
    };
    device.nvme("NVMe Sanitize", &command, Data::None, SOON).map(drop)
}

/// Erases and formats one namespace, or all (`None`). Comes back when it is done.
///
/// # Errors
/// When the device declines or fails.
pub fn format(
    device: &dyn Passthrough,
    namespace: Option<u32>,
    lba_format: u8,
    erase: SecureErase,
) -> Result<(), CommandError> {
    let erase = match erase {
        SecureErase::None => 0u32,
        SecureErase::UserData => 1,
        SecureErase::Crypto => 2,
    };
    // The upper bits of the format go to 13:12. No metadata, no protection information.
    let cdw10 = u32::from(lba_format & 0x0f) | u32::from(lba_format >> 4 & 3) << 12 | erase << 9;
    let command = NvmeCommand {
        opcode: FORMAT_NVM,
        namespace: namespace.unwrap_or(ALL_NAMESPACES),
        cdw10,
        ..NvmeCommand::default()
    };
    device.nvme("NVMe Format NVM", &command, Data::None, FORMAT_LIMIT).map(drop)
}

fn security(opcode: u8, protocol: u8, specific: u16, length: usize) -> NvmeCommand {
    NvmeCommand {
        opcode,
        cdw10: u32::from(protocol) << 24 | u32::from(specific) << 8,
        cdw11: u32::try_from(length).unwrap_or(0),
        ..NvmeCommand::default()
    }
}

pub(super) fn security_receive(
    device: &dyn Passthrough,
    protocol: u8,
    specific: u16,
    data: &mut [u8],
) -> Result<(), CommandError> {
    let command = security(SECURITY_RECEIVE, protocol, specific, data.len());
    device.nvme("NVMe Security Receive", &command, Data::In(data), opal::ASKING).map(drop)
}

pub(super) fn security_send(
    device: &dyn Passthrough,
    protocol: u8,
    specific: u16,
    data: &[u8],
) -> Result<(), CommandError> {
    let command = security(SECURITY_SEND, protocol, specific, data.len());
    device.nvme("NVMe Security Send", &command, Data::Out(data), opal::SENDING).map(drop)
}

/// What the controller can do to forget, and what there is to forget.
///
/// # Errors
/// When it cannot be asked.
pub fn abilities(device: &dyn Passthrough, this: u32) -> Result<NvmeAbilities, CommandError> {
    let controller = controller(device)?;
    let mut others = Vec::new();
    for (id, attached) in namespaces(device)?.into_iter().filter(|(id, _)| *id != this) {
        others.push(OtherNamespace { id, size: namespace(device, id)?.size(), attached });
    }
    let attributes = controller.format_attributes;
    Ok(NvmeAbilities {
        sanitize_crypto: controller.sanitize & 1 != 0,
        sanitize_block: controller.sanitize & 2 != 0,
        sanitize_overwrite: controller.sanitize & 4 != 0,
        format: controller.can_format(),
        format_crypto: attributes & 4 != 0,
        format_takes_all: attributes & 3 != 0,
        namespace_management: controller.manages_namespaces(),
        namespace: this,
        others,
        boot_partition: boot::size(device),
        opal: if controller.takes_security_commands() { opal::discover(device, opal::Way::Nvme) } else { Opal::None },
    })
}
