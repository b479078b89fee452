//! Self-encrypting disks: what they say of themselves (TCG Storage Architecture Core 2.01, Level 0 Discovery), and having
//! one forget everything by the PSID of its label (Opal SSC 2.02, Revert of the Admin SP; Opal PSID feature set).
//!
//! The messages travel inside the security commands of each command set: Security Send and Receive (NVMe), TRUSTED SEND and
//! RECEIVE (ATA), SECURITY PROTOCOL OUT and IN (SCSI).

mod message;

use std::time::{Duration, Instant};

use speediso_model::abilities::{Opal, OpalAbilities, SecurityClass};

use self::message::{Answer, Call, Token};
use super::{CommandError, Data, Declining, Passthrough, SOON, ata, nvme, scsi};

/// By which command set a disk is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Nvme,
    Ata,
    Scsi,
}

/// Security protocol 1: TCG.
pub(super) const PROTOCOL: u8 = 1;
/// The address of Level 0 Discovery.
pub(super) const DISCOVERY: u16 = 1;
/// Of every message: a multiple of 512 in which all that is said here has room.
const ROOM: usize = 2048;
/// For the disk to work on one call. Making a new key is quick, but some erase their tables first.
const PATIENCE: Duration = Duration::from_mins(2);

fn receive(device: &dyn Passthrough, way: Way, specific: u16, data: &mut [u8]) -> Result<(), CommandError> {
    match way {
        Way::Nvme => nvme::security_receive(device, PROTOCOL, specific, data),
        Way::Ata => ata::trusted_receive(device, PROTOCOL, specific, data),
        Way::Scsi => scsi::security_in(device, PROTOCOL, specific, data),
    }
}

fn send(device: &dyn Passthrough, way: Way, specific: u16, data: &[u8]) -> Result<(), CommandError> {
    match way {
        Way::Nvme => nvme::security_send(device, PROTOCOL, specific, data),
        Way::Ata => ata::trusted_send(device, PROTOCOL, specific, data),
        Way::Scsi => scsi::security_out(device, PROTOCOL, specific, data),
    }
}

/// What the disk says of itself. One that does not know the question is none; one whose answer does not come through is
/// told as unread.
pub fn discover(device: &dyn Passthrough, way: Way) -> Opal {
    let mut page = vec![0; ROOM];
    match receive(device, way, DISCOVERY, &mut page) {
        Ok(()) => parse_discovery(&page),
        // libata lets no trusted command through unless it is told to at boot.
        Err(_) if way == Way::Ata => Opal::Unread(
            "the kernel lets no TRUSTED command through without libata.allow_tpm=1 on its command line".into(),
        ),
        Err(error) if error.declining() == Some(Declining::Unsupported) => Opal::None,
        Err(error) => Opal::Unread(error.to_string()),
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}

/// The features that a disk lists, after a header of 48 bytes.
fn parse_discovery(page: &[u8]) -> Opal {
    const HEADER: usize = 48;
    // The length does not count itself.
    let end = usize::try_from(be32(page, 0)).map_or(0, |n| n.saturating_add(4)).min(page.len());
    let mut class: Option<(SecurityClass, u16)> = None;
    let (mut encrypts, mut locking_enabled, mut locked) = (false, false, false);
    let mut at = HEADER;
    while at + 4 <= end {
        let length = usize::from(page[at + 3]);
        let Some(body) = page.get(at + 4..at + 4 + length) else { break };
        let found = match be16(page, at) {
            0x0002 => {
                let bits = body.first().copied().unwrap_or(0);
                (locking_enabled, locked, encrypts) = (bits & 2 != 0, bits & 4 != 0, bits & 8 != 0);
                None
            }
            0x0100 => Some(SecurityClass::Enterprise),
            0x0200 => Some(SecurityClass::Opal1),
            0x0203 => Some(SecurityClass::Opal2),
            0x0301 => Some(SecurityClass::Opalite),
            0x0302 | 0x0303 => Some(SecurityClass::Pyrite),
            0x0304 => Some(SecurityClass::Ruby),
            _ => None,
        };
        // A disk with two generations of Opal is spoken to as the younger, which comes later.
        if let Some(found) = found {
            class = Some((found, be16(body, 0)));
        }
        at += 4 + length;
    }
    match class {
        Some((class, com_id)) => Opal::Has(OpalAbilities { class, com_id, encrypts, locking_enabled, locked }),
        None => Opal::None,
    }
}

/// Sends a call and waits for its answer.
fn converse(
    device: &dyn Passthrough,
    way: Way,
    com_id: u16,
    name: &'static str,
    message: &[u8],
) -> Result<Answer, CommandError> {
    let mut page = vec![0; ROOM];
    page[..message.len()].copy_from_slice(message);
    send(device, way, com_id, &page)?;
    let begun = Instant::now();
    loop {
        page.fill(0);
        receive(device, way, com_id, &mut page)?;
        match Answer::parse(&page) {
            Ok(Some(answer)) => return Ok(answer),
            // It is not ready yet.
            Ok(None) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            Ok(None) => return Err(CommandError::Nonsense { command: name, what: "it never answers".into() }),
            Err(what) => return Err(CommandError::Nonsense { command: name, what: what.into() }),
        }
    }
}

/// The status at the end of an answer (Core 2.01, 5.1.5).
fn judge(name: &'static str, answer: &Answer) -> Result<(), CommandError> {
    let (status, kind) = match answer.status() {
        Some(0) => return Ok(()),
        Some(status) => (status, Declining::Other),
        None => return Err(CommandError::Nonsense { command: name, what: "it tells no status".into() }),
    };
    let meaning = match status {
        0x01 => "not authorised: that is not its PSID",
        0x03 => "another session is open",
        0x07 => "no session is available",
        0x0c => "invalid function",
        0x12 => "authority locked out: too many wrong tries, power-cycle the disk",
        0x3f => "it has failed",
        _ => "an error",
    };
    Err(CommandError::Declined { command: name, raw: format!("{status:#04x}"), meaning: meaning.into(), kind })
}

/// Reverts the disk to what it was when it left the factory: new keys, nobody's passwords. Ends when it has answered.
///
/// # Errors
/// [`CommandError::Declined`] before the revert leaves everything as it was, a wrong PSID for instance. Of one that fails
/// or whose answer is lost nobody knows what it did.
pub fn revert_by_psid(device: &dyn Passthrough, way: Way, com_id: u16, psid: &str) -> Result<(), RevertError> {
    const START: &str = "TCG StartSession as PSID";
    const REVERT: &str = "TCG Revert";
    // A number of ours for the session; the disk answers with one of its own.
    const HOST: u64 = 0x53;
    let start = Call::start_session(HOST, psid.as_bytes()).message(com_id, 0, 0);
    let answer = converse(device, way, com_id, START, &start).map_err(RevertError::Before)?;
    judge(START, &answer).map_err(RevertError::Before)?;
    let session = answer
        .tokens()
        .filter_map(|token| if let Token::Uint(number) = token { Some(number) } else { None })
        .collect::<Vec<u64>>();
    let nonsense = |what: &str| RevertError::Before(CommandError::Nonsense { command: START, what: what.into() });
    let [HOST, tper, ..] = session.as_slice() else { return Err(nonsense("it answers another session")) };
    let tper = u32::try_from(*tper).map_err(|_| nonsense("the number of its session is too large"))?;
    let revert = Call::revert().message(com_id, tper, u32::try_from(HOST).unwrap_or_default());
    let answer = converse(device, way, com_id, REVERT, &revert).map_err(RevertError::During)?;
    // The disk ends the session by itself.
    judge(REVERT, &answer).map_err(RevertError::During)
}

/// When a revert went wrong.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// Nothing was reverted.
    #[error(transparent)]
    Before(CommandError),
    /// It was told to.
    #[error(transparent)]
    During(CommandError),
}

/// For the commands that carry messages: an answer is fetched, and a call is taken, before it is worked on.
pub(super) const ASKING: Duration = SOON;
pub(super) const SENDING: Duration = Duration::from_mins(1);

/// For transports whose blocks are of 512 bytes.
pub(super) fn blocks(command: &'static str, data: &Data<'_>) -> Result<u16, CommandError> {
    u16::try_from(data.len() / 512)
        .ok()
        .filter(|n| *n > 0 && data.len().is_multiple_of(512))
        .ok_or_else(|| CommandError::Nonsense { command, what: format!("{} bytes are no whole blocks", data.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feature(code: u16, body: &[u8]) -> Vec<u8> {
        let mut all = code.to_be_bytes().to_vec();
        all.extend([0x10, u8::try_from(body.len()).expect("short")]);
        all.extend(body);
        all
    }

    fn discovery(features: &[Vec<u8>]) -> Vec<u8> {
        let mut page = vec![0; 48];
        page.extend(features.iter().flatten());
        let length = u32::try_from(page.len() - 4).expect("short");
        page[..4].copy_from_slice(&length.to_be_bytes());
        page
    }

    #[test]
    fn a_disk_is_known_by_its_features() {
        let tper = feature(1, &[0x11; 12]);
        let locking = feature(2, &[0b1111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let opal1 = feature(0x200, &[0x10, 0x00, 0, 1]);
        let opal2 = feature(0x203, &[0x10, 0x04, 0, 1]);
        let found = parse_discovery(&discovery(&[tper.clone(), locking.clone(), opal1, opal2]));
        let wanted = OpalAbilities {
            class: SecurityClass::Opal2,
            com_id: 0x1004,
            encrypts: true,
            locking_enabled: true,
            locked: true,
        };
        assert_eq!(found, Opal::Has(wanted));
        assert_eq!(parse_discovery(&discovery(&[tper, locking])), Opal::None);
        assert_eq!(parse_discovery(&[0; ROOM]), Opal::None);
    }

    proptest! {
        #[test]
        fn any_discovery_is_read_without_a_panic(page in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse_discovery(&page);
        }
    }
}
