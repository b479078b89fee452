//! USB devices, from sysfs.

use std::path::Path;

use speediso_model::inventory::UsbDevice;

use crate::roots::Roots;
use crate::sysfs;

/// All devices, hubs included, in the order of bus and number. A kernel without USB has none.
#[must_use]
pub fn read(roots: &Roots, unread: &mut Vec<String>) -> Vec<UsbDevice> {
    let listed = sysfs::entries(&roots.sys.join("bus/usb/devices")).unwrap_or_else(|error| {
        sysfs::gap(unread, "the USB bus", &error);
        Vec::new()
    });
    // `1-4:1.0` is an interface of the device `1-4`, `1-0:1.0` one of the hub `usb1`.
    let (interfaces, devices): (Vec<_>, Vec<_>) = listed.into_iter().partition(|(name, _)| name.contains(':'));
    let mut found: Vec<UsbDevice> = devices
        .iter()
        .filter_map(|(name, dir)| {
            let mut device = read_one(dir, name)?;
            let prefix = match name.strip_prefix("usb") {
                Some(bus) => format!("{bus}-0:"),
                None => format!("{name}:"),
            };
            let own = interfaces.iter().filter(|(interface, _)| interface.starts_with(&prefix));
            device.drivers = own.filter_map(|(_, dir)| sysfs::link_name(&dir.join("driver"))).collect();
            device.drivers.sort();
            device.drivers.dedup();
            Some(device)
        })
        .collect();
    found.sort_by_key(|device| (device.bus, device.device));
    found
}

/// None if it went away.
fn read_one(dir: &Path, name: &str) -> Option<UsbDevice> {
    let text = |file: &str| sysfs::read(&dir.join(file));
    let (bus, device) = (sysfs::number(&dir.join("busnum"))?, sysfs::number(&dir.join("devnum"))?);
    let class = text("bDeviceClass");
    Some(UsbDevice {
        product: text("product").unwrap_or_default(),
        vendor: text("manufacturer").unwrap_or_default(),
        handle: format!("USB:{bus}:{device}"),
        path: name.to_owned(),
        bus,
        device,
        vendor_id: text("idVendor").unwrap_or_default(),
        product_id: text("idProduct").unwrap_or_default(),
        serial_number: text("serial"),
        speed_mbps: text("speed").and_then(|speed| speed.parse().ok()),
        usb_version: text("version"),
        hub: class.as_deref() == Some("09"),
        class,
        drivers: Vec::new(),
    })
}
