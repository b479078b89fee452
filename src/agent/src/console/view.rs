//! What a console shows and what keys do to it. Pure but for what it is given.

use super::keys::Key;
use super::pages::Pager;
use super::painter::Area;

#[derive(Debug, Default)]
pub(super) enum View {
    /// Head and log.
    #[default]
    Status,
    Pager(Pager),
    Qr,
}

/// What a key asks for beyond showing something else.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// Paint everything anew.
    Repaint,
    Shell,
    NetworkDoctor,
    Log,
    Details,
    /// The terminal has told its size.
    Resize(Area),
    /// No shell may be had here.
    NoShell,
}

/// The row of keys.
#[must_use]
pub(super) fn keys(shell: bool) -> &'static str {
    if shell {
        "s: shell   d: details   n: network doctor   l: log   q: QR code"
    } else {
        "d: details   n: network doctor   l: log   q: QR code"
    }
}

impl View {
    pub(super) fn press(&mut self, key: Key, area: Area, shell: bool) -> Wish {
        if let Key::Position { rows, cols } = key {
            return Wish::Resize(Area { rows: rows.into(), cols: cols.into() });
        }
        match self {
            Self::Status => match key {
                Key::Char('s') | Key::Enter if shell => Wish::Shell,
                Key::Char('s') => Wish::NoShell,
                Key::Char('d') => Wish::Details,
                Key::Char('n') => Wish::NetworkDoctor,
                Key::Char('l') => Wish::Log,
                Key::Char('q') => {
                    *self = Self::Qr;
                    Wish::Nothing
                }
                _ => Wish::Repaint,
            },
            Self::Pager(pager) => {
                if !pager.press(key, area) {
                    *self = Self::Status;
                }
                Wish::Nothing
            }
            Self::Qr => {
                *self = Self::Status;
                Wish::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area { rows: 24, cols: 80 };

    #[test]
    fn keys_lead_somewhere_and_back() {
        let mut view = View::default();
        assert_eq!(view.press(Key::Enter, AREA, true), Wish::Shell);
        assert_eq!(view.press(Key::Enter, AREA, false), Wish::Repaint);
        assert_eq!(view.press(Key::Char('s'), AREA, false), Wish::NoShell);
        assert!(!keys(false).contains("shell"));
        view.press(Key::Char('q'), AREA, true);
        assert!(matches!(view, View::Qr));
        assert_eq!(view.press(Key::Char('s'), AREA, true), Wish::Nothing);
        assert!(matches!(view, View::Status));
        view = View::Pager(Pager::from_start("a", "b"));
        view.press(Key::Char('q'), AREA, true);
        assert!(matches!(view, View::Status));
        let told = Key::Position { rows: 50, cols: 132 };
        assert_eq!(view.press(told, AREA, true), Wish::Resize(Area { rows: 50, cols: 132 }));
    }
}
