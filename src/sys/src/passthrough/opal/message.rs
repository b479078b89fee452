//! Calls and answers as TCG's token streams in their three envelopes (Core 2.01, 3.2.2 and 3.2.3).

const COM_PACKET: usize = 20;
const PACKET: usize = 24;
const SUB_PACKET: usize = 12;

const START_LIST: u8 = 0xf0;
const END_LIST: u8 = 0xf1;
const START_NAME: u8 = 0xf2;
const END_NAME: u8 = 0xf3;
const CALL: u8 = 0xf8;
const END_OF_DATA: u8 = 0xf9;

/// Core 2.01, table 241 and the method identifiers; Opal SSC 2.02, 4.2.
const SESSION_MANAGER: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0xff];
const START_SESSION: [u8; 8] = [0, 0, 0, 0, 0, 0, 0xff, 0x02];
const ADMIN_SP: [u8; 8] = [0, 0, 0x02, 0x05, 0, 0, 0, 1];
const PSID_AUTHORITY: [u8; 8] = [0, 0, 0, 0x09, 0, 1, 0xff, 0x01];
const REVERT: [u8; 8] = [0, 0, 0, 0x06, 0, 0, 0x02, 0x02];

/// One method call.
pub(super) struct Call(Vec<u8>);

impl Call {
    fn of(object: [u8; 8], method: [u8; 8], arguments: impl FnOnce(&mut Self)) -> Self {
        let mut call = Self(vec![CALL]);
        call.bytes(&object);
        call.bytes(&method);
        call.0.push(START_LIST);
        arguments(&mut call);
        call.0.extend([END_LIST, END_OF_DATA, START_LIST, 0, 0, 0, END_LIST]);
        call
    }

    /// A session that may change things, with the Admin SP, as whoever has read the label.
    pub(super) fn start_session(host: u64, psid: &[u8]) -> Self {
        Self::of(SESSION_MANAGER, START_SESSION, |call| {
            call.uint(host);
            call.bytes(&ADMIN_SP);
            call.uint(1);
            // HostChallenge and HostSigningAuthority.
            for (name, value) in [(0, psid), (3, &PSID_AUTHORITY[..])] {
                call.0.push(START_NAME);
                call.uint(name);
                call.bytes(value);
                call.0.push(END_NAME);
            }
        })
    }

    pub(super) fn revert() -> Self {
        Self::of(ADMIN_SP, REVERT, |_| {})
    }

    fn uint(&mut self, value: u64) {
        if let Ok(tiny @ 0..64) = u8::try_from(value) {
            self.0.push(tiny);
            return;
        }
        let bytes = value.to_be_bytes();
        let used = &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(7)..];
        self.0.push(0x80 | u8::try_from(used.len()).unwrap_or(8));
        self.0.extend(used);
    }

    fn bytes(&mut self, value: &[u8]) {
        match u8::try_from(value.len()) {
            Ok(short @ 0..16) => self.0.push(0xa0 | short),
            // Medium atoms have eleven bits of length; nothing said here is longer.
            _ => {
                let length = u16::try_from(value.len()).unwrap_or(0) & 0x7ff;
                self.0.extend((0xd000 | length).to_be_bytes());
            }
        }
        self.0.extend(value);
    }

    /// In its envelopes.
    pub(super) fn message(&self, com_id: u16, tper: u32, host: u32) -> Vec<u8> {
        let length = |n: usize| u32::try_from(n).unwrap_or(0).to_be_bytes();
        let padded = self.0.len().next_multiple_of(4);
        let mut all = vec![0; COM_PACKET + PACKET + SUB_PACKET + padded];
        all[4..6].copy_from_slice(&com_id.to_be_bytes());
        all[16..20].copy_from_slice(&length(PACKET + SUB_PACKET + padded));
        all[20..24].copy_from_slice(&tper.to_be_bytes());
        all[24..28].copy_from_slice(&host.to_be_bytes());
        all[40..44].copy_from_slice(&length(SUB_PACKET + padded));
        all[52..56].copy_from_slice(&length(self.0.len()));
        all[56..56 + self.0.len()].copy_from_slice(&self.0);
        all
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Uint(u64),
    Bytes(Vec<u8>),
    Control(u8),
}

/// What a disk has answered, as its tokens.
#[derive(Debug)]
pub(super) struct Answer(Vec<Token>);

impl Answer {
    /// `None` if it has not answered yet.
    pub(super) fn parse(page: &[u8]) -> Result<Option<Self>, &'static str> {
        let word = |at: usize| {
            let bytes = page.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or("it is cut off")?;
            usize::try_from(u32::from_be_bytes(bytes)).map_err(|_| "a length is too large")
        };
        let (outstanding, com_packet) = (word(8)?, word(16)?);
        if com_packet == 0 {
            return if outstanding > 0 { Ok(None) } else { Err("it has nothing to say") };
        }
        let length = word(52)?;
        let first = COM_PACKET + PACKET + SUB_PACKET;
        let payload = page.get(first..first.saturating_add(length)).ok_or("a length leads beyond its end")?;
        Ok(Some(Self(tokens(payload)?)))
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.0.iter().cloned()
    }

    /// The first number of the list behind the end of data.
    pub(super) fn status(&self) -> Option<u64> {
        let end = self.0.iter().rposition(|token| *token == Token::Control(END_OF_DATA))?;
        match self.0.get(end + 1..)? {
            [Token::Control(START_LIST), Token::Uint(status), ..] => Some(*status),
            _ => None,
        }
    }
}

fn tokens(mut rest: &[u8]) -> Result<Vec<Token>, &'static str> {
    let mut found = Vec::new();
    while let [first, tail @ ..] = rest {
        // Kind of the atom, the length of its head beyond the first byte, and of its body.
        let (is_bytes, head, length): (bool, usize, usize) = match *first {
            tiny @ 0..0x80 => {
                found.push(Token::Uint(u64::from(tiny & 0x3f)));
                rest = tail;
                continue;
            }
            short @ 0x80..0xc0 => (short & 0x20 != 0, 0, usize::from(short & 0x0f)),
            medium @ 0xc0..0xe0 => {
                let low = tail.first().ok_or("an atom is cut off")?;
                (medium & 0x10 != 0, 1, usize::from(medium & 0x07) << 8 | usize::from(*low))
            }
            long @ 0xe0..0xe4 => {
                let [high, middle, low, ..] = tail else { return Err("an atom is cut off") };
                let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
                (long & 0x02 != 0, 3, length)
            }
            control => {
                found.push(Token::Control(control));
                rest = tail;
                continue;
            }
        };
        let body = tail.get(head..head.saturating_add(length)).ok_or("an atom is cut off")?;
        found.push(if is_bytes {
            Token::Bytes(body.to_vec())
        } else if length <= 8 {
            Token::Uint(body.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        } else {
            return Err("a number has more than eight bytes");
        });
        rest = &tail[head + length..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_session_is_asked_for_in_the_words_of_the_specification() {
        let message = Call::start_session(0x53, &[b'P'; 32]).message(0x1004, 0, 0);
        assert_eq!(message.len() % 4, 0);
        assert_eq!(message[4..6], [0x10, 0x04]);
        let payload = &message[56..];
        assert_eq!(payload[..10], [0xf8, 0xa8, 0, 0, 0, 0, 0, 0, 0, 0xff]);
        // 0x53 is too large for a tiny atom; 32 bytes are too many for a short one.
        assert_eq!(payload[19..22], [0xf0, 0x81, 0x53]);
        assert!(payload.windows(4).any(|w| w == [0xf2, 0x00, 0xd0, 32]));
        let length = u32::from_be_bytes([message[52], message[53], message[54], message[55]]);
        assert_eq!(payload[usize::try_from(length).expect("small") - 1], 0xf1);
    }

    proptest! {
        #[test]
        fn what_is_said_is_read_again(numbers in prop::collection::vec(any::<u64>(), 0..5), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let call = Call::of(ADMIN_SP, REVERT, |call| {
                numbers.iter().for_each(|n| call.uint(*n));
                call.bytes(&bytes);
            });
            let mut page = call.message(1, 2, 3);
            page.resize(2048, 0);
            let answer = Answer::parse(&page).expect("read").expect("an answer");
            prop_assert_eq!(answer.status(), Some(0));
            let said: Vec<Token> = answer.tokens().skip(4).take(numbers.len() + 1).collect();
            let wanted = numbers.iter().map(|n| Token::Uint(*n)).chain([Token::Bytes(bytes)]);
            prop_assert_eq!(said, wanted.collect::<Vec<_>>());
        }

        #[test]
        fn any_answer_is_read_without_a_panic(page in prop::collection::vec(any::<u8>(), 0..200), word in 0u32..300) {
            let mut page = page;
            if page.len() > 56 {
                page[16..20].copy_from_slice(&1u32.to_be_bytes());
                page[52..56].copy_from_slice(&word.to_be_bytes());
            }
            let _ = Answer::parse(&page).map(|answer| answer.map(|a| a.status()));
        }
    }
}
