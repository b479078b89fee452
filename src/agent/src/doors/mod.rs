//! Where orders come from. A door asks, submits and reports; it never touches a device.

pub mod local;
pub mod native;
pub mod reboots;
