//! From structure to structure, and what can be asked of one.

use super::{clean, kind};

/// One structure: the formatted part, and the strings after it.
pub(super) struct Structure<'a> {
    pub(super) kind: u8,
    pub(super) formatted: &'a [u8],
    strings: &'a [u8],
}

impl Structure<'_> {
    pub(super) fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.formatted.get(offset..offset + N)?.try_into().ok()
    }

    pub(super) fn byte(&self, offset: usize) -> Option<u8> {
        self.formatted.get(offset).copied()
    }

    pub(super) fn word(&self, offset: usize) -> Option<u16> {
        self.bytes(offset).map(u16::from_le_bytes)
    }

    pub(super) fn dword(&self, offset: usize) -> Option<u32> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    pub(super) fn qword(&self, offset: usize) -> Option<u64> {
        self.bytes(offset).map(u64::from_le_bytes)
    }

    /// A word in which 0 says nothing.
    pub(super) fn nonzero(&self, offset: usize) -> Option<u16> {
        self.word(offset).filter(|value| *value != 0)
    }

    /// `0x1100`
    pub(super) fn handle(&self, offset: usize) -> String {
        self.word(offset).map(|handle| format!("0x{handle:04X}")).unwrap_or_default()
    }

    /// The string whose number stands at `offset`; empty if there is none.
    pub(super) fn text(&self, offset: usize) -> String {
        self.byte(offset).map(|number| self.string(number)).unwrap_or_default()
    }

    pub(super) fn string(&self, number: u8) -> String {
        let Some(index) = usize::from(number).checked_sub(1) else { return String::new() };
        self.strings.split(|b| *b == 0).nth(index).map(clean).unwrap_or_default()
    }

    /// Where on the PCI bus: segment, bus, device and function. All ones are nowhere.
    pub(super) fn pci_address(&self, segment: usize) -> Option<String> {
        let (group, bus, devfn) = (self.word(segment)?, self.byte(segment + 2)?, self.byte(segment + 3)?);
        // Some firmware writes zeros for a device that is not on the bus: that would be the host bridge.
        let nowhere =
            (group == 0xffff && bus == 0xff) || (bus, devfn) == (0xff, 0xff) || (group, bus, devfn) == (0, 0, 0);
        (!nowhere).then(|| format!("{group:04x}:{bus:02x}:{:02x}.{}", devfn >> 3, devfn & 7))
    }
}

pub(super) struct Walk<'a> {
    rest: &'a [u8],
    damage: Option<&'static str>,
}

impl<'a> Walk<'a> {
    pub(super) fn over(table: &'a [u8]) -> Self {
        Self { rest: table, damage: None }
    }

    /// Why it ended before the table's end.
    pub(super) fn damage(&self) -> Option<&'static str> {
        self.damage
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Structure<'a>;

    fn next(&mut self) -> Option<Structure<'a>> {
        let rest = std::mem::take(&mut self.rest);
        // Firmware may leave out the end marker; a table that ends at a structure's end is whole.
        let (kind, length) = match rest {
            [] => return None,
            [kind, length, ..] => (*kind, usize::from(*length)),
            [_] => {
                self.damage = Some("a structure's header is cut short");
                return None;
            }
        };
        if kind == kind::END {
            return None;
        }
        if length < 4 {
            self.damage = Some("a structure is shorter than its header");
            return None;
        }
        let Some((formatted, after)) = rest.split_at_checked(length) else {
            self.damage = Some("a structure reaches past the end");
            return None;
        };
        let Some(end) = after.windows(2).position(|pair| pair == [0, 0]) else {
            self.damage = Some("a structure's strings reach past the end");
            return None;
        };
        self.rest = &after[end + 2..];
        Some(Structure { kind, formatted, strings: &after[..end] })
    }
}
