//! ATA commands (ACS-4) inside ATA PASS-THROUGH (16) (SAT-4, 12.2.2).

mod security;

use std::time::Duration;

use speediso_model::abilities::{AtaAbilities, Opal};
use speediso_model::units::Bytes;

pub use self::security::{
    ERASE_PASSWORD, Password, SecurityErase, security_disable, security_disable_ours, security_erase,
    security_set_password, security_unlock,
};
use super::sense::AtaRegisters;
use super::{CommandError, Data, Declining, Passthrough, SOON, le16, le64, opal, scsi};

pub(super) const IDENTIFY_DEVICE: u8 = 0xec;
pub(super) const READ_NATIVE_MAX_ADDRESS_EXT: u8 = 0x27;
pub(super) const SET_MAX_ADDRESS_EXT: u8 = 0x37;
pub(super) const DEVICE_CONFIGURATION: u8 = 0xb1;
pub(super) const DCO_RESTORE: u16 = 0xc0;
pub(super) const DCO_IDENTIFY: u16 = 0xc2;
pub(super) const ACCESSIBLE_MAX_ADDRESS: u8 = 0x78;
pub(super) const GET_NATIVE_MAX: u16 = 0;
pub(super) const SET_ACCESSIBLE_MAX: u16 = 1;
pub(super) const SANITIZE_DEVICE: u8 = 0xb4;
pub(super) const SANITIZE_STATUS: u16 = 0;
pub(super) const SMART: u8 = 0xb0;
pub(super) const SMART_READ_DATA: u16 = 0xd0;
pub(super) const SMART_RETURN_STATUS: u16 = 0xda;
pub(super) const TRUSTED_RECEIVE: u8 = 0x5c;
const TRUSTED_SEND: u8 = 0x5e;
pub(super) const SMART_READ_LOG: u16 = 0xd5;
pub(super) const READ_LOG_EXT: u8 = 0x2f;

const SECTOR: u64 = 512;

/// In the address of every SMART command.
pub(super) const SMART_KEY: u64 = 0xc2_4f00;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SanitizeAction {
    Crypto,
    Block,
    Overwrite,
}

/// What SANITIZE STATUS EXT says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SanitizeStatus {
    pub in_progress: bool,
    /// The last one ended without an error. Never true where there was none.
    pub succeeded: bool,
    pub frozen: bool,
    /// Of 65536.
    pub progress: u16,
    pub registers: AtaRegisters,
}

/// The fields of a command. Feature and count of 28-bit commands are their lower bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Fields {
    pub(super) feature: u16,
    pub(super) count: u16,
    pub(super) lba: u64,
    /// LBA mode and the like.
    pub(super) device: u8,
    /// 48-bit.
    pub(super) extended: bool,
}

pub(super) fn send(
    device: &dyn Passthrough,
    name: &'static str,
    command: u8,
    fields: Fields,
    data: Data<'_>,
    limit: Duration,
) -> Result<AtaRegisters, CommandError> {
    const NO_DATA: u8 = 3;
    const PIO_IN: u8 = 4;
    const PIO_OUT: u8 = 5;
    const CHECK_CONDITION: u8 = 0x20;
    const FROM_DEVICE: u8 = 0x08;
    /// The count field tells how many blocks of 512 bytes go along.
    const BLOCKS_IN_COUNT: u8 = 0x06;
    // With the registers in the sense data, whether it went well or not; but for data from the device: behind AHCI its
    // status still has the bit that data are waiting, which libata, asked for the registers, takes for a failure.
    let (protocol, transfer) = match &data {
        Data::None => (NO_DATA, CHECK_CONDITION),
        Data::In(_) => (PIO_IN, FROM_DEVICE | BLOCKS_IN_COUNT),
        Data::Out(_) => (PIO_OUT, CHECK_CONDITION | BLOCKS_IN_COUNT),
    };
    let [l0, l1, l2, l3, l4, l5, ..] = fields.lba.to_le_bytes();
    let ([f1, f0], [c1, c0]) = (fields.feature.to_be_bytes(), fields.count.to_be_bytes());
    let cdb = [
        scsi::ATA_PASS_THROUGH_16,
        protocol << 1 | u8::from(fields.extended),
        transfer,
        f1,
        f0,
        c1,
        c0,
        l3,
        l0,
        l4,
        l1,
        l5,
        l2,
        fields.device,
        command,
        0,
    ];
    let answer = device.scsi(name, &cdb, data, limit)?;
    let declined =
        |raw: String, meaning: String, kind| Err(CommandError::Declined { command: name, raw, meaning, kind });
    let Some(sense) = answer.sense else {
        return match answer.status {
            // Some translators save themselves the registers of a success.
            0 => Ok(AtaRegisters { status: 0x50, ..AtaRegisters::default() }),
            status => declined(format!("status {status:#04x}"), "no reason".into(), Declining::Other),
        };
    };
    let raw = || speediso_model::plan::hex(&sense.raw);
    match sense.ata {
        // ERR and DF of the status register.
        Some(registers) if registers.status & 0x21 == 0 => Ok(registers),
        Some(registers) => {
            let aborted = registers.error & 0x04 != 0;
            let meaning = format!(
                "{} (status {:02x}, error {:02x})",
                if aborted { "it aborts the command" } else { "an error" },
                registers.status,
                registers.error
            );
            declined(raw(), meaning, if aborted { Declining::Unsupported } else { Declining::Other })
        }
        None if answer.status == 0 || sense.key <= 1 => Ok(AtaRegisters { status: 0x50, ..AtaRegisters::default() }),
        None => {
            // libata turns an abort into sense data of its own.
            let aborted = sense.key == 0x0b || sense.is_unsupported();
            declined(raw(), sense.to_string(), if aborted { Declining::Unsupported } else { Declining::Other })
        }
    }
}

/// IDENTIFY DEVICE, 256 words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity(Vec<u8>);

impl Identity {
    pub(super) fn word(&self, n: usize) -> u16 {
        le16(&self.0, 2 * n)
    }

    pub(super) fn bit(&self, word: usize, bit: u32) -> bool {
        self.word(word) >> bit & 1 != 0
    }

    /// Strings have the bytes of each word swapped.
    fn text(&self, words: std::ops::Range<usize>) -> String {
        let bytes: Vec<u8> = words.flat_map(|n| self.word(n).to_be_bytes()).collect();
        super::text(&bytes)
    }

    #[must_use]
    pub fn firmware(&self) -> String {
        self.text(23..27)
    }

    /// In sectors of 512 bytes; 4Kn ATA disks say their own size in words 117 and 118.
    fn sector(&self) -> u64 {
        let (valid, long) = (self.word(106) & 0xc000 == 0x4000, self.bit(106, 12));
        let words = u64::from(self.word(117)) | u64::from(self.word(118)) << 16;
        if valid && long && words > 0 { words * 2 } else { SECTOR }
    }

    fn accessible(&self) -> u64 {
        le64(&self.0, 200).saturating_mul(self.sector())
    }

    fn has_hpa(&self) -> bool {
        self.bit(82, 10)
    }

    fn has_overlay(&self) -> bool {
        self.bit(83, 11)
    }

    fn has_accessible_max(&self) -> bool {
        self.word(119) & 0xc000 == 0x4000 && self.bit(119, 8)
    }

    fn has_trusted_commands(&self) -> bool {
        self.word(48) & 0xc000 == 0x4000 && self.bit(48, 0)
    }

    pub(super) fn has_smart(&self) -> bool {
        self.bit(82, 0) && self.bit(85, 0)
    }

    /// Minutes in word 89 or 90; 8 bits of two minutes each, or 15 bits where bit 15 says so.
    fn minutes(&self, word: usize) -> Option<u32> {
        let value = self.word(word);
        let minutes = if value & 0x8000 != 0 { u32::from(value & 0x7fff) * 2 } else { u32::from(value & 0xff) * 2 };
        (minutes > 0).then_some(minutes)
    }
}

/// # Errors
/// When no answer can be had.
pub fn identify(device: &dyn Passthrough) -> Result<Identity, CommandError> {
    const NAME: &str = "ATA IDENTIFY DEVICE";
    let mut page = vec![0; 512];
    let fields = Fields { count: 1, ..Fields::default() };
    send(device, NAME, IDENTIFY_DEVICE, fields, Data::In(&mut page), SOON)?;
    let sum = page.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if page[510] == 0xa5 && sum != 0 {
        return Err(CommandError::Nonsense { command: NAME, what: "its check sum is wrong".into() });
    }
    Ok(Identity(page))
}

const LBA_MODE: u8 = 0x40;

/// Bytes that could be addressed if no host protected area or lowered maximum hid some; none where the disk does not
/// tell, because it has no such feature, is locked, or is sanitizing itself.
fn native(device: &dyn Passthrough, identity: &Identity) -> Result<Option<u64>, CommandError> {
    let (name, command, feature) = if identity.has_accessible_max() {
        ("ATA GET NATIVE MAX ADDRESS EXT", ACCESSIBLE_MAX_ADDRESS, GET_NATIVE_MAX)
    } else if identity.has_hpa() {
        ("ATA READ NATIVE MAX ADDRESS EXT", READ_NATIVE_MAX_ADDRESS_EXT, 0)
    } else {
        return Ok(None);
    };
    let fields = Fields { feature, device: LBA_MODE, extended: true, ..Fields::default() };
    let registers = match send(device, name, command, fields, Data::None, SOON) {
        Err(e) if e.declining() == Some(Declining::Unsupported) => return Ok(None),
        answer => answer?,
    };
    Ok((registers.lba > 0).then(|| (registers.lba + 1).saturating_mul(identity.sector())))
}

/// What the maker made, by DEVICE CONFIGURATION IDENTIFY.
fn factory(device: &dyn Passthrough, identity: &Identity) -> Result<Option<u64>, CommandError> {
    if !identity.has_overlay() {
        return Ok(None);
    }
    const NAME: &str = "ATA DEVICE CONFIGURATION IDENTIFY";
    let mut page = vec![0; 512];
    let fields = Fields { feature: DCO_IDENTIFY, count: 1, ..Fields::default() };
    match send(device, NAME, DEVICE_CONFIGURATION, fields, Data::In(&mut page), SOON) {
        // Words 3 to 6: the highest address that could be had.
        Ok(_) => Ok(Some((le64(&page, 6) + 1).saturating_mul(identity.sector()))),
        // Frozen or locked by the firmware: then nobody can say, and nobody claims to.
        Err(e) if e.declining() == Some(Declining::Unsupported) => Ok(None),
        Err(e) => Err(e),
    }
}

/// # Errors
/// When the device cannot be asked.
pub fn abilities(device: &dyn Passthrough) -> Result<AtaAbilities, CommandError> {
    let identity = identify(device)?;
    let security = identity.word(128);
    let sanitizes = identity.bit(59, 12);
    let frozen = sanitizes && sanitize_status(device)?.frozen;
    Ok(AtaAbilities {
        sanitize_crypto: sanitizes && identity.bit(59, 13),
        sanitize_overwrite: sanitizes && identity.bit(59, 14),
        sanitize_block: sanitizes && identity.bit(59, 15),
        sanitize_frozen: frozen,
        security: security & 1 != 0,
        security_enabled: security & 1 << 1 != 0,
        security_locked: security & 1 << 2 != 0,
        security_frozen: security & 1 << 3 != 0,
        security_expired: security & 1 << 4 != 0,
        security_enhanced: security & 1 << 5 != 0,
        erase_minutes: identity.minutes(89),
        enhanced_erase_minutes: identity.minutes(90),
        accessible: Bytes(identity.accessible()),
        native: native(device, &identity)?.map(Bytes),
        factory: factory(device, &identity)?.map(Bytes),
        opal: if identity.has_trusted_commands() { opal::discover(device, opal::Way::Ata) } else { Opal::None },
    })
}

/// TRUSTED RECEIVE and SEND: the protocol in the feature, the blocks in the count and the lowest byte of the LBA, the
/// address above them.
fn trusted(
    device: &dyn Passthrough,
    name: &'static str,
    command: u8,
    protocol: u8,
    specific: u16,
    data: Data<'_>,
    limit: Duration,
) -> Result<(), CommandError> {
    let [high, low] = opal::blocks(name, &data)?.to_be_bytes();
    let fields = Fields {
        feature: u16::from(protocol),
        count: u16::from(low),
        lba: u64::from(high) | u64::from(specific) << 8,
        ..Fields::default()
    };
    send(device, name, command, fields, data, limit).map(drop)
}

pub(super) fn trusted_receive(
    device: &dyn Passthrough,
    protocol: u8,
    specific: u16,
    data: &mut [u8],
) -> Result<(), CommandError> {
    trusted(device, "ATA TRUSTED RECEIVE", TRUSTED_RECEIVE, protocol, specific, Data::In(data), opal::ASKING)
}

pub(super) fn trusted_send(
    device: &dyn Passthrough,
    protocol: u8,
    specific: u16,
    data: &[u8],
) -> Result<(), CommandError> {
    trusted(device, "ATA TRUSTED SEND", TRUSTED_SEND, protocol, specific, Data::Out(data), opal::SENDING)
}

/// # Errors
/// When no answer can be had.
pub fn sanitize_status(device: &dyn Passthrough) -> Result<SanitizeStatus, CommandError> {
    let fields = Fields { feature: SANITIZE_STATUS, device: LBA_MODE, extended: true, ..Fields::default() };
    let registers = send(device, "ATA SANITIZE STATUS EXT", SANITIZE_DEVICE, fields, Data::None, SOON)?;
    Ok(SanitizeStatus {
        succeeded: registers.count & 1 << 15 != 0,
        in_progress: registers.count & 1 << 14 != 0,
        frozen: registers.count & 1 << 13 != 0,
        progress: u16::try_from(registers.lba & 0xffff).unwrap_or(0),
        registers,
    })
}

/// Begins; [`sanitize_status`] tells when it is over.
///
/// # Errors
/// When the device declines.
pub fn sanitize(device: &dyn Passthrough, action: SanitizeAction) -> Result<(), CommandError> {
    // The LBA carries words of the standard, so that no stray command does this.
    let (name, feature, lba, count) = match action {
        SanitizeAction::Crypto => ("ATA CRYPTO SCRAMBLE EXT", 0x11, 0x4372_7970, 0),
        SanitizeAction::Block => ("ATA BLOCK ERASE EXT", 0x12, 0x426b_4572, 0),
        // One pass of a pattern; 0 would mean 16.
        SanitizeAction::Overwrite => ("ATA OVERWRITE EXT", 0x14, 0x4f57_5aa5_c33c, 1),
    };
    let fields = Fields { feature, count, lba, device: LBA_MODE, extended: true };
    send(device, name, SANITIZE_DEVICE, fields, Data::None, Duration::from_mins(2)).map(drop)
}

/// Gives back whatever a device configuration overlay hides. The accessible size grows with [`open_native`] only.
///
/// # Errors
/// When the device declines: the overlay is frozen, or a host protected area is in the way.
pub fn overlay_restore(device: &dyn Passthrough) -> Result<(), CommandError> {
    let fields = Fields { feature: DCO_RESTORE, ..Fields::default() };
    let name = "ATA DEVICE CONFIGURATION RESTORE";
    send(device, name, DEVICE_CONFIGURATION, fields, Data::None, SOON).map(drop)
}

/// Raises the accessible size to the native one, for good.
///
/// # Errors
/// When the device declines: it does so a second time since power on, or after a freeze or lock of the feature.
pub fn open_native(device: &dyn Passthrough) -> Result<Bytes, CommandError> {
    let identity = identify(device)?;
    let Some(bytes) = native(device, &identity)? else { return Ok(Bytes(identity.accessible())) };
    let lba = (bytes / identity.sector()).saturating_sub(1);
    let (name, command, feature, count) = if identity.has_accessible_max() {
        ("ATA SET ACCESSIBLE MAX ADDRESS EXT", ACCESSIBLE_MAX_ADDRESS, SET_ACCESSIBLE_MAX, 0)
    } else {
        // Bit 0 of the count makes it outlast the power.
        ("ATA SET MAX ADDRESS EXT", SET_MAX_ADDRESS_EXT, 0, 1)
    };
    let fields = Fields { feature, count, lba, device: LBA_MODE, extended: true };
    send(device, name, command, fields, Data::None, SOON)?;
    Ok(Bytes(bytes))
}

/// The 512 bytes of SMART READ DATA: attributes, and how the last self-test stands.
pub(super) fn smart_data(device: &dyn Passthrough) -> Result<Vec<u8>, CommandError> {
    let mut page = vec![0; 512];
    let fields = Fields { feature: SMART_READ_DATA, count: 1, lba: SMART_KEY, ..Fields::default() };
    send(device, "ATA SMART READ DATA", SMART, fields, Data::In(&mut page), SOON)?;
    Ok(page)
}

/// SMART EXECUTE OFF-LINE IMMEDIATE: begins a self-test, which goes on beside other commands.
pub(super) fn begin_self_test(device: &dyn Passthrough, subcommand: u8) -> Result<(), CommandError> {
    const EXECUTE_OFF_LINE: u16 = 0xd4;
    let fields = Fields { feature: EXECUTE_OFF_LINE, lba: SMART_KEY | u64::from(subcommand), ..Fields::default() };
    send(device, "ATA SMART self-test", SMART, fields, Data::None, SOON).map(drop)
}
