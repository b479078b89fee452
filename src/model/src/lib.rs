//! What both sides of Speediso mean by their words.
//!
//! Everything here is data and pure functions: no I/O, no clock, no runtime. The agent, the controller and the command
//! line share these types, so that a word on the wire cannot mean two things. *Orders* (tasks, hints) are read
//! strictly: an unknown field or value is an error. *Reports* (events, results, inventories) are read leniently: an
//! old reader survives a newer writer.

#![forbid(unsafe_code)]

pub mod abilities;
pub mod api;
pub mod build;
pub mod burn_in;
pub mod capture;
pub mod certificate;
pub mod disk_set;
pub mod event;
pub mod expect;
pub mod fault;
pub mod hardware_raid;
pub mod hints;
pub mod id;
pub mod image;
pub mod inventory;
pub mod latency;
pub mod layout;
pub mod lldp;
pub mod log;
pub mod network;
pub mod node;
pub mod nvme_format;
pub mod nvme_namespaces;
pub mod order;
pub mod outcome;
pub mod partition;
pub mod pci_ids;
pub mod plan;
pub mod profile;
pub mod raid;
pub mod raid_volume;
pub mod redact;
pub mod share;
pub mod small_site;
pub mod smbios;
pub mod ssh;
pub mod stack;
pub mod task;
pub mod taskfile;
pub mod teardown;
pub mod trust;
pub mod units;
pub mod wipe;
pub mod write_image;
