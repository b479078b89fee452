//! A SATA disk behind a translator (ACS-4, SAT-4).

use speediso_sys::passthrough::{Data, ScsiAnswer, Sense};

use super::{Core, Ended, Leaves, Quirk, give, inquiry};

#[derive(Clone, Debug)]
pub(crate) struct Ata {
    /// Bits 13 to 15 of word 59: crypto scramble, overwrite, block erase.
    pub(crate) sanitizes: u16,
    pub(crate) sanitize_frozen: bool,
    pub(crate) security: bool,
    pub(crate) enhanced: bool,
    pub(crate) frozen: bool,
    pub(crate) locked: bool,
    pub(crate) password: Option<[u8; 32]>,
    /// Of 512 bytes.
    pub(crate) accessible: u64,
    pub(crate) native: u64,
    pub(crate) factory: u64,
    /// Whether SECURITY DISABLE PASSWORD works.
    pub(crate) keeps_password: bool,
    pub(crate) master: Option<[u8; 32]>,
    /// Security level maximum: the master password opens nothing.
    pub(crate) maximum: bool,
    /// Wrong passwords since power on.
    pub(crate) wrong: u8,
    prepared: bool,
}

/// Wrong passwords that it takes (4.19.9).
const TRIES: u8 = 5;

/// The registers that a command leaves.
struct Registers {
    error: u8,
    count: u16,
    lba: u64,
}

const FINE: Registers = Registers { error: 0, count: 0, lba: 0 };
const ABORT: Registers = Registers { error: 0x04, count: 0, lba: 0 };

impl Ata {
    pub(crate) fn new(mib: usize) -> Self {
        let sectors = (mib as u64) << 11;
        Self {
            sanitizes: 0b111 << 13,
            sanitize_frozen: false,
            security: true,
            enhanced: true,
            frozen: false,
            locked: false,
            password: None,
            accessible: sectors,
            native: sectors,
            factory: sectors,
            keeps_password: false,
            master: None,
            maximum: false,
            wrong: 0,
            prepared: false,
        }
    }

    pub(super) fn take(&mut self, core: &mut Core, name: &str, cdb: &[u8], mut data: Data<'_>) -> ScsiAnswer {
        if let [0x12, 0, ..] = cdb {
            inquiry(b"ATA", &mut data);
            return ScsiAnswer::default();
        }
        let Ok(cdb) = <&[u8; 16]>::try_from(cdb) else { panic!("{name}: not of 16 bytes") };
        assert_eq!(cdb[0], 0x85, "{name}: an ATA disk takes ATA PASS-THROUGH (16) only");
        let protocol = cdb[1] >> 1 & 0xf;
        let (check, from_device, length_in) = (cdb[2] & 0x20, cdb[2] & 0x08, cdb[2] & 0x03);
        let wants_registers = check != 0;
        assert_eq!(wants_registers, !matches!(data, Data::In(_)), "{name}: the registers are wanted, but with data");
        match &data {
            Data::None => assert_eq!((protocol, length_in), (3, 0), "{name}: no data"),
            Data::In(room) => {
                assert_eq!(
                    (protocol, from_device, length_in, room.len() % 512),
                    (4, 8, 2, 0),
                    "{name}: from the device"
                );
            }
            Data::Out(block) => {
                assert_eq!(
                    (protocol, from_device, length_in, block.len() % 512),
                    (5, 0, 2, 0),
                    "{name}: to the device"
                );
            }
        }
        let extended = cdb[1] & 1 != 0;
        let (mut feature, mut count) = (u16::from_be_bytes([cdb[3], cdb[4]]), u16::from_be_bytes([cdb[5], cdb[6]]));
        let mut lba = u64::from_le_bytes([cdb[8], cdb[10], cdb[12], cdb[7], cdb[9], cdb[11], 0, 0]);
        if !extended {
            (feature, count, lba) = (feature & 0xff, count & 0xff, lba & 0xff_ffff);
        }
        let left = self.command(core, cdb[14], extended, feature, count, lba, &mut data);
        // Descriptor format, with the ATA status return descriptor.
        if !wants_registers && left.error == 0 {
            return ScsiAnswer::default();
        }
        let status = if left.error == 0 { 0x50 } else { 0x51 };
        let (c, l) = (left.count.to_be_bytes(), left.lba.to_le_bytes());
        let (key, asc, ascq) = if left.error == 0 { (1, 0, 0x1d) } else { (0x0b, 0, 0) };
        let raw = [
            0x72,
            key,
            asc,
            ascq,
            0,
            0,
            0,
            14,
            0x09,
            12,
            u8::from(extended),
            left.error,
            c[0],
            c[1],
            l[3],
            l[0],
            l[4],
            l[1],
            l[5],
            l[2],
            0x40,
            status,
        ];
        ScsiAnswer { status: 2, sense: Sense::parse(&raw) }
    }

    #[allow(clippy::too_many_arguments, reason = "the registers")]
    fn command(
        &mut self,
        core: &mut Core,
        command: u8,
        extended: bool,
        feature: u16,
        count: u16,
        lba: u64,
        data: &mut Data<'_>,
    ) -> Registers {
        // Only the very next command may be the erase (7.43).
        let prepared = std::mem::take(&mut self.prepared);
        match (command, extended) {
            (0xec, false) => {
                give(data, &self.identity(core.opal.is_some()));
                FINE
            }
            (0xb4, true) if core.is_locked() && feature != 0 => ABORT,
            (0xb4, true) => self.sanitize(core, feature, count, lba),
            (0x5c | 0x5e, false) => {
                // The length in blocks, its upper byte in the LBA; then what the protocol makes of the rest.
                let blocks = usize::from(count) | usize::try_from(lba & 0xff).unwrap_or(0) << 8;
                assert_eq!((blocks * 512, command == 0x5c), (data.len(), matches!(data, Data::In(_))));
                let (protocol, specific) = (u8::try_from(feature).ok(), u16::try_from(lba >> 8).ok());
                let taken = protocol.zip(specific).is_some_and(|(p, s)| core.secure(p, s, data));
                if taken { FINE } else { ABORT }
            }
            _ if core.erasure.is_some() => ABORT,
            (0xb0, false) => Registers { lba: if lba == 0xc2_4f00 { lba } else { 0x2c_f400 }, ..FINE },
            (0x27, true) => Registers { lba: self.native - 1, ..FINE },
            (0x37, true) if lba < self.native && count == 1 => {
                core.changes.push("set max");
                self.accessible = lba + 1;
                FINE
            }
            (0xb1, false) if feature == 0xc2 => {
                let mut page = [0; 512];
                page[6..14].copy_from_slice(&(self.factory - 1).to_le_bytes());
                give(data, &page);
                FINE
            }
            // Not while a host protected area is set (7.9.4).
            (0xb1, false) if feature == 0xc0 && self.accessible == self.native => {
                core.changes.push("overlay restore");
                self.native = self.factory;
                FINE
            }
            (0xf1..=0xf6, false) => self.security(core, command, prepared, data),
            _ => ABORT,
        }
    }

    fn identity(&self, takes_trusted_commands: bool) -> Vec<u8> {
        let mut page = vec![0; 512];
        let mut word = |n: usize, value: u16| page[2 * n..2 * n + 2].copy_from_slice(&value.to_le_bytes());
        word(48, 1 << 14 | u16::from(takes_trusted_commands));
        word(59, if self.sanitizes == 0 { 0 } else { self.sanitizes | 1 << 12 });
        word(82, 1 << 10 | u16::from(self.security) << 1 | 1);
        word(83, 1 << 11);
        word(85, 1);
        word(89, 30);
        let expired = self.wrong >= TRIES;
        let bits = [self.security, self.password.is_some(), self.locked, self.frozen, expired, self.enhanced];
        word(128, bits.iter().enumerate().fold(0, |all, (i, bit)| all | u16::from(*bit) << i));
        page[200..208].copy_from_slice(&self.accessible.to_le_bytes());
        page[510] = 0xa5;
        page[511] = page.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
        page
    }

    fn sanitize(&mut self, core: &mut Core, feature: u16, count: u16, lba: u64) -> Registers {
        if self.sanitizes == 0 {
            return ABORT;
        }
        let leaves = match (feature, lba, count) {
            (0x00, ..) => {
                if count & 1 != 0 && core.ended == Ended::Badly {
                    core.ended = Ended::Never;
                }
                let bits = [
                    (15, core.ended == Ended::Well && core.erasure.is_none()),
                    (14, core.erasure.is_some()),
                    (13, self.sanitize_frozen),
                ];
                let count = bits.iter().fold(0, |all, (bit, set)| all | u16::from(*set) << bit);
                return Registers { count, lba: u64::from(core.progress()), ..FINE };
            }
            (0x11, 0x4372_7970, 0) if self.sanitizes & 1 << 13 != 0 => Leaves::Noise,
            (0x12, 0x426b_4572, 0) if self.sanitizes & 1 << 15 != 0 => Leaves::Zeroes,
            (0x14, key, 1) if key >> 32 == 0x4f57 && self.sanitizes & 1 << 14 != 0 => {
                Leaves::Pattern(u32::try_from(key & 0xffff_ffff).unwrap_or(0))
            }
            _ => return ABORT,
        };
        if self.sanitize_frozen || self.locked || core.erasure.is_some() || core.quirk == Quirk::Aborts {
            return ABORT;
        }
        core.changes.push("sanitize");
        core.begin(leaves);
        FINE
    }

    /// Table 11 of ACS-4, as far as it goes here: states SEC1 (disabled, not frozen) to SEC6 (enabled and frozen).
    fn security(&mut self, core: &mut Core, command: u8, prepared: bool, data: &Data<'_>) -> Registers {
        if !self.security || self.frozen {
            return ABORT;
        }
        let given = match data {
            Data::Out(block) => <[u8; 32]>::try_from(&block[2..34]).ok(),
            _ => None,
        };
        let by_master = matches!(data, Data::Out(block) if block[0] & 1 != 0);
        let right = given.is_some() && given == if by_master { self.master } else { self.password };
        match (command, given) {
            (0xf2, Some(_)) if self.wrong >= TRIES => ABORT,
            (0xf2, Some(_)) if !right || by_master && self.maximum => {
                self.wrong += 1;
                ABORT
            }
            (0xf2, Some(_)) => {
                core.changes.push("unlock");
                self.locked = false;
                FINE
            }
            (0xf1, Some(password)) if !self.locked => {
                core.changes.push("set password");
                self.password = Some(password);
                FINE
            }
            (0xf3, None) => {
                self.prepared = true;
                FINE
            }
            (0xf4, Some(_)) if prepared && right && core.quirk != Quirk::Aborts => {
                core.changes.push("erase unit");
                if core.quirk == Quirk::Fails {
                    return ABORT;
                }
                core.erase(Leaves::Zeroes);
                (self.password, self.locked) = (None, false);
                FINE
            }
            (0xf6, Some(_)) if right && !self.locked && !self.keeps_password => {
                core.changes.push("disable password");
                self.password = None;
                FINE
            }
            _ => ABORT,
        }
    }
}
