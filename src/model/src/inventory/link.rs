//! How fast a device is attached, and how fast it could be.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    Pcie,
    Sata,
    Sas,
    #[default]
    #[serde(other)]
    Unknown,
}

/// A bus between a device and the machine. What is not known is absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Link {
    pub kind: LinkKind,
    /// Now, per lane, in millions of transfers a second: 8000 is PCIe 3.0, 6000 is SATA 6 Gbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed_mtps: Option<u32>,
    /// What the device could do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_speed_mtps: Option<u32>,
    /// Lanes in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_width: Option<u32>,
}

impl Link {
    /// Whether it has all lanes the device has; `None` if that is not known.
    #[must_use]
    pub fn has_full_width(&self) -> Option<bool> {
        Some(self.width? >= self.max_width?)
    }

    /// Whether it is as fast as the device; `None` if that is not known.
    #[must_use]
    pub fn has_full_speed(&self) -> Option<bool> {
        Some(self.speed_mtps? >= self.max_speed_mtps?)
    }
}

impl fmt::Display for Link {
    /// `PCIe 8.0 GT/s x4`, and what it could be where it is less.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            LinkKind::Pcie => "PCIe",
            LinkKind::Sata => "SATA",
            LinkKind::Sas => "SAS",
            LinkKind::Unknown => "link",
        })?;
        let unit = if self.kind == LinkKind::Pcie { "GT/s" } else { "Gbit/s" };
        let tenths = |n: u32| format!("{}.{} {unit}", n / 1000, n % 1000 / 100);
        if let Some(speed) = self.speed_mtps {
            write!(f, " {}", tenths(speed))?;
        }
        if let Some(width) = self.width {
            write!(f, " x{width}")?;
        }
        let mut less = Vec::new();
        if self.has_full_speed() == Some(false) {
            less.extend(self.max_speed_mtps.map(tenths));
        }
        if self.has_full_width() == Some(false) {
            less.extend(self.max_width.map(|w| format!("x{w}")));
        }
        if !less.is_empty() {
            write!(f, " (of {})", less.join(" "))?;
        }
        Ok(())
    }
}

/// The first number of `8.0 GT/s PCIe`, `6.0 Gbps`, `12.0 Gbit`, in thousandths.
#[must_use]
pub fn mtps(text: &str) -> Option<u32> {
    let (whole, rest) = text.trim().split_once('.').unwrap_or_else(|| {
        let text = text.trim();
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
    });
    let whole: u32 = whole.parse().ok()?;
    let tenth = rest.chars().next().and_then(|c| c.to_digit(10)).unwrap_or(0);
    whole.checked_mul(1000)?.checked_add(tenth * 100).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_as_sysfs_writes_them() {
        for (text, speed) in [
            ("8.0 GT/s PCIe", Some(8000)),
            ("2.5 GT/s", Some(2500)),
            ("6.0 Gbps", Some(6000)),
            ("12.0 Gbit", Some(12_000)),
            ("16 GT/s", Some(16_000)),
            ("Unknown", None),
            ("<unknown>", None),
            ("99999999999.0", None),
            ("", None),
        ] {
            assert_eq!(mtps(text), speed, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let full = Link {
            kind: LinkKind::Pcie,
            speed_mtps: Some(8000),
            max_speed_mtps: Some(8000),
            width: Some(4),
            max_width: Some(4),
        };
        assert_eq!(full.to_string(), "PCIe 8.0 GT/s x4");
        let half = Link { width: Some(2), ..full };
        assert_eq!((half.to_string().as_str(), half.has_full_width()), ("PCIe 8.0 GT/s x2 (of x4)", Some(false)));
        assert_eq!(Link { max_width: None, ..half }.has_full_width(), None);
        assert_eq!(
            Link { kind: LinkKind::Sata, speed_mtps: Some(3000), ..Link::default() }.to_string(),
            "SATA 3.0 Gbit/s"
        );
    }
}
