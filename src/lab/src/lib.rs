//! A laboratory of virtual machines that boot over the network: for the demo, the tests and the benchmarks.
//!
//! A [`Lab`] is a network namespace with a bridge, DHCP and TFTP; a [`Machine`] is a QEMU machine with its cable in that
//! bridge, booting as bare metal does: firmware, PXE, iPXE, kernel. Nothing reaches the outside, and everything ends
//! with the value that stands for it. A run that was killed is cleaned up by the next one, by what it wrote down.
//!
//! Every wait has a limit, and what is said when one runs out includes the log's tail and where the log is kept.

#![forbid(unsafe_code)]

mod dnsmasq;
mod error;
mod files;
mod forward;
pub mod hall;
mod lab;
mod log;
mod machine;
mod namespace;
pub mod nbd;
mod neighbour;
mod process;
mod programs;
mod record;
mod signals;
mod site;
pub mod tool;
mod web;

pub use dnsmasq::{Chain, Dhcp, Loader};
pub use error::{LabError, Result};
pub use files::FileServer;
pub use forward::Forward;
pub use lab::{Lab, LabBuilder, Plug};
pub use log::{Found, Log};
pub use machine::{Accel, Bus, Disk, Firmware, Machine, MachineSpec, Processor, Smbios, Start, cached_accel};
pub use namespace::{GATEWAY, Namespace};
pub use process::Process;
pub use programs::{Programs, repository};
pub use record::{Run, runs, sweep};
pub use signals::{end_on_signal, leave_to_signal};
pub use site::{Answered, Site};
pub use web::Web;
