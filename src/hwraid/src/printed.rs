//! Reading what programs print for people.

use serde::Serialize;

use crate::view::Level;
use speediso_model::hardware_raid::VolumeLevel;

/// A size as it was printed: `16.370 TB` is 16.370 and whatever was cut off or rounded away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Size {
    pub bytes: u64,
    /// What the last digit stands for, as some tools round and others cut off; zero if the size is exact.
    pub within: u64,
}

impl Size {
    #[must_use]
    pub const fn exact(bytes: u64) -> Self {
        Self { bytes, within: 0 }
    }

    /// The most it can be.
    #[must_use]
    pub fn most(self) -> u64 {
        self.bytes.saturating_add(self.within)
    }

    /// The least it can be.
    #[must_use]
    pub fn least(self) -> u64 {
        self.bytes.saturating_sub(self.within)
    }

    /// `558.406 GB`. Tools write `GB` for both meanings; which one is the adaptor's to know.
    pub(crate) fn parse(text: &str, base: Base) -> Option<Self> {
        let (number, unit) = text.trim().split_once(' ')?;
        let unit = base.unit(unit.trim())?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty()
            || fraction.len() > 6
            || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit())
        {
            return None;
        }
        let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
        let digits: u64 = format!("{whole}{fraction}").parse().ok()?;
        let bytes = u128::from(digits) * u128::from(unit) / u128::from(scale);
        let within = if unit == 1 { 0 } else { unit / scale };
        Some(Self { bytes: u64::try_from(bytes).ok()?, within })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Base {
    Binary,
    Decimal,
}

impl Base {
    fn unit(self, name: &str) -> Option<u64> {
        let power = match name {
            "B" => 0,
            "KB" | "K" => 1,
            "MB" | "M" => 2,
            "GB" | "G" => 3,
            "TB" | "T" => 4,
            "PB" | "P" => 5,
            _ => return None,
        };
        let base: u64 = match self {
            Self::Binary => 1024,
            Self::Decimal => 1000,
        };
        Some(base.pow(power))
    }
}

/// `key   : value`, with the blanks in front of it counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) indent: usize,
    pub(crate) key: &'a str,
    pub(crate) value: Option<&'a str>,
}

/// The lines that say something; rules of dashes and empty ones do not.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().filter_map(|line| {
        let content = line.trim();
        if content.is_empty() || content.bytes().all(|b| b == b'-' || b == b'=') {
            return None;
        }
        let indent = line.len() - line.trim_start().len();
        // A value may hold colons (`1I:1:1`), a key none that are followed by a blank.
        let (key, value) = match content.split_once(": ") {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => match content.strip_suffix(':') {
                Some(key) => (key.trim(), Some("")),
                None => (content, None),
            },
        };
        Some(Line { indent, key, value })
    })
}

/// `RAID1`, `1`, `1+0`, `10`: the number after whatever stands before it.
pub(crate) fn level(text: &str) -> Level {
    let text = text.trim();
    let number = text.strip_prefix("RAID").unwrap_or(text).trim_start_matches(['-', ' ']);
    Level::Known(match number {
        "0" => VolumeLevel::Raid0,
        "1" => VolumeLevel::Raid1,
        "5" => VolumeLevel::Raid5,
        "6" => VolumeLevel::Raid6,
        "10" | "1+0" => VolumeLevel::Raid10,
        _ => return Level::Other(format!("RAID {number}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_say_how_exact_they_are() {
        let size = |text, base| Size::parse(text, base).map(|s| (s.bytes, s.within));
        assert_eq!(size("600 GB", Base::Decimal), Some((600_000_000_000, 1_000_000_000)));
        assert_eq!(size("50.0 GB", Base::Binary), Some((50 << 30, (1 << 30) / 10)));
        assert_eq!(size("11364320 MB", Base::Binary), Some((11_364_320 << 20, 1 << 20)));
        assert_eq!(size("0 KB", Base::Binary), Some((0, 1024)));
        for text in ["", "600", "600GB", "six GB", "1e9 GB", "-1 GB", "1.0000001 GB", "99999999999999999999 TB", ". GB"]
        {
            assert_eq!(size(text, Base::Binary), None, "{text}");
        }
        // The drive of one published listing says both: 16.370 TB, and how many sectors that is: 16.3707 TB.
        let printed = Size::parse("16.370 TB", Base::Binary).expect("a size");
        let sectors = 0x8_2f70_0000_u64 * 512;
        assert!((printed.least()..=printed.most()).contains(&sectors));
    }

    #[test]
    fn keys_end_at_a_colon_with_a_blank() {
        let text = "Adapter ID:      0\n  drives 1I:1:1 : a: b\n -----\n\n   Channel #0:\n   unassigned\n";
        let read: Vec<_> = lines(text).map(|l| (l.indent, l.key, l.value)).collect();
        assert_eq!(
            read,
            [
                (0, "Adapter ID", Some("0")),
                (2, "drives 1I:1:1", Some("a: b")),
                (3, "Channel #0", Some("")),
                (3, "unassigned", None)
            ]
        );
    }

    #[test]
    fn levels() {
        for (text, is) in
            [("RAID1", "RAID-1"), ("1+0", "RAID-10"), ("10", "RAID-10"), ("RAID60", "RAID 60"), ("50", "RAID 50")]
        {
            assert_eq!(level(text).to_string(), is, "{text}");
        }
    }
}
