//! Virtual machines: what one is made of (`spec`), how QEMU is told (`args`), and one that runs (`running`).

mod accel;
mod args;
mod qmp;
mod running;
mod spec;

pub use accel::{Accel, cached_accel};
pub use running::Machine;
pub use spec::{Bus, Disk, Firmware, MachineSpec, Processor, Smbios, Start};
