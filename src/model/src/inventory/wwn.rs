//! A disk's name in the world, in the forms that udev and Ironic give it.

use super::Disk;

impl Disk {
    /// Fills in what follows from `wwn`.
    #[must_use]
    pub fn with_wwn_forms(mut self) -> Self {
        let digits = self.wwn.as_deref().and_then(|w| w.strip_prefix("naa.")).unwrap_or_default();
        let whole = matches!(digits.len(), 16 | 32) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let (with, extension) = (format!("0x{digits}"), digits.get(16..).unwrap_or_default());
        self.wwn_vendor_extension = (whole && !extension.is_empty()).then(|| format!("0x{extension}"));
        self.wwn_with_extension = whole.then_some(with);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_those_of_naa_names() {
        let forms = |wwn: &str| {
            let disk = Disk { wwn: Some(wwn.into()), ..Disk::default() }.with_wwn_forms();
            (disk.wwn_with_extension, disk.wwn_vendor_extension)
        };
        assert_eq!(forms("naa.5002538e40f2a1b3"), (Some("0x5002538e40f2a1b3".into()), None));
        assert_eq!(
            forms("naa.600508b1001c5e7d600508b1001c5e7e"),
            (Some("0x600508b1001c5e7d600508b1001c5e7e".into()), Some("0x600508b1001c5e7e".into()))
        );
        for other in ["eui.0025385a71b0a0c1", "naa.zz", "naa.", "nvme.1b36"] {
            assert_eq!(forms(other), (None, None), "{other}");
        }
    }
}
