//! A SAS disk (SPC-5, SBC-4).

use speediso_sys::passthrough::{Data, ScsiAnswer, Sense};

use super::{Core, Ended, Leaves, Quirk, give, inquiry};

#[derive(Clone, Debug, Default)]
pub(crate) struct Scsi {
    /// Service actions of SANITIZE that it has.
    pub(crate) sanitizes: Vec<u8>,
    /// It does not know REPORT SUPPORTED OPERATION CODES.
    pub(crate) reports_nothing: bool,
}

/// Fixed format sense data.
fn sense(key: u8, asc: u8, ascq: u8, progress: Option<u16>) -> [u8; 18] {
    let mut raw = [0; 18];
    (raw[0], raw[2], raw[7], raw[12], raw[13]) = (0x70, key, 10, asc, ascq);
    if let Some(progress) = progress {
        raw[15] = 0x80;
        raw[16..18].copy_from_slice(&progress.to_be_bytes());
    }
    raw
}

fn check_condition(raw: &[u8]) -> ScsiAnswer {
    ScsiAnswer { status: 2, sense: Sense::parse(raw) }
}

const INVALID_OPCODE: (u8, u8, u8) = (5, 0x20, 0);
const INVALID_FIELD: (u8, u8, u8) = (5, 0x24, 0);

impl Scsi {
    pub(crate) fn new() -> Self {
        Self { sanitizes: vec![1, 2, 3], reports_nothing: false }
    }

    pub(super) fn take(&mut self, core: &mut Core, name: &str, cdb: &[u8], mut data: Data<'_>) -> ScsiAnswer {
        let decline = |(key, asc, ascq)| check_condition(&sense(key, asc, ascq, None));
        let good = ScsiAnswer::default();
        match cdb {
            [0x12, 0, ..] => {
                inquiry(b"MAKER", &mut data);
                good
            }
            [0x03, ..] => {
                let raw = match (core.erasure, core.ended) {
                    (Some(_), _) => sense(2, 0x04, 0x1b, Some(core.progress())),
                    (None, Ended::Badly) => sense(3, 0x31, 0x03, None),
                    _ => sense(0, 0, 0, None),
                };
                give(&mut data, &raw);
                good
            }
            [0xa3, 0x0c, options, opcode, 0, action, ..] if !self.reports_nothing => {
                assert_eq!((*options & 7, *opcode), (2, 0x48), "{name} asks for one service action of SANITIZE");
                let supported = if self.sanitizes.contains(action) { 0b011 } else { 0b001 };
                give(&mut data, &[0, supported, 0, 10]);
                good
            }
            [opcode @ (0xa2 | 0xb5), protocol, s1, s0, 0, _, l3, l2, l1, l0, ..] => {
                let length = u32::from_be_bytes([*l3, *l2, *l1, *l0]);
                assert_eq!(usize::try_from(length).ok(), Some(data.len()), "{name}: as long as it says");
                assert_eq!(*opcode == 0xa2, matches!(data, Data::In(_)), "{name}: the way the data go");
                let taken = core.secure(*protocol, u16::from_be_bytes([*s1, *s0]), &mut data);
                if taken { good } else { decline(INVALID_FIELD) }
            }
            [0x48, ..] if core.is_locked() => check_condition(&sense(7, 0x74, 0x71, None)),
            [0x48, ..] if core.erasure.is_some() => check_condition(&sense(2, 0x04, 0x1b, Some(core.progress()))),
            [0x48, byte, _, _, _, _, _, high, low, 0] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                assert!(byte & 0x80 != 0, "without IMMED it would come back after hours");
                assert_eq!(byte & 0x20, 0, "a failure must not be waved away");
                let leaves = match (byte & 0x1f, &data) {
                    (1, Data::Out(parameters)) if parameters.len() == length && length == 8 => {
                        assert_eq!(parameters[..4], [1, 0, 0, 4], "one pass of four bytes");
                        let word = [parameters[4], parameters[5], parameters[6], parameters[7]];
                        Leaves::Pattern(u32::from_le_bytes(word))
                    }
                    (2, Data::None) if length == 0 => Leaves::Zeroes,
                    (3, Data::None) if length == 0 => Leaves::Noise,
                    _ => return decline(INVALID_FIELD),
                };
                if !self.sanitizes.contains(&(byte & 0x1f)) || core.quirk == Quirk::Aborts {
                    return decline(INVALID_FIELD);
                }
                core.changes.push("sanitize");
                core.begin(leaves);
                good
            }
            _ => decline(INVALID_OPCODE),
        }
    }
}
