//! USB devices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `product`, `vendor` and `handle` are ironic-python-agent's.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UsbDevice {
    /// What the device calls itself and its maker; the name of its number where the system has `usb.ids`.
    pub product: String,
    pub vendor: String,
    /// `USB:bus:device`
    pub handle: String,
    /// Where it is plugged in, through which hubs: `1-4.2`.
    pub path: String,
    pub bus: u32,
    pub device: u32,
    /// Four hexadecimal digits.
    pub vendor_id: String,
    pub product_id: String,
    pub serial_number: Option<String>,
    /// 1.5, 12, 480, 5000, ...
    pub speed_mbps: Option<f64>,
    /// `2.00`
    pub usb_version: Option<String>,
    /// Two hexadecimal digits; `00` is told by its interfaces.
    pub class: Option<String>,
    /// A hub, the controller's own included.
    pub hub: bool,
    /// Of its interfaces.
    pub drivers: Vec<String>,
}
