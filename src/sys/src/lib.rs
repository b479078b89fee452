//! The kernel and the machine, as safe and typed calls. The only crate with `unsafe`.
//!
//! Readers take a [`roots::Roots`], so that a captured machine in a directory is a test fixture. Whatever destroys data
//! is a method of [`claim::ClaimedDisk`], which exists only for a disk that was matched by its identity and opened
//! exclusively.

pub mod blkid;
pub mod buffer;
mod by_path;
pub mod claim;
pub mod clock;
pub mod console;
pub mod cores;
pub mod cpu;
mod disk_link;
pub mod disks;
mod dm;
pub mod dmi;
pub mod efi;
pub mod ether;
pub mod ethtool;
pub mod fabrics;
pub mod grow;
pub mod hwmon;
pub mod inflight;
mod ioctl;
pub mod ipmi;
pub mod kernel_log;
pub mod kexec;
pub mod lend;
pub mod link;
mod live;
pub mod lldp;
pub mod loop_device;
pub mod machine;
pub mod machine_check;
pub mod md;
pub mod md_compare;
pub mod medium;
pub mod module;
mod mount;
pub mod nics;
pub mod numa;
pub mod nvme_controller;
pub mod passthrough;
pub mod pci;
pub mod peek;
pub mod power;
pub mod process;
pub mod process_group;
pub mod pty;
mod readable;
pub mod reader;
pub mod region;
pub mod roots;
pub mod signals;
pub mod stack;
pub mod suspend;
mod sysfs;
pub mod terminal;
pub mod tool;
pub mod topology;
pub mod vector;
pub mod volume;
pub mod watchdog;
pub mod window;
