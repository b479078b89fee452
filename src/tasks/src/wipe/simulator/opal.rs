//! The security processor of a self-encrypting disk (TCG Core 2.01, Opal SSC 2.02 with the PSID feature set), as far as Level 0
//! Discovery and a revert by PSID go. It reads what is sent to it byte by byte, with nothing of the code that wrote it.

use super::{Core, Leaves, Quirk};

/// Where it is spoken to.
pub(crate) const COM_ID: u16 = 0x1004;
/// A number of its own for every session.
const TPER: u32 = 0x0001_0203;

#[derive(Clone, Debug)]
pub(crate) struct Opal {
    psid: [u8; 32],
    pub(super) locked: bool,
    owned: bool,
    /// Of its feature descriptor: Opal 2.
    class: u16,
    encrypts: bool,
    /// Wrong PSIDs since power on.
    wrong: u8,
    session: Option<u32>,
    answer: Option<Vec<u8>>,
    /// It has to be asked once more before it answers.
    works: bool,
}

const NOT_AUTHORIZED: u8 = 0x01;
const LOCKED_OUT: u8 = 0x12;
const FAIL: u8 = 0x3f;
/// Tries before it takes no more.
const TRIES: u8 = 5;

impl Opal {
    /// Somebody's, and locked.
    pub(crate) fn locked(psid: &str) -> Self {
        Self {
            psid: psid.as_bytes().try_into().expect("32 characters"),
            locked: true,
            owned: true,
            class: 0x203,
            encrypts: true,
            wrong: 0,
            session: None,
            answer: None,
            works: false,
        }
    }

    /// With another feature descriptor.
    pub(crate) fn of_class(mut self, class: u16, encrypts: bool) -> Self {
        (self.class, self.encrypts) = (class, encrypts);
        self
    }

    /// What comes back from an address; `None` for one that it does not know.
    pub(super) fn receive(&mut self, protocol: u8, specific: u16) -> Option<Vec<u8>> {
        match (protocol, specific) {
            (1, 1) => Some(self.discovery()),
            (1, COM_ID) if self.works => {
                self.works = false;
                // Nothing yet, but something is to come.
                let mut page = vec![0; 20];
                page[4..6].copy_from_slice(&COM_ID.to_be_bytes());
                page[11] = 1;
                Some(page)
            }
            (1, COM_ID) => Some(self.answer.take().unwrap_or_else(|| vec![0; 20])),
            _ => None,
        }
    }

    fn discovery(&self) -> Vec<u8> {
        let mut page = vec![0; 48];
        page[7] = 1;
        // TPer, Locking, and the class.
        page.extend([0x00, 0x01, 0x10, 12, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let bits = 1 | u8::from(self.owned) << 1 | u8::from(self.locked) << 2 | u8::from(self.encrypts) << 3;
        page.extend([0x00, 0x02, 0x10, 12, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        page.extend(self.class.to_be_bytes());
        page.extend([0x10, 16]);
        page.extend(COM_ID.to_be_bytes());
        page.extend([0, 1, 0, 0, 4, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        let length = u32::try_from(page.len() - 4).expect("short");
        page[..4].copy_from_slice(&length.to_be_bytes());
        page
    }

    /// Takes a message apart and acts on it; `None` for an address that it does not know.
    pub(super) fn send(core: &mut Core, protocol: u8, specific: u16, data: &[u8]) -> Option<()> {
        assert!(data.len().is_multiple_of(512), "whole blocks");
        let mut opal = core.opal.take()?;
        let known = (protocol, specific) == (1, COM_ID);
        if known {
            opal.message(core, data);
        }
        core.opal = Some(opal);
        known.then_some(())
    }

    fn message(&mut self, core: &mut Core, data: &[u8]) {
        let word = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        assert_eq!(data[4..6], COM_ID.to_be_bytes(), "the address is inside as well");
        let (com_packet, packet, sub) = (word(16), word(40), word(52));
        assert_eq!(com_packet, packet + 24, "a packet fills its ComPacket");
        assert_eq!(packet, 12 + sub.next_multiple_of(4), "and a padded subpacket its packet");
        let payload = &data[56..56 + usize::try_from(sub).expect("small")];
        let (call, arguments) = payload.split_at(19);
        let start: &[u8] = &[0xf8, 0xa8, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xa8, 0, 0, 0, 0, 0, 0, 0xff, 0x02];
        let revert: &[u8] = &[0xf8, 0xa8, 0, 0, 2, 5, 0, 0, 0, 1, 0xa8, 0, 0, 0, 6, 0, 0, 2, 2];
        self.works = true;
        if call == start {
            assert_eq!(word(20), 0, "no session has a number yet");
            self.start(core, arguments);
        } else if call == revert {
            assert_eq!(arguments, [0xf0, 0xf1, 0xf9, 0xf0, 0, 0, 0, 0xf1], "it has no arguments");
            let ours = self.session.take() == Some(word(24)) && word(20) == TPER;
            assert!(ours, "outside of the session that was opened");
            self.revert(core);
        } else {
            panic!("an unknown call: {call:x?}");
        }
    }

    fn start(&mut self, core: &Core, arguments: &[u8]) {
        // [ host number, Admin SP, write, 0 = challenge, 3 = PSID authority ]
        let [0xf0, 0x81, host, rest @ ..] = arguments else { panic!("{arguments:x?}") };
        let (fixed, rest) = rest.split_at(14);
        assert_eq!(fixed, [0xa8, 0, 0, 2, 5, 0, 0, 0, 1, 0x01, 0xf2, 0x00, 0xd0, 32]);
        let (psid, rest) = rest.split_at(32);
        assert_eq!(rest[..2], [0xf3, 0xf2]);
        assert_eq!(rest[2..13], [0x03, 0xa8, 0, 0, 0, 9, 0, 1, 0xff, 0x01, 0xf3]);
        assert_eq!(rest[13..], [0xf1, 0xf9, 0xf0, 0, 0, 0, 0xf1]);
        let status = if self.wrong >= TRIES {
            LOCKED_OUT
        } else if psid != self.psid || core.quirk == Quirk::Aborts {
            self.wrong += 1;
            NOT_AUTHORIZED
        } else {
            0
        };
        let mut payload = vec![0xf8, 0xa8, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xa8, 0, 0, 0, 0, 0, 0, 0xff, 0x03, 0xf0];
        if status == 0 {
            self.session = Some(u32::from(*host));
            payload.extend([0x81, *host, 0x84]);
            payload.extend(TPER.to_be_bytes());
        }
        payload.extend([0xf1, 0xf9, 0xf0, status, 0, 0, 0xf1]);
        self.reply(&payload);
    }

    fn revert(&mut self, core: &mut Core) {
        core.changes.push("revert");
        let status = if core.quirk == Quirk::Fails { FAIL } else { 0 };
        if status == 0 {
            core.erase(Leaves::Noise);
            (self.locked, self.owned, self.wrong) = (false, false, 0);
        }
        self.reply(&[0xf0, 0xf1, 0xf9, 0xf0, status, 0, 0, 0xf1]);
    }

    fn reply(&mut self, payload: &[u8]) {
        let length = |n: usize| u32::try_from(n).expect("small").to_be_bytes();
        let padded = payload.len().next_multiple_of(4);
        let mut page = vec![0; 56 + padded];
        page[4..6].copy_from_slice(&COM_ID.to_be_bytes());
        page[16..20].copy_from_slice(&length(36 + padded));
        page[40..44].copy_from_slice(&length(12 + padded));
        page[52..56].copy_from_slice(&length(payload.len()));
        page[56..56 + payload.len()].copy_from_slice(payload);
        self.answer = Some(page);
    }
}
