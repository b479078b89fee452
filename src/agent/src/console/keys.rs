//! What is typed, byte by byte.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Escape,
    Up,
    Down,
    PageUp,
    PageDown,
    /// The terminal's answer to where the cursor is, which says how large it is.
    Position {
        rows: u16,
        cols: u16,
    },
}

/// Asks a terminal for its size: the cursor goes as far as it can and tells where it is (DSR 6), then returns.
pub(super) const ASK_SIZE: &[u8] = b"\x1b7\x1b[999;999H\x1b[6n\x1b8";

#[derive(Debug, Default)]
pub(super) struct Keys {
    pending: Vec<u8>,
}

/// Longer sequences are not ours.
const LONGEST: usize = 32;

impl Keys {
    /// Takes a byte; gives a key once it is whole.
    pub(super) fn take(&mut self, byte: u8) -> Option<Key> {
        if self.pending.is_empty() {
            return match byte {
                0x1b => {
                    self.pending.push(byte);
                    None
                }
                b'\r' | b'\n' => Some(Key::Enter),
                b' '..=b'~' => Some(Key::Char(char::from(byte).to_ascii_lowercase())),
                _ => None,
            };
        }
        self.pending.push(byte);
        let sequence = std::mem::take(&mut self.pending);
        match sequence.as_slice() {
            [0x1b, b'[' | b'O'] => self.pending = sequence,
            [0x1b, b'[' | b'O', parameters @ .., last] if (0x40..=0x7e).contains(last) => {
                return control(parameters, *last);
            }
            [0x1b, b'[' | b'O', ..] if sequence.len() < LONGEST => self.pending = sequence,
            // Escape by itself, and then something else.
            [0x1b, 0x1b] => return Some(Key::Escape),
            _ => {}
        }
        None
    }

    /// Nothing followed for a while: an Escape that began nothing.
    pub(super) fn pause(&mut self) -> Option<Key> {
        (std::mem::take(&mut self.pending) == [0x1b]).then_some(Key::Escape)
    }

    #[must_use]
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }
}

fn control(parameters: &[u8], last: u8) -> Option<Key> {
    match (parameters, last) {
        ([], b'A') => Some(Key::Up),
        ([], b'B') => Some(Key::Down),
        (b"5", b'~') => Some(Key::PageUp),
        (b"6", b'~') => Some(Key::PageDown),
        (position, b'R') => {
            let (rows, cols) = std::str::from_utf8(position).ok()?.split_once(';')?;
            Some(Key::Position { rows: rows.parse().ok()?, cols: cols.parse().ok()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn typed(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        let mut out: Vec<Key> = bytes.iter().filter_map(|b| keys.take(*b)).collect();
        out.extend(keys.pause());
        out
    }

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(typed(b"sD\r"), [Key::Char('s'), Key::Char('d'), Key::Enter]);
        assert_eq!(typed(b"\x1b[A\x1bOB\x1b[5~\x1b[6~"), [Key::Up, Key::Down, Key::PageUp, Key::PageDown]);
        assert_eq!(typed(b"\x1b[48;132Rq"), [Key::Position { rows: 48, cols: 132 }, Key::Char('q')]);
        assert_eq!(typed(b"\x1b"), [Key::Escape]);
        assert_eq!(typed(b"\x1b[1;2;3;4;5;6;7;8;9q"), []);
        assert_eq!(typed(b"\xff\x00\x1b[99999;1R"), []);
    }

    proptest! {
        #[test]
        fn noise_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut keys = Keys::default();
            for byte in bytes {
                keys.take(byte);
                prop_assert!(keys.pending.len() <= LONGEST);
            }
        }
    }
}
