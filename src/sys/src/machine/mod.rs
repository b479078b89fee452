//! The machine around its disks and network cards: one reader for each kind of part.
//!
//! Every reader takes the roots, so that captured machines are fixtures, and a list for what could not be read: a part
//! that fails is a line there and never takes another part with it.

pub mod boot;
pub mod hwmon;
pub mod kernel;
pub mod memory;
pub mod names;
pub mod numa;
pub mod pci;
pub mod tpm;
pub mod usb;

#[cfg(test)]
mod captured;
#[cfg(test)]
mod hostile;
