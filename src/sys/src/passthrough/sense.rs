//! Sense data: what a SCSI device, or the translator in front of an ATA one, has to say (SPC-5, 4.4).

use std::fmt;

/// Taken out of either format.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sense {
    pub key: u8,
    pub asc: u8,
    pub ascq: u8,
    /// Of 65536, if it tells.
    pub progress: Option<u16>,
    /// What the ATA device's registers said, if this is about an ATA command.
    pub ata: Option<AtaRegisters>,
    pub raw: Vec<u8>,
}

/// The registers after an ATA command (SAT-4, 12.2.2.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AtaRegisters {
    pub status: u8,
    pub error: u8,
    pub count: u16,
    pub lba: u64,
}

impl Sense {
    /// `None` if these are no sense data.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let at = |i: usize| raw.get(i).copied().unwrap_or(0);
        let mut sense = match at(0) & 0x7f {
            0x70 | 0x71 => {
                let (key, asc, ascq) = (at(2) & 0x0f, at(12), at(13));
                let progress = (at(15) & 0x80 != 0).then(|| u16::from_be_bytes([at(16), at(17)]));
                // Fixed format squeezes the registers into its INFORMATION fields, without the upper halves.
                let ata = (asc == 0 && ascq == 0x1d).then(|| AtaRegisters {
                    error: at(3),
                    status: at(4),
                    count: u16::from(at(6)),
                    lba: u64::from(at(9)) | u64::from(at(10)) << 8 | u64::from(at(11)) << 16,
                });
                Self { key, asc, ascq, progress, ata, raw: Vec::new() }
            }
            0x72 | 0x73 => {
                let mut sense = Self { key: at(1) & 0x0f, asc: at(2), ascq: at(3), ..Self::default() };
                let mut rest = raw.get(8..8 + usize::from(at(7))).or_else(|| raw.get(8..)).unwrap_or_default();
                while let [kind, length, body @ ..] = rest {
                    let (body, next) = body.split_at_checked(usize::from(*length)).unwrap_or((body, &[]));
                    sense.descriptor(*kind, body);
                    rest = next;
                }
                sense
            }
            _ => return None,
        };
        sense.raw = raw.to_vec();
        Some(sense)
    }

    fn descriptor(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            // Sense key specific: two reserved bytes, then SKSV and the field.
            (0x02, [_, _, valid, high, low, ..]) if valid & 0x80 != 0 => {
                self.progress = Some(u16::from_be_bytes([*high, *low]));
            }
            // ATA status return; the bytes of the LBA come in the order of the registers.
            (0x09, [_, error, c1, c0, l3, l0, l4, l1, l5, l2, _, status, ..]) => {
                self.ata = Some(AtaRegisters {
                    status: *status,
                    error: *error,
                    count: u16::from_be_bytes([*c1, *c0]),
                    lba: u64::from_le_bytes([*l0, *l1, *l2, *l3, *l4, *l5, 0, 0]),
                });
            }
            _ => {}
        }
    }

    /// ILLEGAL REQUEST: the command or a field of it is not known.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.key == 5 && matches!((self.asc, self.ascq), (0x20, _) | (0x24, _) | (0x26, _))
    }

    #[must_use]
    pub fn is_sanitizing(&self) -> bool {
        (self.key, self.asc, self.ascq) == (2, 0x04, 0x1b)
    }

    #[must_use]
    pub fn has_failed_sanitizing(&self) -> bool {
        (self.asc, self.ascq) == (0x31, 0x03)
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KEYS: [&str; 16] = [
            "no sense",
            "recovered error",
            "not ready",
            "medium error",
            "hardware error",
            "illegal request",
            "unit attention",
            "data protect",
            "blank check",
            "vendor specific",
            "copy aborted",
            "aborted command",
            "reserved",
            "volume overflow",
            "miscompare",
            "completed",
        ];
        let meaning = match (self.asc, self.ascq) {
            (0x04, 0x1b) => ", sanitize in progress",
            (0x20, 0x00) => ", invalid command operation code",
            (0x24, 0x00) => ", invalid field in the command",
            (0x31, 0x03) => ", the sanitize command failed",
            (0x74, 0x71) => ", logical unit access not authorised",
            _ => "",
        };
        let key = KEYS.get(usize::from(self.key)).unwrap_or(&"?");
        write!(f, "{key}{meaning} (key {:x}, {:02x}/{:02x})", self.key, self.asc, self.ascq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_formats_say_the_same() {
        let mut fixed = [0; 18];
        (fixed[0], fixed[2], fixed[7], fixed[12], fixed[13]) = (0x70, 2, 10, 0x04, 0x1b);
        (fixed[15], fixed[16], fixed[17]) = (0x80, 0x40, 0x00);
        let descriptors = [0x72, 2, 0x04, 0x1b, 0, 0, 0, 8, 0x02, 6, 0, 0, 0x80, 0x40, 0x00, 0];
        for raw in [&fixed[..], &descriptors[..]] {
            let sense = Sense::parse(raw).expect("sense data");
            assert!(sense.is_sanitizing() && sense.progress == Some(0x4000), "{sense}");
        }
    }

    #[test]
    fn ata_registers_come_in_their_order() {
        let raw = [
            0x72, 1, 0, 0x1d, 0, 0, 0, 14, 0x09, 12, 1, 0x04, 0x80, 0x01, 0xa4, 0xa1, 0xa5, 0xa2, 0xa6, 0xa3, 0x40,
            0x51,
        ];
        let ata = Sense::parse(&raw).and_then(|s| s.ata).expect("a descriptor");
        assert_eq!(ata, AtaRegisters { status: 0x51, error: 0x04, count: 0x8001, lba: 0xa6a5_a4a3_a2a1 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(sense) = Sense::parse(&raw) {
                prop_assert!(!sense.to_string().is_empty());
            }
        }
    }
}
