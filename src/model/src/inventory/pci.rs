//! PCI functions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// `vendor_id`, `product_id`, `class`, `revision`, `bus` and `numa_node_id` are ironic-python-agent's, hexadecimal
/// without `0x`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PciDevice {
    /// `0000:3b:00.0`
    pub bus: String,
    pub vendor_id: String,
    pub product_id: String,
    pub subsystem_vendor_id: Option<String>,
    pub subsystem_id: Option<String>,
    /// Six digits: base class, subclass, programming interface.
    pub class: String,
    pub revision: Option<String>,
    /// What the class says, in words.
    pub kind: String,
    pub driver: Option<String>,
    /// A number as text, like Ironic's; none where the machine has no nodes.
    pub numa_node_id: Option<String>,
    pub link: Option<PcieLink>,
    /// The slot it is in, by the firmware's number or name.
    pub slot: Option<String>,
    pub iommu_group: Option<u32>,
    /// A virtual function of another one.
    pub virtual_function: bool,
    /// From `pci.ids`, where the system that looked has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subsystem_name: Option<String>,
}

impl PciDevice {
    /// What to call it: its names, or its numbers.
    #[must_use]
    pub fn title(&self) -> String {
        match (&self.vendor_name, &self.product_name) {
            (Some(vendor), Some(product)) => format!("{vendor} {product}"),
            (Some(vendor), None) => format!("{vendor} [{}]", self.product_id),
            _ => format!("[{}:{}]", self.vendor_id, self.product_id),
        }
    }

    fn base_class(&self) -> &str {
        self.class.get(..2).unwrap_or_default()
    }

    /// Whether it computes or draws for somebody: not the video of a BMC or of a hypervisor, which every server has.
    #[must_use]
    pub fn is_gpu(&self) -> bool {
        // ASPEED, Matrox, XGI, Silicon Motion, Huawei's iBMC; Bochs, Cirrus, VMware, virtio, QXL.
        const CONSOLES: [&str; 10] = ["1a03", "102b", "18ca", "126f", "19e5", "1234", "1013", "15ad", "1af4", "1b36"];
        match self.base_class() {
            "03" => !CONSOLES.contains(&self.vendor_id.as_str()),
            "12" => true,
            _ => false,
        }
    }

    /// Whether people would count it among the machine's parts: disks, networks, screens and computing hang on it.
    #[must_use]
    pub fn is_card(&self) -> bool {
        matches!(self.base_class(), "01" | "02" | "03" | "12") && !self.virtual_function
    }

    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.base_class() == "06"
    }
}

/// Speeds in GT/s per lane.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PcieLink {
    pub speed: Option<f64>,
    pub lanes: Option<u32>,
    pub max_speed: Option<f64>,
    pub max_lanes: Option<u32>,
}

impl PcieLink {
    /// Fewer lanes than it has: a bad seat, a riser, a slot that is wired for less. A lower speed alone may be power saving.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        matches!((self.lanes, self.max_lanes), (Some(now), Some(possible)) if now > 0 && now < possible)
    }
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Gpu {
    pub pci_address: String,
    pub vendor_id: String,
    pub product_id: String,
    pub name: Option<String>,
    pub driver: Option<String>,
    pub numa_node_id: Option<String>,
    /// The largest prefetchable window: all of its memory on cards with large windows, 256 MiB or so on others.
    pub memory_window: Bytes,
    pub link: Option<PcieLink>,
}

/// The classes that machines have, by base class and subclass (PCI Code and ID Assignment Specification).
const CLASSES: [(&str, &str); 52] = [
    ("0100", "SCSI storage controller"),
    ("0101", "IDE interface"),
    ("0104", "RAID bus controller"),
    ("0105", "ATA controller"),
    ("0106", "SATA controller"),
    ("0107", "Serial Attached SCSI controller"),
    ("0108", "Non-Volatile memory controller"),
    ("01", "Mass storage controller"),
    ("0200", "Ethernet controller"),
    ("0207", "Infiniband controller"),
    ("0208", "Fabric controller"),
    ("0280", "Network controller"),
    ("02", "Network controller"),
    ("0300", "VGA compatible controller"),
    ("0302", "3D controller"),
    ("03", "Display controller"),
    ("0403", "Audio device"),
    ("04", "Multimedia controller"),
    ("0500", "RAM memory"),
    ("05", "Memory controller"),
    ("0600", "Host bridge"),
    ("0601", "ISA bridge"),
    ("0604", "PCI bridge"),
    ("0680", "Bridge"),
    ("06", "Bridge"),
    ("0700", "Serial controller"),
    ("0780", "Communication controller"),
    ("07", "Communication controller"),
    ("0800", "PIC"),
    ("0801", "DMA controller"),
    ("0805", "SD Host controller"),
    ("0806", "IOMMU"),
    ("0880", "System peripheral"),
    ("08", "Generic system peripheral"),
    ("09", "Input device controller"),
    ("0b40", "Co-processor"),
    ("0b", "Processor"),
    ("0c00", "FireWire (IEEE 1394)"),
    ("0c03", "USB controller"),
    ("0c05", "SMBus"),
    ("0c07", "IPMI Interface"),
    ("0c", "Serial bus controller"),
    ("0d", "Wireless controller"),
    ("0e", "Intelligent controller"),
    ("0f", "Satellite communications controller"),
    ("1000", "Network and computing encryption device"),
    ("10", "Encryption controller"),
    ("1101", "Performance counters"),
    ("11", "Signal processing controller"),
    ("1200", "Processing accelerators"),
    ("12", "Processing accelerators"),
    ("13", "Non-Essential Instrumentation"),
];

/// The class of six digits in words.
#[must_use]
pub fn class_words(class: &str) -> &'static str {
    let of = |length: usize| {
        let code = class.get(..length)?;
        CLASSES.iter().find(|(known, _)| *known == code).map(|(_, words)| *words)
    };
    of(4).or_else(|| of(2)).unwrap_or("Unclassified device")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_words() {
        for (class, words) in [
            ("010802", "Non-Volatile memory controller"),
            ("01ff00", "Mass storage controller"),
            ("ff0000", "Unclassified device"),
            ("", "Unclassified device"),
            ("äöü", "Unclassified device"),
        ] {
            assert_eq!(class_words(class), words, "{class}");
        }
    }

    #[test]
    fn a_bmcs_video_is_no_gpu() {
        let device = |class: &str, vendor: &str| PciDevice {
            class: class.into(),
            vendor_id: vendor.into(),
            ..PciDevice::default()
        };
        assert!(device("030200", "10de").is_gpu() && device("120000", "1002").is_gpu());
        assert!(!device("030000", "1a03").is_gpu() && !device("020000", "10de").is_gpu());
    }

    #[test]
    fn a_slow_link_may_sleep_a_narrow_one_does_not() {
        let link = PcieLink { speed: Some(2.5), lanes: Some(16), max_speed: Some(16.0), max_lanes: Some(16) };
        assert!(!link.is_narrow());
        assert!(PcieLink { lanes: Some(8), ..link }.is_narrow());
        // An empty port says 0, an unknown one nothing.
        assert!(!PcieLink { lanes: Some(0), ..link }.is_narrow() && !PcieLink { lanes: None, ..link }.is_narrow());
    }
}
