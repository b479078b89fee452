//! What is said beside the bytes that are measured: a length of four bytes, then JSON.

use std::io::{Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use speediso_model::burn_in::LinkTerms as Terms;

use crate::error::LinkError;
use crate::report::{Received, Sent};

/// No message is larger.
const MOST: u32 = 64 << 10;
/// Longer than either end needs to get its threads going.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum Message {
    /// What was agreed on beforehand: both say it, and it must be the same.
    Terms(Terms),
    /// Port of the datagrams, on the same address.
    Datagrams {
        port: u16,
    },
    Begin {
        phase: u8,
    },
    /// What became of a phase at this end.
    Did {
        sent: Option<Sent>,
        received: Option<Received>,
    },
    /// It cannot go on.
    GaveUp {
        why: String,
    },
}

pub(crate) fn say(to: &mut impl Write, message: &Message) -> Result<(), LinkError> {
    let text = serde_json::to_vec(message).map_err(|e| LinkError::Protocol(e.to_string()))?;
    let length = u32::try_from(text.len()).map_err(|e| LinkError::Protocol(e.to_string()))?;
    let bytes = [&length.to_be_bytes()[..], &text].concat();
    to.write_all(&bytes).and_then(|()| to.flush()).map_err(LinkError::broken("the word with the partner"))
}

pub(crate) fn hear(from: &mut impl Read) -> Result<Message, LinkError> {
    let broken = || LinkError::broken("the word with the partner");
    let mut length = [0; 4];
    from.read_exact(&mut length).map_err(broken())?;
    let length = u32::from_be_bytes(length);
    if length > MOST {
        return Err(LinkError::Protocol(format!("a message of {length} bytes")));
    }
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    from.read_exact(&mut text).map_err(broken())?;
    match serde_json::from_slice(&text).map_err(|e| LinkError::Protocol(e.to_string()))? {
        Message::GaveUp { why } => Err(LinkError::GaveUp(printable(&why))),
        message => Ok(message),
    }
}

/// What somebody else wrote, fit for a line of a log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire_and_others_do_not() {
        let mut bytes = Vec::new();
        say(&mut bytes, &Message::Begin { phase: 2 }).expect("a vector takes it");
        assert_eq!(hear(&mut &bytes[..]).expect("whole"), Message::Begin { phase: 2 });
        assert!(matches!(hear(&mut &bytes[..bytes.len() - 1]), Err(LinkError::Broken { .. })));
        for bad in [&[0xff; 8][..], b"\0\0\0\x02[]", b"\0\0\0\x02{}"] {
            assert!(matches!(hear(&mut &*bad), Err(LinkError::Protocol(_))), "{bad:?}");
        }
        let mut bytes = Vec::new();
        say(&mut bytes, &Message::GaveUp { why: "no\u{1b}[2J".into() }).expect("a vector takes it");
        let Err(LinkError::GaveUp(why)) = hear(&mut &bytes[..]) else { panic!("it gave up") };
        assert_eq!(why, "no[2J");
    }
}
